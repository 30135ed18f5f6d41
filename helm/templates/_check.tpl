{{- /* Checks that a schema can't express, or not with a clear message. A configuration that renders also passes `sidecar check`.

The rules and messages are those of sidecar/config/checks.py and sidecar/config/fields/; tests/chart renders every file of tests/config/invalid.
Each template writes one problem per line; `sidecar.check` fails with all of them at once. */ -}}

{{- define "sidecar.check" -}}
{{- $presets := .Files.Get "files/presets.json" | fromJson -}}
{{- $ranges := .Files.Get "files/ranges.json" | fromJsonArray -}}
{{- $context := dict "root" . "config" .Values.config "presets" $presets "ranges" $ranges -}}
{{- $problems := list (include "sidecar.check.removed" .) (include "sidecar.check.mode" .) (include "sidecar.check.listeners" $context) (include "sidecar.check.common" $context) (include "sidecar.check.routes" $context) (include "sidecar.check.objects" .) -}}
{{- with join "" $problems | trim | empty | ternary (include "sidecar.check.tests" .) "" }}{{ $problems = append $problems . }}{{ end -}}
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
{{- range $name, $remedy := $now }}
{{- if hasKey $.Values $name }}
{{ $name }}: is not a value of this chart; {{ $remedy }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sidecar.check.mode" -}}
{{- $receiver := .Values.receiver }}
{{- if eq .Values.mode "sidecar" }}
{{- if not $receiver.image }}
receiver.image: is empty; set your receiver's image, for example registry.example/shop:1.2, or use `mode: gateway` for a receiver that already runs
{{- end }}
{{- if has (int $receiver.port) (list (include "sidecar.dataPort" . | int) (include "sidecar.adminPort" . | int)) }}
receiver.port: {{ $receiver.port }} is also a port of the sidecar; change it with config.listen or config.admin, for example `config.listen: '[::]:8081'`
{{- end }}
{{- if $receiver.loopback }}
{{- range $probe := list "startupProbe" "readinessProbe" "livenessProbe" }}
{{- range $kind := list "httpGet" "tcpSocket" "grpc" }}
{{- with dig $probe $kind "port" "" $receiver }}
{{- if eq (toString .) (toString $receiver.port) }}
receiver.{{ $probe }}: the kubelet can't reach port {{ . }}, because the receiver listens on 127.0.0.1 only; use exec, or add {path: /healthz, open: true} to config.routes and use the sidecar's port {{ include "sidecar.dataPort" $ }} here
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- else if $receiver.image }}
receiver.image: can't be used with `mode: {{ .Values.mode }}`; remove it, or set `mode: sidecar`
{{- end }}
{{- end }}

{{- define "sidecar.check.listeners" -}}
{{- $ports := list -}}
{{- range $key, $default := dict "listen" "[::]:8080" "admin" "[::]:9090" }}
{{- $text := ternary (get $.config $key) $default (hasKey $.config $key) | include "sidecar.text" }}
{{- $port := splitList ":" $text | last }}
{{- if hasPrefix "unix:" $text }}
config.{{ $key }}: {{ squote $text }} can't be reached from outside the pod; use {{ squote $default }}
{{- else if not (regexMatch "^(0\\.0\\.0\\.0|\\[::\\]):[1-9][0-9]{0,4}$" $text) }}
config.{{ $key }}: {{ squote $text }} can't be reached from outside the pod; use '[::]:PORT', or 0.0.0.0:PORT for IPv4 only, for example {{ squote $default }}
{{- else if gt (int $port) 65535 }}
config.{{ $key }}: {{ squote $text }} is not a valid address to listen on; use '[::]:PORT', for example {{ squote $default }}
{{- else if has $port $ports }}
config: listen and admin both use port {{ $port }}; use different ports, for example `listen: '[::]:8080'` and `admin: '[::]:9090'`
{{- end }}
{{- $ports = append $ports $port }}
{{- end }}
{{- end }}

