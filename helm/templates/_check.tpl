{{- /* Checks of what only the chart knows: its modes, the ports of its pods, the Secrets that it mounts, its own values.

values.schema.json checks the form of `config`. The program checks its meaning: a Job runs `sidecar check` before an install or upgrade
changes anything (checkjob.yaml), and `sidecar check --manifests -` reads the output of `helm template`. Each template here writes one
problem per line; `sidecar.check` fails with all of them at once. */ -}}

{{- define "sidecar.check" -}}
{{- $problems := list (include "sidecar.check.removed" .) (include "sidecar.check.mode" .) (include "sidecar.check.listeners" .) (include "sidecar.check.upstreams" .) (include "sidecar.check.secrets" (list . "config" .Values.config "")) (include "sidecar.check.objects" .) (include "sidecar.check.tests" .) (include "sidecar.check.authorizer" .) -}}
{{- with join "\n" $problems | splitList "\n" | compact -}}
{{- fail (printf "\n\n%s\n" (join "\n" .)) -}}
{{- end -}}
{{- end }}

{{- /* Names of values that don't exist, and the right ones. A renamed value gets a line here. */ -}}
{{- define "sidecar.check.removed" -}}
{{- $now := dict
  "existingSecret" "use the list existingSecrets: [NAME]"
  "secrets" "secrets are never values; create a Secret and use its name: existingSecrets: [NAME]"
  "env" "use extraEnv for the sidecar, receiver.env for the receiver"
  "routes" "use config.routes, a part of the configuration"
  "upstream" "use config.upstream, a part of the configuration"
  "replicas" "use replicaCount"
  "metrics" "metrics are always on; for the Prometheus operator set serviceMonitor.enabled: true"
  "gateway" "use httpRoute for the Gateway API" -}}
{{- range $name, $remedy := $now }}{{ if hasKey $.Values $name }}
{{ $name }}: is not a value of this chart; {{ $remedy }}{{ end }}{{ end }}
{{- end }}

{{- define "sidecar.check.mode" -}}
{{- $receiver := .Values.receiver }}
{{- if eq .Values.mode "sidecar" }}
{{- if not $receiver.image }}
receiver.image: is empty; set your receiver's image, for example registry.example/shop:1.2, or use `mode: gateway` for a receiver that already runs{{ end }}
{{- if has (int $receiver.port) (list (include "sidecar.dataPort" . | int) (include "sidecar.adminPort" . | int)) }}
receiver.port: {{ $receiver.port }} is also a port of the sidecar; change it with config.listen or config.admin, for example `config.listen: '[::]:8081'`{{ end }}
{{- if $receiver.loopback }}
{{- range $probe := list "startupProbe" "readinessProbe" "livenessProbe" }}{{ range $kind := list "httpGet" "tcpSocket" "grpc" }}
{{- if eq (dig $probe $kind "port" "" $receiver | toString) (toString $receiver.port) }}
receiver.{{ $probe }}: the kubelet can't reach port {{ $receiver.port }}, because the receiver listens on 127.0.0.1 only; use exec, or add {path: /healthz, open: true} to config.routes and use the sidecar's port {{ include "sidecar.dataPort" $ }} here{{ end }}
{{- end }}{{ end }}
{{- end }}
{{- else if $receiver.image }}
receiver.image: can't be used with `mode: {{ .Values.mode }}`; remove it, or set `mode: sidecar`{{ end }}
{{- end }}

{{- /* The program checks that no two use the same port. */ -}}
{{- define "sidecar.check.listeners" -}}
{{- $given := dict "listen" (dig "listen" "[::]:8080" .Values.config) "admin" (dig "admin" "[::]:9090" .Values.config) }}
{{- if eq .Values.mode "authorizer" }}{{ $_ := set $given "authorize.listen" (dig "listen" "[::]:8081" (default dict .Values.config.authorize)) }}{{ end }}
{{- range $key, $address := $given }}
{{- if not (include "sidecar.text" $address | regexMatch "^(0\\.0\\.0\\.0|\\[::\\]):[1-9][0-9]{0,4}$") }}
config.{{ $key }}: {{ include "sidecar.text" $address | squote }} can't be reached from outside the pod; use '[::]:PORT', or 0.0.0.0:PORT for IPv4 only, for example {{ get (dict "listen" "'[::]:8080'" "admin" "'[::]:9090'") $key | default "'[::]:8081'" }}{{ end }}
{{- end }}
{{- end }}

