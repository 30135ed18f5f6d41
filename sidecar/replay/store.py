"""The contract of a replay store: it remembers which deliveries the receiver has accepted.

    begin    NEW      not seen before: the caller may forward it
             PENDING  another copy is being forwarded, with an outcome that is not known yet
             DONE     the receiver accepted it
    done     the receiver accepted it: every copy is DONE until its time is over
    release  the receiver did not accept it, or that is unknown: the next copy is NEW again

So a delivery can be forwarded until the receiver has responded 2xx once: at least once, and exactly once if nothing fails.
"""

from enum import Enum, StrEnum, auto
from typing import NamedTuple, Protocol


class OnFailure(StrEnum):
    """How a delivery counts that an authorizer allowed, because nobody reports to us whether the receiver accepted it."""

    LOST = "lost"  # it counts as accepted once it was allowed: at most once
    ALLOW_REPEAT = "allow_repeat"  # copies are rejected only while the receiver may be at work: at least once


class Replay(NamedTuple):
    """A route's `replay:`."""

    seconds: float  #: for how long an accepted delivery is remembered
    fail_open: bool  #: whether deliveries are forwarded unchecked while the store is unavailable
    by_id: bool = False  #: whether copies are known by the provider's delivery id, signed or not
    on_failure: OnFailure | None = None  #: on the authorize listener, which needs one of them


class StoreKind(StrEnum):
    """The kind of servers at a store's addresses."""

    SERVER = "redis"
    CLUSTER = "redis+cluster"  # the keys are spread over its primaries; any of its nodes may be listed
    SENTINEL = "redis+sentinel"  # processes that know which server is the primary


class StoreAddress(NamedTuple):
    """The address of a shared store. With a unix socket, `path` is set, and there are no hosts."""

    tls: bool
    hosts: tuple[tuple[str, int], ...]  #: host and port; of a server exactly one
    path: str
    database: int
    username: str
    kind: StoreKind = StoreKind.SERVER
    service: str = ""  #: the sentinels' name for the primary

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        user = f"{self.username}@" if self.username else ""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        scheme = self.kind.value.replace("redis", "rediss") if self.tls else self.kind.value
        service = f"/{self.service}" if self.service else ""
        database = "" if self.kind is StoreKind.CLUSTER else f"/{self.database}"
        return f"{scheme}://{user}{hosts}{service}{database}"


class Seen(Enum):
    NEW = auto()
    PENDING = auto()
    DONE = auto()


class StoreUnavailableError(Exception):
    """The store is unavailable; the message says why, without the store's address or password."""


class Store(Protocol):
    """Remembers deliveries by a hash. A caller that got NEW must call `done` or `release`; no other caller may.

    `share` is the delivery's route: a bounded store gives each route a share.
    """

    def start(self) -> None:
        """Called before the first delivery, in the event loop that handles them."""

    async def begin(self, key: bytes, pending_seconds: float, share: str) -> Seen:
        """Claims `key` for at most `pending_seconds`. Raises `StoreUnavailableError`."""

    def begin_at_once(self, key: bytes, share: str) -> Seen | None:
        """What `begin` does and returns. None from a store on a server, which has done nothing then."""

    async def done(self, key: bytes, seconds: float, share: str) -> bool:
        """Remembers `key` for `seconds`. Never raises. Returns whether another key was forgotten early to make room."""

    def done_at_once(self, key: bytes, seconds: float, share: str) -> bool | None:
        """What `done` does and returns. None from a store on a server, which has done nothing then."""

    def release(self, key: bytes) -> None:
        """Gives up the claim on `key`. Never raises."""

    async def close(self) -> None:
        """Called after the last delivery."""
