"""A replay store in the memory of one process."""

from collections.abc import Callable

from sidecar.replay.store import Seen

#: How many deliveries the memory store remembers: about 17 MB, or ten minutes at 160 deliveries a second.
MAX_REMEMBERED = 100_000


class MemoryStore:
    """The store of one process, bounded in time and in number. The cost of a call does not depend on how much it remembers.

    There is one dictionary for each duration that was ever configured, so that in each one the oldest entry expires first.
    """

    def __init__(self, monotonic: Callable[[], float], *, limit: int = MAX_REMEMBERED) -> None:
        self._monotonic = monotonic
        self._limit = limit
        self._pending: set[bytes] = set()
        self._done: dict[float, dict[bytes, float]] = {}  # by duration: keys, and when they expire

    def start(self) -> None:
        """Nothing to do."""

    def __len__(self) -> int:
        return sum(map(len, self._done.values()))

    async def begin(self, key: bytes, pending_seconds: float) -> Seen:
        """Claims `key`. Its owner lives in this process and always gives it back, so the claim needs no timeout."""
        if key in self._pending:
            return Seen.PENDING
        now = self._monotonic()
        for remembered in self._done.values():
            if remembered.get(key, now) > now:
                return Seen.DONE
        self._pending.add(key)
        return Seen.NEW

    async def done(self, key: bytes, seconds: float) -> bool:
        self._pending.discard(key)
        now = self._monotonic()
        self._forget_expired(now)
        full = len(self) >= self._limit
        if full:
            # Forget the entry that would expire first. Rejecting new deliveries instead would lose them.
            soonest = min(filter(None, self._done.values()), key=lambda one: next(iter(one.values())))
            del soonest[next(iter(soonest))]
        remembered = self._done.setdefault(seconds, {})
        remembered.pop(key, None)  # so that it becomes the last
        remembered[key] = now + seconds
        return full

    def release(self, key: bytes) -> None:
        self._pending.discard(key)

    async def close(self) -> None:
        """Nothing to do: what it remembers ends with the process."""

    def _forget_expired(self, now: float) -> None:
        """Removes at most two entries per duration, twice as many as are added, so that the cost per call is bounded."""
        for remembered in self._done.values():
            for _ in range(2):
                first = next(iter(remembered), None)
                if first is None or remembered[first] > now:
                    break
                del remembered[first]
