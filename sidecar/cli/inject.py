"""The command `sidecar inject`."""

import argparse
import sys
from pathlib import Path

from sidecar.cli.errors import unusable
from sidecar.inject.injection import inject
from sidecar.inject.manifest import ManifestError, dump
from sidecar.inject.options import Options, add_options, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", metavar="FILE", default="-", help="the manifests; default: standard input")
    parser.add_argument(
        "--settings", metavar="FILE", help="read the options from a kustomize function's configuration instead"
    )
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    given = {key: value for key, value in vars(arguments).items() if key in Options.__dataclass_fields__}
    try:
        if arguments.settings is not None:
            options = read_settings(_read(arguments.settings), arguments.settings)
        elif "config" in given:
            options = Options(**given | {"config": _read(given["config"]), "config_file": given["config"]})
        else:
            options = Options(**given)
        result = inject(_read(arguments.file), options, "standard input" if arguments.file == "-" else arguments.file)
    except ManifestError as error:
        print(f"sidecar inject: {error}", file=sys.stderr)
        return 1
    if options.deleted is not None:
        _write(options.deleted, "---\n".join(dump(each.manifest) for each in result.gone))
    for note in result.notes:
        print(f"sidecar inject: note: {note}", file=sys.stderr)
    sys.stdout.buffer.write(result.text.encode())
    return 0


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        unusable(f"{file} can't be written: {error.strerror}; check its path and permissions")


def _read(file: str) -> str:
    """A file's text, line endings unchanged."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return content.decode()
    except OSError as error:
        unusable(f"{file} can't be read: {error.strerror}; check its path and permissions")
    except UnicodeDecodeError as error:
        unusable(f"{file} is not UTF-8 (at byte {error.start}); save it as UTF-8")
