"""Which connections one listener keeps open: their number, and the deadlines they all share."""

import asyncio
from collections.abc import Callable, MutableSequence, Sequence
from typing import Final, Protocol

from sidecar.http1.deadlines import DeadlineQueue
from sidecar.http1.light_task import ReadyQueue

#: After an early answer: how long, and how much, is still read and thrown away.
LINGER_SECONDS: Final = 5.0  # after the last byte
#: How long a sender may leave an answer unread.
WRITE_SECONDS: Final = 30.0
#: Senders and proxies in front keep unused connections for up to a minute; who closes first must not be us.
KEEP_ALIVE_SECONDS: Final = 75.0
#: How long no other connection takes the place of one that waits for its sender.
PATIENCE_SECONDS: Final = 0.25


class TimedConnection(Protocol):
    """What deadlines and the limit of connections ask of a connection."""

    transport: asyncio.Transport
    idle_since: float | None

    @property
    def unused(self) -> bool: ...
    def head_expired(self) -> None: ...
    def body_expired(self) -> None: ...
    def keep_alive_expired(self) -> None: ...
    def linger_expired(self) -> None: ...
    def evict(self) -> None: ...


class ConnectionCount:
    """Open connections, counted in a cell of shared memory: one for this process, and one for each of the others."""

    __slots__ = ("_at", "_cells", "_of_others")

    def __init__(
        self, cells: MutableSequence[float], at: int, of_others: Sequence[MutableSequence[float]] = ()
    ) -> None:
        self._cells = cells
        self._at = at
        self._of_others = of_others

    def add(self, change: int) -> None:
        self._cells[self._at] += change

    @property
    def total(self) -> float:
        return self._cells[self._at] + sum([cells[self._at] for cells in self._of_others])


class Deadlines:
    """The clocks of all connections of one listener. Seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        head: float,
        body: float,
        write: float = WRITE_SECONDS,
        keep_alive: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        self.head: DeadlineQueue[TimedConnection] = DeadlineQueue(loop, head, lambda it: it.head_expired())
        self.body: DeadlineQueue[TimedConnection] = DeadlineQueue(loop, body, lambda it: it.body_expired())
        self.write: DeadlineQueue[TimedConnection] = DeadlineQueue(loop, write, lambda it: it.transport.abort())
        self.keep_alive: DeadlineQueue[TimedConnection] = DeadlineQueue(
            loop, keep_alive, lambda it: it.keep_alive_expired()
        )
        self.linger: DeadlineQueue[TimedConnection] = DeadlineQueue(
            loop, LINGER_SECONDS, lambda it: it.linger_expired()
        )
        self.turn = ReadyQueue(loop)
        self.all = (self.head, self.body, self.write, self.keep_alive, self.linger)


class Listener:
    """What the connections of one data listener have in common, besides their clocks.

    When `max_connections` are open, the next one takes the place of the one that has kept us waiting longest, if that is
    longer than a moment: unused between two requests, or with a head or a body that is not whole. So who holds
    connections open without using them (slowloris) loses them to others, and a request that is whole is never cut off.
    Else the new one is refused.
    """

    def __init__(self, deadlines: Deadlines, max_connections: int, count: ConnectionCount) -> None:
        self.max_connections = max_connections
        self.closing = False  #: answers close their connections
        #: Whether a connection from this address must begin with a PROXY header; None: none does.
        self.wants_proxy_header: Callable[[str | None], bool] | None = None
        self._deadlines = deadlines
        self._count = count

    def opened(self) -> bool:
        """Counts a new connection, and makes room for it; false if there is none."""
        self._count.add(1)
        if self._count.total <= self.max_connections:
            return True
        waiting = [self._deadlines.head.oldest(), self._deadlines.body.oldest(), self._longest_unused()]
        connection, seconds = max(filter(None, waiting), key=lambda it: it[1], default=(None, 0.0))
        if connection is None or seconds < PATIENCE_SECONDS:
            return False
        connection.evict()
        return True

    def _longest_unused(self) -> tuple[TimedConnection, float] | None:
        now = self._deadlines.keep_alive.now()
        for connection in self._deadlines.keep_alive:  # about in this order
            if connection.unused and connection.idle_since is not None:
                return connection, now - connection.idle_since
        return None

    def closed(self) -> None:
        """A connection counts no longer: it is closed, or all that is left is to let its sender read the answer."""
        self._count.add(-1)

    def lingers(self) -> None:
        """Those that are only being closed count no longer, but there may not be more of them than of the others."""
        self.closed()
        linger = self._deadlines.linger
        if len(linger) > self.max_connections and (oldest := linger.oldest()):
            oldest[0].transport.abort()
