"""Each test process reads every module, in an order of its own; and all of them agree on the list of tests."""

from pathlib import Path

from own_pytest import run_pytest

CONFTEST = """
from pathlib import Path
import spread
from spread import pytest_collection_modifyitems

spread.TESTS = Path(__file__).parent

def pytest_collection(session):
    spread.rotate_folders(session.config)
"""
#: Notes when it is imported.
MODULE = """
import os

with open(os.environ["PYTEST_XDIST_WORKER"], "a") as order:
    print(__file__, file=order)

def test_one(): pass
def test_two(): pass
"""
#: Beside test_it.py; two of them beside a folder that has tests as well.
MODULES = ["a/test_a.py", "b/test_b.py", "b/also_test.py", "b/c/test_c.py", "b/c/d/test_d.py"]


def test_no_module_is_left_out_or_read_twice(tmp_path: Path) -> None:
    for name in MODULES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(MODULE)
    (tmp_path / "b/helper.py").write_text("raise AssertionError('no test')")
    ended = run_pytest(tmp_path, "-n", "2", "--import-mode=importlib", conftest=CONFTEST, tests=MODULE)
    assert ended.returncode == 0, ended.stdout
    assert "12 passed" in ended.stdout
    orders = [(tmp_path / f"gw{number}").read_text().splitlines() for number in range(2)]
    for order in orders:
        assert sorted(order) == sorted(str(tmp_path / name) for name in [*MODULES, "test_it.py"])
    assert len({order[0] for order in orders}) == 2
