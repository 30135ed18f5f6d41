"""Arguments that several commands share, and how they are read."""

import argparse
import difflib
import os
import time
from collections.abc import Sequence
from typing import Any

from sidecar.cli.errors import unusable
from sidecar.config.extras import missing_extra
from sidecar.config.fields.base import InvalidValueError
from sidecar.config.fields.reference import SecretReference
from sidecar.config.presets import Verify, load_preset, load_scheme, preset_aliases, preset_names
from sidecar.config.problems import ConfigError
from sidecar.config.scheme_keys import SCHEME
from sidecar.config.secrets import SecretUnavailableError, read_secret
from sidecar.secret import Secret, SecretRef
from sidecar.verify.scheme import Scheme, Setting


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="the configuration; default: $SIDECAR_CONFIG")


def config_file(arguments: argparse.Namespace) -> str:
    file: str | None = arguments.config or os.environ.get("SIDECAR_CONFIG")
    return file or unusable("no configuration given; use --config FILE or set SIDECAR_CONFIG")


def add_signing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", help="how to sign: the name of a preset, or a file with a custom scheme")
    parser.add_argument(
        "--route",
        metavar="NAME",
        help="instead of --preset: as the provider of this route of --config signs, with the route's first secret",
    )
    parser.add_argument("--config", metavar="FILE", help="the configuration of --route; default: $SIDECAR_CONFIG")
    key = parser.add_mutually_exclusive_group()
    key.add_argument(
        "--secret",
        metavar="REF",
        help="the secret to sign with, as env:NAME or file:PATH; with --route only for a private key",
    )
    key.add_argument(
        "--private-key",
        metavar="FILE",
        dest="secret",
        type=lambda file: f"file:{file}",
        help="for senders that publish their keys: the private key in PEM; for tests",
    )
    parser.add_argument(
        "--key-id",
        metavar="ID",
        help="the id that the signature names, where that is the id of one of the route's secrets; default: with --route that of "
        "the first one, else current",
    )
    add_settings(parser)
    parser.add_argument("--body", metavar="FILE", help="the body; - for standard input; default: a small test document")


def add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the preset, for example audience=https://hooks.example.com; may be repeated",
    )


def unix_time(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 10**11:
        raise argparse.ArgumentTypeError(f"{text!r} is not a unix time in seconds; use for example {int(time.time())}")
    return value


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1; use for example 10")
    return int(text)


def read_scheme(preset: str, given: Sequence[str] = ()) -> Scheme:
    """A preset by name, with its settings (`name=value`), or a custom scheme from a file."""
    settings: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            unusable(f"--setting {each!r} is not NAME=VALUE; use for example audience=https://hooks.example.com")
        settings[name] = [*settings[name], value] if name in settings else [value]
    if "/" in preset or preset.endswith((".yaml", ".yml")):
        try:
            return load_scheme(preset)
        except ConfigError as error:
            unusable(f"the scheme is not valid:\n{error}")
    try:
        declared = {each.name: each for each in load_preset(preset).settings}
    except KeyError:
        unusable(describe_unknown_preset(preset))
    if unknown := [name for name in settings if name not in declared and name not in SCHEME.keys]:
        known = f"its settings are {', '.join(declared)}" if declared else "remove --setting"
        unusable(f"{preset} has no setting {unknown[0]!r}; {known}")
    made: dict[str, Any] = {"preset": preset}
    for name, texts in settings.items():
        values = [_setting_value(declared[name], text) if name in declared else text for text in texts]
        made[name] = values if len(values) > 1 else values[0]
    try:
        scheme = Verify().read(made if settings else preset)
    except InvalidValueError as error:
        mistakes = "".join(f"\n  {message}" for _, message in error.mistakes)
        unusable(f"{preset} has settings; give each with --setting NAME=VALUE:{mistakes}")
    assert isinstance(scheme, Scheme)
    if problem := missing_extra(scheme):
        unusable(f"{preset} {problem}")
    return scheme


def _setting_value(setting: Setting, text: str) -> Any:
    """The value of a setting as a file has it: of a secret, a reference."""
    if isinstance(setting.example, int) and text.isdecimal():
        return int(text)
    kind, colon, place = text.partition(":")
    if isinstance(setting.example, SecretRef) and colon and kind in ("env", "file"):
        return {kind: place}
    return text


def describe_unknown_preset(name: str) -> str:
    if alias := preset_aliases().get(name.lower()):
        return f"{name!r} is not a preset; use {alias}"
    close = difflib.get_close_matches(name.lower(), preset_names(), n=3, cutoff=0.5)
    close += [known for known in preset_names() if known.startswith(name.lower()) and known not in close][:3]
    either = " or ".join(part for part in (", ".join(close[:-1]), *close[-1:]) if part)
    remedy = f"did you mean {either}? `sidecar presets` lists all" if close else "run `sidecar presets` for the list"
    return f"{name!r} is not a preset; {remedy}"


def read_secret_ref(reference: str) -> Secret:
    """A secret by `env:NAME` or `file:PATH`. Errors don't repeat what was given: it may be the secret itself."""
    kind, _, name = reference.partition(":")
    if kind not in ("env", "file") or not name:
        unusable("--secret must be env:NAME or file:PATH, never the secret itself: arguments appear in process lists")
    ref: SecretRef = SecretReference().read({kind: name})
    if ref.env and ref.env not in os.environ:
        unusable(f"the environment variable {ref.env} is not set; export it, or name another secret")
    try:
        return Secret(ref.id, read_secret(ref, os.environ))
    except SecretUnavailableError as error:
        unusable(str(error))
    except ValueError:
        unusable(f"the secret in {reference} is empty; set one")


def read_secrets(references: Sequence[str]) -> list[Secret]:
    """Several secrets with distinct ids, because the id says which one matched."""
    secrets: list[Secret] = []
    for reference in references:
        secret = read_secret_ref(reference)
        same = sum(other.id.partition("#")[0] == secret.id for other in secrets)
        secrets.append(secret.with_id(f"{secret.id}#{same + 1}") if same else secret)
    return secrets
