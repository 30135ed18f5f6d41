"""Adapts the configuration to the pod: it forwards to the receiver, can be reached, and its secrets are mounted."""

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
class PodConfig:
    """The configuration as the injected sidecar will read it."""

    text: str
    config: Config
    kept_upstream: str | None  #: an upstream that was not changed, because it is not on the pod's loopback


def adapt_config(
    text: str, file: str, *, port: int, listen_port: int | None, admin_port: int | None, secrets: Sequence[str]
) -> PodConfig:
    """Raises `ManifestError`, or `ConfigError` as `sidecar check` shows it."""
    document = Document(text, file)
    root = document.root
    if not isinstance(root, yaml.MappingNode):
        document.fail(root, "is not a configuration; begin with upstream: and routes:")
    # (1) upstream, listen and admin
    wanted, kept = {"upstream": f"http://127.0.0.1:{port}"}, None
    if isinstance(given := document.value(root, "upstream"), str):
        match = _LOOPBACK_URL.fullmatch(given)
        wanted["upstream"], kept = (f"{match[1]}:{port}", None) if match else (given, given)
    wanted |= {
        key: f"[::]:{number}" for key, number in (("listen", listen_port), ("admin", admin_port)) if number is not None
    }
    for key, value in wanted.items():
        given = document.value(root, key)
        if given is None:
            document.add(root, (key,), value, Record())
        elif isinstance(given, dict | list):
            document.fail(document.get(root, key), f"{key}: can't be changed to {value}; remove it from the file")
        elif given != value:
            document.change(root, (key,), f"'{value}'" if value.startswith("[") else value, Record())
    # (2) the configuration must be valid, and its listeners reachable from outside the pod
    result = document.render()
    config = load_config(file, {}, resolve_secrets=False, read=lambda name, size: result.encode()[:size])
    for key in ("listen", "admin"):
        address = getattr(config, key)
        if address.path or address.host in ("127.0.0.1", "::1", "localhost"):
            raise ManifestError(
                f"{file}: {key}: {address} can't be reached from outside the pod; "
                f"use '[::]:{address.port or (8080 if key == 'listen' else 9090)}'"
            )
    _check_secrets(Document(result, file), secrets)
    return PodConfig(result, config, kept)


def _check_secrets(document: Document, secrets: Sequence[str]) -> None:
    """Every secret must be a file in a mounted Secret; a missing one would keep the pod from starting."""
    mounted = [f"{SECRETS_DIRECTORY}/{name}/" for name in secrets]
    for node in _references(document):
        reference: dict[str, Any] = document.value(node)
        if reference.get("optional") == "true":
            continue
        if "env" in reference:
            document.fail(
                node,
                f"env: {reference['env']} is not set in the injected container; use a mounted Secret, which can change "
                f"while it runs: file: {SECRETS_DIRECTORY}/NAME/KEY with --secret NAME",
            )
        if not str(reference["file"]).startswith(tuple(mounted)):
            document.fail(
                node,
                f"file: {reference['file']} is not in a mounted Secret; "
                f"add --secret NAME, which mounts it at {SECRETS_DIRECTORY}/NAME"
                + (f" (mounted: {', '.join(mounted)})" if mounted else ""),
            )


def _references(document: Document) -> list[yaml.Node]:
    """All references to secrets: mappings in which `env` or `file` is plain text."""
    found: list[yaml.Node] = []

    def visit(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            if any(key.value in ("env", "file") and isinstance(value, yaml.ScalarNode) for key, value in node.value):
                found.append(node)
                return
            for _, value in node.value:
                visit(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                visit(item)

    if document.root is not None:
        visit(document.root)
    return found
