"""Runs pytest in a folder of its own, for tests of what tests/support adds to it."""

import os
import subprocess
import sys
from pathlib import Path


def run_pytest(directory: Path, *arguments: str, conftest: str, tests: str) -> "subprocess.CompletedProcess[str]":
    """Runs the tests of one module beside a conftest.py, with no plugin but xdist."""
    (directory / "conftest.py").write_text(conftest)
    (directory / "test_it.py").write_text(tests)
    inherited = {name: value for name, value in os.environ.items() if name not in ("LEAK_WATCH", "PYTEST_ADDOPTS")}
    own = {"PYTHONPATH": str(Path(__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "xdist.plugin", "-p", "no:cacheprovider", "--color=no"),
            *("--rootdir", str(directory), *arguments, str(directory)),
        ],
        env=inherited | own,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