{{- define "sidecar.check.common" -}}
{{- $config := .config }}
{{- if hasKey $config "upstream" }}
{{- include "sidecar.check.upstream" (list . "config.upstream" $config.upstream) }}
{{- if and (eq .root.Values.mode "sidecar") (regexMatch "^http://(127\\.0\\.0\\.1|localhost|\\[::1\\]):[0-9]+/?$" $config.upstream) }}
{{- if not (hasSuffix (printf ":%v" .root.Values.receiver.port) (trimSuffix "/" $config.upstream)) }}
config.upstream: {{ squote $config.upstream }} is not the receiver's port, receiver.port: {{ .root.Values.receiver.port }}; remove one or change the other
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey $config "public_url" }}
{{- include "sidecar.check.url" (list "config.public_url" $config.public_url) }}
{{- end }}
{{- range $index, $network := $config.trusted_proxies }}
{{- if ne $network "unix:" }}
{{- include "sidecar.check.network" (list (printf "config.trusted_proxies[%d]" $index) $network) }}
{{- if hasSuffix "/0" $network }}
config.trusted_proxies[{{ $index }}]: {{ squote $network }} would trust X-Forwarded-For from anyone; use your proxies' own networks
{{- end }}
{{- end }}
{{- end }}
{{- if and (hasKey $config "trusted_proxies") (not $config.trusted_proxies) }}
config.trusted_proxies: is an empty list; add an item or remove the key
{{- end }}
{{- range $key := list "client_ip_header" "proxy_protocol" }}
{{- if and (get $config $key) (not (hasKey $config "trusted_proxies")) }}
config.{{ $key }}: is used from trusted proxies only; add `trusted_proxies: [their networks]`
{{- end }}
{{- end }}
{{- range $path := list "drain" "limits.header_timeout" "limits.body_timeout" "timeouts.connect" "timeouts.response" "timeouts.total" "timeouts.idle" "timeouts.keep_alive" "ip_ranges.refresh" }}
{{- $steps := splitList "." $path }}
{{- $section := ternary $config (default dict (get $config (first $steps))) (eq (len $steps) 1) }}
{{- if hasKey $section (last $steps) }}
{{- include "sidecar.check.duration" (list (printf "config.%s" $path) (get $section (last $steps))) }}
{{- end }}
{{- end }}
{{- range $key := list "body" "buffer" }}
{{- if hasKey (default dict $config.limits) $key }}
{{- include "sidecar.check.size" (list (printf "config.limits.%s" $key) (get $config.limits $key)) }}
{{- end }}
{{- end }}
{{- $limits := default dict $config.limits }}
{{- $workers := max 1 (int (default 1 $config.workers)) }}
{{- $forOthers := divf (mulf 0.25 (sub $workers 1)) $workers }}
{{- $most := mulf (include "sidecar.bytes" (default "64MiB" $limits.buffer) | int64) (subf 1.0 $forOthers) | floor | int64 }}
{{- $which := ternary "that one worker can use of limits.buffer" "of limits.buffer" (gt $workers 1) }}
{{- $bodies := list (dict "at" (ternary "config.limits.body" "config.limits.buffer" (hasKey $limits "body")) "body" (default "5MiB" $limits.body)) }}
{{- range $index, $route := $config.routes }}
{{- if hasKey (default dict $route.limits) "body" }}
{{- $bodies = append $bodies (dict "at" (printf "config.routes[%d].limits.body" $index) "body" $route.limits.body) }}
{{- end }}
{{- end }}
{{- range $bodies }}
{{- $body := include "sidecar.bytes" .body | int64 }}
{{- if gt $body $most }}
{{ .at }}: a body of {{ $body }} bytes is allowed, more than the {{ $most }} {{ $which }}; raise limits.buffer
{{- end }}
{{- end }}
{{- with default dict $config.limits }}
{{- if and (hasKey . "refusals") (not (regexMatch "^[1-9][0-9]{0,8}/[smh]\\z" .refusals)) }}
config.limits.refusals: {{ squote .refusals }} is not a valid rate; use a number for each second, minute or hour: 10/s, 60/m, 500/h
{{- end }}
{{- end }}
{{- with default dict $config.log }}
{{- if and (hasKey . "rejected") (ne (toString .rejected) "off") (not (regexMatch "^[1-9][0-9]{0,8}/[smh]\\z" (toString .rejected))) }}
config.log.rejected: {{ squote .rejected }} is not a valid rate; use a number for each second, minute or hour: 10/s, 60/m, 500/h; or off
{{- end }}
{{- end }}
{{- with $config.ip_ranges }}
{{- if and .refresh (lt (include "sidecar.seconds" .refresh | int) 60) }}
config.ip_ranges.refresh: {{ squote .refresh }} is not a valid refresh interval; use at least 1m, for example 24h
{{- end }}
{{- end }}
{{- if hasKey $config "admin_token" }}
{{- include "sidecar.check.secret" (list .root "config.admin_token" $config.admin_token) }}
{{- end }}
{{- if hasKey $config "replay_store" }}
{{- $store := $config.replay_store }}
{{- $section := ternary $store dict (kindIs "map" $store) }}
{{- $url := ternary $store (toString $section.url) (kindIs "string" $store) }}
{{- if not (or (kindIs "string" $store) (kindIs "map" $store)) }}
config.replay_store: is not a valid store; use memory, an address such as redis://redis.namespace:6379/0, or {url: ..., password: {file: ...}}
{{- else if or (kindIs "map" $store) (ne $url "memory") }}
{{- $user := ternary "([^:@/]+@)?" "" (kindIs "map" $store) }}
{{- $host := (include "sidecar.hostPattern" .) }}
{{- if not (regexMatch (printf "^(rediss?://%s%s(:[1-9][0-9]{0,4})?(/[0-9]{0,4})?|unix:/.+)$" $user $host) $url) }}
config.replay_store: is not a valid store; use memory, or for example redis://redis.namespace:6379/0, rediss:// for TLS, or unix:/run/redis.sock, and a Secret for the password: {url: ..., password: {file: ...}}
{{- else if gt (regexFind ":[0-9]+(/[0-9]*)?$" $url | trimPrefix ":" | splitList "/" | first | int) 65535 }}
config.replay_store: is not a valid store; use a port up to 65535, for example redis://redis.namespace:6379/0
{{- end }}
{{- range $key, $_ := omit $section "url" "password" }}
config.replay_store.{{ $key }}: unknown key; known keys are url, password
{{- end }}
{{- if hasKey $section "password" }}
{{- include "sidecar.check.secret" (list $.root "config.replay_store.password" $section.password) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $index, $account := (default dict $config.delivery_test).accounts }}
{{- $at := printf "config.delivery_test.accounts[%d]" $index }}
{{- include "sidecar.check.secret" (list $.root (printf "%s.api_key" $at) $account.api_key) }}
{{- end }}
{{- end }}

{{- /* A regular expression: a host name or IPv4 address, or an IPv6 address in brackets. */ -}}
{{- define "sidecar.hostPattern" -}}
([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\])
{{- end }}

