"""The command `sidecar schema`."""

import argparse
import json

from sidecar.config.keys import json_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """This command has none."""


def run(arguments: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2))
    return 0
