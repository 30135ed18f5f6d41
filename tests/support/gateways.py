"""Real gateways in front of an authorizer and a receiver: Envoy, Traefik, Caddy, nginx.

Each uses the configuration from docs/scale.md. Envoy, Traefik and Caddy come from PyPI (.venv/engines), nginx from Debian.
"""

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from needs import ROOT, needs
from ports import free_port
from waiting import until

ENGINES = ROOT / ".venv/engines/bin"
#: The largest body that the gateways send along, bytes.
BUFFER = 2 * 1024 * 1024
ENVOY_TYPES = "type.googleapis.com/envoy.extensions.filters"

Settings = dict[str, Any]


def cluster(name: str, addresses: Sequence[str], **more: Any) -> Settings:
    """An Envoy cluster with fixed endpoints `HOST:PORT`."""
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, port in (address.rsplit(":", 1) for address in addresses)
    ]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment} | more


def ext_authz(*, body: bool = True, headers: bool = True, prefix: str = "", **more: Any) -> Settings:
    """The filter from docs/scale.md, without the parts that the arguments leave out."""
    patterns = [{"prefix": "x-"}, {"prefix": "webhook-"}, {"exact": "content-type"}]
    service: Settings = {
        "server_uri": {"uri": "http://authorizer", "cluster": "authorizer", "timeout": "5s"},
        "path_prefix": prefix,
        "authorization_request": {"allowed_headers": {"patterns": patterns if headers else [{"exact": "user-agent"}]}},
        "authorization_response": {
            "allowed_upstream_headers": {"patterns": [{"prefix": "x-webhook-"}, {"prefix": "webhook-"}]}
        },
    }
    made: Settings = {
        "@type": f"{ENVOY_TYPES}.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "http_service": service,
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
    }
    if body:
        made["with_request_body"] = {"max_request_bytes": BUFFER, "allow_partial_message": False}
    return made | more


