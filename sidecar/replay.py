"""What counts as the same delivery, and what is known of those that came before.

    begin    NEW      nobody has it: it is the caller's to forward
             PENDING  another copy is being forwarded, and how that ends is not known yet
             DONE     the receiver took it
    done     the receiver took it: every copy is DONE until its time is over
    release  it did not, or nobody knows: the next copy is NEW again

So each delivery is forwarded until the receiver has once answered 2xx: at least once, and once only if nothing fails.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple, Protocol

#: Deliveries that the memory store remembers: about 17 MB, or ten minutes of 160 deliveries a second.
MAX_REMEMBERED = 100_000


class Replay(NamedTuple):
    """A route's `replay:`."""

    seconds: float  #: for how long a delivery that was taken is remembered
    fail_open: bool  #: whether deliveries are forwarded unchecked while the store can't be asked


class StoreAddress(NamedTuple):
    """Where a store that is no process's own stands. `path` is a unix socket's; then host and port are unused."""

    tls: bool
    host: str
    port: int
    path: str
    database: int
    username: str

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        user = f"{self.username}@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{user}{host}:{self.port}/{self.database}"


class Seen(Enum):
    NEW = auto()
    PENDING = auto()
    DONE = auto()


class StoreUnavailableError(Exception):
    """The store can't be asked; the message says why, without the store's address or password."""


class Store(Protocol):
    """Remembers deliveries by a hash. Who was told NEW must call `done` or `release`; nobody else may."""

    def start(self) -> None:
        """Before the first delivery; in the loop that they come in."""

    async def begin(self, key: bytes, pending_seconds: float) -> Seen:
        """Claims `key` for at most `pending_seconds`. Raises `StoreUnavailableError`."""

    async def done(self, key: bytes, seconds: float) -> bool:
        """Remembers `key` for `seconds`. Never raises; whether another one had to be forgotten early to make room."""

    def release(self, key: bytes) -> None:
        """Gives `key` up. Never raises."""

    async def close(self) -> None:
        """No more deliveries will come."""


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
