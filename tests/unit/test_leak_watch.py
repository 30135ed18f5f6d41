"""The search for leaks finds what it is made to find, and then fails the run."""

from pathlib import Path

import pytest
from leak_watch import leaks
from own_pytest import run_pytest

CONFTEST = "from leak_watch import pytest_configure, pytest_sessionfinish, pytest_terminal_summary\n"
SIGNATURE = b"0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (b'{"detail":"nothing"}', 0),
        (b'{"detail":"the-secret"}', 1),
        (b"X-Signature: sha256=" + SIGNATURE, 1),
        (b"x" * 30 + SIGNATURE[:25], 1),
        (SIGNATURE[:19], 0),
        (b"the-secret " + SIGNATURE, 2),
    ],
)
def test_it_finds_secrets_and_pieces_of_signatures(output: bytes, found: int) -> None:
    assert len(leaks({b"the-secret"}, {SIGNATURE[:20]}, [("here", output)])) == found


@pytest.mark.parametrize(("processes", "said", "status"), [(0, "b'all is well'", 0), (2, "b'key=the-secret'", 1)])
def test_a_leak_fails_a_run_whose_tests_all_pass(tmp_path: Path, processes: int, said: str, status: int) -> None:
    """The marker is another test's, and with several processes another process's."""
    tests = (
        "import leak_watch\n"
        f"def test_one(): leak_watch.shown('its output', {said})\n"
        "def test_two(): leak_watch.marker(b'the-secret')\n"
    )
    ended = run_pytest(tmp_path, "-q", "-n", str(processes), conftest=CONFTEST, tests=tests)
    assert "2 passed" in ended.stdout
    assert ended.returncode == status, ended.stdout
    assert ("LEAK: its output shows b'the-secret'" in ended.stdout) == bool(status)
