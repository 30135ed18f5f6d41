"""Stage 5: the body, read whole before any of it is trusted, and bounded by size, time and one budget for all bodies.

The listener keeps the time (`http1/connection.py` ends a body that does not arrive). Size and budget are checked here. The
announced length can only reject a body: the budget is charged for bytes that have arrived, because a stranger can announce
any number of bytes for nothing.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from sidecar.http1.admission import PATIENCE_SECONDS, RESERVED
from sidecar.http1.incoming import Incoming
from sidecar.outcomes import Reason, Rejected
from sidecar.telemetry.metrics import BUFFERED, Block

#: Pieces of fewer bytes are joined, until they have this many together.
SMALL_PIECE: Final = 4 * 1024
JOINED_PIECE: Final = 64 * 1024


class Budget:
    """Bytes of bodies that all connections together may hold (`limits.buffer`).

    When it is used up, the slowest unfinished body is evicted, by its average rate and after a moment of patience. A
    complete body is never evicted. The fastest one stays, so a burst of large bodies can't end with all of them evicted.

    The gauges hold what is in use, so processes that share them share the budget. A process can evict its own bodies only,
    so a part of the budget is reserved for each. They don't wait for each other: each may overdraw the budget by the one
    piece that it is reading.
    """

    __slots__ = ("_gauges", "_now", "_of_others", "_unfinished", "limit")

    def __init__(
        self,
        limit: int,
        gauges: Block,
        of_others: Sequence[Block] = (),
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self._gauges = gauges
        self._of_others = of_others
        self._now = now
        self._unfinished: dict[Body, float] = {}  # since when each body waits for the rest of it

    @property
    def held(self) -> int:
        held = self._gauges[BUFFERED]
        if self._of_others:
            held += sum([gauges[BUFFERED] for gauges in self._of_others])
        return int(held)

    def take(self, size: int, body: "Body | None" = None) -> None:
        """Takes `size` bytes for `body`. Raises `Rejected(overloaded)` if they are not free and can't be freed."""
        if self._of_others or self._gauges[BUFFERED] + size > self.limit:
            self._make_room(size, body)
        self._gauges[BUFFERED] += size

    def _make_room(self, size: int, body: "Body | None") -> None:
        while self._gauges[BUFFERED] + size > self._limit_here():
            slowest = self._slowest()
            if slowest is None or slowest is body:
                raise Rejected(
                    Reason.OVERLOADED, f"limits.buffer is used up: {self.held} of {self.limit} bytes are held"
                )
            slowest.evict()

    def give(self, size: int) -> None:
        self._gauges[BUFFERED] -= size

    def watch(self, body: "Body") -> None:
        """Notes that more of `body` will come."""
        self._unfinished[body] = self._now()

    def forget(self, body: "Body") -> None:
        """Notes that `body` is complete or has ended."""
        self._unfinished.pop(body, None)

    def _limit_here(self) -> float:
        """Bytes that this process may hold."""
        limit = float(self.limit)
        reserved = limit * RESERVED / (len(self._of_others) + 1)
        for gauges in self._of_others:
            limit -= max(gauges[BUFFERED], reserved)
        return limit

    def _slowest(self) -> "Body | None":
        """The unfinished body that arrived at the lowest rate, if it holds anything and has had a moment of time."""
        slowest, lowest = None, 0.0
        now = self._now()
        for body, since in self._unfinished.items():
            seconds = now - since
            if seconds < PATIENCE_SECONDS:
                break  # they are in this order
            rate = body.size / seconds
            if (slowest is None or rate < lowest) and body.evictable:
                slowest, lowest = body, rate
        return slowest


class Body:
    """One delivery's body as the pieces it arrived in; they are hashed and forwarded without being joined.

    Only pieces so small that their objects would weigh more than their bytes are joined: a body must use as much memory as
    it uses of the budget, however it was sent.
    """

    __slots__ = ("_budget", "_incoming", "_small", "_taken", "pieces", "size")

    def __init__(self, budget: Budget) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self._budget = budget
        self._incoming: Incoming | None = None  # while more of the body will come
        self._taken = 0
        self._small: bytes | bytearray = b""  # small pieces that are not in `pieces` yet

    def begin(self, incoming: Incoming, limit: int) -> None:
        """Raises `Rejected` if the announced size is too large."""
        announced = incoming.head.content_length
        if announced is not None and announced > limit:
            raise Rejected(Reason.BODY_TOO_LARGE, f"{announced} bytes announced, the limit is {limit}")

    def take(self, incoming: Incoming, limit: int) -> bool:
        """Reads what has arrived; returns whether more follows. Raises `Rejected`."""
        piece, more = incoming.take()
        if piece:
            self.size += len(piece)
            if self.size > limit:
                raise Rejected(Reason.BODY_TOO_LARGE, f"the limit is {limit} bytes")
            self._budget.take(len(piece), self)
            self._taken += len(piece)
            if len(piece) < SMALL_PIECE and (more or self._small):
                self._small = self._small or bytearray()
                self._small += piece
                if len(self._small) >= JOINED_PIECE:
                    self._flush()
            else:
                if self._small:
                    self._flush()
                self.pieces.append(piece)
        if more:
            if self._incoming is None:
                self._incoming = incoming
                self._budget.watch(self)
            return True
        if self._small:
            self._flush()
        if self._incoming is not None:
            self._incoming = None
            self._budget.forget(self)
        return False

    @property
    def evictable(self) -> bool:
        """Whether it holds something and its sender still has to send the rest."""
        incoming = self._incoming
        return self._taken > 0 and incoming is not None and incoming.more_body and incoming.fault is None

    def evict(self) -> None:
        """Makes room for other bodies: what this one holds is free at once, and its sender gets 503."""
        assert self._incoming is not None
        incoming = self._incoming
        self.release()
        incoming.evict(Rejected(Reason.OVERLOADED, "limits.buffer is used up, and this body was the slowest"))

    def _flush(self) -> None:
        self.pieces.append(bytes(self._small))
        self._small = b""

    def release(self) -> None:
        """Returns to the budget what this body took from it."""
        self.pieces = []
        self._small = b""
        self._budget.give(self._taken)
        self._taken = 0
        if self._incoming is not None:
            self._incoming = None
            self._budget.forget(self)
