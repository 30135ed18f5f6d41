"""Absolute deadlines for many items at once, at the cost of a dict entry each.

All items in one queue have the same time to live. So the first one in is the first one due, and a single timer serves
them all. `asyncio.timeout` and `call_later` cost a timer per request; this costs about a tenth of that.
"""

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
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

    def __contains__(self, item: T) -> bool:
        return item in self._due

    def __iter__(self) -> Iterator[T]:
        return iter(self._due)

    def now(self) -> float:
        return self._loop.time()

    def oldest(self) -> tuple[T, float] | None:
        """The item that has been in the queue longest, and for how many seconds."""
        for item, due in self._due.items():
            return item, self._loop.time() + self.seconds - due
        return None

    def add(self, item: T) -> float:
        """Starts or restarts the clock of `item`. Returns the loop's time at which it is due."""
        self._due.pop(item, None)
        self._due[item] = due = self._loop.time() + self.seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._fire)
        return due

    def discard(self, item: T) -> None:
        """Stops the clock of `item`, if it runs."""
        self._due.pop(item, None)

    def _fire(self) -> None:
        now = self._loop.time()
        expired = [item for item, _ in takewhile(lambda entry: entry[1] <= now, self._due.items())]
        # The timer is set for the next item before any callback can add to the queue.
        later = next(islice(self._due.values(), len(expired), None), None)
        self._timer = None if later is None else self._loop.call_at(later, self._fire)
        for item in expired:
            if self._due.get(item, now + 1) <= now:  # otherwise another item's expiry stopped or restarted its clock
                del self._due[item]
                self._expire(item)
