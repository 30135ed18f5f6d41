"""The language of pages and messages: each rule finds its example, and nothing in the project breaks one (tools/style.py)."""

import re

import pytest
import style


@pytest.mark.parametrize("rule", style.RULES, ids=lambda rule: rule.example)
def test_every_rule_finds_its_example(rule: style.Rule) -> None:
    found = style.findings("docs/a.md", rule.example + "\n")
    assert [finding.text for finding in found if finding.text.endswith(rule.instead)] != []


@pytest.mark.parametrize(
    "text",
    [
        "Connections are refused until it runs; then a refused connection is tried again.",
        "There is no header. What is left? `whoever` and `answered 200` are code.",
        "What the stages found about one request.",
        "Two deliveries can be told apart, behind a proxy or in front of one.",
        "```\nWhoever stands behind the response is told anew.\n```",
    ],
)
def test_plain_sentences_pass(text: str) -> None:
    assert style.findings("docs/a.md", text + "\n") == []


LONG = "word " * 25


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"{LONG}\n", [1]),
        (f"\n- {LONG}\n", [2]),
        (f"| {LONG} |\n# {LONG}\n```\n{LONG}\n```\n", []),
        (f"[a](https://a.example/{'x' * 100})\n", []),
    ],
)
def test_wide_prose_is_found_but_tables_code_and_links_may_be_wide(text: str, lines: list[int]) -> None:
    assert [finding.line for finding in style.findings("docs/a.md", text)] == lines


def test_a_page_of_docs_with_more_than_250_lines_is_found() -> None:
    assert [finding.line for finding in style.findings("docs/a.md", "a\n" * 251)] == [251]
    assert style.findings("docs/a.md", "a\n" * 250) == style.findings("CHANGELOG.md", "a\n" * 251) == []


def test_of_a_program_comments_docstrings_and_messages_are_read_and_names_are_not() -> None:
    source = '"""Whoever calls."""\nblank = stands = r"is no pattern"\nx = f"the {blanks} is told"  # made anew\n'
    assert [finding.line for finding in style.findings("sidecar/a.py", source)] == [1, 3, 3]


def test_of_yaml_comments_are_read_and_of_presets_their_notes() -> None:
    text = "notes: >-\n  It stands there.\nkey: {blanks: false}  # made anew\n"
    assert [finding.line for finding in style.findings("config/a.yaml", text)] == [3]
    assert [finding.line for finding in style.findings("sidecar/presets/a.yaml", text)] == [2]


def test_findings_are_printed_with_their_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert style.main([str(style.ROOT / "LICENSE"), str(style.ROOT / "README.md")]) == 1
    assert re.fullmatch(
        r"(?s)LICENSE:\d+: 'thereof': write plain words\n.*2 files are read, \d+ findings\.\n", capsys.readouterr().out
    )
