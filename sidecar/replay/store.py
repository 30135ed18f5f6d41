"""What counts as the same delivery, and what is known of those that came before.

    begin    NEW      nobody has it: it is the caller's to forward
             PENDING  another copy is being forwarded, and how that ends is not known yet
             DONE     the receiver took it
    done     the receiver took it: every copy is DONE until its time is over
    release  it did not, or nobody knows: the next copy is NEW again

So each delivery is forwarded until the receiver has once answered 2xx: at least once, and once only if nothing fails.
"""

from enum import Enum, auto
from typing import NamedTuple, Protocol


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
