"""The command `sidecar presets`."""

import argparse
import sys

import yaml

from sidecar import SHIPPED
from sidecar.cli.arguments import describe_unknown_preset
from sidecar.config.presets import is_derived, load_preset, preset_names
from sidecar.config.presets import read_preset as load_values
from sidecar.config.yaml_source import read_shipped


class _Dumper(yaml.SafeDumper):
    """Writes multi-line text as a literal block."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if text.count("\n") > 1 and not text.startswith("\n") else None
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="the preset to print; default: list all")


def run(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        print(list_presets())
        return 0
    try:
        print(read_preset(arguments.name), end="")
    except KeyError:
        print(f"sidecar presets: {describe_unknown_preset(arguments.name)}", file=sys.stderr)
        return 1
    return 0


def list_presets() -> str:
    """One line per preset: its name, its provider, and how a delivery is verified."""
    width = max(map(len, preset_names()))
    lines = []
    for name in preset_names():
        scheme = load_preset(name)
        lines.append(f"{name:{width}}  {scheme.title}: {scheme.summary}")
    return "\n".join(lines)


def read_preset(name: str) -> str:
    """The preset as YAML: a scheme, to copy below `verify:`. Raises `KeyError` for an unknown name."""
    values = read_shipped("presets", name, preset_names())
    if is_derived(values):
        return yaml.dump(load_values(name), Dumper=_Dumper, sort_keys=False, width=130, allow_unicode=True)
    return (SHIPPED / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
