"""How a command says that it can't work with what it was given."""

from typing import NoReturn


class UsageError(Exception):
    """Input that a command can't work with; exit status 2. The message names the remedy."""


def unusable(message: str) -> NoReturn:
    raise UsageError(message)
