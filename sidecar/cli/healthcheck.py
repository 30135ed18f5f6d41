"""The command `sidecar healthcheck`."""

import argparse
import sys

import httpx

from sidecar.cli.arguments import add_config, config_file
from sidecar.config.loader import load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    # No secrets: a probe checks whether the running sidecar is ready, not whether this file could be loaded now.
    admin = load_config(config_file(arguments), {}, resolve_secrets=False).admin
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
        admin.host, f"[{admin.host}]" if ":" in admin.host else admin.host
    )
    transport = httpx.HTTPTransport(uds=admin.path) if admin.path else httpx.HTTPTransport()
    try:
        with httpx.Client(transport=transport, timeout=5, trust_env=False) as client:
            response = client.get(f"http://{'localhost' if admin.path else f'{host}:{admin.port}'}/readyz")
    except httpx.HTTPError as error:
        print(f"sidecar healthcheck: no response from {admin}: {error or type(error).__name__}", file=sys.stderr)
        return 1
    if response.status_code != 200:
        print(f"sidecar healthcheck: not ready: {response.text.strip()}", file=sys.stderr)
        return 1
    return 0
