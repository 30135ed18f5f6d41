"""Where a key belongs that is in the wrong section: `body:` on a route belongs in `limits:` of the route."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from sidecar.config.fields.base import Mistake, ValueType
from sidecar.config.fields.mapping import Items, Section, ShortOrSection, UnknownKeyMessage
from sidecar.config.keys import CONFIG
from sidecar.config.presets import Verify
from sidecar.config.route_keys import Secrets
from sidecar.config.scheme_keys import SCHEME

#: Sections that a message names.
_MOST = 3


def add_places(mistakes: Iterable[Mistake]) -> Iterator[Mistake]:
    """The mistakes; the message for an unknown key also names other sections that have it, the nearest ones first."""
    for at, message in mistakes:
        if not isinstance(message, UnknownKeyMessage):
            yield at, message
            continue
        *above, name = ("[]" if isinstance(step, int) else step for step in at)
        here = tuple(above)
        sections = [section for section in _sections().get(name, []) if section != here]
        near = [section for section in sections if _contains(here, section) or _contains(section, here)]
        if near and not message.guess:
            yield at, f"unknown key here; move it to {_describe(near)}"
        elif sections:
            separator = "" if message.guess else ";"
            yield at, f"{message}{separator} `{name}` is a key of {_describe(near or sections)}"
        else:
            yield at, message


def _contains(outer: tuple[str, ...], inner: tuple[str, ...]) -> bool:
    return inner[: len(outer)] == outer


def _describe(sections: list[tuple[str, ...]]) -> str:
    """`limits, routes[].limits or an entry of routes`."""
    *others, last = [_name(section) for section in sections[:_MOST]]
    return f"{', '.join(others)} or {last}" if others else last


def _name(section: tuple[str, ...]) -> str:
    if not section:
        return "the top level"
    text = ".".join(section).replace(".[]", "[]")
    return f"an entry of {text.removesuffix('[]')}" if text.endswith("[]") else text


@cache
def _sections() -> dict[str, list[tuple[str, ...]]]:
    """For each key the sections that have it, by their paths; those higher up come first."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for section, name in _walk(CONFIG, ()):
        found.setdefault(name, []).append(section)
    return {name: sorted(dict.fromkeys(sections), key=len) for name, sections in found.items()}


def _walk(kind: ValueType[Any], at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each key below a kind of value, with the path of its section."""
    if isinstance(kind, Section):
        for name, key in kind.keys.items():
            yield at, str(name)
            yield from _walk(key.type, (*at, str(name)))
    elif isinstance(kind, ShortOrSection):
        yield from _walk(kind.section, at)
    elif isinstance(kind, Items):
        yield from _walk(kind.item, (*at, "[]"))
    elif isinstance(kind, Secrets):
        yield from _walk(kind.listed, at)
    elif isinstance(kind, Verify):
        yield from _walk(SCHEME, at)
