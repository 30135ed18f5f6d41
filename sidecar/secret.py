"""Secrets, which don't show their values by accident.

The value is read with `reveal` only, in the few files that tests/unit/test_structure.py lists.
"""

import re
from hmac import compare_digest
from typing import NamedTuple

_USER = re.compile(r"(?<=://).*@", re.DOTALL)


def mask_url(text: str) -> str:
    """A URL, or a text that should have been one, in the form that may be shown: without user, password and query values.

    An `@` in the path counts as the end of a password: `http://user:pa/ss@host/` is one that was not escaped.
    """
    begin, mark, query = _USER.sub("***@", text).partition("?")
    if not mark:
        return begin
    return begin + mark + "&".join(f"{name}=***" if equals else "***" for name, equals, _ in _pairs(query))


def _pairs(query: str) -> list[tuple[str, str, str]]:
    return [pair.partition("=") for pair in query.split("&")]


class SecretRef(NamedTuple):
    """Where a secret is, outside the configuration file. `id` is its name in logs and metrics."""

    id: str
    env: str
    file: str
    optional: bool
    retire_by: float | None = None

    @property
    def where(self) -> str:
        return f"env:{self.env}" if self.env else f"file:{self.file}"


class Secret:
    """A shared secret. `repr`, `str`, equality and dumps show the id only."""

    __slots__ = ("_value", "id", "retire_by")

    def __init__(self, id: str, value: bytes, *, retire_by: float | None = None) -> None:
        """`retire_by` is the unix time by which it should be out of use; it is only displayed."""
        if not value:
            raise ValueError("a secret must not be empty")
        self.id = id
        self._value = value
        self.retire_by = retire_by

    def reveal(self) -> bytes:
        """The secret itself. Never log or store it."""
        return self._value

    def matches(self, presented: bytes) -> bool:
        """Whether `presented` is this secret; takes the same time wherever they differ."""
        return compare_digest(self._value, presented)

    def with_id(self, id: str) -> "Secret":
        """The same secret under another id."""
        return Secret(id, self._value, retire_by=self.retire_by)

    def __repr__(self) -> str:
        return f"Secret(id={self.id!r}, value=<secret>)"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled: its value would leave the process")
