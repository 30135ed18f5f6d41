"""Parses the `Forwarded` header field (RFC 7239), strictly by its grammar.

Several parties write to it, each appending to what it got, and quoted strings may contain commas. A parser that only splits at
commas mistakes a sender's quoted text for an entry of a proxy. Here a line that breaks the grammar is an error.
"""

import re
from collections.abc import Iterable, Iterator

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QDTEXT = r"[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]*+"
#: Possessive: otherwise `re` keeps 200 bytes for each character, to backtrack.
_QUOTED = rf'"{_QDTEXT}(?:\\[\t \x21-\x7e\x80-\xff]{_QDTEXT})*+"'
#: One `name=value` and its end: `;` (more of this hop), `,` (the next hop) or the end of the line.
_PAIR = re.compile(rf"({_TOKEN})=({_TOKEN}|{_QUOTED})[ \t]*([;,]|\Z)[ \t]*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
#: A node that is an address: `192.0.2.1`, `192.0.2.1:443`, `[2001:db8::1]`, `[2001:db8::1]:_port`.
_NODE = re.compile(r"([0-9.]+|\[[0-9A-Fa-f:.]+\])(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")


class ForwardedError(Exception):
    """Not a valid `Forwarded` field; the message says why."""


def parse_forwarded(lines: Iterable[str]) -> Iterator[str]:
    """The address of each hop, in wire order; empty if a hop names none (`unknown`, `_hidden`, no `for` at all).

    IPv6 addresses come without brackets, and all addresses without ports. Raises `ForwardedError` at the first fault.
    """
    for line in lines:
        yield from map(_address, _nodes(line.strip(" \t")))


def _nodes(line: str) -> Iterator[str]:
    """The `for` of each hop of one line."""
    names: dict[str, str] = {}
    at, end = 0, ","
    while end:
        match = _PAIR.match(line, at)
        if match is None:
            raise ForwardedError("a Forwarded line that does not follow RFC 7239")
        name, value, end = match.groups()
        name = name.lower()
        if name in names:
            raise ForwardedError(f"a hop in Forwarded that has {name[:20]} twice")
        names[name] = _ESCAPED.sub(r"\1", value[1:-1]) if value[0] == '"' else value
        if end != ";":
            yield names.get("for", "")
            names = {}
        at = match.end()


def _address(node: str) -> str:
    match = _NODE.fullmatch(node)
    return match[1].strip("[]") if match else ""