{{- /* (list context AT VALUE) */ -}}
{{- define "sidecar.check.upstream" -}}
{{- $at := index . 1 -}}{{- $text := index . 2 | toString -}}{{- $root := (index . 0).root -}}
{{- $host := (include "sidecar.hostPattern" .) -}}
{{- $port := ternary "443" "80" (hasPrefix "https:" $text) -}}
{{- with regexFind ":[0-9]+/?$" $text }}{{ $port = trimAll ":/" . }}{{ end -}}
{{- $local := regexMatch "^https?://(localhost|127\\.[0-9.]+|0\\.0\\.0\\.0|\\[::1?\\])(:|/|$)" $text -}}
{{- if hasPrefix "unix:" $text }}
{{- if not (hasPrefix "unix:/" $text) }}
{{ $at }}: {{ squote $text }} is not a valid socket; use an absolute path: unix:/run/app/app.sock
{{- else if eq $root.Values.mode "gateway" }}
{{ $at }}: {{ squote $text }} is a socket in the gateway's own pod; use the receiver's Service, for example http://receiver.namespace:3000
{{- end }}
{{- else if contains "@" $text }}
{{ $at }}: has credentials; remove them: the receiver's own authentication passes through in the delivery's headers
{{- else if regexMatch "^https?://[^/?#]+(/[^/]|/?[?#]|//)" $text }}
{{ $at }}: {{ squote (regexReplaceAll "[?].*" $text "?***") }} has a path; deliveries keep the path they came with, so use {{ regexFind "^https?://[^/?#]+" $text }}
{{- else if not (regexMatch (printf "^https?://%s(:[1-9][0-9]{0,4})?/?$" $host) $text) }}
{{ $at }}: {{ squote $text }} is not a valid receiver address; use one such as http://receiver.namespace:3000
{{- else if gt (int $port) 65535 }}
{{ $at }}: {{ squote $text }} is not a valid receiver address; use a port up to 65535, for example http://receiver.namespace:3000
{{- else if and $local (has $port (list (include "sidecar.dataPort" $root) (include "sidecar.adminPort" $root))) }}
{{ $at }}: {{ squote $text }} is the sidecar's own listener; use the receiver's address
{{- else if and $local (eq $root.Values.mode "gateway") }}
{{ $at }}: {{ squote $text }} is the gateway's own pod; use the receiver's Service, for example http://receiver.namespace:3000, or `mode: sidecar` for both in one pod
{{- end }}
{{- end }}

{{- /* (list AT VALUE) */ -}}
{{- define "sidecar.check.url" -}}
{{- $text := index . 1 | toString -}}
{{- $rest := regexReplaceAll (printf "^https?://%s" (include "sidecar.hostPattern" .)) $text "" -}}
{{- $port := trimPrefix ":" (regexFind "^:[0-9]{0,9}" $rest) -}}
{{- if or (eq $rest $text) (not (regexMatch "^(:[1-9][0-9]{0,4})?([/?#][!-~]*)?$" $rest)) (gt (int $port) 65535) }}
{{ index . 0 }}: {{ squote $text }} is not a valid URL; use one such as https://hooks.example.com/path
{{- end }}
{{- end }}

{{- define "sidecar.check.duration" -}}
{{- $text := include "sidecar.text" (index . 1) -}}
{{- if or (not (regexMatch "^[0-9]{1,15}(\\.[0-9]{1,15})?[ \t]*(ms|s|m|h)?\\z" $text)) (not (regexMatch "[1-9]" $text)) }}
{{ index . 0 }}: {{ squote $text }} is not a valid duration; use seconds or a unit: 500ms, 30s, 5m, 1h
{{- end }}
{{- end }}

{{- define "sidecar.check.size" -}}
{{- $text := include "sidecar.text" (index . 1) -}}
{{- if or (not (regexMatch "^[0-9]{1,15}(\\.[0-9]{1,15})?[ \t]*(B|[KMG]i?B)?\\z" $text)) (not (regexMatch "^0*[1-9]" $text)) }}
{{ index . 0 }}: {{ squote $text }} is not a valid size; use bytes or a unit: 64KiB, 5MiB, 1GB
{{- end }}
{{- end }}

