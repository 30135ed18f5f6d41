{{- /* The receiver's container in sidecar mode. */ -}}
{{- define "sidecar.receiver" -}}
{{- with .Values.receiver -}}
name: receiver
image: {{ .image | quote }}
imagePullPolicy: {{ .imagePullPolicy | quote }}
{{- range $key := list "command" "args" "env" "envFrom" "volumeMounts" "startupProbe" "readinessProbe" "livenessProbe" "resources" "securityContext" }}
{{- with get $.Values.receiver $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
ports:
  - {name: receiver, containerPort: {{ .port | int }}, protocol: TCP}
{{- with .preStopSeconds }}
lifecycle:
  {{- include "sidecar.preStop" (list $ .) | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Delays a container's stop: (list root SECONDS). The action `sleep` exists since 1.30; before, the image must have the command. */ -}}
{{- define "sidecar.preStop" -}}
{{- if semverCompare ">=1.30.0-0" (index . 0).Capabilities.KubeVersion.Version -}}
preStop: {sleep: {seconds: {{ index . 1 | int }}}}
{{- else -}}
preStop: {exec: {command: [sleep, {{ index . 1 | quote }}]}}
{{- end -}}
{{- end }}
