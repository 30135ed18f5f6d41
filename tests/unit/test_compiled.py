"""The data path is compiled from its source, and both can be run."""

import ast
import importlib
from pathlib import Path

import pytest
from compiled import MODULES, located

import sidecar
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


@pytest.mark.parametrize("module", MODULES)
def test_no_task_runs_a_compiled_coroutine(module: str) -> None:
    """mypyc passes on what a task throws into it with a signature that Python 3.12 deprecated; see sidecar/http1/connect.py."""
    tree = ast.parse((Path(sidecar.__file__).parent / f"{module.replace('.', '/')}.py").read_text())
    imported = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func).rsplit(".", 1)[-1]
        if name in {"create_task", "ensure_future", "wait_for", "gather", "timeout", "TaskGroup"}:
            assert name == "create_task", f"{module}.py, line {call.lineno}: asyncio.{name} needs a task"
            source = imported.get(ast.unparse(call.args[0]).split("(")[0], f"sidecar.{module}")
            assert source is not None
            assert source.removeprefix("sidecar.") not in MODULES, (
                f"{module}.py, line {call.lineno}: a compiled coroutine"
            )
