{{- /* Mode `authorizer`: what is wrong with its values, and what gateways are told. */ -}}

{{- define "sidecar.check.authorizer" -}}
{{- $authorizer := .Values.authorizer }}
{{- $asking := list }}
{{- range $name := list "envoyGateway" "istio" "traefik" }}{{ if (get $authorizer $name).enabled }}{{ $asking = append $asking $name }}{{ end }}{{ end }}
{{- if ne .Values.mode "authorizer" }}
{{- range $asking }}
authorizer.{{ . }}.enabled: needs `mode: authorizer`; this mode has nothing that a gateway could ask
{{- end }}
{{- else }}
{{- $text := dig "listen" "[::]:8081" (default dict .Values.config.authorize) | include "sidecar.text" }}
{{- $port := splitList ":" $text | last }}
{{- if or (not (regexMatch "^(0\\.0\\.0\\.0|\\[::\\]):[1-9][0-9]{0,4}$" $text)) (gt (int $port) 65535) }}
config.authorize.listen: {{ squote $text }} can't be reached from outside the pod; use '[::]:PORT', or 0.0.0.0:PORT for IPv4 only, for example '[::]:8081'
{{- else if has $port (list (include "sidecar.dataPort" .) (include "sidecar.adminPort" .)) }}
config.authorize.listen: port {{ $port }} is also the port of listen or admin; use another, for example '[::]:8081'
{{- end }}
{{- $upstreams := dict "config.upstream" .Values.config.upstream }}
{{- range $index, $route := .Values.config.routes }}{{ $_ := set $upstreams (printf "config.routes[%d].upstream" $index) $route.upstream }}{{ end }}
{{- range $at, $upstream := $upstreams }}
{{- if $upstream }}
{{ $at }}: can't be used with `mode: authorizer`, which forwards nothing; remove it, and install a second release with `mode: gateway` for routes that need the proxy
{{- end }}
{{- end }}
{{- if or .Values.ingress.enabled .Values.httpRoute.enabled }}
mode: authorizer is asked by gateways and gets no deliveries, so ingress and httpRoute can't be used; set them to false, and point your gateway's own route at the receiver
{{- end }}
{{- if and .Values.receiver.podSelector (not .Values.receiver.from) }}
receiver.from: is empty, so the NetworkPolicy would let everyone reach the receiver; add the gateway's pods, for example [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: envoy-gateway-system}}}]
{{- end }}
{{- $form := dig "form" "any" (default dict .Values.config.authorize) }}
{{- if and (eq $form "forward-auth") (without $asking "traefik") }}
config.authorize.form: forward-auth is how Traefik asks, but not Envoy; use any, or leave it out
{{- else if and (eq $form "envoy") $authorizer.traefik.enabled }}
config.authorize.form: envoy is not how Traefik asks; use any, or leave it out
{{- end }}
{{- if and $authorizer.traefik.enabled (not .Values.config.trusted_proxies) }}
config.trusted_proxies: is empty, so what Traefik asks would not be believed, and every delivery would be rejected with 404; add the addresses of Traefik's pods, for example [10.0.0.0/8]
{{- end }}
{{- if and $authorizer.traefik.enabled (eq $form "any") (dig "path_prefix" "" (default dict .Values.config.authorize)) }}
config.authorize.path_prefix: is for Envoy, which puts it before each path, and Traefik does not; use one release for each, or leave it out
{{- end }}
{{- if and (or $authorizer.envoyGateway.enabled $authorizer.istio.enabled) (not $authorizer.requestHeaders) }}
authorizer.requestHeaders: is empty, and Envoy sends no others along, so no signature would be found; add the headers that the routes' schemes read, for example [x-hub-signature-256, content-type]
{{- end }}
{{- if and $authorizer.envoyGateway.enabled (not $authorizer.envoyGateway.targetRefs) }}
authorizer.envoyGateway.targetRefs: is empty; add the route or Gateway to protect, for example [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]
{{- end }}
{{- with $authorizer.istio }}
{{- if and .enabled (eq (empty .selector) (empty .targetRefs)) }}
authorizer.istio: needs selector or targetRefs, and not both; without them every pod of the namespace would ask; for example selector: {istio: ingressgateway}
{{- end }}
{{- if and .enabled (not .rules) }}
authorizer.istio.rules: is empty, so Istio would never ask and nothing would be protected; use [{}] for every request
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The Service's name for other namespaces. */ -}}
{{- define "sidecar.authorizer.host" -}}
{{ include "sidecar.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- /* The largest body of any route, in bytes: what a gateway must send along. */ -}}
{{- define "sidecar.authorizer.body" -}}
{{- $largest := dig "body" "5MiB" (default dict .Values.config.limits) | include "sidecar.bytes" | int64 -}}
{{- range .Values.config.routes -}}
{{- with dig "body" "" (default dict .limits) }}{{ $largest = max $largest (include "sidecar.bytes" . | int64) }}{{ end -}}
{{- end -}}
{{- $largest -}}
{{- end }}

{{- /* The headers that gateways take from an answer, as JSON. All of ours, always: a gateway that does not take one would let the sender's through. */ -}}
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
