{{- /* What `helm test` sends, and where. Everything is done by `sidecar send`, so the image needs no shell. */ -}}

{{- /* The route to test, as JSON {route, url, forged, rejection}; empty if none can be tested. `url`: whether the scheme signs the URL.
`forged`: a wrong secret, for schemes that would not notice a changed body; empty for all others. `rejection`: the status of rejected
deliveries.
The route is chosen by name; otherwise it is the first one in enforce mode, without `allow`, whose scheme signs with a shared secret. */ -}}
{{- define "sidecar.tests.route" -}}
{{- $presets := .Files.Get "files/presets.json" | fromJson -}}
{{- $found := dict -}}
{{- range $route := .Values.config.routes -}}
{{- $name := $route.name | default (regexReplaceAll "[^A-Za-z0-9._-]+" $route.path "-" | trimAll "-._" | trunc 63 | default "root") -}}
{{- $verified := and (not $route.open) $route.verify (ne (toString $route.verify) "none") -}}
{{- if and $verified (not $found) -}}
{{- $scheme := include "sidecar.scheme" (list $presets $route.verify) | fromJson -}}
{{- $signs := has (dig "signature" "kind" "hmac" $scheme) (list "hmac" "hash" "token" "basic") -}}
{{- $posts := has "POST" (default (list "POST") $route.methods) -}}
{{- $anybody := and (not $route.allow) (ne (default "enforce" $route.mode) "shadow") -}}
{{- if and $signs $posts (ternary (eq $name $.Values.tests.route) $anybody (ne $.Values.tests.route "")) -}}
{{- $bearer := has (dig "signature" "kind" "hmac" $scheme) (list "token" "basic") -}}
{{- $forged := "" -}}
{{- if or $bearer (eq (toString $scheme.binds_body) "false") -}}
{{- $plain := "forged:this-is-not-the-secret" -}}
{{- $forged = get (dict "hex" "666f72676564666f72676564" "base64" (b64enc $plain) "whsec" (printf "whsec_%s" (b64enc $plain))) (default "" $scheme.key) | default $plain -}}
{{- end -}}
{{- $required := default dict $scheme.reject -}}
{{- $rejection := dig "status" 403 $required -}}
{{- if kindIs "map" $route.reject -}}
{{- $rejection = dig "status" $rejection $route.reject -}}
{{- else if $route.reject -}}
{{- $rejection = dig "delivery" "resend_status" (dig "status" 503 $required) $scheme -}}
{{- end -}}
{{- $found = dict "route" $route "forged" $forged "rejection" $rejection "url" (regexMatch "\\{url(_without_query)?\\}" (default "" $scheme.signed)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $found }}{{ toJson . }}{{ end -}}
{{- end }}

{{- /* Arguments of `sidecar send` without --expect, as JSON: (list root FOUND URL SECRET). */ -}}
{{- define "sidecar.tests.send" -}}
{{- $root := index . 0 -}}{{- $route := (index . 1).route -}}
{{- $preset := ternary $route.verify "/etc/sidecar-test/scheme.yaml" (kindIs "string" $route.verify) -}}
{{- $send := list "send" (index . 2) (printf "--preset=%s" $preset) (printf "--secret=%s" (index . 3)) -}}
{{- if $root.Values.tests.body }}{{ $send = append $send "--body=/etc/sidecar-test/body" }}{{ end -}}
{{- if (index . 1).url }}{{ $send = append $send (printf "--public-url=%s" ($route.public_url | default $root.Values.config.public_url)) }}{{ end -}}
{{- toJson $send -}}
{{- end }}

{{- /* A secret as an argument of a command. */ -}}
{{- define "sidecar.tests.reference" -}}
{{- if .file }}file:{{ .file }}{{ else }}env:{{ .env }}{{ end -}}
{{- end }}

{{- define "sidecar.tests.labels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 58 | trimSuffix "-" | printf "%s-test" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" | quote }}
{{- end }}

{{- /* A NetworkPolicy peer for the test pods, for policies that don't let everyone in. */ -}}
{{- define "sidecar.tests.peer" -}}
{{- if .Values.tests.enabled }}
- podSelector:
    matchLabels:
      {{- include "sidecar.tests.labels" . | nindent 6 }}
{{- end }}
{{- end }}

{{- /* The pod of a test: (list root SUFFIX CONTAINERS), each container a mapping with its `name` and `args`. */ -}}
{{- define "sidecar.tests.pod" -}}
{{- $root := index . 0 -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ printf "%s-test-%s" (include "sidecar.fullname" $root) (index . 1) | quote }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "sidecar.tests.labels" $root | nindent 4 }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  containers:
    {{- range index . 2 }}
    - name: {{ .name | quote }}
      image: {{ include "sidecar.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy | quote }}
      args:
        {{- toYaml .args | nindent 8 }}
      {{- with $root.Values.extraEnv }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources: {requests: {cpu: 10m, memory: 64Mi}, limits: {memory: 128Mi}}
      securityContext:
        {{- toYaml $root.Values.securityContext | nindent 8 }}
      volumeMounts:
        - {name: test, mountPath: /etc/sidecar-test, readOnly: true}
        {{- include "sidecar.secretMounts" $root | indent 6 }}
        {{- with $root.Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- end }}
  volumes:
    - name: test
      configMap: {name: {{ printf "%s-test" (include "sidecar.fullname" $root) | quote }}}
    {{- with include "sidecar.secretVolumes" $root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $root.Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* The URLs at which receivers would respond if they could be reached directly, one per line. */ -}}
{{- define "sidecar.tests.receivers" -}}
{{- $pods := printf "http://%s-test-pods.%s" (include "sidecar.fullname" .) .Release.Namespace -}}
{{- if eq .Values.mode "sidecar" -}}
{{ $pods }}:{{ .Values.receiver.port }}
{{- else if eq .Values.mode "library" -}}
{{- if and .Values.tests.podSelector (hasPrefix "http" (default "" .Values.config.upstream)) -}}
{{ $pods }}:{{ regexFind ":[0-9]+/?$" .Values.config.upstream | trimAll ":/" | default "80" }}
{{- end -}}
{{- else -}}
{{- $urls := list .Values.config.upstream -}}
{{- range .Values.config.routes }}{{ $urls = append $urls .upstream }}{{ end -}}
{{- compact $urls | uniq | join "\n" -}}
{{- end -}}
{{- end }}
