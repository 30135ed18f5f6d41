"""The command `sidecar presets`."""

import argparse
import sys

from sidecar import SHIPPED
from sidecar.cli.arguments import no_preset
from sidecar.config.presets import load_preset, preset_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME")


def run(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        print(preset_list())
        return 0
    try:
        print(preset_yaml(arguments.name), end="")
    except KeyError:
        print(f"sidecar presets: {no_preset(arguments.name)}", file=sys.stderr)
        return 1
    return 0


def preset_list() -> str:
    """A line for each preset: its name, whose it is, and what proves a delivery."""
    width = max(map(len, preset_names()))
    lines = []
    for name in preset_names():
        scheme = load_preset(name)
        lines.append(f"{name:{width}}  {scheme.title}: {scheme.summary}")
    return "\n".join(lines)


def preset_yaml(name: str) -> str:
    """The preset's file as it is: a scheme, to be put under `verify:`. Raises `KeyError` for an unknown name."""
    if name not in preset_names():
        raise KeyError(name)
    return (SHIPPED / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
