{{- /* Names, labels, and values computed from others. Every template expects the root context. */ -}}

{{- define "sidecar.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "sidecar.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/component: {{ .Values.mode | quote }}
{{- end }}

{{- /* Labels by which policies and monitors select the pods. In library mode, your own pods must have them. */ -}}
{{- define "sidecar.podLabels" -}}
{{- if eq .Values.mode "library" -}}
webhook-sidecar/pod: {{ include "sidecar.fullname" . | quote }}
{{- else -}}
{{- include "sidecar.selectorLabels" . -}}
{{- end -}}
{{- end }}

{{- define "sidecar.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ include "sidecar.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* An object's metadata: (list root "-suffix" annotations labels). */ -}}
{{- define "sidecar.metadata" -}}
{{- $root := index . 0 -}}
name: {{ printf "%s%s" (include "sidecar.fullname" $root) (index . 1) | quote }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "sidecar.labels" $root | nindent 2 }}
  {{- if gt (len .) 3 }}
  {{- with index . 3 }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- $given := dict }}
{{- if gt (len .) 2 }}{{ $given = index . 2 }}{{ end }}
{{- with merge (dict) $given $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "sidecar.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sidecar.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "sidecar.image" -}}
{{- with .Values.image -}}
{{- .repository -}}
{{- if .digest -}}@{{ .digest }}{{- else -}}:{{ default $.Chart.AppVersion .tag }}{{- end -}}
{{- end -}}
{{- end }}

{{- /* The configuration as it is mounted, as YAML. */ -}}
{{- define "sidecar.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if and (eq .Values.mode "sidecar") (not (hasKey $config "upstream")) -}}
{{- $_ := set $config "upstream" (printf "http://127.0.0.1:%v" .Values.receiver.port) -}}
{{- end -}}
{{- if eq .Values.mode "authorizer" -}}
{{- $_ := set $config "authorize" (merge (deepCopy (default dict $config.authorize)) (dict "listen" "[::]:8081")) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- /* The port numbers of the listeners. */ -}}
{{- define "sidecar.dataPort" -}}
{{- default "[::]:8080" .Values.config.listen | toString | splitList ":" | last -}}
{{- end }}
{{- define "sidecar.adminPort" -}}
{{- default "[::]:9090" .Values.config.admin | toString | splitList ":" | last -}}
{{- end }}

{{- define "sidecar.authorizePort" -}}
{{- dig "listen" "[::]:8081" (default dict .Values.config.authorize) | toString | splitList ":" | last -}}
{{- end }}

{{- /* The address of an `upstream:`, which is text or a mapping with `url`: (a mapping with the key). */ -}}
{{- define "sidecar.upstreamUrl" -}}
{{- $url := .upstream -}}
{{- if kindIs "map" $url }}{{ $url = $url.url }}{{ end -}}
{{- regexFind "^[!-~]*" (default "" $url) -}}
{{- end }}

{{- /* A port of the pods, for Services and policies: (list root NAME NUMBER). A name resolves to each pod's own port, also while a change
of `config.listen` is rolled out. Native sidecars need the number, because their names resolve only since Kubernetes 1.32. */ -}}
{{- define "sidecar.target" -}}
{{- if include "sidecar.native" (index . 0) }}{{ index . 2 | int }}{{ else }}{{ index . 1 | quote }}{{ end -}}
{{- end }}
{{- define "sidecar.dataTarget" -}}
{{- include "sidecar.target" (list . "hooks" (include "sidecar.dataPort" .)) -}}
{{- end }}
{{- /* The port of the public listener: the data listener, or in an authorizer the one for gateways. */ -}}
{{- define "sidecar.servedTarget" -}}
{{- if eq .Values.mode "authorizer" }}"hooks-authorize"{{ else }}{{ include "sidecar.dataTarget" . }}{{ end -}}
{{- end }}
{{- define "sidecar.adminTarget" -}}
{{- include "sidecar.target" (list . "hooks-admin" (include "sidecar.adminPort" .)) -}}
{{- end }}

{{- /* Text, or a number as it was written: Helm turns 33554432 into 3.3554432e+07. */ -}}
{{- define "sidecar.text" -}}
{{- kindIs "string" . | ternary . (toJson .) -}}
{{- end }}

{{- /* A duration in whole seconds, rounded up: 500ms, 30s, 5m, 1h, or a number. */ -}}
{{- define "sidecar.seconds" -}}
{{- $text := include "sidecar.text" . | nospace -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $unit := regexReplaceAll "^[0-9.]+" $text "" -}}
{{- mulf $number (default 1.0 (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "" 1.0) $unit)) | ceil | int -}}
{{- end }}

{{- /* A size in bytes. */ -}}
{{- define "sidecar.bytes" -}}
{{- $text := include "sidecar.text" . | nospace -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $units := dict "KB" 1e3 "MB" 1e6 "GB" 1e9 "KiB" 1024.0 "MiB" 1048576.0 "GiB" 1073741824.0 -}}
{{- mulf $number (default 1.0 (get $units (regexReplaceAll "^[0-9.]+" $text ""))) | floor | int64 -}}
{{- end }}

{{- /* Ten seconds more than stopping takes: docs/kubernetes.md, "Stopping". */ -}}
{{- define "sidecar.terminationGracePeriodSeconds" -}}
{{- $drain := include "sidecar.seconds" (default "20s" .Values.config.drain) | int -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{- .Values.terminationGracePeriodSeconds | int -}}
{{- else if has .Values.mode (list "gateway" "authorizer") -}}
{{- add $drain 10 -}}
{{- else -}}
{{- add $drain .Values.receiver.preStopSeconds .Values.receiver.stopSeconds 10 -}}
{{- end -}}
{{- end }}

{{- /* The paths that senders call, each as JSON {path, prefix}, one per line. */ -}}
{{- define "sidecar.publicPaths" -}}
{{- range .Values.config.routes -}}
{{- if not .open -}}
{{ dict "path" (regexReplaceAll "[{*].*" .path "") "prefix" (or (hasSuffix "/*" .path) (contains "{" .path)) | toJson }}
{{ end -}}
{{- end -}}
{{- end }}