{{- /* Valid addresses that are wrong in this mode. */ -}}
{{- define "sidecar.check.upstreams" -}}
{{- $config := .Values.config }}
{{- if not $config.routes }}
config.routes: is empty, so nothing would be accepted; add a route, for example config: {upstream: "http://receiver.namespace:3000", routes: [{path: /webhooks/github, verify: github, secrets: [{file: /run/secrets/NAME/KEY}]}]} and existingSecrets: [NAME]{{ end }}
{{- $places := dict "config.upstream" (include "sidecar.upstreamUrl" $config) }}
{{- range $index, $route := $config.routes }}{{ $_ := set $places (printf "config.routes[%d].upstream" $index) (include "sidecar.upstreamUrl" $route) }}{{ end }}
{{- range $at, $text := $places }}
{{- $local := regexMatch "^https?://(localhost|127\\.[0-9.]+|0\\.0\\.0\\.0|\\[::1?\\])(:|/|$)" $text }}
{{- if and (eq $.Values.mode "gateway") (hasPrefix "unix:" $text) }}
{{ $at }}: {{ squote $text }} is a socket in the gateway's own pod; use the receiver's Service, for example http://receiver.namespace:3000
{{- else if and (eq $.Values.mode "gateway") $local }}
{{ $at }}: {{ squote $text }} is the gateway's own pod; use the receiver's Service, for example http://receiver.namespace:3000, or `mode: sidecar` for both in one pod
{{- else if and (eq $.Values.mode "sidecar") (eq $at "config.upstream") $local (not (hasSuffix (printf ":%v" $.Values.receiver.port) (trimSuffix "/" $text))) }}
{{ $at }}: {{ squote $text }} is not the receiver's port, receiver.port: {{ $.Values.receiver.port }}; remove one or change the other{{ end }}
{{- end }}
{{- end }}

