"""How a command reports unusable input."""

from typing import NoReturn


class UsageError(Exception):
    """Unusable input; exit status 2. The message names the remedy."""


def unusable(message: str) -> NoReturn:
    """Raises `UsageError`."""
    raise UsageError(message)
