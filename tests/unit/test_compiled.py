"""The data path is compiled from its source, and both can be run."""

import importlib

import pytest
from compiled import MODULES, located

from sidecar import is_compiled


@pytest.mark.skipif(not is_compiled(), reason="the source is tested")
def test_every_module_of_the_list_is_compiled() -> None:
    assert len(MODULES) > 20
    files = {name: importlib.import_module(f"sidecar.{name}").__file__ or "" for name in MODULES}
    assert [name for name, file in files.items() if not file.endswith(".so")] == []


def test_the_source_is_run_if_it_is_asked_for() -> None:
    compiled, file = located("1")
    assert not compiled
    assert file.endswith("proxy.py")


@pytest.mark.skipif(not is_compiled(), reason="the source is tested")
def test_else_the_compiled_code_is_run() -> None:
    compiled, file = located("")
    assert compiled
    assert file.endswith(".so")
