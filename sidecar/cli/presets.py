"""The command `sidecar presets`."""

import argparse
import sys

from sidecar import SHIPPED
from sidecar.cli.arguments import describe_unknown_preset
from sidecar.config.presets import load_preset, preset_names


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
    """The preset's file as it is: a scheme, to copy below `verify:`. Raises `KeyError` for an unknown name."""
    if name not in preset_names():
        raise KeyError(name)
    return (SHIPPED / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
