"""Which code the tests run: the compiled data path if there is one, and its source with SIDECAR_PURE=1."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sidecar

ROOT = Path(__file__).parents[2]
#: The modules that setup.py compiles.
MODULES = re.findall(r'^    "([\w.]+)",$', (ROOT / "setup.py").read_text(), re.MULTILINE)
#: Values of SIDECAR_PURE, for tests of processes that must pass with both.
PROGRAMS = {"compiled": "0", "source": "1"}
BOTH = pytest.mark.parametrize("pure", list(PROGRAMS.values()), ids=list(PROGRAMS))


def located(pure: str, where: Path | None = None) -> tuple[bool, str]:
    """Whether a new process runs compiled code, and the file of its proxy module; it searches the folder `where` first."""
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sidecar, sidecar.delivery.proxy as proxy; print(sidecar.is_compiled(), proxy.__file__)",
        ],
        cwd=where,
        env=os.environ | {"SIDECAR_PURE": pure},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return told[0] == "True", told[1]


def refuse_old_code() -> None:
    """Ends a test run whose compiled code was made from other sources than these."""
    package = Path(sidecar.__file__).parent
    made = [file.stat().st_mtime for file in package.glob("compiled__mypyc*.so")]
    sources = [package / f"{name.replace('.', '/')}.py" for name in MODULES]
    changed = [file.name for file in sources if made and file.stat().st_mtime > min(made)]
    if changed and sidecar.is_compiled():
        pytest.exit(
            f"{', '.join(changed)} changed after the data path was compiled: `make test` compiles it again, "
            "SIDECAR_PURE=1 tests the source",
            returncode=2,
        )
