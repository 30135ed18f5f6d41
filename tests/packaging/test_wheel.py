"""A built wheel installs and runs where there is no compiler, no make and no checkout."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from compiled import ROOT
from needs import needs

from sidecar import __version__

RELEASE = ROOT / ".venv/release/bin"
#: A compiler that was asked for by accident would be found by its absence.
NO_COMPILER = {"CC": "false", "CXX": "false"}


def run(*command: str | Path, **env: str) -> str:
    """Standard output; neither this process's program nor its choice of source or compiled code is seen by the command."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "PYTHON", "COVERAGE"))
    }
    ended = subprocess.run(command, env=kept | env, cwd="/", capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once, whichever test process comes first; compiled where the program under test is."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "wheel"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(place.glob("*.whl")):
            compiled = list((ROOT / "sidecar").rglob("*" + sysconfig.get_config_var("EXT_SUFFIX")))
            # setuptools builds here, and compiles nothing that is newer than its source. What an older build left must go.
            built = ROOT / f"build/lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
            shutil.rmtree(built, ignore_errors=True)
            for file in compiled:
                copy = built / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, copy)
            pip = [
                sys.executable,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "wheel",
                "--no-build-isolation",
                "--no-deps",
            ]
            run(*pip, "--wheel-dir", place, ROOT, SIDECAR_COMPILE="1" if compiled else "0")
        (made,) = place.glob("*.whl")
    return made


def files_of(wheel: Path) -> list[str]:
    """What it installs; a wheel that was meant to be compiled and is not has the package in a folder of its own."""
    with zipfile.ZipFile(wheel) as archive:
        names = [re.sub(r"^[^/]*\.data/purelib/", "", name) for name in archive.namelist()]
    return [name for name in names if ".dist-info/" not in name]


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """The folder of commands of a new environment, in which nothing is but the wheel and what it needs."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        tmp_path / "venv/bin/python",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "--no-compile",  # which takes longer than to run it once
    ]
    run(*pip, "--only-binary", ":all:", "--require-hashes", "-r", ROOT / "requirements/runtime.txt", **NO_COMPILER)
    run(*pip, "--no-index", wheel, **NO_COMPILER, PATH="/nowhere")
    return tmp_path / "venv/bin"


def test_the_wheel_runs_where_there_is_no_compiler(installed: Path, wheel: Path) -> None:
    alone = {"PATH": str(installed)}
    assert run(installed / "sidecar", "--version", **alone).split()[-1] == __version__
    assert "All as expected" in run(installed / "sidecar", "demo", **alone)
    code = "import sidecar; print(sidecar.is_compiled(), sidecar.__file__)"
    compiled, file = run(installed / "python", "-c", code, **alone).split()
    assert file.startswith(str(installed.parent))
    assert compiled == str(any(name.endswith(".so") for name in files_of(wheel)))


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "sidecar"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = {name for name in files_of(wheel) if not name.endswith(".so")}
    assert names == {name for name in listed.stdout.split() if (ROOT / name).exists()}


def test_pipx_runs_the_wheel(wheel: Path, tmp_path: Path) -> None:
    pipx = needs(RELEASE / "pipx")
    homes = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    said = run(
        *(pipx, "run", "--python", sys.executable, f"--pip-args=--constraint={ROOT / 'constraints.txt'}"),
        *("--spec", str(wheel), "sidecar", "--version"),
        **homes,
        **NO_COMPILER,
        PATH=str(RELEASE),
    )
    assert said.split()[-1] == __version__
