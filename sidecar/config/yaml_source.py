"""YAML text to plain values with the line of every path, and without YAML's traps.

PyYAML composes the nodes; the values are made here by the core rules of YAML 1.2. So `no` is a string and not False,
`012` is a string and not 10, `12:30` is a string and not 750; duplicate keys, aliases and anchors, several documents,
and nesting deep enough for a RecursionError are errors with their line.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from sidecar import SHIPPED
from sidecar.config.problems import Path, Problem, format_path

#: A configuration of a thousand routes is about 300 KiB.
MAX_YAML_BYTES = 1024 * 1024
MAX_DEPTH = 20


#: Longer numbers stay text: no setting needs them, and int() raises an error beyond 4,300 digits.
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}")


@dataclass(slots=True)
class YamlSource:
    """A parsed file: plain values, the line of each path, and the mistakes in the YAML itself."""

    file: str
    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, path: Path) -> int:
        """The line of `path`, or of its nearest parent that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, message: str) -> None:
        self.problems.append(Problem(self.file, self.line_of(path), format_path(path), message))


def shipped_names(folder: str) -> tuple[str, ...]:
    """Names of the files that the package has in a folder, without `.yaml`, sorted."""
    return tuple(sorted(file.stem for file in (SHIPPED / folder).glob("*.yaml")))


def read_shipped(folder: str, name: str, names: Sequence[str]) -> Any:
    """The values of a file in the package. Raises `KeyError` for a name that is not among `names`."""
    if name not in names:
        raise KeyError(name)
    source = read_yaml((SHIPPED / folder / f"{name}.yaml").read_bytes(), f"{folder}/{name}.yaml")
    if source.problems:
        raise ValueError(str(source.problems[0]))
    return source.value


def read_yaml(text: bytes, file: str) -> YamlSource:
    """Parses one document. Never raises on bad input: mistakes are in `.problems`, and `.value` is then unusable."""
    source = YamlSource(file)
    if len(text) > MAX_YAML_BYTES:
        source.problems.append(
            Problem(file, 1, "", f"the file is larger than {MAX_YAML_BYTES} bytes; check that it is the right file")
        )
        return source
    try:
        _check_events(text)
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except _UnsupportedError as error:
        source.problems.append(Problem(file, error.line, "", error.message))
    except yaml.MarkedYAMLError as error:
        line, what = _describe(error)
        remedy = "indent with spaces, not tabs" if _has_tab(text, line) else "check quotes, colons and indentation"
        remedy = "remove the line `---`" if what == "found another document" else remedy
        source.problems.append(Problem(file, line, "", f"is not valid YAML ({what}); {remedy}"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        source.problems.append(
            Problem(
                file,
                1,
                "",
                f"is not valid YAML ({str(error).splitlines()[0]}); write it as UTF-8 without control characters",
            )
        )
    else:
        if node is not None:
            source.lines[()] = node.start_mark.line + 1
            source.value = _value(node, (), source)
    return source


def _describe(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    """The line of a mistake, and what is wrong there; with the line of what it belongs to, if that is another one."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    what = (error.problem or error.context or "").removeprefix("but ")
    begin = error.context_mark.line + 1 if error.context_mark else line
    if begin == line or not str(error.context).startswith("while "):
        return line, what
    if error.context == "while scanning a quoted scalar":
        return begin, "the quote that begins here is not closed"
    return line, f"{what} {error.context}, which begins on line {begin}"


def _has_tab(text: bytes, line: int) -> bool:
    """Whether a line is indented with a tab, which YAML forbids (YAML 1.2.2, 6.1)."""
    at = b"".join(text.split(b"\n", line)[line - 1 : line])  # nothing, if the mistake is the end of the file
    return b"\t" in at[: len(at) - len(at.lstrip())]


class _UnsupportedError(Exception):
    def __init__(self, line: int, message: str) -> None:
        self.line = line
        self.message = message


def _check_events(text: bytes) -> None:
    """Checks the event stream before any recursive code runs."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _UnsupportedError(line, "anchors and aliases (&, *) are not supported; write the value out")
        if getattr(event, "tag", None) is not None:
            raise _UnsupportedError(line, "tags (!) are not supported; quote the value if it is text")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _UnsupportedError(line, f"nested deeper than {MAX_DEPTH} levels; check the indentation")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _value(node: yaml.Node, path: Path, source: YamlSource) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, source)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            source.lines[(*path, index)] = item.start_mark.line + 1
            items.append(_value(item, (*path, index), source))
        return items
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node)


def _mapping(node: yaml.MappingNode, path: Path, source: YamlSource) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            source.problem(path, "a key must be plain text; quote it")
            continue
        key = str(key_node.value)
        at = (*path, key)
        if key in values:
            first = source.lines[at]
            source.problems.append(
                Problem(
                    source.file,
                    key_node.start_mark.line + 1,
                    format_path(at),
                    f"appears twice, first on line {first}; keep one",
                )
            )
            continue
        source.lines[at] = key_node.start_mark.line + 1
        values[key] = _value(value_node, at, source)
    return values


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    if node.style:  # quoted, literal or folded: text, whatever it looks like
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