{{- /* References to secrets, wherever they are: (list root AT VALUE KEY). A value that may be the secret itself is never printed. */ -}}
{{- define "sidecar.check.secrets" -}}
{{- $root := index . 0 -}}{{- $at := index . 1 -}}{{- $value := index . 2 -}}{{- $key := index . 3 -}}{{- $is_map := kindIs "map" $value -}}
{{- if and (has $key (list "secrets" "secret" "api_key" "verify_token" "admin_token" "password")) (not (kindIs "slice" $value)) (not (and $is_map (or (hasKey $value "file") (hasKey $value "env") (hasKey $value "dir")))) }}
{{ $at }}: holds the secret itself; move it out of the values and refer to it: {file: /run/secrets/NAME/KEY}, with the Secret's name in existingSecrets: [NAME]
{{- else if $is_map }}
{{- range $below, $item := $value }}{{ include "sidecar.check.secrets" (list $root (printf "%s.%s" $at $below) $item $below) }}{{ end }}
{{- if and (kindIs "string" $value.env) (not $value.optional) (not $root.Values.extraEnvFrom) }}
{{- $names := list }}{{ range $root.Values.extraEnv }}{{ $names = append $names .name }}{{ end }}
{{- if not (has $value.env $names) }}
{{ $at }}.env: the variable {{ $value.env }} is not set; add it to extraEnv: [{name: {{ $value.env }}, valueFrom: {secretKeyRef: {name: NAME, key: KEY}}}], or use a file, which can change without a restart{{ end }}
{{- end }}
{{- else if kindIs "slice" $value }}
{{- range $index, $item := $value }}{{ include "sidecar.check.secrets" (list $root (printf "%s[%d]" $at $index) $item (eq $key "secrets" "secret" | ternary "secret" "")) }}{{ end }}
{{- else if and (kindIs "string" $value) (regexMatch "^[a-z]+://[^/?#]*:[^/?#]*@" $value) }}
{{ $at }}: has a password in its address; move it out of the values: {url: redis://redis.namespace:6379/0, password: {file: /run/secrets/NAME/KEY}}
{{- else if and (has $key (list "file" "dir")) (kindIs "string" $value) }}
{{- $mounted := false }}{{ $places := list }}
{{- range $root.Values.existingSecrets }}{{ $places = append $places (printf "/run/secrets/%s" .) }}{{ end }}
{{- range $root.Values.extraVolumeMounts }}{{ $places = append $places .mountPath }}{{ end }}
{{- range $places }}{{ if hasPrefix (printf "%s/" (trimSuffix "/" .)) (printf "%s/" $value) }}{{ $mounted = true }}{{ end }}{{ end }}
{{- if and (not $mounted) (regexMatch "^/run/secrets/[^/]+(/[^/]+)?$" $value) }}
{{ $at }}: {{ squote $value }} is in a Secret that is not mounted; add its name: existingSecrets: [{{ index (splitList "/" $value) 3 }}]
{{- else if not $mounted }}
{{ $at }}: {{ squote $value }} is not on a volume; use /run/secrets/NAME/KEY, with the Secret's name in existingSecrets: [NAME]{{ end }}
{{- end }}
{{- end }}

{{- define "sidecar.check.objects" -}}
{{- $volumes := dict }}
{{- range .Values.existingSecrets }}
{{- $volume := include "sidecar.secretVolume" . }}
{{- if hasKey $volumes $volume }}
existingSecrets: {{ . }} and {{ get $volumes $volume }} would use the same volume, {{ $volume }}; rename one of the Secrets{{ end }}
{{- $_ := set $volumes $volume . }}{{ end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
ingress.hosts: is empty; add the host that senders use, for example [hooks.example.com]{{ end }}
{{- $paths := include "sidecar.publicPaths" . | trim | splitList "\n" | compact }}
{{- range $at, $route := dict "httpRoute" .Values.httpRoute "authorizer.httpRoute" .Values.authorizer.httpRoute }}
{{- if and $route.enabled (gt (len $paths) 128) }}
{{ $at }}.enabled: an HTTPRoute can have 128 paths, and config.routes has more; set it to false and add your own HTTPRoute for a common prefix (extraObjects){{ end }}
{{- if and $route.enabled (not $route.parentRefs) }}
{{ $at }}.parentRefs: is empty; add the Gateway, for example [{name: public, namespace: gateways}]{{ end }}
{{- end }}
{{- if and (or .Values.ingress.enabled .Values.httpRoute.enabled .Values.authorizer.httpRoute.enabled) (not $paths) }}
config.routes: are all open, so an Ingress or HTTPRoute would have no path; set ingress.enabled and httpRoute.enabled to false{{ end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
autoscaling.minReplicas: is more than maxReplicas; change one of the two{{ end }}
{{- if and .Values.autoscaling.enabled (not (dig "requests" "cpu" "" .Values.resources)) }}
resources.requests.cpu: is required, because autoscaling.targetCPU is a percentage of it; set it, for example 50m{{ end }}
{{- $drain := include "sidecar.seconds" (default "20s" .Values.config.drain) | int }}
{{- if and .Values.terminationGracePeriodSeconds (le (int .Values.terminationGracePeriodSeconds) $drain) }}
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }} is not more than config.drain ({{ $drain }} s), so deliveries would be cut off; use at least {{ add $drain 10 }}, or leave it out{{ end }}
{{- if and (ne .Values.mode "library") .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
podMonitor.enabled: can't be used with serviceMonitor.enabled, because every sample would be counted twice; set one of them to false{{ end }}
{{- if and (eq .Values.mode "library") (or .Values.serviceMonitor.enabled .Values.ingress.enabled .Values.httpRoute.enabled .Values.autoscaling.enabled) }}
mode: library makes no Service and no pods, so serviceMonitor, ingress, httpRoute and autoscaling can't be used; set them to false, and use podMonitor{{ end }}
{{- $policy := .Values.admissionPolicy.enabled }}
{{- if and $policy (ne .Values.mode "library") }}
admissionPolicy.enabled: needs `mode: library`; this mode makes its own pods
{{- else if and $policy (not .Values.nativeSidecar) }}
nativeSidecar: is false, but admissionPolicy.enabled injects native sidecars; set one of them to its default
{{- else if and $policy (semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version) }}
admissionPolicy.enabled: needs Kubernetes 1.36 or newer, but this is {{ .Capabilities.KubeVersion.Version }}; use `sidecar inject` or the named templates{{ end }}
{{- end }}

{{- define "sidecar.check.tests" -}}
{{- $ids := list }}{{ range (default dict .Values.config.delivery_test).accounts }}{{ $ids = append $ids .id }}{{ end }}
{{- range concat .Values.tests.accepted .Values.tests.refused }}
{{- if not (has . $ids) }}
tests: {{ squote . }} is not an account of config.delivery_test.accounts; {{ ternary (printf "use one of %s" (join ", " $ids)) "add it there" (gt (len $ids) 0) }}{{ end }}
{{- end }}
{{- if and (eq .Values.mode "library") (or .Values.tests.accepted .Values.tests.refused) (not (and .Values.tests.url .Values.tests.podSelector)) }}
tests: accepted and refused need the admin listener of pods that this mode does not make; set tests.url and tests.podSelector
{{- else if and (ne .Values.mode "library") (or .Values.tests.url .Values.tests.podSelector) }}
tests: url and podSelector can't be used with this mode, which knows its own pods; remove them{{ end }}
{{- if and .Values.tests.enabled .Values.tests.route (ne .Values.tests.route "none") }}
{{- $route := dict }}
{{- range .Values.config.routes }}{{ if eq (include "sidecar.routeName" .) $.Values.tests.route }}{{ $route = . }}{{ end }}{{ end }}
{{- if not $route }}
tests.route: no route is named {{ squote .Values.tests.route }}; use a name of config.routes, or none to send nothing
{{- else if $route.allow }}
tests.route: {{ squote .Values.tests.route }} has `allow`, so the test's pod would be rejected by its address, signed or not; use another route, or none to send nothing
{{- else if eq (default "enforce" $route.mode) "shadow" }}
tests.route: {{ squote .Values.tests.route }} is in shadow mode, so a forged delivery would be forwarded; use another route, or none to send nothing
{{- else if not (include "sidecar.tests.signed" $route) }}
tests.route: {{ squote .Values.tests.route }} takes no signed POST; use another route, or none to send nothing{{ end }}
{{- end }}
{{- end }}

{{- /* Mode `authorizer`, and the gateways that ask it. */ -}}
{{- define "sidecar.check.authorizer" -}}
{{- $authorizer := .Values.authorizer }}
{{- $asking := list }}
{{- range $name := list "envoyGateway" "httpRoute" "istio" "traefik" }}{{ if (get $authorizer $name).enabled }}{{ $asking = append $asking $name }}{{ end }}{{ end }}
{{- if ne .Values.mode "authorizer" }}
{{- range $asking }}
authorizer.{{ . }}.enabled: needs `mode: authorizer`; this mode has nothing that a gateway could ask{{ end }}
{{- else }}
{{- $upstreams := dict "config.upstream" .Values.config.upstream }}
{{- range $index, $route := .Values.config.routes }}{{ $_ := set $upstreams (printf "config.routes[%d].upstream" $index) $route.upstream }}{{ end }}
{{- range $at, $upstream := $upstreams }}{{ if $upstream }}
{{ $at }}: can't be used with `mode: authorizer`, which forwards nothing; remove it, and install a second release with `mode: gateway` for routes that need the proxy{{ end }}{{ end }}
{{- if or .Values.ingress.enabled .Values.httpRoute.enabled }}
mode: authorizer only answers gateways and gets no deliveries, so ingress and httpRoute can't be used; set them to false, and point your gateway's own route at the receiver{{ end }}
{{- if and .Values.receiver.podSelector (not .Values.receiver.from) }}
receiver.from: is empty, so the NetworkPolicy would let everyone reach the receiver; add the gateway's pods, for example [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: envoy-gateway-system}}}]{{ end }}
{{- $form := dig "form" "any" (default dict .Values.config.authorize) }}
{{- if or (and (eq $form "forward-auth") (without $asking "traefik")) (and (eq $form "envoy") $authorizer.traefik.enabled) }}
config.authorize.form: {{ $form }} is not how {{ eq $form "envoy" | ternary "Traefik asks" "Envoy asks" }}; use any, or leave it out{{ end }}
{{- if and $authorizer.traefik.enabled (not .Values.config.trusted_proxies) }}
config.trusted_proxies: is empty, so Traefik's questions would not be trusted, and every delivery would be rejected with 404; add the addresses of Traefik's pods, for example [10.0.0.0/8]{{ end }}
{{- if and $authorizer.traefik.enabled (eq $form "any") (dig "path_prefix" "" (default dict .Values.config.authorize)) }}
config.authorize.path_prefix: is for Envoy, which puts it before each path, and Traefik does not; use one release for each, or leave it out{{ end }}
{{- if and (without $asking "traefik") (not $authorizer.requestHeaders) }}
authorizer.requestHeaders: is empty, and gateways send no others along, so no signature would be found; add the headers that the routes' schemes read, for example [x-hub-signature-256, content-type]{{ end }}
{{- range list (list "envoyGateway" "targetRefs" "; add the route or Gateway to protect, for example [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]") (list "httpRoute" "backendRefs" "; add the receiver's Service, for example [{name: receiver, port: 3000}]") (list "istio" "rules" ", so Istio would never ask and nothing would be protected; use [{}] for every request") }}
{{- $gateway := get $authorizer (index . 0) }}{{ if and $gateway.enabled (not (get $gateway (index . 1))) }}
authorizer.{{ index . 0 }}.{{ index . 1 }}: is empty{{ index . 2 }}{{ end }}{{ end }}
{{- if and $authorizer.httpRoute.enabled (gt (include "sidecar.authorizer.body" . | int64) 65535) }}
authorizer.httpRoute: Gateway API 1.6 and older send along at most 65535 bytes of a body, and a larger `maxSize` breaks them; set config.limits.body to 65535 or less (and that of each route), or use envoyGateway, istio or traefik{{ end }}
{{- if and $authorizer.istio.enabled (eq (empty $authorizer.istio.selector) (empty $authorizer.istio.targetRefs)) }}
authorizer.istio: needs selector or targetRefs, and not both; without them every pod of the namespace would ask; for example selector: {istio: ingressgateway}{{ end }}
{{- end }}
{{- end }}
