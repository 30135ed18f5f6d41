"""The configuration as the injected sidecar will read it: forwarding to the receiver, reachable, its secrets mounted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from sidecar.config.loader import load_config
from sidecar.config.settings import Config
from sidecar.inject.manifest import Document, ManifestError, Record
from sidecar.inject.objects import SECRETS_DIRECTORY

_LOOPBACK_URL = re.compile(r"(https?://(?:127\.0\.0\.1|localhost|\[::1\])):\d+/?")


@dataclass(frozen=True)
class Fitted:
    text: str
    config: Config
    upstream: str | None  #: one that was left as it is, because it is not on the pod's loopback


def fitted(
    text: str, file: str, *, port: int, listen_port: int | None, admin_port: int | None, secrets: Sequence[str]
) -> Fitted:
    """Raises `ManifestError`, or `ConfigError` as `sidecar check` would show it."""
    document = Document(text, file)
    root = document.root
    if not isinstance(root, yaml.MappingNode):
        document.fail(root, "holds no configuration; begin with upstream: and routes:")
    # (1) upstream, listen and admin
    wanted, left = {"upstream": f"http://127.0.0.1:{port}"}, None
    if isinstance(given := document.value(root, "upstream"), str):
        match = _LOOPBACK_URL.fullmatch(given)
        wanted["upstream"], left = (f"{match[1]}:{port}", None) if match else (given, given)
    wanted |= {
        key: f"0.0.0.0:{number}"
        for key, number in (("listen", listen_port), ("admin", admin_port))
        if number is not None
    }
    for key, value in wanted.items():
        if document.value(root, key) is None:
            document.add(root, (key,), value, Record())
        elif document.value(root, key) != value:
            document.change(root, (key,), value, Record())
    # (2) a configuration that the sidecar takes, and where others reach it
    made = document.written()
    config = load_config(file, {}, resolve_secrets=False, read=lambda name, size: made.encode()[:size])
    for key in ("listen", "admin"):
        address = getattr(config, key)
        if address.path or address.host in ("127.0.0.1", "::1", "localhost"):
            raise ManifestError(
                f"{file}: {key}: {address} can't be reached from outside the pod; "
                f"use 0.0.0.0:{address.port or (8080 if key == 'listen' else 9090)}"
            )
    _check_secrets(Document(made, file), secrets)
    return Fitted(made, config, left)


def _check_secrets(document: Document, secrets: Sequence[str]) -> None:
    """Secrets are files below a mounted Secret; one that can't be there would keep the pod from starting."""
    mounted = [f"{SECRETS_DIRECTORY}/{name}/" for name in secrets]
    for node in _references(document):
        reference: dict[str, Any] = document.value(node)
        if reference.get("optional") == "true":
            continue
        if "env" in reference:
            document.fail(
                node,
                f"env: {reference['env']} is not set in the injected container; take the secret from a mounted "
                f"Secret, which can change while it runs: file: {SECRETS_DIRECTORY}/NAME/KEY with --secret NAME",
            )
        if not str(reference["file"]).startswith(tuple(mounted)):
            document.fail(
                node,
                f"file: {reference['file']} is in no mounted Secret; --secret NAME mounts one at {SECRETS_DIRECTORY}/NAME"
                + (f" (mounted are {', '.join(mounted)})" if mounted else ""),
            )


def _references(document: Document) -> list[yaml.Node]:
    """Wherever the configuration refers to a secret: a mapping with `env` or `file` as a plain text."""
    found: list[yaml.Node] = []

    def look(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            if any(key.value in ("env", "file") and isinstance(value, yaml.ScalarNode) for key, value in node.value):
                found.append(node)
                return
            for _, value in node.value:
                look(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                look(item)

    if document.root is not None:
        look(document.root)
    return found
