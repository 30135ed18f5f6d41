"""The command `sidecar serve`."""

import argparse
import os
import sys

from sidecar.cli.arguments import add_config, config_file
from sidecar.config.files import FileRecorder
from sidecar.config.loader import load_config
from sidecar.process.key_store import KeyStore
from sidecar.process.serve import ListenError, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    files = FileRecorder()
    keys = KeyStore()
    config = load_config(config_file(arguments), os.environ, read=files, published=keys)
    try:
        return serve(config, files, os.environ, keys)
    except ListenError as error:
        print(f"sidecar serve: {error}", file=sys.stderr)
        return 1
