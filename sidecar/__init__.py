"""Webhook Sidecar: a reverse proxy that forwards only verified webhook deliveries.

The modules of the data path may be compiled (setup.py), each beside its source, which then is not read. With SIDECAR_PURE=1
the source is, for whoever looks for a mistake, or counts what tests cover.
"""

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

__version__ = "0.1.0"

_PURE = os.environ.get("SIDECAR_PURE") == "1"
if _PURE:
    sys.path_importer_cache[__path__[0]] = FileFinder(__path__[0], (SourceFileLoader, SOURCE_SUFFIXES))


def is_compiled() -> bool:
    """Whether the data path is the compiled one."""
    return not _PURE and any(name.startswith("compiled__mypyc") for name in os.listdir(__path__[0]))
