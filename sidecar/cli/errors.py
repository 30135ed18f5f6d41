"""How a command reports unusable input."""

import re
from typing import NoReturn


class UsageError(Exception):
    """Unusable input; exit status 2. The message names the remedy."""


def unusable(message: str) -> NoReturn:
    """Raises `UsageError`."""
    raise UsageError(message)


def describe(error: Exception) -> str:
    """The error's text without the number of the system's error; its type if it has no text."""
    return re.sub(r"^\[Errno -?[0-9]+\] ", "", str(error)) or type(error).__name__
