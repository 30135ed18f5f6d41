"""Kubernetes manifests as text that is edited in place, so that comments, order and format are kept.

A stream is split at its `---` lines, which YAML allows nowhere else at the start of a line. Each document is parsed to find
the positions of its nodes, and every change inserts, deletes or replaces text there. All other text stays byte for byte.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NoReturn

import yaml

#: The record of an object that inject added.
ADDED = "made"
#: The most nodes that aliases (*) may repeat, in all documents of a stream: a few hundred bytes could mean millions.
MAX_REPEATED = 100_000
#: The deepest nesting. CustomResourceDefinitions, whose schemas nest most, have about 60 levels.
MAX_DEPTH = 200

#: Steps into a document: a mapping's key, a list's index, or the `name` of a list's item.
Steps = tuple[str | int, ...]

_MARKER = re.compile(r"^(?:---|\.\.\.)(?=\s|\Z)", re.MULTILINE)
_INTEGER = re.compile(r"[0-9]{1,18}")


class ManifestError(Exception):
    """Manifests that can't be used; the message names file, line and remedy."""


@dataclass
class Record:
    """The changes of an object, to undo them: paths added, parents first, and texts replaced."""

    added: list[Steps] = field(default_factory=list)
    was: list[tuple[Steps, str]] = field(default_factory=list)

    def text(self) -> str:
        return json.dumps({"added": self.added, "was": self.was}, separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> "Record":
        """Raises `ValueError` for text that `text()` did not write."""
        found = json.loads(text)
        try:
            record = cls(
                [tuple(steps) for steps in found["added"]], [(tuple(steps), was) for steps, was in found["was"]]
            )
        except (TypeError, KeyError) as error:
            raise ValueError(text) from error
        paths = [*record.added, *(steps for steps, _ in record.was)]
        if not all(steps and all(type(step) in (str, int) for step in steps) for steps in paths):
            raise ValueError(text)
        if not all(isinstance(was, str) for _, was in record.was):
            raise ValueError(text)
        return record


@dataclass(eq=False)
class Document:
    """One document of a stream, with the changes to make. `line` is the number of its first line, minus one."""

    text: str
    file: str = ""
    line: int = 0
    newline: str = "\n"
    root: yaml.Node | None = None
    repeated: int = 0  #: how many nodes aliases (*) repeat
    _inserts: list[tuple[int, int, int, int, str]] = field(default_factory=list)
    _spans: list[tuple[int, int, str]] = field(default_factory=list)
    _grown: dict[int, int] = field(default_factory=dict)
    _shared_nodes: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        # The marker line is not parsed; spaces in its place keep every index.
        body = _MARKER.sub("   ", self.text, count=1) if _MARKER.match(self.text) else self.text
        try:
            self._check_depth(body)
            self.root = yaml.compose(body, Loader=yaml.CSafeLoader)
            self._shared_nodes = self._shared()
            self.repeated = self._count_repeated()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = self.line + (mark.line if mark else 0) + 1
            what = (error.problem or error.context or "").removeprefix("but ")
            raise ManifestError(
                f"{self.file}:{where}: is not valid YAML ({what}); check quotes, colons and indentation"
            ) from None
        except (yaml.YAMLError, RecursionError) as error:
            what = str(error).splitlines()[0]
            raise ManifestError(
                f"{self.file}:{self.line + 1}: is not valid YAML ({what}); write it as UTF-8 without control characters"
            ) from None

    def _check_depth(self, body: str) -> None:
        """Runs before nodes are composed, because that recurses in C and ends the process at about ten thousand levels."""
        depth = 0
        for event in yaml.parse(body, Loader=yaml.CSafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                line = self.line + (event.start_mark.line if event.start_mark else 0) + 1
                raise ManifestError(f"{self.file}:{line}: nested deeper than {MAX_DEPTH} levels; check the indentation")

    def fail(self, node: yaml.Node | None, message: str) -> NoReturn:
        line = self.line + (node.start_mark.line if node is not None else 0) + 1
        raise ManifestError(f"{self.file}:{line}: {message}")

    # Reading

    def get(self, node: yaml.Node | None, *steps: str | int) -> yaml.Node | None:
        """The node at the end of the steps, or None."""
        for step in steps:
            found = self._child(node, step)
            if found is None:
                return None
            node = found[1]
        return node

    def value(self, node: yaml.Node | None, *steps: str | int) -> Any:
        """Text, numbers, lists and mappings; None if there is nothing."""
        return _plain(self.get(node, *steps))

    def raw(self, node: yaml.Node) -> str:
        return self.text[node.start_mark.index : node.end_mark.index]

    def items(self, node: yaml.Node | None, *steps: str | int) -> list[yaml.Node]:
        found = self.get(node, *steps)
        return list(found.value) if isinstance(found, yaml.SequenceNode) else []

    def _child(self, node: yaml.Node | None, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
        """The node at which the child begins (its key, or itself in a list), and its value."""
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                if step == index or (isinstance(step, str) and self.value(item, "name") == step):
                    return item, item
        elif isinstance(node, yaml.MappingNode):
            found = [pair for pair in node.value if pair[0].value == step]
            if len(found) > 1:
                self.fail(found[1][0], f"the key {step} appears twice; remove one")
            return found[0] if found else None
        return None

    def _shared(self) -> set[int]:
        """Nodes that an alias (*) refers to: a change there would change other places too."""
        seen: set[int] = set()
        shared: set[int] = set()

        def visit(node: yaml.Node) -> None:
            if id(node) in seen:
                shared.add(id(node))
                return
            seen.add(id(node))
            for child in _children(node):
                visit(child)

        if self.root is not None:
            visit(self.root)
        return shared

    def _count_repeated(self) -> int:
        """How much larger the document is with every alias (*) written out: in nodes, or in hundreds of characters of text."""
        sizes: dict[int, int] = {}  # of each node, written out; 0 while it is being counted
        written = 0

        def size_of(node: yaml.Node) -> int:
            nonlocal written
            if id(node) not in sizes:
                sizes[id(node)] = 0
                if isinstance(node, yaml.MappingNode):
                    for key, _ in node.value:
                        if not isinstance(key, yaml.ScalarNode):
                            self.fail(key, "a key is a list or a mapping; Kubernetes has only text as keys")
                own = 1 + (len(node.value) // 100 if isinstance(node, yaml.ScalarNode) else 0)
                written += own
                sizes[id(node)] = own + sum(size_of(child) for child in _children(node))
            elif not sizes[id(node)]:
                self.fail(node, "an alias (*) is part of what it refers to; write it out")
            return sizes[id(node)]

        if self.root is None:
            return 0
        repeated = size_of(self.root) - written
        if repeated > MAX_REPEATED:
            self.fail(self.root, f"aliases (*) repeat more than {MAX_REPEATED} nodes; write them out")
        return repeated

    def _check_own(self, node: yaml.Node | None, step: str | int) -> None:
        if id(node) in self._shared_nodes:
            self.fail(node, f"{step} is shared by an alias (*), but must change in one place only; write it out")

    # Changing

    def add(self, base: yaml.Node, steps: Steps, value: Any, record: "Record") -> None:
        """Adds `value` at `steps` below `base`, with any missing parents; the items of a list are appended.

        If `value` is a function, it is called once the record holds this addition too.
        """
        node, at = base, 0
        while at < len(steps) and (found := self._child(node, steps[at])) is not None and not _is_null(found[1]):
            node, at = found[1], at + 1
            self._check_own(node, steps[at - 1])
        names = [(*steps, item["name"]) for item in value] if isinstance(value, list) else []
        if at == len(steps) and isinstance(node, yaml.SequenceNode) and isinstance(value, list):
            for item in value:
                self._append(node, None, item)
            record.added += names
            return
        if at == len(steps) or not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{'.'.join(map(str, steps[: at + 1]))} is not of the type that Kubernetes expects")
        key = str(steps[at])
        if found is None:
            record.added += [steps[: end + 1] for end in range(at, len(steps))] + names
        else:  # a key without a value, as templates sometimes leave
            record.was.append((steps[: at + 1], self.raw(found[1])))
        if callable(value):
            value = value()
        for step in reversed(steps[at + 1 :]):
            value = {step: value}
        if found is None:
            self._append(node, key, value)
        else:
            self.replace(found[1], ("" if self.raw(found[1]) else " ") + json.dumps(value))

    def change(self, base: yaml.Node, steps: Steps, text: str, record: "Record") -> None:
        """Replaces the scalar at `steps`, and records its former text."""
        for end in range(1, len(steps) + 1):
            self._check_own(self.get(base, *steps[:end]), steps[end - 1])
        node = self.get(base, *steps)
        assert isinstance(node, yaml.ScalarNode)
        record.was.append((steps, self.raw(node)))
        self.replace(node, text)

    def undo(self, base: yaml.Node, record: "Record") -> None:
        """Undoes the changes in the record; skips those whose place has been removed since."""
        gone: dict[int, tuple[tuple[yaml.Node, yaml.Node], yaml.Node]] = {}  # what is deleted, and its parent
        for steps in sorted(record.added, key=len, reverse=True):  # a parent is removed if nothing is left in it
            holder = self.get(base, *steps[:-1])
            found = self._child(holder, steps[-1])
            if holder is None or found is None:
                continue
            is_parent = any(other[: len(steps)] == steps and other != steps for other in record.added)
            if not is_parent or all(id(child) in gone for child in _children(found[1])):
                gone[id(found[1])] = (found, holder)
        for (start, value), holder in gone.values():
            if id(holder) not in gone:
                self._delete(start, value, holder, gone)
        for steps, text in record.was:
            node = self.get(base, *steps)
            if node is not None and not any(
                id(self.get(base, *steps[:end])) in gone for end in range(1, len(steps) + 1)
            ):
                begin = node.start_mark.index
                if not text and self.text[begin - 2 : begin] == ": ":
                    begin -= 1
                self._spans.append((begin, node.end_mark.index, text))

    def append(self, sequence: yaml.Node, value: Any) -> None:
        self._append(sequence, None, value)

    def replace(self, node: yaml.Node, text: str) -> None:
        """Replaces a scalar."""
        self._spans.append((node.start_mark.index, node.end_mark.index, text))

    def _append(self, node: yaml.Node, key: str | None, value: Any) -> None:
        assert isinstance(node, yaml.CollectionNode)
        order = len(self._inserts)
        if node.flow_style:
            text = json.dumps(value) if key is None else f"{json.dumps(key)}: {json.dumps(value)}"
            already = self._grown[id(node)] = self._grown.get(id(node), -1) + 1
            if node.value:
                last = node.value[-1]
                end = (last[1] if isinstance(last, tuple) else last).end_mark.index
                self._inserts.append((end, 0, 0, order, f", {text}"))
            else:
                self._inserts.append((node.start_mark.index + 1, 0, 0, order, f", {text}" if already else text))
            return
        column = node.start_mark.column
        lines = dump([value] if key is None else {key: value}).splitlines()
        text = "".join(f"{' ' * column}{line}{self.newline}" if line else self.newline for line in lines)
        # Of several insertions at one place, the innermost comes first, and an item before a key in the same column.
        self._inserts.append((self._line_after(node), -column, int(key is not None), order, text))

    def _delete(self, start: yaml.Node, value: yaml.Node, holder: yaml.Node, gone: Any) -> None:
        assert isinstance(holder, yaml.CollectionNode)
        if not holder.flow_style:
            begin = self.text.rfind("\n", 0, start.start_mark.index) + 1
            self._spans.append((begin, self._line_after(value), ""))
            return
        siblings = _children(holder)
        starts = [pair[0] if isinstance(pair, tuple) else pair for pair in holder.value]
        index = siblings.index(value)
        begin, end = start.start_mark.index, value.end_mark.index
        if index:
            begin = siblings[index - 1].end_mark.index
        elif len(siblings) > 1 and id(siblings[1]) not in gone:
            end = starts[1].start_mark.index
        self._spans.append((begin, end, ""))

    def _line_after(self, node: yaml.Node) -> int:
        """The start of the line after the end of `node`."""
        while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            node = _children(node)[-1]
        end = node.end_mark.index
        if end and node.start_mark.index < end and self.text[end - 1] == "\n":
            return end  # a literal or folded scalar ends where the next line begins
        found = self.text.find("\n", end)
        return len(self.text) if found < 0 else found + 1

    def render(self) -> str:
        """The text with all changes made."""
        text, cut = self.text, not self.text.endswith("\n")
        edits = [(at, at, put) for at, *_, put in sorted(self._inserts)]
        for begin, end, put in sorted(self._spans):
            if not put and edits and edits[-1][1] == begin and not edits[-1][2] and edits[-1][0] < begin:
                edits[-1] = (edits[-1][0], end, "")  # adjacent deletions
            else:
                edits.append((begin, end, put))
        pieces, last = [], 0
        for begin, end, put in sorted(edits, key=lambda edit: edit[:2]):
            at, new = begin, put
            if cut and end == len(text) and put.endswith(self.newline) and begin == end:
                new = self.newline + put.removesuffix(self.newline)  # the file's last line has no newline; keep it so
            elif cut and end == len(text) and not put and text[:begin].endswith("\n"):
                at = begin - len(self.newline)
            pieces += [text[last:at], new]
            last = end
        return "".join([*pieces, text[last:]])


def parse(text: str, file: str) -> list[Document]:
    """The documents of a stream; joined, their texts are the stream."""
    newline = "\r\n" if "\r\n" in text else "\n"
    cuts = [0, *(match.start() for match in _MARKER.finditer(text) if match.group() == "---"), len(text)]
    documents: list[Document] = []
    line = repeated = 0
    for start, end in pairwise(cuts):
        if start < end:
            document = Document(text[start:end], file, line, newline)
            repeated += document.repeated
            if repeated > MAX_REPEATED:
                document.fail(document.root, f"aliases (*) repeat more than {MAX_REPEATED} nodes; write them out")
            documents.append(document)
            line += document.text.count("\n")
    return documents


def dump(value: Any) -> str:
    """A value as block YAML, with multi-line text as literals."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [value for _, value in node.value]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.style and node.value in ("", "~", "null")


def _plain(node: yaml.Node | None) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if node is None or _is_null(node):
        return None
    assert isinstance(node, yaml.ScalarNode)
    return int(node.value) if not node.style and _INTEGER.fullmatch(node.value) else node.value


def objects(document: Document) -> Iterator[yaml.MappingNode]:
    """The Kubernetes objects of a document: itself, or the items of a List or ResourceList."""
    root = document.root
    if not isinstance(root, yaml.MappingNode):
        return
    kind = document.value(root, "kind")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(document.get(root, "items"), yaml.SequenceNode):
        yield from (item for item in document.items(root, "items") if isinstance(item, yaml.MappingNode))
    else:
        yield root
