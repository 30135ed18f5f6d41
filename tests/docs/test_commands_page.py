"""docs/commands.md has every command and option, and no page shows one that there is not."""

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest
from pages import NAMES, ROOT, code, fences, named, read, rows

from sidecar.cli.main import build_parser
from sidecar.inject.objects import CONTAINER

PAGE = read("docs/commands.md")
COMMANDS: dict[str, argparse.ArgumentParser] = next(
    dict(action.choices) for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
)


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Options and positional arguments, as the page names them: `--config`, `-f`, `FILE`."""
    found: set[str] = set()
    for action in parser._actions:
        found |= set(action.option_strings or [str(action.metavar)])
    return found - {"-h", "--help"}


def wrong_commands(page: str) -> set[str]:
    """Commands and options that the page lacks, or that only the page has."""
    told = {}
    for part in re.split(r"^## ", page, flags=re.M)[1:]:
        name = part.split("\n", 1)[0]
        told[name] = {re.split(r"[ =]", word)[0] for row in rows(part) for word in named(row[0])}
    wrong = told.keys() ^ COMMANDS.keys()
    for name in told.keys() & COMMANDS.keys():
        wrong |= {f"{name} {option}" for option in told[name] ^ options(COMMANDS[name])}
    return wrong


def lines(page: str) -> Iterator[str]:
    """The command lines that a page shows: after `$ ` in consoles, and in the text what begins with `sidecar `."""
    for fence in fences(page):
        if fence.kind == "console":
            yield from re.findall(r"^\$ (.*)", re.sub(r"\\\n\s*", " ", fence.text), re.M)
    yield from (word for word in code(page) if re.match(r"(\S*/)?(sidecar|make) ", word))


def wrong_lines(page: str) -> set[str]:
    """Command lines with a command, an option, a target of make or a container that there is not."""
    wrong = set()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for line in lines(page):
        for words in _simple_commands(line):
            program = words[0].rsplit("/", 1)[-1]
            if program == "make" and not {word for word in words[1:] if re.fullmatch("[a-z-]+", word)} <= targets:
                wrong.add(line)
            if program == "sidecar" and not _known(words[1:]):
                wrong.add(line)
            if program == "kubectl" and "-c" in words and words[words.index("-c") + 1] != CONTAINER:
                wrong.add(line)
    return wrong


def _simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a shell line, without variables in front."""
    lexer = shlex.shlex(line.replace("...", ""), posix=True, punctuation_chars=True)
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("();<>|&"):
            words += [word] if words or not re.match(r"\w+=", word) else []
        else:
            if words:
                yield words
            words = []


def _known(words: list[str]) -> bool:
    if not words or words[0] in ("--version", "COMMAND"):
        return True
    given = {word.split("=", 1)[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    return words[0] in COMMANDS and given <= options(COMMANDS[words[0]]) | {"--help"}


def test_the_page_has_every_command_with_its_options_and_no_other() -> None:
    assert wrong_commands(PAGE) == set()


def test_a_wrong_page_of_commands_is_found() -> None:
    assert wrong_commands(PAGE.replace("## demo", "## demos")) == {"demo", "demos"}
    assert wrong_commands(PAGE.replace("| `--tamper` |", "| `--damage` |")) == {"send --tamper", "send --damage"}
    assert wrong_commands(PAGE.replace("| `REQUEST` |", "| `INPUT` |")) == {"explain REQUEST", "explain INPUT"}


@pytest.mark.parametrize("name", [*NAMES, "CONTRIBUTING.md", "SECURITY.md"])
def test_no_page_shows_a_command_line_that_there_is_not(name: str) -> None:
    assert wrong_lines(read(name)) == set()


@pytest.mark.parametrize(
    "line",
    [
        "sidecar run",
        "sidecar serve --conf x",
        "make tests",
        "A=1 .venv/bin/sidecar check --fast",
        "true | sidecar list",
    ],
)
def test_a_command_line_that_there_is_not_is_found(line: str) -> None:
    assert wrong_lines(f"```console\n$ {line}\n```\n") == {line}
    assert wrong_lines("Ask `sidecar nobody`, `sidecar check FILE`.") == {"sidecar nobody"}
