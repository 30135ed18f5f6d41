{{- /* Mode `authorizer`: settings for gateways. */ -}}

{{- /* The Service's name for other namespaces. */ -}}
{{- define "sidecar.authorizer.host" -}}
{{ include "sidecar.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- /* The largest body of any route, in bytes. A gateway must send bodies of that size. */ -}}
{{- define "sidecar.authorizer.body" -}}
{{- $largest := dig "body" "5MiB" (default dict .Values.config.limits) | include "sidecar.bytes" | int64 -}}
{{- range .Values.config.routes -}}
{{- with dig "body" "" (default dict .limits) }}{{ $largest = max $largest (include "sidecar.bytes" . | int64) }}{{ end -}}
{{- end -}}
{{- $largest -}}
{{- end }}

{{- /* The headers that gateways copy from an answer, as JSON. Always all of ours: if a gateway did not copy one, the sender's own would get through. */ -}}
{{- define "sidecar.authorizer.headers" -}}
{{- concat (list "x-webhook-verified" "x-webhook-secret-id" "x-webhook-client" "x-webhook-tenant") .Values.authorizer.responseHeaders | uniq | toJson -}}
{{- end }}

{{- /* Metadata of an object in another namespace: (list root SUFFIX NAMESPACE). */ -}}
{{- define "sidecar.authorizer.metadata" -}}
{{- $metadata := include "sidecar.metadata" (list (index . 0) (index . 1)) | fromYaml -}}
{{- with index . 2 }}{{ $_ := set $metadata "namespace" . }}{{ end -}}
{{- toYaml $metadata -}}
{{- end }}

{{- /* The provider of the mesh's configuration, which is Istio's own and no object. */ -}}
{{- define "sidecar.authorizer.provider" -}}
extensionProviders:
  - name: {{ include "sidecar.authorizer.providerName" . | quote }}
    envoyExtAuthzHttp:
      service: {{ printf "%s.cluster.local" (include "sidecar.authorizer.host" .) | quote }}
      port: {{ .Values.service.port | int }}
      {{- with dig "path_prefix" "" (default dict .Values.config.authorize) }}
      pathPrefix: {{ . | quote }}
      {{- end }}
      failOpen: false
      statusOnError: "503"
      includeRequestHeadersInCheck: {{ .Values.authorizer.requestHeaders | toJson }}
      includeRequestBodyInCheck: {maxRequestBytes: {{ include "sidecar.authorizer.body" . }}, allowPartialMessage: false}
      headersToUpstreamOnAllow: {{ include "sidecar.authorizer.headers" . }}
{{- end }}
{{- define "sidecar.authorizer.providerName" -}}
{{- default (include "sidecar.fullname" .) .Values.authorizer.istio.provider -}}
{{- end }}
