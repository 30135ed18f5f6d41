"""What test processes leave out of their reports is never what a reader of the summary needs."""

from pathlib import Path

import pytest
from own_pytest import run_pytest

CONFTEST = "from reports import pytest_runtest_protocol\n"
TESTS = """
import time
import pytest

@pytest.fixture
def broken(): assert False, "before"

@pytest.fixture
def breaks():
    yield
    assert False, "after"

@pytest.fixture
def slow():
    yield
    time.sleep(0.02)

def test_passes(): pass
def test_fails(): assert False, "meanwhile"
def test_is_skipped(): pytest.skip("why")
def test_has_no_start(broken): pass
def test_has_no_end(breaks): pass
def test_ends_slowly(slow): pass
"""


@pytest.mark.parametrize("processes", [0, 2])
def test_failures_skips_and_slow_clean_ups_are_reported(tmp_path: Path, processes: int) -> None:
    options = ("-ra", "-n", str(processes), "--durations=9", "--durations-min=0.02")
    ended = run_pytest(tmp_path, *options, conftest=CONFTEST, tests=TESTS)
    assert ended.returncode == 1
    assert "1 failed, 3 passed, 1 skipped, 2 errors" in ended.stdout
    for said in ("meanwhile", "before", "after"):
        assert f'assert False, "{said}"' in ended.stdout
    assert "why" in ended.stdout
    assert "s teardown test_it.py::test_ends_slowly" in ended.stdout
