{{- /* The sidecar in a pod. All modes use these templates, and your own chart can use them too:

    metadata:
      labels:
        {{ include "sidecar.podLabels" (index .Subcharts "webhook-sidecar") | nindent 8 | trim }}
    ...
    initContainers:
      - {{ include "sidecar.container" (index .Subcharts "webhook-sidecar") | nindent 8 | trim }}
    volumes:
      {{ include "sidecar.volumes" (index .Subcharts "webhook-sidecar") | nindent 6 | trim }}

All ports are given by number: before Kubernetes 1.32 names don't resolve in native sidecars. */ -}}

{{- /* One container, as a mapping. */ -}}
{{- define "sidecar.container" -}}
{{- $admin := include "sidecar.adminPort" . | int -}}
name: webhook-sidecar
image: {{ include "sidecar.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy | quote }}
{{- if include "sidecar.native" . }}
restartPolicy: Always
{{- end }}
args: [serve]
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: hooks, containerPort: {{ include "sidecar.dataPort" . | int }}, protocol: TCP}
  - {name: hooks-admin, containerPort: {{ $admin }}, protocol: TCP}
{{- if eq .Values.mode "authorizer" }}
  - {name: hooks-authorize, containerPort: {{ include "sidecar.authorizePort" . | int }}, protocol: TCP}
{{- end }}
{{- if has .Values.mode (list "sidecar" "library") }}
# A native sidecar gets SIGTERM after the receiver has ended: this says before that the pod is ending.
lifecycle: {preStop: {exec: {command: [/opt/sidecar/bin/sidecar, drain]}}}
{{- end }}
startupProbe:
  httpGet: {path: /readyz, port: {{ $admin }}}
  {{- toYaml .Values.probes.startup | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: {{ $admin }}}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: {{ $admin }}}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - {name: webhook-sidecar-config, mountPath: /etc/sidecar, readOnly: true}
  {{- include "sidecar.secretMounts" . }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* "true" for a native sidecar, which starts before the receiver and stops after it. */ -}}
{{- define "sidecar.native" -}}
{{- if and (has .Values.mode (list "sidecar" "library")) .Values.nativeSidecar }}true{{ end -}}
{{- end }}

{{- /* A list of volumes: whole directories, because files mounted by subPath are never updated. */ -}}
{{- define "sidecar.volumes" -}}
- name: webhook-sidecar-config
  configMap: {name: {{ include "sidecar.fullname" . | quote }}}
{{- include "sidecar.secretVolumes" . }}
{{- end }}

{{- define "sidecar.secretMounts" -}}
{{- range .Values.existingSecrets }}
  - {name: {{ include "sidecar.secretVolume" . | quote }}, mountPath: {{ printf "/run/secrets/%s" . | quote }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "sidecar.secretVolumes" -}}
{{- $root := . -}}
{{- range .Values.existingSecrets }}
- name: {{ include "sidecar.secretVolume" . | quote }}
  secret: {secretName: {{ . | quote }}{{ if include "sidecar.allOptional" (list $root .) }}, optional: true{{ end }}}
{{- end }}
{{- end }}

{{- /* A volume's name is a label of at most 63 characters; a Secret's may be longer and contain dots. */ -}}
{{- define "sidecar.secretVolume" -}}
{{- printf "webhook-sidecar-secret-%s" . | replace "." "-" | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- /* "true" if all references to this Secret are optional: (list root NAME). */ -}}
{{- define "sidecar.allOptional" -}}
{{- $config := (index . 0).Values.config -}}
{{- $references := list -}}
{{- range $config.routes -}}
{{- $references = concat $references (kindIs "slice" .secrets | ternary .secrets list) -}}
{{- with dig "sign" "secret" "" . }}{{ $references = concat $references (ternary . (list .) (kindIs "slice" .)) }}{{ end -}}
{{- with .verify_token }}{{ $references = append $references . }}{{ end -}}
{{- end -}}
{{- range (default dict $config.delivery_test).accounts }}{{ $references = append $references .api_key }}{{ end -}}
{{- with $config.admin_token }}{{ $references = append $references . }}{{ end -}}
{{- if kindIs "map" $config.replay_store }}{{ range pick $config.replay_store "password" "sentinel_password" }}{{ $references = append $references . }}{{ end }}{{ end -}}
{{- $used := 0 -}}{{- $needed := 0 -}}
{{- $prefix := printf "/run/secrets/%s/" (index . 1) -}}
{{- range $references -}}
{{- if hasPrefix $prefix (toString .file) -}}
{{- $used = add1 $used -}}
{{- if not .optional }}{{ $needed = add1 $needed }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if and $used (not $needed) }}true{{ end -}}
{{- end }}
