"""A replay store in the memory of one process."""

from collections import OrderedDict
from collections.abc import Callable

from sidecar.replay.store import Seen

#: How many deliveries the memory store remembers: about 20 MB, or ten minutes at 160 deliveries a second.
MAX_REMEMBERED = 100_000


class _Share:
    """The part of the store that one route's deliveries use."""

    __slots__ = ("by_seconds", "size")

    def __init__(self) -> None:
        self.size = 0
        #: By duration: keys, and when they expire. One for each duration that was configured since the start, so that in each
        #: one the oldest entry expires first. Ordered: a plain `dict` passes all entries that were removed from its start.
        self.by_seconds: dict[float, OrderedDict[bytes, float]] = {}

    def holds(self, key: bytes, now: float) -> bool:
        for remembered in self.by_seconds.values():  # noqa: SIM110 - a generator would be an object for each delivery
            if remembered.get(key, now) > now:
                return True
        return False

    def add(self, key: bytes, seconds: float, now: float) -> None:
        remembered = self.by_seconds.get(seconds)
        if remembered is None:
            remembered = self.by_seconds[seconds] = OrderedDict()
        self.size -= remembered.pop(key, None) is not None  # so that it becomes the last
        remembered[key] = now + seconds
        self.size += 1

    def forget_soonest(self, now: float) -> bool:
        """Removes the entry that expires first; returns whether it had not expired yet."""
        seconds = min(
            filter(self.by_seconds.__getitem__, self.by_seconds),
            key=lambda each: next(iter(self.by_seconds[each].values())),
        )
        _, expires = self.by_seconds[seconds].popitem(last=False)
        self.size -= 1
        return expires > now

    def forget_expired(self, now: float) -> None:
        """Removes at most two entries per duration, twice as many as are added, so that the cost per call is bounded."""
        for seconds, remembered in list(self.by_seconds.items()):
            for _ in range(2):
                if not remembered or next(iter(remembered.values())) > now:
                    break
                remembered.popitem(last=False)
                self.size -= 1
            if not remembered:
                del self.by_seconds[seconds]


class MemoryStore:
    """The store of one process, bounded in time and in number. The cost of a call does not depend on how much it remembers.

    While there is room, a route may use all of it. When the store is full, each route keeps an equal share, whatever others do:
    a new delivery takes a place from its own route if that has its share, otherwise from the route that has the most.
    """

    def __init__(self, monotonic: Callable[[], float], *, limit: int = MAX_REMEMBERED) -> None:
        self._monotonic = monotonic
        self._limit = limit
        self._size = 0
        self._pending: set[bytes] = set()
        self._shares: dict[str, _Share] = {}  # by route

    def start(self) -> None:
        """Nothing to do."""

    def __len__(self) -> int:
        return self._size

    async def begin(self, key: bytes, pending_seconds: float, share: str) -> Seen:
        """Claims `key`. Its owner lives in this process and always gives it back, so the claim needs no timeout."""
        return self.begin_at_once(key, share)

    def begin_at_once(self, key: bytes, share: str) -> Seen:
        if key in self._pending:
            return Seen.PENDING
        mine = self._shares.get(share)
        if mine is not None and mine.holds(key, self._monotonic()):
            return Seen.DONE
        self._pending.add(key)
        return Seen.NEW

    async def done(self, key: bytes, seconds: float, share: str) -> bool:
        return self.done_at_once(key, seconds, share)

    def done_at_once(self, key: bytes, seconds: float, share: str) -> bool:
        self._pending.discard(key)
        now = self._monotonic()
        mine = self._shares.get(share)
        if mine is None:
            mine = self._shares[share] = _Share()
        before = mine.size
        mine.forget_expired(now)
        self._size += mine.size - before
        evicted = False
        if self._size >= self._limit:
            # Forget the entry that would expire first. Rejecting new deliveries instead would lose them.
            largest = mine
            if mine.size < max(1, self._limit // len(self._shares)):
                largest = max(self._shares.values(), key=lambda each: each.size)
            evicted = largest.forget_soonest(now)
            self._size -= 1
        before = mine.size
        mine.add(key, seconds, now)
        self._size += mine.size - before
        return evicted

    def release(self, key: bytes) -> None:
        self._pending.discard(key)

    async def close(self) -> None:
        """Nothing to do: what it remembers ends with the process."""