class Gateway:
    """A running gateway; `address` is where senders reach it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.name = ""  #: the program's

    def run(self, *command: str, env: Settings | None = None) -> "Gateway":
        self.log = self.directory / "gateway.log"
        self.name = Path(command[0]).name
        self._command, self._env = command, env
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | (env or {}),
                cwd=self.directory,
            )
        try:
            until(self._listens, f"the start of {command[0]}", 30)
        except AssertionError as late:
            self.stop()
            raise AssertionError(self.log.read_text()[-2000:]) from late
        return self

    def restart(self) -> None:
        """Stops it and starts it again, like an operator."""
        self.stop()
        self.run(*self._command, env=self._env)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)


def envoy(
    directory: Path,
    authorizers: Sequence[str],
    receiver: str,
    *,
    filter_: Settings | None = None,
    asks: bool = True,
    **of_cluster: Any,
) -> Gateway:
    """`filter_` is the configuration of the ext_authz filter, and `of_cluster` that of the authorizers' cluster. Without `asks`
    there is no filter.
    """
    program = needs(ENGINES / "envoy")
    gateway = Gateway(directory)
    router = {"@type": f"{ENVOY_TYPES}.http.router.v3.Router"}
    manager = {
        "@type": f"{ENVOY_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "senders",
        "use_remote_address": True,
        "common_http_protocol_options": {"headers_with_underscores_action": "ALLOW"},
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"]}
                | {"routes": [{"match": {"prefix": "/"}, "route": {"cluster": "receiver", "timeout": "20s"}}]}
            ]
        },
        "http_filters": [
            *([{"name": "authorize", "typed_config": filter_ or ext_authz()}] if asks else []),
            {"name": "router", "typed_config": router},
        ],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": gateway.port}}
    filters = [{"filters": [{"name": "http", "typed_config": manager}]}]
    clusters = [cluster("receiver", [receiver]), cluster("authorizer", authorizers, **of_cluster)]
    config = {"static_resources": {"listeners": [{"address": address, "filter_chains": filters}], "clusters": clusters}}
    file = directory / "envoy.json"
    file.write_text(json.dumps(config))
    options = ("--concurrency", "1", "-l", "warning", "--disable-hot-restart", "--drain-time-s", "1")
    return gateway.run(program, *options, "-c", str(file)) if program else gateway


def traefik(
    directory: Path, authorizer: str, receiver: str, *, body: bool = True, middleware: Settings | None = None
) -> Gateway:
    """`middleware` is the configuration of forwardAuth, without its address."""
    program = needs(ENGINES / "traefik")
    gateway = Gateway(directory)
    forward: Settings = {
        "address": f"http://{authorizer}/question",
        "authResponseHeadersRegex": "(?i)^(x-webhook-|webhook-)",
    }
    if middleware is not None:
        forward = middleware | {"address": forward["address"]}
    elif body:
        forward |= {"forwardBody": True, "maxBodySize": BUFFER}
    servers = {"receiver": {"loadBalancer": {"servers": [{"url": f"http://{receiver}"}]}}}
    router = {
        "rule": "PathPrefix(`/`)",
        "service": "receiver",
        "entryPoints": ["senders"],
        "middlewares": ["authorize"],
    }
    http = {"routers": {"all": router}, "middlewares": {"authorize": {"forwardAuth": forward}}, "services": servers}
    routes = directory / "routes.yml"
    routes.write_text(json.dumps({"http": http}))
    static = {
        "entryPoints": {"senders": {"address": gateway.address}},
        "providers": {"file": {"filename": str(routes)}},
        "log": {"level": "ERROR"},
    }
    file = directory / "traefik.yml"
    file.write_text(json.dumps(static))
    gateway.run(program, f"--configFile={file}")
    until(lambda: not _answers(gateway, b"404 page not found"), "Traefik's routes")
    return gateway


def _answers(gateway: Gateway, text: bytes) -> bool:
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: hooks.test\r\nConnection: close\r\n\r\n")
        return text in b"".join(iter(lambda: client.recv(4096), b""))


CADDY = """{{
  admin off
  auto_https off
}}
http://:{port} {{
  bind 127.0.0.1
  forward_auth {authorizer} {{
    uri /question
    copy_headers X-Webhook-Verified X-Webhook-Secret-Id X-Webhook-Client
  }}
  reverse_proxy {receiver}
}}
"""


def caddy(directory: Path, authorizer: str, receiver: str) -> Gateway:
    program = needs(ENGINES / "caddy")
    gateway = Gateway(directory)
    file = directory / "Caddyfile"
    file.write_text(CADDY.format(port=gateway.port, authorizer=authorizer, receiver=receiver))
    home = {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    return gateway.run(program, "run", "--adapter", "caddyfile", "--config", str(file), env=home)


NGINX = """daemon off; error_log {directory}/error.log; pid {directory}/pid; events {{}}
http {{
  access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{
    listen {address};
    client_max_body_size 8m;
    location / {{
      auth_request /question;
      auth_request_set $verified $upstream_http_x_webhook_verified;
      proxy_set_header X-Webhook-Verified $verified;
      proxy_pass http://{receiver};
    }}
    location = /question {{
      internal;
      proxy_pass http://{authorizer};
      proxy_set_header X-Forwarded-Method $request_method;
      proxy_set_header X-Forwarded-Uri $request_uri;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      {body}
    }}
  }}
}}
"""


def nginx(directory: Path, authorizer: str, receiver: str, *, announces_body: bool = False) -> Gateway:
    """`announces_body`: the configuration of people who expect it to send bodies."""
    program = needs("nginx")
    gateway = Gateway(directory)
    file = directory / "nginx.conf"
    without = 'proxy_pass_request_body off; proxy_set_header Content-Length "";'
    file.write_text(
        NGINX.format(
            directory=directory,
            address=gateway.address,
            authorizer=authorizer,
            receiver=receiver,
            body="" if announces_body else without,
        )
    )
    return gateway.run(program, "-c", str(file), "-p", str(directory))
