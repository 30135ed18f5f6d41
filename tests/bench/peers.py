"""Configures and starts each proxy of the benchmark. `go`, `haproxy` and `njs` verify a signature like the sidecar; `envoy`,
`caddy` and `traefik` only forward, so they do less.
"""

import json
import os
import socket
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

from measure import KEY, PATH, free_port

HERE = Path(__file__).parent
VERIFYING = ("go", "haproxy", "njs")
PEERS = (*VERIFYING, "envoy", "caddy", "traefik")

NGINX = """
worker_processes 1; daemon off; pid {work}/{name}.pid; error_log {work}/{name}.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_max_body_size 64m; client_body_buffer_size 32m;
  {inside}
}}
"""
RECEIVER = """server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{{"status":"ok"}}'; }} }}"""
NJS = """
js_path {work}/; js_import verify.js;
upstream receiver {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
server {{
  listen 127.0.0.1:{port};
  location / {{ js_content verify.check; }}
  location @receiver {{ proxy_http_version 1.1; proxy_set_header Connection ''; proxy_pass http://receiver; }}
}}
"""
# Its njs has no SHA-512.
VERIFY_JS = """
import c from 'crypto';
function check(r) {
  var mac = c.createHmac('sha256', '%s').update(r.requestBuffer || '').digest('hex');
  if (r.headersIn['X-Sig256'] !== mac) { r.return(403); return; }
  r.internalRedirect('@receiver');
}
export default {check};
"""
SIDECAR = """
listen: 127.0.0.1:{port}
admin: 127.0.0.1:{admin}
upstream: http://127.0.0.1:{upstream}
log: {{accepted: {logged}, level: {level}}}
limits: {{body: 32MiB, buffer: {buffer}}}
workers: {workers}
{store}routes:
"""
HAPROXY = """
global
  nbthread 1
  maxconn 4000
  tune.bufsize 1200000
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
frontend senders
  bind 127.0.0.1:{port}
  http-request wait-for-body time 5s
  http-request set-var(txn.key) str("{key}")
  http-request set-var(txn.mac) req.body,hmac(sha512,txn.key),hex
  http-request deny status 403 unless {{ req.hdr(x-signature),upper,strcmp(txn.mac) eq 0 }}
  default_backend receiver
backend receiver
  http-reuse always
  server receiver 127.0.0.1:{upstream}
"""
CADDY = """
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  reverse_proxy 127.0.0.1:{upstream} {{
    transport http {{
      keepalive_idle_conns_per_host 1024
    }}
  }}
}}
"""
TRAEFIK = """
entryPoints: {{senders: {{address: '127.0.0.1:{port}'}}}}
providers: {{file: {{filename: {work}/traefik-routes.yml}}}}
serversTransport: {{maxIdleConnsPerHost: 1024}}
log: {{level: ERROR}}
"""
TRAEFIK_ROUTES = """
http:
  routers: {{all: {{rule: 'PathPrefix(`/`)', service: receiver, entryPoints: [senders]}}}}
  services: {{receiver: {{loadBalancer: {{servers: [{{url: 'http://127.0.0.1:{upstream}'}}]}}}}}}
"""
ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: senders
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: receiver}}}}]}}]}}
          http_filters:
          - {{name: buffer, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 33554432}}}}
          - {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
  clusters:
  - name: receiver
    type: STATIC
    load_assignment: {{cluster_name: receiver, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]}}
