"""Webhook Sidecar: a reverse proxy that forwards only verified webhook deliveries.

    outcomes    every way a delivery can end: reasons, outcomes, hints, responses
    secret      bytes that never show
    http1/      HTTP/1.1 in and out, as bytes and values
    verify/     is this delivery genuine: a scheme, a head, a body, secrets -> Verified or a reason
    replay/     has it been delivered before
    routing/    which route takes a request, and may this sender use it
    telemetry/  one record per delivery -> log, metrics, traces, recent rejections
    config/     from files to a frozen Config, or to every mistake at once
    diagnosis/  why a signature does not match
    delivery/   THE PATH of a delivery: ten stages in a straight line; `explain`
    admin/      the admin listener: probes, metrics, status page, delivery test
    inject/     Kubernetes manifests in, with the sidecar out
    process/    the running program: start, reload, workers, SIGTERM
    cli/        one file a command
    presets/, handshakes/, ranges/   data

    http1/connection -> routing/client_ip -> routing/routes, access -> verify/claim -> delivery/body
       (1) head             (2) client            (3) route              (4) claim       (5) body
    -> verify/verifier, handshake -> replay/once -> delivery/forward, http1/upstream -> (stream back) -> delivery/recorder
             (6) verify                (7) once         (8) forward                       (9) response      (10) record

Imports point down this list only; the layers are in pyproject.toml.

The modules of the data path may be compiled (setup.py), each beside its source, which is then not read. Set SIDECAR_PURE=1
to run the source instead: to debug, or to measure test coverage.
"""

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path

__version__ = "0.1.0"

#: The folder of the data that comes with the program: presets, ranges, the status page. `importlib.resources` also finds it
#: in archives, which nobody needs here, and costs half a megabyte of memory in each process.
SHIPPED = Path(__file__).parent

_PURE = os.environ.get("SIDECAR_PURE") == "1"


def _source_only(folder: str) -> FileFinder:
    """A `sys.path_hooks` entry that finds no compiled modules in the folders of this package."""
    if Path(folder) != SHIPPED and SHIPPED not in Path(folder).parents:
        raise ImportError(folder)
    return FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))


if _PURE:
    sys.path_hooks.insert(0, _source_only)
    sys.path_importer_cache.pop(__path__[0], None)


def is_compiled() -> bool:
    """Whether the data path is the compiled one."""
    return not _PURE and any(name.startswith("compiled__mypyc") for name in os.listdir(__path__[0]))
