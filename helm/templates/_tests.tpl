{{- /* What `helm test` sends, and where. Everything is done by `sidecar send`, so the image needs no shell. */ -}}

{{- /* A route's name as the program makes it, from the path if it has none. */ -}}
{{- define "sidecar.routeName" -}}
{{- .name | default (regexReplaceAll "[^A-Za-z0-9._-]+" (toString .path) "-" | trimAll "-._" | trunc 63 | trimSuffix "-" | default "root") -}}
{{- end }}

{{- /* "true" for a route with a signed POST at one path and any host. Whether a sender can sign for it is known to the program. */ -}}
{{- define "sidecar.tests.signed" -}}
{{- if and (not .open) .verify (ne (toString .verify) "none") (kindIs "slice" .secrets) (not .hosts) (not .client_certificate) (has "POST" (default (list "POST") .methods)) (not (contains "{" (toString .path))) }}true{{ end -}}
{{- end }}

{{- /* The route that gets a signed and a forged delivery, as JSON; empty if there is none. By name, otherwise the first one in enforce
mode without `allow`. */ -}}
{{- define "sidecar.tests.route" -}}
{{- $found := dict -}}
{{- range $route := .Values.config.routes -}}
{{- $anybody := and (not $route.allow) (ne (default "enforce" $route.mode) "shadow") -}}
{{- if and (not $found) (include "sidecar.tests.signed" $route) (ternary (eq (include "sidecar.routeName" $route) $.Values.tests.route) $anybody (ne $.Values.tests.route "")) -}}
{{- $found = $route -}}
{{- end -}}
{{- end -}}
{{- /* The status of a rejection. Only the program knows the preset's: some 4xx, after the signed delivery got 2xx at the same URL. */ -}}
{{- $rejects := "4xx" -}}
{{- if kindIs "map" $found.verify }}{{ $rejects = dig "reject" "status" $rejects $found.verify }}{{ end -}}
{{- if kindIs "map" $found.reject }}{{ $rejects = dig "status" $rejects $found.reject }}{{ end -}}
{{- if eq (toString $found.reject) "resend" }}{{ $rejects = "" }}{{ end -}}
{{- /* A gateway's question: `send` asks as Envoy does, and only a trusted proxy can ask as Traefik does. */ -}}
{{- $asked := eq .Values.mode "authorizer" | ternary .Values.config.authorize nil | default dict -}}
{{- if eq (dig "form" "any" $asked) "forward-auth" }}{{ $found = dict }}{{ end -}}
{{- with $found }}{{ dict "rejects" (toString $rejects) "name" (include "sidecar.routeName" .) "path" (trimSuffix "*" .path | printf "%s%s" (dig "path_prefix" "" $asked)) | toJson }}{{ end -}}
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
    # Helm stops at the first test that fails. `bypass` runs last, because it needs a network plugin that enforces policies.
    helm.sh/hook-weight: {{ get (dict "signed" "1" "forged" "2" "bypass" "9") (index . 1) | default "3" | quote }}
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
        - {name: webhook-sidecar-config, mountPath: /etc/sidecar, readOnly: true}
        {{- include "sidecar.secretMounts" $root | indent 6 }}
        {{- with $root.Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- end }}
  volumes:
    - name: test
      configMap: {name: {{ printf "%s-test" (include "sidecar.fullname" $root) | quote }}}
    {{- include "sidecar.volumes" $root | nindent 4 }}
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
{{- $upstream := include "sidecar.upstreamUrl" .Values.config -}}
{{- if and .Values.tests.podSelector (hasPrefix "http" $upstream) -}}
{{ $pods }}:{{ regexFind ":[0-9]+/?$" $upstream | trimAll ":/" | default "80" }}
{{- end -}}
{{- else -}}
{{- $urls := list (include "sidecar.upstreamUrl" .Values.config) -}}
{{- range .Values.config.routes }}{{ $urls = append $urls (include "sidecar.upstreamUrl" .) }}{{ end -}}
{{- compact $urls | uniq | join "\n" -}}
{{- end -}}
{{- end }}
