"""The connections that a listener keeps open: their number, and the deadlines that they share."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, MutableSequence, Sequence
from typing import Final, Protocol

from sidecar.http1.deadlines import DeadlineQueue
from sidecar.http1.light_task import ReadyQueue

#: After an early response, how long the rest of the request is still read and discarded: since the last byte.
LINGER_SECONDS: Final = 5.0
#: Pause, in seconds, after each DISCARD_STEP bytes of a request that was rejected.
DISCARD_SECONDS: Final = 0.05
DISCARD_STEP: Final = 1024 * 1024
#: How long a sender may leave a response unread.
WRITE_SECONDS: Final = 30.0
#: Load balancers in front keep unused connections for 60 s (AWS), 75 s (nginx) or 600 s (Google Cloud, not adjustable); we must
#: not be the first to close, or a delivery that they send at that moment is lost.
KEEP_ALIVE_SECONDS: Final = 620.0
#: How long a connection may wait for its sender before another may take its place.
PATIENCE_SECONDS: Final = 0.25
#: How long a connection that never carried anything genuine keeps its place, however busy it is. That is enough for a sender
#: that sends its request at once. A flood can't take the place sooner: a core can't accept as many new connections in that time.
STRANGER_SECONDS: Final = 0.05
#: At most this many strangers are checked to find one that can make room.
STRANGERS_CHECKED: Final = 64


#: This fraction of a limit is divided among the processes, so that each always has its part: a process can make room by
#: ending what its own senders leave unfinished, but not what the senders of another process do.
RESERVED: Final = 0.25


class TimedConnection(Protocol):
    """The part of a connection that deadlines and the limit of connections use."""

    transport: asyncio.Transport
    idle_since: float | None

    @property
    def unused(self) -> bool: ...
    @property
    def waits_for_sender(self) -> bool: ...
    def head_expired(self) -> None: ...
    def body_expired(self) -> None: ...
    def keep_alive_expired(self) -> None: ...
    def linger_expired(self) -> None: ...

    def read_on(self) -> None: ...
    def evict(self) -> None: ...


class ConnectionCount:
    """The number of open connections, with one cell of shared memory for each process."""

    __slots__ = ("_at", "_cells", "_of_others")

    def __init__(
        self, cells: MutableSequence[float], at: int, of_others: Sequence[MutableSequence[float]] = ()
    ) -> None:
        self._cells = cells
        self._at = at
        self._of_others = of_others

    def add(self, change: int) -> None:
        self._cells[self._at] += change

    def fits(self, most: int) -> bool:
        """Whether at most `most` connections are open, counting those that are reserved for other processes."""
        room = float(most)
        reserved = room * RESERVED / (len(self._of_others) + 1)
        for cells in self._of_others:
            room -= max(cells[self._at], reserved)
        return self._cells[self._at] <= room


class Deadlines:
    """The clocks of all connections of one listener, in seconds."""

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
        self.discard: DeadlineQueue[TimedConnection] = DeadlineQueue(loop, DISCARD_SECONDS, lambda it: it.read_on())
        self.turn = ReadyQueue(loop)
        self.all = (self.head, self.body, self.write, self.keep_alive, self.linger, self.discard)
        self._loop = loop

    def now(self) -> float:
        """The loop's time."""
        return self._loop.time()


class Listener:
    """The state that all connections of one data listener share, besides their clocks.

    When `max_connections` are open, a new one replaces the one that has waited longest for its sender, if that is longer
    than a moment: unused between two requests, with an incomplete head or body, or with responses that it doesn't read.
    So a peer that holds connections open without using them (slowloris) loses them to others, and a complete request is
    never cut off before its response has begun. Otherwise the new connection is rejected.

    A connection that has carried nothing genuine counts as if it had waited since it was opened. Otherwise a peer could keep
    all connections by repeating a request that is rejected on each of them.
    """

    def __init__(self, deadlines: Deadlines, max_connections: int, count: ConnectionCount) -> None:
        self.max_connections = max_connections
        self.closing = False  #: responses close their connections
        self.unparsed = 0  #: bytes that connections keep until a request before them has had its turn
        #: Whether a connection from this address must begin with a PROXY header. None: no connection must.
        self.wants_proxy_header: Callable[[str | None], bool] | None = None
        self._deadlines = deadlines
        self._count = count
        #: When they were opened, oldest first. Ordered: a plain `dict` passes all entries that were removed from its start.
        self._strangers: OrderedDict[TimedConnection, float] = OrderedDict()

    def admit(self, newcomer: TimedConnection) -> bool:
        """Counts a new connection and makes room for it. Returns False if there is no room."""
        self._count.add(1)
        fits = self._count.fits(self.max_connections) or self._make_room()
        if fits:
            self._strangers[newcomer] = self._deadlines.now()
        return fits

    def recognize(self, connection: TimedConnection) -> None:
        """The connection has carried something genuine."""
        self._strangers.pop(connection, None)

    def _make_room(self) -> bool:
        deadlines = self._deadlines
        waiting = [
            deadlines.head.oldest(),
            deadlines.body.oldest(),
            deadlines.write.oldest(),
            self._longest_unused(),
        ]
        connection, seconds = max(filter(None, waiting), key=lambda it: it[1], default=(None, 0.0))
        stranger, age = self._oldest_stranger()
        if stranger is not None and age >= STRANGER_SECONDS and (age >= seconds or seconds < PATIENCE_SECONDS):
            stranger.evict()
            return True
        if connection is None or seconds < PATIENCE_SECONDS:
            return False
        connection.evict()
        return True

    def _longest_unused(self) -> tuple[TimedConnection, float] | None:
        now = self._deadlines.now()
        for connection in self._deadlines.keep_alive:  # approximately in this order
            if connection.unused and connection.idle_since is not None:
                return connection, now - connection.idle_since
        return None

    def _oldest_stranger(self) -> tuple[TimedConnection | None, float]:
        """The oldest one that waits for its sender. The others go to the end, so that not every newcomer checks them again."""
        strangers = self._strangers
        for _ in range(min(STRANGERS_CHECKED, len(strangers))):
            connection, opened = next(iter(strangers.items()))
            if connection.waits_for_sender:
                return connection, self._deadlines.now() - opened
            strangers[connection] = self._deadlines.now()
            strangers.move_to_end(connection)
        return None, 0.0

    def release(self, connection: TimedConnection) -> None:
        """Stops counting a connection: it is closed, or only waits until its sender has read the response."""
        self._strangers.pop(connection, None)
        self._count.add(-1)

    def linger(self, connection: TimedConnection) -> None:
        """Stops counting a connection that is being closed. As many of these are allowed as of open ones."""
        self.release(connection)
        lingering = self._deadlines.linger
        if len(lingering) > self.max_connections and (oldest := lingering.oldest()):
            oldest[0].transport.abort()
