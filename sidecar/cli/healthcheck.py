"""The command `sidecar healthcheck`."""

import argparse
import sys

import httpx

from sidecar.cli.arguments import add_config, config_file
from sidecar.cli.errors import describe
from sidecar.config.loader import load_config
from sidecar.http1.sockets import ListenAddress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    # No secrets: a probe checks whether the running sidecar is ready, not whether this file could be loaded now.
    admin = load_config(config_file(arguments), {}, resolve_secrets=False).admin
    try:
        response = _ask(admin)
    except httpx.HTTPError as error:
        problem = f"no response from {admin}: {describe(error)}; check that the sidecar runs with this configuration"
        print(f"sidecar healthcheck: {problem}", file=sys.stderr)
        return 1
    if response.status_code != 200:
        print(f"sidecar healthcheck: not ready: {response.text.strip()}", file=sys.stderr)
        return 1
    return 0


def _ask(admin: ListenAddress) -> httpx.Response:
    transport = httpx.HTTPTransport(uds=admin.path) if admin.path else httpx.HTTPTransport()
    with httpx.Client(transport=transport, timeout=5, trust_env=False) as client:
        if admin.path:
            return client.get("http://localhost/readyz")
        if admin.host != "::":
            host = {"0.0.0.0": "127.0.0.1"}.get(admin.host, admin.host)
            return client.get(f"http://{admin._replace(host=host)}/readyz")
        try:  # every address: IPv4 too, and only IPv4 on a machine without IPv6
            return client.get(f"http://127.0.0.1:{admin.port}/readyz")
        except httpx.ConnectError:
            return client.get(f"http://[::1]:{admin.port}/readyz")
