"""A test whose program is missing is skipped, and the summary names each missing program once."""

from pathlib import Path

from own_pytest import run_pytest

TESTS = """
import pytest
from needs import needs

@pytest.fixture
def store():
    needs("no-such-store")

def test_one(store): raise AssertionError
def test_two(store): raise AssertionError
def test_three(): needs("no-such-store"), 1 / 0
def test_four(): needs("no-such-language"), 1 / 0
def test_five(): assert needs("sh").endswith("/sh")
"""


def test_each_missing_program_is_named_once(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, "-rs", conftest="from needs import pytest_runtest_makereport\n", tests=TESTS)
    skips = sorted(line.split(": ", 1)[1] for line in ended.stdout.splitlines() if line.startswith("SKIPPED"))
    assert skips == [
        "NOT TESTED: no-such-language is not installed; on Debian: apt-get install no-such-language",
        "NOT TESTED: no-such-store is not installed; on Debian: apt-get install no-such-store",
    ], ended.stdout
    assert "1 passed, 4 skipped" in ended.stdout
    assert ended.returncode == 0
