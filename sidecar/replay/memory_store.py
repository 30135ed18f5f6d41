"""A replay store in the memory of one process."""

from collections.abc import Callable

from sidecar.replay.store import Seen

#: Deliveries that the memory store remembers: about 17 MB, or ten minutes of 160 deliveries a second.
MAX_REMEMBERED = 100_000


class MemoryStore:
    """The store of one process, bounded in time and in number; each call costs the same however much is remembered.

    There is one dictionary for each duration that was ever configured, so that in each the first in is the first to expire.
    """

    def __init__(self, monotonic: Callable[[], float], *, limit: int = MAX_REMEMBERED) -> None:
        self._monotonic = monotonic
        self._limit = limit
        self._pending: set[bytes] = set()
        self._done: dict[float, dict[bytes, float]] = {}  # by duration: keys and when they expire

    def start(self) -> None:
        """Nothing to do."""

    def __len__(self) -> int:
        return sum(map(len, self._done.values()))

    async def begin(self, key: bytes, pending_seconds: float) -> Seen:
        """Claims `key`. Who claimed it lives in this process and gives it back, so no time is needed for that."""
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
            # What is nearest to its end anyway. To refuse new deliveries instead would lose them.
            soonest = min(filter(None, self._done.values()), key=lambda one: next(iter(one.values())))
            del soonest[next(iter(soonest))]
        remembered = self._done.setdefault(seconds, {})
        remembered.pop(key, None)  # so that it stands last
        remembered[key] = now + seconds
        return full

    def release(self, key: bytes) -> None:
        self._pending.discard(key)

    async def close(self) -> None:
        """What one process remembers ends with it."""

    def _forget_expired(self, now: float) -> None:
        """At most as many as were remembered since: two for each that comes."""
        for remembered in self._done.values():
            for _ in range(2):
                first = next(iter(remembered), None)
                if first is None or remembered[first] > now:
                    break
                del remembered[first]
