"""The package is built where nothing can be compiled as well, unless it must be compiled."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from compiled import MODULES, ROOT, located

BUILD = [
    sys.executable,
    "-m",
    "pip",
    "--disable-pip-version-check",
    "wheel",
    "--no-build-isolation",
    "--no-deps",
    "-w",
    ".",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    made = tmp_path / "checkout"
    made.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, made)
    shutil.copytree(ROOT / "sidecar", made / "sidecar", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return made


def build(checkout: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BUILD, "."], cwd=checkout, env=os.environ | env, capture_output=True, text=True, check=False
    )


def source_alone(checkout: Path, **env: str) -> Path:
    """The wheel that was built, in which nothing is compiled."""
    result = build(checkout, **env)
    assert result.returncode == 0, result.stderr
    (wheel,) = checkout.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if name.endswith(".so")] == []
    return wheel


def test_without_a_compiler_the_package_is_the_source_alone(checkout: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(source_alone(checkout, CC="false", SIDECAR_COMPILE="")) as archive:
        archive.extractall(tmp_path / "installed")
    assert located("", tmp_path / "installed") == (
        False,
        str(tmp_path / "installed" / "sidecar" / "delivery" / "proxy.py"),
    )


def test_the_build_needs_none_of_the_programs_dependencies() -> None:
    """Compiled code is the same whether mypyc sees them or not, because no compiled class extends one of theirs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    def names(requirements: Iterable[str]) -> set[str]:
        return {re.split(r"[^\w.-]", each)[0].lower() for each in requirements}

    needed = names(project["build-system"]["requires"])
    locked = names(re.findall(r"^[a-z][\w.-]*==", (ROOT / "requirements/build.txt").read_text(), re.MULTILINE))
    dependencies = names(project["project"]["dependencies"])
    assert needed <= locked
    assert locked & dependencies == set()
    bases = {base for module in MODULES for base in _bases(ROOT / f"sidecar/{module.replace('.', '/')}.py")}
    assert {base.split(".")[0] for base in bases} & {name.replace("-", "_") for name in dependencies} == set()
    assert "asyncio.Protocol" in bases  # so bases are found at all


def _bases(source: Path) -> set[str]:
    """The base classes of a module's classes, with the package that each is imported from."""
    tree = ast.parse(source.read_text())
    imported = {
        name.asname or name.name: f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    bases = [ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    return {imported.get(base, base) for base in bases}


def test_the_build_fails_where_it_must_compile_and_cannot(checkout: Path) -> None:
    result = build(checkout, CC="false", SIDECAR_COMPILE="1")
    assert result.returncode != 0
    assert list(checkout.glob("*.whl")) == []
