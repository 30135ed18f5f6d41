"""Texts that take long to write. Anybody who reaches the listener may ask for them again and again, and no delivery may wait."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

#: Seconds for which a text is given out again.
FRESH = 1.0


class CostlyText:
    """One of them: written once at a time, and at most once a second unless it is about something new."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._writing = asyncio.Lock()
        self._about: object = None
        self._text = ""
        self._stale = 0.0

    async def get(self, about: object, write: Callable[[], Awaitable[str]]) -> str:
        """The text; `write` writes it. `about` is the object that it is about, which replaces another when it changes."""
        async with self._writing:
            if about is not self._about or self._monotonic() >= self._stale:
                self._text, self._about = await write(), about
                self._stale = self._monotonic() + FRESH
            return self._text


def json_text(value: Any) -> str:
    """For a thread: it writes piece by piece, where `json.dumps` would keep the interpreter to itself until the end."""
    return "".join(json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).iterencode(value))
