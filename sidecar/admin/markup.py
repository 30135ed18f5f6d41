"""Builds HTML safely: every value is escaped, unless it was built here."""

import html
from collections.abc import Iterable


class Markup(str):
    """Text that is already HTML. Only `markup` and `join` create it."""

    __slots__ = ()


def markup(template: str, /, **values: object) -> Markup:
    """Replaces each `{name}` in the template, a literal in this program; all values but `Markup` are escaped."""
    return Markup(template.format(**{name: _escape(value) for name, value in values.items()}))


def join(pieces: Iterable[Markup]) -> Markup:
    """Concatenates pieces of HTML."""
    return Markup("".join(pieces))


def _escape(value: object) -> Markup:
    """Makes invisible characters visible: a sender's control characters must not change how a line reads."""
    if isinstance(value, Markup):
        return value
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))
    return Markup(html.escape(text))
