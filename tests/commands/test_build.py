"""The package is built where nothing can be compiled as well, unless it must be compiled."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from compiled import ROOT, located

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


def test_without_the_class_that_the_protocol_extends_nothing_is_compiled(checkout: Path, tmp_path: Path) -> None:
    # It would be compiled without an error, and crash.
    (tmp_path / "uvicorn.py").write_text("raise ImportError('as if it were not installed')")
    source_alone(checkout, PYTHONPATH=str(tmp_path), SIDECAR_COMPILE="")


def test_the_build_fails_where_it_must_compile_and_cannot(checkout: Path) -> None:
    result = build(checkout, CC="false", SIDECAR_COMPILE="1")
    assert result.returncode != 0
    assert list(checkout.glob("*.whl")) == []