{{- define "sidecar.check.routes" -}}
{{- $context := . -}}
{{- $names := dict -}}{{- $keys := list -}}
{{- if not .config.routes }}
config.routes: is empty, so nothing would be accepted; add a route, for example config: {upstream: "http://receiver.namespace:3000", routes: [{path: /webhooks/github, verify: github, secrets: [{file: /run/secrets/NAME/KEY}]}]} and existingSecrets: [NAME]
{{- end }}
{{- range $index, $route := .config.routes }}
{{- $at := printf "config.routes[%d]" $index }}
{{- include "sidecar.check.route" (dict "context" $context "at" $at "route" $route) }}
{{- with $route.path }}
{{- $keys = append $keys (printf "%s\t%d\t%d" (trimSuffix "*" .) (ternary 0 1 (hasSuffix "/*" .)) $index) }}
{{- $made := regexReplaceAll "[^A-Za-z0-9._-]+" . "-" | trimAll "-._" | trunc 63 | default "root" }}
{{- $name := $route.name | default $made }}
{{- if hasKey $names $name }}
{{ $at }}.name: this route and {{ get $names $name }} are both named {{ squote $name }}; set `name:` so that each is unique
{{- end }}
{{- $_ := set $names $name $at }}
{{- end }}
{{- end }}
{{- $remember := false }}
{{- range .config.routes }}{{ if hasKey . "replay" }}{{ $remember = true }}{{ end }}{{ end }}
{{- if and $remember (gt (int (default 1 .config.workers)) 1) (eq (toString (default "memory" .config.replay_store)) "memory") }}
config.workers: don't share the replay memory, so a copy may reach another worker; use `replay_store: redis://redis.namespace:6379/0` or `workers: 1`
{{- end }}
{{- $above := "" }}{{ $of := "" }}{{ $prefix := false }}
{{- range sortAlpha $keys }}
{{- $parts := splitList "\t" . }}
{{- $path := index $parts 0 }}
{{- if and $above (or (eq $path $above) (and $prefix (hasPrefix $above $path))) }}
config.routes[{{ index $parts 2 }}].path: overlaps that of config.routes[{{ $of }}]; change one, because receivers may read a path as another one and every path must have one route
{{- else }}
{{- $above = $path }}{{ $of = index $parts 2 }}{{ $prefix = eq (index $parts 1) "0" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sidecar.check.route" -}}
{{- $context := .context -}}{{- $config := $context.config -}}{{- $at := .at -}}{{- $route := .route -}}
{{- if not $route.path }}
{{ $at }}.path: is required
{{- else if not (regexMatch "^/([!\"$-)+->@-~]*/)?\\*?$|^/[!\"$-)+->@-~]*$" $route.path) }}
{{ $at }}.path: {{ squote $route.path }} is not a valid path; begin with '/', escape as in a URL, leave out the query, and use '*' only at the end, after '/'
{{- else if regexMatch "(^|/)\\.{1,2}(/|$)|//" $route.path }}
{{ $at }}.path: {{ squote $route.path }} has empty or dot segments; write the path as senders call it
{{- end }}
{{- if and (hasKey $route "name") (not (regexMatch "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\\z" $route.name)) }}
{{ $at }}.name: {{ squote $route.name }} is not a valid name; use up to 63 letters, digits, '.', '_' and '-', and begin with a letter or digit
{{- end }}
{{- if hasKey $route "upstream" }}
{{- include "sidecar.check.upstream" (list $context (printf "%s.upstream" $at) $route.upstream) }}
{{- else if and (not (hasKey $config "upstream")) (ne $context.root.Values.mode "sidecar") }}
{{ $at }}: has no upstream; set `config.upstream` for all routes or `upstream` for this one, for example http://receiver.namespace:3000
{{- end }}
{{- if hasKey $route "replay" }}
{{- include "sidecar.check.duration" (list (printf "%s.replay" $at) $route.replay) }}
{{- end }}
{{- if hasKey (default dict $route.limits) "body" }}
{{- include "sidecar.check.size" (list (printf "%s.limits.body" $at) $route.limits.body) }}
{{- end }}
{{- range $key := list "allow" "methods" "secrets" }}
{{- if and (hasKey $route $key) (not (get $route $key)) }}
{{ $at }}.{{ $key }}: is an empty list; add an item or remove the key
{{- end }}
{{- end }}
{{- range $index, $network := $route.allow }}
{{- if hasPrefix "preset:" $network }}
{{- if not (has (trimPrefix "preset:" $network) $context.ranges) }}
{{ $at }}.allow[{{ $index }}]: {{ squote $network }} is not a published list of networks; use one of preset:{{ join ", preset:" $context.ranges }}, or list the networks
{{- end }}
{{- else }}
{{- include "sidecar.check.network" (list (printf "%s.allow[%d]" $at $index) $network) }}
{{- end }}
{{- end }}
{{- if hasKey $route "public_url" }}
{{- include "sidecar.check.url" (list (printf "%s.public_url" $at) $route.public_url) }}
{{- end }}
{{- $ids := dict }}
{{- range $index, $secret := $route.secrets }}
{{- $where := printf "%s.secrets[%d]" $at $index }}
{{- include "sidecar.check.secret" (list $context.root $where $secret) }}
{{- $reference := ternary $secret dict (kindIs "map" $secret) }}
{{- $made := $reference.env | default ($reference.file | default "" | toString | base) | toString }}
{{- $id := $reference.id | default (regexReplaceAll "[^A-Za-z0-9._-]" $made "_" | trunc 63) | toString }}
{{- if hasKey $ids $id }}
{{ $where }}: another secret has the id {{ squote $id }} too; set `id:` so that each is unique
{{- end }}
{{- $_ := set $ids $id true }}
{{- end }}
{{- if hasKey $route "verify_token" }}
{{- include "sidecar.check.secret" (list $context.root (printf "%s.verify_token" $at) $route.verify_token) }}
{{- end }}
{{- with $route.sign }}
{{- $needed := false }}
{{- range $index, $secret := include "sidecar.signSecrets" . | fromJsonArray }}
{{- $where := ternary (printf "%s.sign.secret[%d]" $at $index) (printf "%s.sign.secret" $at) (kindIs "slice" $route.sign.secret) }}
{{- include "sidecar.check.secret" (list $context.root $where $secret) }}
{{- if not (and (kindIs "map" $secret) (dig "optional" false (ternary $secret dict (kindIs "map" $secret)))) }}{{ $needed = true }}{{ end }}
{{- end }}
{{- if not $needed }}
{{ $at }}.sign.secret: is optional, and without it nothing would be signed; remove `optional` from one that is always present
{{- end }}
{{- end }}
{{- /* A route verifies something, or says explicitly that it does not. */}}
{{- $scheme := dict }}
{{- if $route.open }}
{{- range $key := list "verify" "secrets" "mode" "sign" "reject" }}
{{- if and (hasKey $route $key) (not (and (eq $key "reject") (hasKey $route "allow"))) }}
{{ $at }}.{{ $key }}: can't be used with `open: true`; remove one of the two
{{- end }}
{{- end }}
{{- else if not (hasKey $route "verify") }}
{{ $at }}: verifies nothing; add `verify` with a preset or a scheme, or `open: true` to forward everything unverified
{{- else if eq (toString $route.verify) "none" }}
{{- if not (hasKey $route "allow") }}
{{ $at }}.verify: none accepts every sender; add `allow` with the networks that may send
{{- end }}
{{- if hasKey $route "secrets" }}
{{ $at }}.secrets: can't be used with `verify: none`; remove them, or use their scheme
{{- end }}
{{- else }}
{{- $scheme = include "sidecar.scheme" (list $context.presets $route.verify) | fromJson }}
{{- if $scheme.unknown }}
{{ $at }}.verify: {{ squote $scheme.unknown }} is not a preset; run `sidecar presets` for the list, or write out a scheme: signature: {header: ...}
{{- $scheme = dict }}
{{- else }}
{{- if kindIs "map" $route.verify }}
{{- include "sidecar.check.scheme" (list (printf "%s.verify" $at) $scheme) }}
{{- end }}
{{- if not (hasKey $route "secrets") }}
{{ $at }}: has no secrets; add `secrets: [{file: /run/secrets/NAME/KEY}]`, with the Secret's name in existingSecrets: [NAME]
{{- end }}
{{- if regexMatch "\\{url(_without_query)?\\}" (default "" $scheme.signed) }}
{{- if not (or $route.public_url $config.public_url) }}
{{ $at }}.verify: signs the URL that senders use, which is unknown; add `public_url: https://your.host` here or for all routes
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $bearer := has (dig "signature" "kind" "hmac" $scheme) (list "token" "basic") }}
{{- if hasKey $route "replay" }}
{{- if or (not $scheme) $bearer }}
{{ $at }}.replay: needs a signature, because nothing else tells a replayed delivery from a similar one; remove it
{{- end }}
{{- else if hasKey $route "replay_fail_open" }}
{{ $at }}.replay_fail_open: can't be used without `replay`; remove it, or add `replay: 10m`
{{- end }}
{{- if and (hasKey $route "handshake") (not $scheme.handshake) }}
{{ $at }}.handshake: is not used, because the scheme has no handshake; remove it
{{- end }}
{{- if hasKey $route "verify_token" }}
{{- $token := false }}
{{- range $scheme.handshake }}
{{- if or .compare (contains "{token}" (dig "computed" "of" "" .)) }}{{ $token = true }}{{ end }}
{{- end }}
{{- if not $token }}
{{ $at }}.verify_token: is not used, because the scheme has no handshake with a token; remove it
{{- end }}
{{- end }}
{{- end }}

