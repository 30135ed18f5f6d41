"""Parses the project's pages: fenced blocks, code in the text, tables."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
#: Pages for users, named as in links to them.
NAMES = ("README.md", "CHANGELOG.md", "helm/README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))

_FENCE = re.compile(
    r"(?:^[ ]*<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<kind>\w*)\n(?P<text>.*?)^ *```$", re.M | re.S
)


class Fence(NamedTuple):
    """A block of code. `mark` is the comment right above it."""

    kind: str
    text: str
    line: int
    mark: str


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fences(page: str) -> Iterator[Fence]:
    for match in _FENCE.finditer(page):
        line = page.count("\n", 0, match.start("text")) + 1
        yield Fence(match["kind"], textwrap.dedent(match["text"]), line, match["mark"] or "")


def prose(page: str) -> str:
    """The page without its blocks."""
    return _FENCE.sub("", page)


def code(page: str) -> Iterator[str]:
    """The text between backticks, with white space replaced by one space."""
    for match in re.finditer(r"(`+)(.+?)\1", prose(page), re.S):
        yield " ".join(match[2].split())


def rows(page: str, heading: str = "") -> list[list[str]]:
    """The cells of every row of the tables under a heading, or of all tables; without the header rows."""
    if heading:
        page = page.partition(f"\n{heading}\n")[2]
        page = re.split(r"^##? ", page, maxsplit=1, flags=re.M)[0]
    found: list[list[str]] = []
    for line in prose(page).splitlines():
        if re.fullmatch(r" *\|[-| :]+\|", line):
            found.pop()
        elif line.lstrip().startswith("|"):
            found.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]])
    return found


def named(cell: str) -> list[str]:
    """The text between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)
