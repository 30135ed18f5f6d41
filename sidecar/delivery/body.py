"""Stage 5: the body, read whole before any of it is trusted, and bounded by size, time and one budget for all bodies.

The listener keeps the time (`http1/connection.py` ends a body that does not arrive). Size and budget are checked here, by
the announced length if there is one, before a byte is read.
"""

from collections.abc import Sequence
from typing import Final

from sidecar.http1.incoming import Incoming
from sidecar.outcomes import Reason, Rejected
from sidecar.telemetry.metrics import BUFFERED, Block

#: Pieces of fewer bytes are joined, until they have this many together.
SMALL_PIECE: Final = 4 * 1024
JOINED_PIECE: Final = 64 * 1024


class Budget:
    """Bytes of bodies that all connections together may hold (`limits.buffer`).

    The gauges hold what is in use, so processes that share them share the budget. They don't wait for each other: each may
    overdraw it by the one body that it is reading.
    """

    __slots__ = ("_gauges", "_of_others", "limit")

    def __init__(self, limit: int, gauges: Block, of_others: Sequence[Block] = ()) -> None:
        self.limit = limit
        self._gauges = gauges
        self._of_others = of_others

    @property
    def held(self) -> int:
        held = self._gauges[BUFFERED]
        if self._of_others:
            held += sum([gauges[BUFFERED] for gauges in self._of_others])
        return int(held)

    def take(self, size: int) -> None:
        """Raises `Rejected(overloaded)` if the budget is used up."""
        held = self.held
        if held + size > self.limit:
            raise Rejected(Reason.OVERLOADED, f"limits.buffer is used up: {held} of {self.limit} bytes are held")
        self._gauges[BUFFERED] += size

    def give(self, size: int) -> None:
        self._gauges[BUFFERED] -= size


class Body:
    """One delivery's body as the pieces it arrived in; they are hashed and forwarded without being joined.

    Only pieces so small that their objects would weigh more than their bytes are joined: a body must use as much memory as
    it uses of the budget, however it was sent.
    """

    __slots__ = ("_budget", "_small", "_taken", "pieces", "size")

    def __init__(self, budget: Budget) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self._budget = budget
        self._taken = 0
        self._small: bytes | bytearray = b""  # small pieces that are not in `pieces` yet

    def begin(self, incoming: Incoming, limit: int) -> None:
        """Takes the announced size from the budget before a byte is read. Raises `Rejected`."""
        announced = incoming.head.content_length
        if announced is not None:
            if announced > limit:
                raise Rejected(Reason.BODY_TOO_LARGE, f"{announced} bytes announced, the limit is {limit}")
            self._budget.take(announced)
            self._taken = announced

    def take(self, incoming: Incoming, limit: int) -> bool:
        """Reads what has arrived; returns whether more follows. Raises `Rejected`."""
        piece, more = incoming.take()
        if piece:
            self.size += len(piece)
            if self.size > limit:
                raise Rejected(Reason.BODY_TOO_LARGE, f"the limit is {limit} bytes")
            if self.size > self._taken:
                self._budget.take(self.size - self._taken)
                self._taken = self.size
            if len(piece) < SMALL_PIECE and (more or self._small):
                self._small = self._small or bytearray()
                self._small += piece
                if len(self._small) >= JOINED_PIECE:
                    self._flush()
            else:
                if self._small:
                    self._flush()
                self.pieces.append(piece)
        if self._small and not more:
            self._flush()
        return more

    def _flush(self) -> None:
        self.pieces.append(bytes(self._small))
        self._small = b""

    def release(self) -> None:
        """Returns to the budget what this body took from it."""
        self.pieces = []
        self._small = b""
        self._budget.give(self._taken)
        self._taken = 0
