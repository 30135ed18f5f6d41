"""HTML that can't be broken by what it shows: every value is escaped, unless it was made here."""

import html
from collections.abc import Iterable


class Markup(str):
    """Text that is HTML already. Only `markup` and `joined` make it."""

    __slots__ = ()


def markup(template: str, /, **values: object) -> Markup:
    """The template, a literal of the program, with `{name}` replaced by the values; all but `Markup` is escaped."""
    return Markup(template.format(**{name: _escaped(value) for name, value in values.items()}))


def joined(pieces: Iterable[Markup]) -> Markup:
    """One after another."""
    return Markup("".join(pieces))


def _escaped(value: object) -> Markup:
    """What can't be seen is shown as such: a sender's control characters must not change how a line reads."""
    if isinstance(value, Markup):
        return value
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value))
    return Markup(html.escape(text))