{{- /* The secrets of a route's `sign:` as a JSON list, also if a single one is given without a list. */ -}}
{{- define "sidecar.signSecrets" -}}
{{- kindIs "slice" .secret | ternary .secret (list .secret) | toJson -}}
{{- end }}

{{- /* A reference to a secret: (list root AT REFERENCE). Anything else may be the secret itself, and is not repeated. */ -}}
{{- define "sidecar.check.secret" -}}
{{- $values := (index . 0).Values -}}{{- $at := index . 1 -}}{{- $secret := index . 2 -}}
{{- $inline := "holds the secret itself; move it out of the values and refer to it: {file: /run/secrets/NAME/KEY}, with the Secret's name in existingSecrets: [NAME]" -}}
{{- $wrong := "" -}}
{{- if not (kindIs "map" $secret) -}}
{{- $wrong = $inline -}}
{{- else -}}
{{- range $key, $value := $secret -}}
{{- if has $key (list "value" "secret" "key" "inline" "plain" "text" "literal") -}}
{{- $wrong = $inline -}}
{{- else if not (has $key (list "id" "env" "file" "optional" "retire_by")) -}}
{{- $wrong = printf "has the unknown key %s; known keys are id, env, file, optional, retire_by" $key -}}
{{- else if ne (kindOf $value) (ternary "bool" "string" (eq $key "optional")) -}}
{{- $wrong = printf "%s must be %s" $key (ternary "true or false" "text; quote it" (eq $key "optional")) -}}
{{- else if and (has $key (list "env" "file")) (not (trim $value)) -}}
{{- $wrong = printf "%s is empty; set a value or remove the key" $key -}}
{{- else if and (eq $key "id") (not (regexMatch "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\\z" $value)) -}}
{{- $wrong = printf "id: '%s' is not a valid name; use up to 63 letters, digits, '.', '_' and '-', and begin with a letter or digit" $value -}}
{{- end -}}
{{- end -}}
{{- if and (not $wrong) (eq (hasKey $secret "env") (hasKey $secret "file")) -}}
{{- $wrong = "needs exactly one of env and file; for example {file: /run/secrets/NAME/KEY}" -}}
{{- end -}}
{{- end -}}
{{- if $wrong }}
{{ $at }}: {{ $wrong }}
{{- else }}
{{- with $secret.file }}
{{- $mounted := false }}
{{- range $values.existingSecrets }}
{{- if hasPrefix (printf "/run/secrets/%s/" .) $secret.file }}{{ $mounted = true }}{{ end }}
{{- end }}
{{- range $values.extraVolumeMounts }}
{{- if or (eq .mountPath $secret.file) (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $secret.file) }}{{ $mounted = true }}{{ end }}
{{- end }}
{{- if and (not $mounted) (regexMatch "^/run/secrets/[^/]+/[^/]+$" .) }}
{{ $at }}.file: {{ squote . }} is in a Secret that is not mounted; add its name: existingSecrets: [{{ . | dir | base }}]
{{- else if not $mounted }}
{{ $at }}.file: {{ squote . }} is not on a volume; use /run/secrets/NAME/KEY, with the Secret's name in existingSecrets: [NAME]
{{- end }}
{{- end }}
{{- if hasKey $secret "retire_by" }}
{{- if ne $secret.retire_by ($secret.retire_by | toDate "2006-01-02" | date "2006-01-02") }}
{{ $at }}.retire_by: {{ squote $secret.retire_by }} is not a valid day; use the form 2026-12-31
{{- end }}
{{- end }}
{{- with $secret.env }}
{{- $names := list }}
{{- range $values.extraEnv }}{{ $names = append $names .name }}{{ end }}
{{- if not (or $secret.optional $values.extraEnvFrom (has . $names)) }}
{{ $at }}.env: the variable {{ . }} is not set; add it to extraEnv: [{name: {{ . }}, valueFrom: {secretKeyRef: {name: NAME, key: KEY}}}], or use a file, which can change without a restart
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The scheme of `verify:` as JSON, with a preset's keys filled in: (list presets VERIFY). */ -}}
{{- define "sidecar.scheme" -}}
{{- $presets := index . 0 -}}{{- $verify := index . 1 -}}
{{- $name := ternary $verify "" (kindIs "string" $verify) | toString -}}
{{- $changes := dict -}}
{{- if kindIs "map" $verify -}}
{{- $name = default "" $verify.preset | toString -}}
{{- $changes = omit $verify "preset" -}}
{{- end -}}
{{- $places := list "header" "field" "tag" "first" -}}
{{- $scheme := dict -}}
{{- if and $name (not (hasKey $presets $name)) -}}
{{- $_ := set $scheme "unknown" $name -}}
{{- else -}}
{{- if $name -}}{{- $scheme = deepCopy (get $presets $name) -}}{{- end -}}
{{- range $key, $value := $changes -}}
{{- if and (has $key (list "signature" "timestamp")) (hasKey $scheme $key) -}}
{{- $base := get $scheme $key -}}
{{- range $places -}}
{{- if hasKey $value . -}}{{- $base = omit $base "header" "field" "tag" "first" -}}{{- end -}}
{{- end -}}
{{- $_ := set $scheme $key (mergeOverwrite (dict) $base $value) -}}
{{- else -}}
{{- $_ := set $scheme $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $scheme -}}
{{- end }}

