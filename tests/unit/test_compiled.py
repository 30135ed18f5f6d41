"""The data path is compiled from its source, and both can be run."""

import importlib
import os
import subprocess
import sys

import pytest
from compiled import MODULES

from sidecar import is_compiled

WHERE = "import sidecar, sidecar.proxy; print(sidecar.is_compiled(), sidecar.proxy.__file__)"


def located(pure: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", WHERE],
        env=os.environ | {"SIDECAR_PURE": pure},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@pytest.mark.skipif(not is_compiled(), reason="the source is tested")
def test_every_module_of_the_list_is_compiled() -> None:
    assert len(MODULES) > 20
    files = {name: importlib.import_module(f"sidecar.{name}").__file__ or "" for name in MODULES}
    assert [name for name, file in files.items() if not file.endswith(".so")] == []


def test_the_source_is_run_if_it_is_asked_for() -> None:
    told, file = located("1").split()
    assert told == "False"
    assert file.endswith("proxy.py")


@pytest.mark.skipif(not is_compiled(), reason="the source is tested")
def test_else_the_compiled_code_is_run() -> None:
    told, file = located("").split()
    assert told == "True"
    assert file.endswith(".so")