"""


class Proxies:
    """Commands for every proxy, all in front of the same receiver."""

    def __init__(self, work: Path, upstream: int, peers: Path) -> None:
        """`peers` is the environment in which Caddy, Envoy and Traefik are installed."""
        self.work = work
        self.upstream = upstream
        self.peers = peers

    def write(self, name: str, text: str) -> str:
        file = self.work / name
        file.write_text(text)
        return str(file)

    def nginx(self, name: str, inside: str) -> list[str]:
        text = NGINX.format(work=self.work, name=name, inside=inside)
        if name == "njs":
            text = "load_module modules/ngx_http_js_module.so;" + text
        return ["nginx", "-c", self.write(f"{name}.conf", text)]

    def receiver(self) -> list[str]:
        return self.nginx("receiver", RECEIVER.format(port=self.upstream))

    def check_receiver(self) -> None:
        """Without this every proxy would only be measured rejecting."""
        try:
            socket.create_connection(("127.0.0.1", self.upstream), timeout=5).close()
        except OSError as error:
            raise SystemExit(f"the receiver has gone: {error}") from None

    def command(self, name: str, port: int, **options: Any) -> tuple[list[str], dict[str, str]]:
        """The command and environment of a proxy that listens on `port`. Options are the sidecar's."""
        if name.startswith("sidecar"):
            return self.sidecar(name, port, **({"logged": name == "sidecar, log on"} | options)), {
                "BENCH_KEY": KEY.decode()
            }
        fill = {"port": port, "upstream": self.upstream, "work": self.work, "key": b64encode(KEY).decode()}
        if name == "haproxy":
            return ["haproxy", "-db", "-f", self.write("haproxy.cfg", HAPROXY.format(**fill))], {}
        if name == "njs":
            self.write("verify.js", VERIFY_JS % KEY.decode())
            return self.nginx(name, NJS.format(**fill)), {}
        if name == "direct":
            return self.nginx(name, RECEIVER.format(port=port)), {}
        one_core = {"GOMAXPROCS": "1"}
        if name == "go":
            return [self.goproxy(), f"127.0.0.1:{port}", f"http://127.0.0.1:{self.upstream}", KEY.decode()], one_core
        program = str(self.peers / "bin" / name)
        if name == "caddy":
            caddyfile = self.write("Caddyfile", CADDY.format(**fill))
            return [program, "run", "--adapter", "caddyfile", "--config", caddyfile], one_core
        if name == "traefik":
            self.write("traefik-routes.yml", TRAEFIK_ROUTES.format(**fill))
            return [program, "--configFile=" + self.write("traefik.yml", TRAEFIK.format(**fill))], one_core
        envoy = self.write("envoy.yaml", ENVOY.format(**fill))
        return [program, "--concurrency", "1", "-l", "error", "--base-id", str(port), "-c", envoy], {}

    def sidecar(
        self,
        name: str,
        port: int,
        *,
        logged: bool = False,
        routes: int = 1,
        networks: int = 1,
        replay: str = "",
        level: str = "info",
        workers: int = 1,
        buffer: str = "256MiB",
        verify: dict[str, Any] | None = None,
        mirrors: dict[str, str] | None = None,
    ) -> list[str]:
        """Deliveries go to the last of `routes`, whose allowlist has `networks`; the last of these is loopback. `replay` is a
        store.

        `verify` is a scheme whose keys are published, at `mirrors`.
        """
        text = SIDECAR.format(
            port=port,
            admin=free_port(),
            upstream=self.upstream,
            logged=str(logged).lower(),
            buffer=buffer,
            workers=workers,
            level=level,
            store=f"replay_store: {replay}\n" if replay else "",
        )
        if mirrors is not None:
            text = f"keys: {json.dumps({'mirrors': mirrors})}\n{text}"
        for number in range(routes):
            path = PATH if number == routes - 1 else f"/hooks/r{number}"
            text += f"  - path: {path}\n    verify: {json.dumps(verify) if verify else 'begini'}\n"
            text += "" if verify else "    secrets: [{id: current, env: BENCH_KEY}]\n"
            text += "    replay: 10m\n" if replay else ""
        allowed = [f"{16 + at // 32768}.{at // 128 % 256}.{at % 128 * 2}.0/24" for at in range(networks - 1)]
        text += f"    allow: [{', '.join([*allowed, '127.0.0.0/8'])}]\n" if networks else ""
        return [sys.executable, "-m", "sidecar", "serve", "--config", self.write(f"{name}.yaml", text)]

    def goproxy(self) -> str:
        made = self.work / "goproxy"
        if not made.exists():
            source = str(HERE / "goproxy" / "main.go")
            subprocess.run(["go", "build", "-o", made, source], check=True, env=os.environ | {"GO111MODULE": "off"})
        return str(made)
