"""Webhook Sidecar: a reverse proxy that forwards only verified webhook deliveries.

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
