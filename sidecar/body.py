"""The delivery's body: read whole before anything is believed, bounded by size, time and one budget for all.

The time is the listener's business (`protocol.py` ends a body that does not arrive); size and budget are checked here,
from the announced length where there is one, before a byte is read.
"""

from sidecar.outcomes import Reason, Rejected
from sidecar.protocol import Incoming


class Budget:
    """Bytes of bodies that all connections together may hold (`limits.buffer`)."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Raises `Rejected(overloaded)` if it is used up."""
        if self.held + size > self.limit:
            raise Rejected(Reason.OVERLOADED, f"limits.buffer is used up: {self.held} of {self.limit} bytes are held")
        self.held += size

    def give(self, size: int) -> None:
        self.held -= size


class Body:
    """One delivery's body as the pieces it arrived in; they are hashed and forwarded without being joined."""

    __slots__ = ("_budget", "_taken", "pieces", "size")

    def __init__(self, budget: Budget) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self._budget = budget
        self._taken = 0

    def begin(self, incoming: Incoming, limit: int) -> None:
        """Takes an announced size from the budget before a byte is read. Raises `Rejected`."""
        announced = incoming.head.content_length
        if announced is not None:
            if announced > limit:
                raise Rejected(Reason.BODY_TOO_LARGE, f"{announced} bytes announced, the limit is {limit}")
            self._budget.take(announced)
            self._taken = announced

    def take(self, incoming: Incoming, limit: int) -> bool:
        """What has arrived; returns whether more follows. Raises `Rejected`."""
        piece, more = incoming.take()
        if piece:
            self.size += len(piece)
            if self.size > limit:
                raise Rejected(Reason.BODY_TOO_LARGE, f"the limit is {limit} bytes")
            if self.size > self._taken:
                self._budget.take(self.size - self._taken)
                self._taken = self.size
            self.pieces.append(piece)
        return more

    def release(self) -> None:
        """Gives back what was taken from the budget."""
        self.pieces = []
        self._budget.give(self._taken)
        self._taken = 0
