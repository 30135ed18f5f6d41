"""The `sidecar` command: find the command's module, parse, run, exit.

Only the module of the command that runs is imported, so `serve` starts without the HTTP client that `send` needs.
To add a command, add a file here with `add_arguments` and `run`, and a line in `COMMANDS`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module

from sidecar import __version__
from sidecar.cli.errors import UsageError
from sidecar.config.problems import ConfigError

#: Each command with its help, in the order of the help page. Its module has the same name.
COMMANDS = {
    "serve": "run the sidecar",
    "check": "validate configuration files, and show what each route will do",
    "schema": "print the JSON Schema of the configuration",
    "demo": "send five deliveries through a real sidecar, one of which must arrive",
    "presets": "list the presets, or print one as YAML to copy into verify:",
    "sign": "sign a body as a provider would, and print the headers",
    "send": "sign a delivery as a provider would, send it, and show the response",
    "explain": "show what each stage decides about a captured request, and why",
    "inject": "add the sidecar to Kubernetes manifests",
    "drain": "begin the drain of the running sidecar; for a preStop hook",
    "healthcheck": "check /readyz of a running sidecar; for images without a shell",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0 for success, 1 for failure, 2 for unusable input."""
    given = sys.argv[1:] if argv is None else argv
    if not given:
        build_parser(load=()).print_help(sys.stderr)
        return 2
    arguments = build_parser(load=tuple(word for word in given if word in COMMANDS)[:1]).parse_args(given)
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
        # As in `sidecar schema | head`: the reader has closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@cache
def build_parser(load: tuple[str, ...] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser, made once. Only the commands in `load` get their own arguments; the others appear in the help."""
    parser = argparse.ArgumentParser(
        prog="sidecar", description="A reverse proxy that forwards only verified webhook deliveries to your receiver."
    )
    parser.add_argument("--version", action="version", version=f"webhook-sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    for name, help in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        if name in load:
            module = import_module(f"sidecar.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
