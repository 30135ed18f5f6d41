"""The `sidecar` command: find the command's module, parse, run, exit.

Only the module of the command that runs is imported, so `serve` starts without the HTTP client that `send` needs.
A new command is a file here with `add_arguments` and `run`, and a line in `COMMANDS`.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

from sidecar import __version__
from sidecar.cli.errors import UsageError
from sidecar.config.problems import ConfigError

#: Each command with its help, in the order of the help page. The module of the same name in this package has it.
COMMANDS = {
    "serve": "run the sidecar",
    "check": "validate configuration files and show their routes as they will work",
    "schema": "print the JSON Schema of the configuration",
    "demo": "show a real sidecar accept one genuine delivery and reject four others",
    "presets": "list the presets, or print one as YAML, ready to copy into verify:",
    "sign": "print the headers that make a body a valid delivery",
    "send": "sign a delivery as a provider would, send it, and show the response",
    "explain": "explain what each stage decides about a captured request, and why",
    "inject": "read Kubernetes manifests and write them back with the sidecar in place",
    "healthcheck": "ask the admin listener's /readyz; for images without a shell",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0 for success, 1 for a no, 2 for unusable input."""
    given = sys.argv[1:] if argv is None else argv
    arguments = build_parser(load=[word for word in given if word in COMMANDS][:1]).parse_args(given)
    try:
        status: int = arguments.run(arguments)
        return status
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except UsageError as error:
        print(f"sidecar {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `sidecar schema | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser(load: Iterable[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser. Only the commands in `load` get their own arguments; the others appear in the help."""
    parser = argparse.ArgumentParser(
        prog="sidecar", description="Lets only verified webhook deliveries through to your receiver."
    )
    parser.add_argument("--version", action="version", version=f"webhook-sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    for name, help in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=help)
        if name in load:
            module = import_module(f"sidecar.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
