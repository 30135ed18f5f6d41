"""The command `sidecar check`."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from sidecar.cli.errors import unusable
from sidecar.config.files import ReadFile, read_file
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.config.settings import Config
from sidecar.outcomes import DEFAULT_REJECTION
from sidecar.replay.store import Replay
from sidecar.verify.composite import Combine, Composite
from sidecar.verify.verifier import Verifier


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="a configuration")
    parser.add_argument(
        "--manifests",
        metavar="FILE",
        help="check the sidecar's ConfigMaps in Kubernetes manifests instead, without secrets; - for standard input",
    )
    parser.add_argument(
        "--no-secrets",
        action="store_true",
        help="don't read environment variables and secret files, for example in CI",
    )


def run(arguments: argparse.Namespace) -> int:
    if bool(arguments.files) == (arguments.manifests is not None):
        unusable("needs either files with a configuration, or --manifests FILE")
    results = _check_manifests(arguments.manifests) if arguments.manifests is not None else _check_files(arguments)
    failed = False
    for result in results:
        if isinstance(result, Config):
            print(describe_routes(result))
        else:
            print(result, file=sys.stderr)
            failed = True
    return 1 if failed else 0


def _check_files(arguments: argparse.Namespace) -> Iterator[Config | ConfigError]:
    for file in arguments.files:
        try:
            yield load_config(file, os.environ, resolve_secrets=not arguments.no_secrets)
        except ConfigError as error:
            yield error


def _check_manifests(file: str) -> Iterator[Config | ConfigError | str]:
    """Each configuration, or the mistakes in it, with the object's name instead of the file's."""
    from sidecar.inject.config_maps import find_configs  # noqa: PLC0415 - a hook that checks one file needs no manifests
    from sidecar.inject.manifest import ManifestError  # noqa: PLC0415

    shown = "standard input" if file == "-" else file
    try:
        found = find_configs(_read(file), shown)
    except ManifestError as error:
        yield f"sidecar check: {error}"
        return
    for name in found.elsewhere:
        print(f"sidecar check: note: {name} is mounted, but not in these manifests; it is not checked", file=sys.stderr)
    for name in found.without_key:
        yield f"{name}: has no key config.yaml; put the configuration there"
    if not found.configs and not found.without_key:
        yield (
            f"sidecar check: {shown}: no ConfigMap of the sidecar found; it has the label webhook-sidecar/config or "
            "webhook-sidecar/injected, or a container named webhook-sidecar mounts it at /etc/sidecar"
        )
    for name, text in found.configs.items():
        try:
            yield load_config(name, {}, resolve_secrets=False, read=_reader(name, text.encode()))
        except ConfigError as error:
            yield error


def _reader(name: str, content: bytes) -> ReadFile:
    """Reads the configuration under its object's name, and files as they are."""
    return lambda path, size: content[:size] if path == name else read_file(path, size)


def _read(file: str) -> str:
    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode()
    except OSError as error:
        unusable(f"{file} can't be read: {error.strerror}; check its path and permissions")
    except UnicodeDecodeError as error:
        unusable(f"{file} is not UTF-8 (at byte {error.start}); save it as UTF-8")


def _describe_replay(replay: Replay) -> str:
    return f"; at most once in {replay.seconds:g} s{', by the delivery id' if replay.by_id else ''}"


def describe_routes(config: Config) -> str:
    """A line for each route, with its settings in short."""
    lines = [f"{config.file}: ok", f"  listen {config.listen}, admin {config.admin}{_describe_authorize(config)}"]
    for route in config.routes.routes:
        if route.open:
            how = "OPEN: nothing is verified"
        elif route.verifier is None:
            how = "no signature, address only"
        else:
            how = describe_verifier(route.verifier)
        senders = f"; from {', '.join(route.allow.cidrs)}" if route.allow is not None else ""
        replay = _describe_replay(route.replay) if route.replay is not None else ""
        signed = (
            f"; signed for the receiver as {route.upstream_signer.name}" if route.upstream_signer is not None else ""
        )
        rejection = f"; rejects with {route.rejection.status}" if route.rejection != DEFAULT_REJECTION else ""
        shadow = "; SHADOW: rejects nothing" if route.shadow else ""
        methods = "/".join(sorted(route.methods))
        receiver = route.upstream if route.forwards else "(gateways only)"
        lines.append(
            f"  {route.name}: {methods} {route.place} -> {receiver}: {how}{senders}{replay}{signed}{rejection}{shadow}"
        )
    lines += [f"  warning: {warning}" for warning in config.warnings]
    return "\n".join(lines)


def _describe_keys(verifier: Verifier) -> str:
    if verifier.scheme.published:
        return "keys published by the provider"
    return f"secrets {', '.join(secret.id for secret in verifier.secrets)}"


def describe_verifier(verifier: Verifier) -> str:
    """`github (HMAC-SHA256 in X-Hub-Signature-256); secrets current`; of several schemes each with its secrets."""
    if not isinstance(verifier, Composite):
        return f"{verifier.scheme.name or 'custom scheme'} ({verifier.scheme.summary}); {_describe_keys(verifier)}"
    each = [
        f"{name} ({member.scheme.summary}; {_describe_keys(member)})"
        for name, member in zip(verifier.names, verifier.members(), strict=True)
    ]
    return f"{'any' if verifier.combine is Combine.ANY else 'all'} of {f' {verifier.combine.word} '.join(each)}"


def _describe_authorize(config: Config) -> str:
    settings = config.authorize
    if settings is None:
        return ""
    prefix = f" below {settings.path_prefix}" if settings.path_prefix else ""
    return f", authorize {settings.listen}{prefix} ({settings.form})"
