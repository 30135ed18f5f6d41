"""How a command reports input that it can't work with."""

from typing import NoReturn


class UsageError(Exception):
    """Input that a command can't work with; exit status 2. The message names the remedy."""


def unusable(message: str) -> NoReturn:
    """Raises `UsageError`."""
    raise UsageError(message)
