"""The documents of published keys that one process has, and the wait for one that is missing.

`KeyDocuments` is what a verifier and stage 6 see: `KeyStore` in the process that fetches (key_store.py), and `WorkerKeys` in a
worker (key_channel.py). A stranger can name any number of keys that don't exist, so everything here is bounded: how often a
document is asked for, how many deliveries wait, and for how long.
"""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from sidecar.delivery.missing_key import WAIT_SECONDS
from sidecar.verify.published import Document, KeySource

#: Seconds. An unknown key makes the process fetch its document at most once in this time; in between the key doesn't exist.
UNKNOWN_SECONDS = 60.0
#: Deliveries of one process that wait at a time; each holds its body.
MAX_WAITING = 64
#: Seconds for which the provider's statement that an id has no key is believed.
NEGATIVE_SECONDS = 600.0


class Entry:
    """The state of one source."""

    __slots__ = ("asked", "document", "failed", "fetching", "source", "until", "waiters", "wanted")

    def __init__(self, source: KeySource) -> None:
        self.source = source
        self.document: Document | None = None  #: with empty content: the provider has no such key
        self.until = 0.0  #: when the document no longer counts, unix seconds
        self.failed = False  #: whether the last fetch failed
        self.fetching = False
        self.wanted = False  #: whether a delivery waits for the end of this fetch
        self.asked = -math.inf  #: the end of the last fetch that a delivery waited for, monotonic seconds
        self.waiters: set[asyncio.Future[None]] = set()

    @property
    def good(self) -> bool:
        """Whether there is a document with keys, however old."""
        return self.document is not None and bool(self.document.content)

    def wake(self) -> None:
        """Resumes the deliveries that wait for the end of a fetch."""
        self.fetching = self.wanted = False
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


E = TypeVar("E", bound=Entry)


class KeyDocuments(Generic[E]):
    """The documents of this process: a `RefreshableKeys`. `get` and `used` may be called in any thread."""

    def __init__(self, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.entries: dict[KeySource, E] = {}
        self.waiting = 0
        self._now = now
        self._monotonic = monotonic
        self._used: set[KeySource] = set()

    def get(self, source: KeySource) -> Document | None:
        """The last good document; None if there is none, or if it is older than `keep`. Never waits.

        For a key that the provider says it doesn't have: an empty document.
        """
        entry = self.entries.get(source)
        return entry.document if entry is not None and entry.until > self._now() else None

    def used(self, source: KeySource) -> None:
        """Notes that the document of one key has verified a delivery; documents that haven't are dropped first."""
        self._used.add(source)

    def is_current(self, source: KeySource) -> bool:
        """Whether the provider confirmed the document within the interval."""
        entry = self.entries.get(source)
        if entry is None or entry.failed or entry.fetching:
            return False
        if entry.document is not None and not entry.document.content:
            return entry.until > self._now()
        return self.seconds_ago(entry) < UNKNOWN_SECONDS

    async def refresh(self, source: KeySource, seconds: float = WAIT_SECONDS) -> bool:
        """Asks for a newer document, at most once an interval, and waits for at most `seconds`.

        Returns whether there is a newer one than before; a statement that there is no such key counts as one. Never raises.
        """
        if self.waiting >= MAX_WAITING:
            return False
        entry = self._find(source)
        if entry is None:
            return False
        before = entry.document
        if not entry.fetching and (self.is_current(source) or not self._ask(entry)):
            return False
        loop = asyncio.get_running_loop()
        # Not `asyncio.timeout`: a delivery is not a task (http1/light_task.py).
        entry.wanted = True
        waiter = loop.create_future()
        timer = loop.call_later(max(seconds, 0.0), _wake, waiter)
        entry.waiters.add(waiter)
        self.waiting += 1
        try:
            await waiter
        finally:
            self.waiting -= 1
            entry.waiters.discard(waiter)
            timer.cancel()
        return entry.document is not None and entry.document is not before

    def seconds_ago(self, entry: E) -> float:
        """The time since the last fetch that a delivery waited for; infinite if there was none."""
        return self._monotonic() - entry.asked

    def is_early(self, entry: E) -> bool:
        """Whether the source was asked for a delivery so recently that it may not be asked again."""
        return self.seconds_ago(entry) < UNKNOWN_SECONDS

    def take_used(self) -> list[KeySource]:
        """The sources noted by `used` since the last call."""
        taken = list(self._used)  # one step of the interpreter: a thread may be adding
        self._used.difference_update(taken)
        return taken

    def _find(self, source: KeySource) -> E | None:
        """The entry of a source that may be fetched; None for others."""
        raise NotImplementedError

    def _ask(self, entry: E) -> bool:
        """Has a document fetched, and sets `fetching`, unless that is too early."""
        raise NotImplementedError


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
