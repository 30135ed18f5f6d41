"""The limits on the cost of one diagnosis. A sender chooses the input, so everything that grows with it has a bound here."""

from collections.abc import Callable
from typing import NamedTuple

#: Called between tries and inside long ones; raises `OutOfTimeError` when the diagnosis has taken too long.
Check = Callable[[], None]


class OutOfTimeError(Exception):
    """The diagnosis was given up: it has no result."""


class Effort(NamedTuple):
    """The limits of one diagnosis."""

    hashed: int  #: bytes in all tries together
    batch: int  #: bytes in one try, if it is with several secrets
    document: int  #: largest body that is parsed, as JSON or as a form
    fields: int  #: most fields of such a form
    lines: int  #: most lines of a body whose line endings are changed
    indented: int  #: largest body whose JSON is also indented
    depth: int  #: deepest JSON that is written again
    output: int  #: largest text that one layout of JSON may grow to
    hosts: int  #: values of Host and X-Forwarded-Host that are tried
    others: int  #: secrets of other routes


#: For live traffic: a few milliseconds of a thread at most.
LIVE = Effort(
    hashed=4 * 1024**2,
    batch=64 * 1024,
    document=8 * 1024,
    fields=100,
    lines=10_000,
    indented=2 * 1024,
    depth=32,
    output=64 * 1024,
    hosts=4,
    others=200,
)
#: Larger bodies are not diagnosed on live traffic.
MAX_LIVE_BODY = 256 * 1024
#: For a command, whose user waits for it.
THOROUGH = Effort(
    hashed=16 * 1024**3,
    batch=16 * 1024**2,
    document=16 * 1024**2,
    fields=1_000_000,
    lines=16 * 1024**2,
    indented=16 * 1024**2,
    depth=200,
    output=256 * 1024**2,
    hosts=64,
    others=100_000,
)


def unlimited() -> None:
    """The `Check` of a command, whose user may interrupt it."""
