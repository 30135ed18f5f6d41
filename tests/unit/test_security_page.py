"""docs/security.md names the tests that hold its promises; they must be there, and every promise must have one."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()


def test_every_test_and_command_that_a_promise_names_is_there() -> None:
    table = PAGE.partition("## What is promised")[2].partition("## What is not promised")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 10
    makefile = (ROOT / "Makefile").read_text()
    for row in rows:
        promise, held = row.strip("| ").split(" | ")
        files, targets = re.findall(r"`(tests/[\w/.]+)`", held), re.findall(r"`make ([a-z-]+)`", held)
        assert files or targets, f"nothing holds: {promise}"
        assert [file for file in files if not (ROOT / file).is_file()] == []
        assert [target for target in targets if f"\n{target}:" not in makefile] == []


def test_the_pages_refer_to_each_other() -> None:
    for page in ("README.md", "SECURITY.md"):
        assert "docs/security.md" in (ROOT / page).read_text()
