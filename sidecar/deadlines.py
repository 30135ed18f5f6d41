"""Absolute deadlines for many things at once, at the price of a dict entry each.

Everything in one queue has the same time to live, so the first one in is the first one due and a single timer serves
them all. `asyncio.timeout` and `call_later` cost a timer per request; this costs about a tenth of that.
"""

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from itertools import takewhile
from typing import Generic, TypeVar

T = TypeVar("T")


class DeadlineQueue(Generic[T]):
    """Calls `expire(item)` for each item that stays longer than `seconds`."""

    __slots__ = ("_due", "_expire", "_loop", "_timer", "seconds")

    def __init__(self, loop: AbstractEventLoop, seconds: float, expire: Callable[[T], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._due: dict[T, float] = {}
        self._timer: TimerHandle | None = None
        self.seconds = seconds

    def __len__(self) -> int:
        return len(self._due)

    def add(self, item: T) -> None:
        """Starts the clock of `item`; starts it anew if it runs already."""
        self._due.pop(item, None)
        self._due[item] = due = self._loop.time() + self.seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._fire)

    def discard(self, item: T) -> None:
        """Stops the clock of `item`, if it runs."""
        self._due.pop(item, None)

    def _fire(self) -> None:
        now = self._loop.time()
        expired = [item for item, _ in takewhile(lambda entry: entry[1] <= now, self._due.items())]
        for item in expired:
            del self._due[item]
        # Armed anew before anything is called that may add to the queue.
        self._timer = self._loop.call_at(next(iter(self._due.values())), self._fire) if self._due else None
        for item in expired:
            self._expire(item)
