"""The command `sidecar drain`."""

import argparse
import sys

from sidecar.process.drain_socket import DrainError, request_drain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pid", type=int, metavar="PID", help="the process, if several sidecars are running; default: the only one"
    )


def run(arguments: argparse.Namespace) -> int:
    # The configuration is not read: a drain must begin even if somebody has just broken it.
    try:
        pid = request_drain(arguments.pid)
    except DrainError as error:
        print(f"sidecar drain: {error}", file=sys.stderr)
        return 1
    print(f"PID {pid} is draining: unready, and each response closes its connection; SIGTERM stops it")
    return 0