{{- /* A custom scheme, or a preset with changes: (list AT SCHEME). */ -}}
{{- define "sidecar.check.scheme" -}}
{{- $at := index . 0 -}}{{- $scheme := index . 1 -}}
{{- $signature := default dict $scheme.signature -}}
{{- $kind := default "hmac" $signature.kind -}}
{{- $signed := default "{body}" $scheme.signed -}}
{{- $bearer := has $kind (list "token" "basic") -}}
{{- $public := has $kind (list "ed25519" "ecdsa-p256-sha256" "rsa-pkcs1" "rsa-pss") -}}
{{- $forms := list "utf8" "hex" "base64" "whsec" "sha256" "nfkd" "after-colon" -}}
{{- if $public }}{{ $forms = ternary (list "pem" "hex" "base64") (list "pem") (eq $kind "ed25519") }}{{ end -}}
{{- if eq $kind "basic" }}{{ $forms = list "utf8" "nfkd" }}{{ end -}}
{{- $key := default (first $forms) $scheme.key -}}
{{- if eq (hasKey $signature "header") (hasKey $signature "field") }}
{{ $at }}.signature: needs exactly one of header and field; for example {header: X-Signature}
{{- end }}
{{- range $name := list "also" "list" "repeated" }}
{{- if and (hasKey $signature "field") (get $signature $name) }}
{{ $at }}.signature.{{ $name }}: can't be used with `field`; remove one of the two
{{- end }}
{{- end }}
{{- if and $bearer $signature.list }}
{{ $at }}.signature.list: can't be used with `kind: {{ $kind }}`; remove it
{{- end }}
{{- /* What is signed. */}}
{{- $places := list }}
{{- range regexFindAll "\\{[^{}]*\\}" $signed -1 }}
{{- $name := trimAll "{}" . }}
{{- $places = append $places $name }}
{{- $known := has $name (list "body" "timestamp" "method" "url" "url_without_query" "path_query" "host" "form_sorted" "body_sha256_b64" "body_sha512_b64" "secret" "id") }}
{{- if not (or $known (regexMatch "^header:[!#$%&'*+.^_`|~0-9A-Za-z-]+$|^json:[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$" $name)) }}
{{ $at }}.signed: has the unknown placeholder {{ . }}; known are {body}, {timestamp}, {method}, {url}, {url_without_query}, {path_query}, {host}, {form_sorted}, {body_sha256_b64}, {body_sha512_b64}, {secret}, {id}, {header:NAME} and {json:PATH}
{{- end }}
{{- end }}
{{- if regexMatch "[{}]" (regexReplaceAll "\\{[^{}]*\\}" $signed "") }}
{{ $at }}.signed: has a brace outside a placeholder; write {body}, {timestamp} or {header:NAME}
{{- end }}
{{- if and (has "id" $places) (not $scheme.delivery_id) }}
{{ $at }}.signed: signs {id}, but there is no delivery_id: section; add one that names its header
{{- end }}
{{- $bound := hasKey $scheme "body_hash" }}
{{- range $name := list "body" "form_sorted" "body_sha256_b64" "body_sha512_b64" }}
{{- if has $name $places }}{{ $bound = true }}{{ end }}
{{- if gt (sub (len $places) (len (without $places $name))) 1 }}
{{ $at }}.signed: has {{ printf "{%s}" $name }} several times; use it once
{{- end }}
{{- end }}
{{- $binds := true }}{{ if hasKey $scheme "binds_body" }}{{ $binds = $scheme.binds_body }}{{ end }}
{{- if $bearer }}
{{- if ne $signed "{body}" }}
{{ $at }}.signed: can't be used with `kind: {{ $kind }}`, which signs nothing; remove it
{{- end }}
{{- else }}
{{- if and $binds (not $bound) }}
{{ $at }}.signed: must contain {body}, or the body would not be signed; use for example '{timestamp}.{body}', or `binds_body: false` if the provider really signs no part of the body
{{- end }}
{{- if and $bound (not $binds) }}
{{ $at }}.binds_body: is false, but the body is part of the signed message; remove it
{{- end }}
{{- range $name := list "any_port" "url_unescaped" "body_hash" }}
{{- if and (get $scheme $name) (not (has "url" $places)) }}
{{ $at }}.{{ $name }}: can't be used without {url} in `signed`; remove it
{{- end }}
{{- end }}
{{- end }}
{{- /* The clock. */}}
{{- $clock := $scheme.timestamp }}
{{- $in_body := and $clock (hasKey $clock "field") }}
{{- if and (has "timestamp" $places) (or (not $clock) $in_body) }}
{{ $at }}.signed: contains {timestamp}; add a `timestamp` section with its header or tag
{{- end }}
{{- if hasKey $scheme "timestamp" }}
{{- $there := 0 }}
{{- range $name := list "header" "tag" "first" "field" }}
{{- if hasKey $clock $name }}{{ $there = add1 $there }}{{ end }}
{{- end }}
{{- if ne (int $there) 1 }}
{{ $at }}.timestamp: needs exactly one of header, tag, first and field; for example {header: X-Timestamp}
{{- end }}
{{- $held := has "timestamp" $places }}
{{- if $in_body }}{{ $held = or (has "body" $places) (has (printf "json:%s" $clock.field) $places) }}{{ end }}
{{- if or $bearer (not $held) }}
{{ $at }}.timestamp: is not signed, so anyone could change it; add {{ ternary (printf "{body} or {json:%s}" (default "" $clock.field)) "{timestamp}" (not (not $in_body)) }} to `signed`, or remove the section
{{- end }}
{{- if and (or $clock.tag $clock.first) (not $signature.list) }}
{{ $at }}.timestamp: is an item of a list; add a `list` section to `signature`
{{- end }}
{{- end }}
{{- /* The key. */}}
{{- if and (has "secret" $places) (ne $kind "hash") }}
{{ $at }}.signed: can't contain {secret} with `kind: {{ $kind }}`; remove it
{{- end }}
{{- if and (eq $kind "hash") (not (has "secret" $places)) }}
{{ $at }}.signed: must contain {secret}, or anyone could make the hash; use for example '{secret}{body}'
{{- end }}
{{- if not (has $key $forms) }}
{{ $at }}.key: {{ $key }} can't be used with `kind: {{ $kind }}`; use {{ if rest $forms }}{{ join ", " (initial $forms) }} or {{ end }}{{ last $forms }}
{{- end }}
{{- /* Handshakes. */}}
{{- range $index, $shape := $scheme.handshake }}
{{- $where := printf "%s.handshake[%d]" $at $index }}
{{- $request := default dict $shape.request }}
{{- if and (not $shape.signed) (or $request.json (dig "challenge" "json" "" $shape) (kindIs "map" $shape.compare | ternary (dig "compare" "json" "" $shape) "")) }}
{{ $where }}: needs the body, which is read of verified requests only; add `signed: true`
{{- end }}
{{- if and $shape.answer (not $shape.signed) (not $shape.challenge) (not (has (default "" $request.method) (list "GET" "HEAD"))) }}
{{ $where }}.request: would also match deliveries; add a challenge, or `method: GET` or HEAD
{{- end }}
{{- if and $shape.computed (not (dig "challenge" "pattern" "" $shape)) }}
{{ $where }}.challenge: would let the sender choose what is signed; add a `pattern` that no delivery's signed message can match
{{- end }}
{{- with $shape.answer }}
{{- if and .text .json }}
{{ $where }}.answer.json: can't be used with `text`, because a response has one body; remove one of the two
{{- end }}
{{- end }}
{{- with dig "challenge" "pattern" "" $shape }}
{{- $_ := mustRegexMatch . "" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A network without host bits: (list AT VALUE). */ -}}
{{- define "sidecar.check.network" -}}
{{- $at := index . 0 -}}{{- $text := index . 1 | toString -}}
{{- $address := splitList "/" $text | first -}}
{{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" -}}
{{- if regexMatch (printf "^(%s\\.){3}%s(/(3[0-2]|[12]?[0-9]))?\\z" $byte $byte) $text -}}
{{- $bits := ternary (splitList "/" $text | last | int) 32 (contains "/" $text) -}}
{{- $number := 0 -}}
{{- range splitList "." $address }}{{ $number = add (mul $number 256) (int .) }}{{ end -}}
{{- $size := 1 -}}
{{- range until (int (sub 32 $bits)) }}{{ $size = mul $size 2 }}{{ end -}}
{{- $network := sub $number (mod $number $size) -}}
{{- if ne (int64 $network) (int64 $number) }}
{{ $at }}: {{ squote $text }} has host bits set; use '{{ div $network 16777216 }}.{{ mod (div $network 65536) 256 }}.{{ mod (div $network 256) 256 }}.{{ mod $network 256 }}/{{ $bits }}'
{{- end }}
{{- else if and (regexMatch "^[0-9A-Fa-f:]+(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?\\z" $text) (contains ":" $text) -}}
{{- $bits := ternary (splitList "/" $text | last | int) 128 (contains "/" $text) -}}
{{- $halves := splitList "::" $address -}}
{{- $left := first $halves | splitList ":" -}}{{- $right := list -}}
{{- if gt (len $halves) 1 -}}
{{- $left = $left | compact -}}
{{- $right = last $halves | splitList ":" | compact -}}
{{- end -}}
{{- $missing := sub (sub 8 (len $left)) (len $right) | int -}}
{{- $groups := concat $left -}}
{{- if and (eq (len $halves) 2) (gt $missing 0) -}}
{{- range until $missing }}{{ $groups = append $groups "0" }}{{ end -}}
{{- end -}}
{{- $groups = concat $groups $right -}}
{{- $digits := "" -}}{{- $right_form := not (regexMatch ":::|^:[^:]|[^:]:$" $address) -}}
{{- if ne (len $groups) 8 }}{{ $right_form = false }}{{ end -}}
{{- if and (eq (len $halves) 2) (lt $missing 1) }}{{ $right_form = false }}{{ end -}}
{{- range $groups -}}
{{- if not (regexMatch "^[0-9A-Fa-f]{1,4}$" .) }}{{ $right_form = false }}{{ end -}}
{{- $digits = printf "%s%s" $digits (trunc -4 (printf "0000%s" (lower .))) -}}
{{- end -}}
{{- if not $right_form }}
{{ $at }}: {{ squote $text }} is not a valid network; use one such as 203.0.113.0/24 or 2001:db8::/32
{{- else -}}
{{- $whole := div $bits 4 | int -}}
{{- $rest := substr $whole 32 $digits -}}
{{- $set := false -}}
{{- if mod $bits 4 -}}
{{- $values := dict "0" 0 "1" 1 "2" 2 "3" 3 "4" 4 "5" 5 "6" 6 "7" 7 "8" 8 "9" 9 "a" 10 "b" 11 "c" 12 "d" 13 "e" 14 "f" 15 -}}
{{- $size := index (list 16 8 4 2) (mod $bits 4 | int) -}}
{{- if mod (get $values (substr 0 1 $rest)) $size }}{{ $set = true }}{{ end -}}
{{- $rest = substr 1 (len $rest) $rest -}}
{{- end -}}
{{- if or $set (regexMatch "[^0]" $rest) }}
{{ $at }}: {{ squote $text }} has host bits set; use the network's own address before the slash
{{- else if and (hasPrefix "00000000000000000000ffff" $digits) (ge $bits 96) }}
{{ $at }}: {{ squote $text }} is an IPv4-mapped IPv6 network; use the IPv4 network
{{- end }}
{{- end }}
{{- else }}
{{ $at }}: {{ squote $text }} is not a valid network; use one such as 203.0.113.0/24 or 2001:db8::/32
{{- end }}
{{- end }}

{{- define "sidecar.check.objects" -}}
{{- $volumes := dict }}
{{- range .Values.existingSecrets }}
{{- $volume := include "sidecar.secretVolume" . }}
{{- if hasKey $volumes $volume }}
existingSecrets: {{ . }} and {{ get $volumes $volume }} would use the same volume, {{ $volume }}; rename one of the Secrets
{{- end }}
{{- $_ := set $volumes $volume . }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
ingress.hosts: is empty; add the host that senders use, for example [hooks.example.com]
{{- end }}
{{- if gt (len (include "sidecar.config" .)) 1000000 }}
config: is larger than a ConfigMap can be, 1 MB; split the routes between two releases
{{- end }}
{{- if .Values.httpRoute.enabled }}
{{- if gt (len (include "sidecar.publicPaths" . | trim | splitList "\n")) 128 }}
httpRoute.enabled: an HTTPRoute can have 128 paths, and config.routes has more; set it to false and add your own HTTPRoute for a common prefix (extraObjects)
{{- end }}
{{- if not .Values.httpRoute.parentRefs }}
httpRoute.parentRefs: is empty; add the Gateway, for example [{name: public, namespace: gateways}]
{{- end }}
{{- end }}
{{- if and (or .Values.ingress.enabled .Values.httpRoute.enabled) (not (include "sidecar.publicPaths" .)) }}
config.routes: are all open, so an Ingress or HTTPRoute would have no path; set ingress.enabled and httpRoute.enabled to false
{{- end }}
{{- if .Values.autoscaling.enabled }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
autoscaling.minReplicas: is more than maxReplicas; change one of the two
{{- end }}
{{- if not (dig "requests" "cpu" "" .Values.resources) }}
resources.requests.cpu: is required, because autoscaling.targetCPU is a percentage of it; set it, for example 50m
{{- end }}
{{- end }}
{{- $drain := include "sidecar.seconds" (default "20s" .Values.config.drain) | int }}
{{- with .Values.terminationGracePeriodSeconds }}
{{- if le (int .) $drain }}
terminationGracePeriodSeconds: {{ . }} is not more than config.drain ({{ $drain }} s), so deliveries would be cut off; use at least {{ add $drain 10 }}, or leave it out
{{- end }}
{{- end }}
{{- if and (ne .Values.mode "library") (or .Values.serviceMonitor.enabled) .Values.podMonitor.enabled }}
podMonitor.enabled: can't be used with serviceMonitor.enabled, because every sample would be counted twice; set one of them to false
{{- end }}
{{- if and (eq .Values.mode "library") (or .Values.serviceMonitor.enabled .Values.ingress.enabled .Values.httpRoute.enabled .Values.autoscaling.enabled) }}
mode: library makes no Service and no pods, so serviceMonitor, ingress, httpRoute and autoscaling can't be used; set them to false, and use podMonitor
{{- end }}
{{- if .Values.admissionPolicy.enabled }}
{{- if ne .Values.mode "library" }}
admissionPolicy.enabled: needs `mode: library`; this mode makes its own pods
{{- else if not .Values.nativeSidecar }}
nativeSidecar: is false, but admissionPolicy.enabled injects native sidecars; set one of them to its default
{{- else if semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version }}
admissionPolicy.enabled: needs Kubernetes 1.36 or newer, but this is {{ .Capabilities.KubeVersion.Version }}; use `sidecar inject` or the named templates
{{- end }}
{{- end }}
{{- end }}

{{- define "sidecar.check.tests" -}}
{{- $ids := list }}
{{- range (default dict .Values.config.delivery_test).accounts }}{{ $ids = append $ids .id }}{{ end }}
{{- range $key := list "accepted" "refused" }}
{{- range get $.Values.tests $key }}
{{- if not (has . $ids) }}
tests.{{ $key }}: {{ squote . }} is not an account of config.delivery_test.accounts; {{ ternary (printf "use one of %s" (join ", " $ids)) "add it there" (gt (len $ids) 0) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq .Values.mode "library" }}
{{- if and (or .Values.tests.accepted .Values.tests.refused) (not (and .Values.tests.url .Values.tests.podSelector)) }}
tests: accepted and refused need the admin listener of pods that this mode does not make; set tests.url and tests.podSelector
{{- end }}
{{- else if or .Values.tests.url .Values.tests.podSelector }}
tests: url and podSelector can't be used with this mode, which knows its own pods; remove them
{{- end }}
{{- if and .Values.tests.enabled .Values.tests.route (not (include "sidecar.tests.route" .)) }}
tests.route: no route {{ squote .Values.tests.route }} verifies a signature that can be made here (a public key can't sign) and accepts POST; use another route, or none
{{- end }}
{{- end }}
