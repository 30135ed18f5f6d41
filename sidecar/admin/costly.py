"""Texts that take long to write. Anyone who reaches the listener may ask for them repeatedly, and deliveries must not wait."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

#: Seconds for which a text is reused.
FRESH = 1.0


class CostlyText:
    """A text that is written by one task at a time, and at most once a second unless it is about something new."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._writing = asyncio.Lock()
        self._about: object = None
        self._text = ""
        self._stale = 0.0

    async def get(self, about: object, write: Callable[[], Awaitable[str]]) -> str:
        """The text, which `write` writes. `about` is the object that it describes: a text about another object is not reused."""
        async with self._writing:
            if about is not self._about or self._monotonic() >= self._stale:
                self._text, self._about = await write(), about
                self._stale = self._monotonic() + FRESH
            return self._text


def json_text(value: Any) -> str:
    """JSON for use in a thread: written piece by piece, because `json.dumps` would hold the interpreter until its end."""
    return "".join(json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).iterencode(value))
