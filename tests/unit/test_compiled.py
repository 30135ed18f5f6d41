"""The data path is compiled from its source, and both can be run."""

import ast
import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from compiled import MODULES, located
from needs import needs_compiled_code

import sidecar


def test_every_module_of_the_list_is_compiled() -> None:
    needs_compiled_code()
    assert len(MODULES) > 20
    code = (
        "import importlib, sys; print(*(importlib.import_module(f'sidecar.{name}').__file__ for name in sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *MODULES]
    files = subprocess.run(command, env=os.environ | {"SIDECAR_PURE": "0"}, capture_output=True, text=True, check=True)
    assert [file for file in files.stdout.split() if not file.endswith(".so")] == []
    assert len(files.stdout.split()) == len(MODULES)


def test_the_source_is_run_if_it_is_asked_for() -> None:
    compiled, file = located("1")
    assert not compiled
    assert file.endswith("proxy.py")


def test_else_the_compiled_code_is_run() -> None:
    needs_compiled_code()
    compiled, file = located("")
    assert compiled
    assert file.endswith(".so")


@pytest.mark.parametrize("module", MODULES)
def test_no_compiled_function_imports_a_module_from_its_package(module: str) -> None:
    """After `from package import module` in a function, mypyc may use a module that was never imported, which is None."""
    tree = ast.parse((Path(sidecar.__file__).parent / f"{module.replace('.', '/')}.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                package = importlib.import_module(node.module or "")
                found = hasattr(package, "__path__") and find_spec(f"{node.module}.{alias.name}") is not None
                assert not found, f"{module}.py, line {node.lineno}: import names from {node.module}.{alias.name}"


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
    #: What is called on `self.NAME`, where `self.NAME = Class(...)`, is the class's.
    held = {
        ast.unparse(node.targets[0]): imported.get(ast.unparse(node.value.func))
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    }
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func).rsplit(".", 1)[-1]
        if name in {"create_task", "ensure_future", "wait_for", "gather", "timeout", "TaskGroup"}:
            assert name == "create_task", f"{module}.py, line {call.lineno}: asyncio.{name} needs a task"
            coroutine = ast.unparse(call.args[0]).split("(")[0]
            owner = coroutine.rpartition(".")[0]
            source = imported.get(coroutine) or held.get(owner) or f"sidecar.{module}"
            assert source.removeprefix("sidecar.") not in MODULES, (
                f"{module}.py, line {call.lineno}: a compiled coroutine"
            )
