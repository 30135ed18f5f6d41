"""YAML to plain values with their lines. What it refuses is in tests/config/invalid, with the exact words."""

from typing import Any

import pytest

from sidecar.config.problems import format_path
from sidecar.config.yaml_source import MAX_DEPTH, MAX_YAML_BYTES, YamlSource, read_yaml


def value(text: str) -> Any:
    source = read_yaml(text.encode(), "a.yaml")
    assert source.problems == []
    return source.value


#: What YAML 1.1 makes flags, numbers, dates and merges of.
WORDS = """
yes no on off y n Yes NO On OFF True TRUE FALSE Null NULL
012 0o14 0x1F 0b11 1_000 12:30 1:00:00 +1 1e3 .5 5. .inf .nan -.inf 2024-01-01 = <<
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((word, word) for word in WORDS.split()),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-7", -7),
        ("8080", 8080),
        ("0.5", 0.5),
        ("-1.50", -1.5),
        ('"true"', "true"),
        ("'8080'", "8080"),
        ('""', ""),
        ('"\\u00e9\\n"', "é\n"),
        ("|\n    a\n    b\n", "a\nb\n"),
        (">-\n    a\n    b\n", "a b"),
        ("a: b", "a: b"),
    ],
)
def test_a_plain_value_is_read_by_the_rules_of_yaml_1_2(text: str, expected: Any) -> None:
    if text == "a: b":
        assert value(text) == {"a": "b"}
        return
    assert value(f"key: {text}") == {"key": expected}


def test_keys_are_text_whatever_they_look_like() -> None:
    assert value("on: 1\n1: 2\ntrue: 3\nnull: 4\n") == {"on": 1, "1": 2, "true": 3, "null": 4}


def test_mappings_and_lists_nest() -> None:
    assert value("a: [1, {b: [x]}, []]\nc: {}\n") == {"a": [1, {"b": ["x"]}, []], "c": {}}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\n\n"])
def test_an_empty_document_is_none(text: str) -> None:
    assert value(text) is None


@pytest.mark.parametrize("text", ["just text", "[1]", "7"])
def test_any_document_is_read_its_shape_is_the_readers_business(text: str) -> None:
    assert value(text) is not None


def test_a_byte_order_mark_and_utf_16_are_read() -> None:
    assert read_yaml(b"\xef\xbb\xbfa: 1", "a.yaml").value == {"a": 1}
    assert read_yaml("a: é".encode("utf-16"), "a.yaml").value == {"a": "é"}


def test_every_path_knows_its_line() -> None:
    source = read_yaml(b"# comment\na: 1\nb:\n  - x\n  -\n    c: y\n    d:\n      e\n", "a.yaml")
    lines = {format_path(path): source.line_of(path) for path in source.lines}
    assert lines == {"": 2, "a": 2, "b": 3, "b[0]": 4, "b[1]": 6, "b[1].c": 6, "b[1].d": 7}


def test_a_path_that_is_not_written_has_the_line_of_what_is_above_it() -> None:
    source = read_yaml(b"\n\na:\n  b: 1\n", "a.yaml")
    assert source.line_of(("a", "b", "c", 3)) == 4
    assert source.line_of(("a", "x")) == 3
    assert source.line_of(("x",)) == 3
    assert YamlSource("a.yaml").line_of(("x",)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [((), ""), (("a",), "a"), (("routes", 2, "allow", 0), "routes[2].allow[0]"), ((0, "a"), "[0].a")],
)
def test_a_path_is_written_as_people_write_it(path: tuple[str | int, ...], text: str) -> None:
    assert format_path(path) == text


def test_a_problem_says_file_line_and_path() -> None:
    source = read_yaml(b"a:\n  b: 1\n", "dir/a.yaml")
    source.problem(("a", "b"), "is wrong")
    source.problem((), "is all wrong")
    assert [str(problem) for problem in source.problems] == [
        "dir/a.yaml:2: a.b: is wrong",
        "dir/a.yaml:1: is all wrong",
    ]


def problems(text: bytes) -> list[str]:
    return [str(problem) for problem in read_yaml(text, "a.yaml").problems]


def test_the_largest_file_is_read_and_one_byte_more_is_refused() -> None:
    text = b"a: 1\n#".ljust(MAX_YAML_BYTES, b"x")
    assert problems(text) == []
    assert problems(text + b"x") == [
        f"a.yaml:1: the file is larger than {MAX_YAML_BYTES} bytes; check that it is the right file"
    ]


def test_nesting_is_taken_to_its_limit_and_no_deeper() -> None:
    assert problems(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) == []
    refused = [f"a.yaml:1: nested deeper than {MAX_DEPTH} levels; check the indentation"]
    assert problems(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)) == refused
    assert problems(b"[" * 200_000) == refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe\xff", "is not valid YAML ("),
        (b"a: \xff", "is not valid YAML ("),
        (b"a: \x00", "is not valid YAML ("),
        (b'a: "\x01"', "is not valid YAML ("),
        (b"a: b: c", "is not valid YAML (mapping values are not allowed in this context); "),
        (b"a: 'b", "is not valid YAML ("),
        (b"\ta: b", "is not valid YAML ("),
    ],
)
def test_what_is_not_yaml_is_one_problem(text: bytes, message: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(f"a.yaml:1: {message}")


def test_a_number_of_any_length_is_no_crash() -> None:
    """Python refuses to read a whole number of more than 4300 digits."""
    read_yaml(b"workers: " + b"9" * 5000, "a.yaml")
