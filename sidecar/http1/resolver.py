"""The addresses of one receiver by name: one lookup for all that wait, and its result is used again for a short time.

libuv resolves names in its thread pool, at most two at once. With a name server that responds after 100 ms, the last of 150
connections opened together would wait for more than 7 s. Here they share one lookup, which runs in a thread of its own: a name
server that doesn't respond delays the receivers of its own names only, and the program can exit in the meantime.
"""

import asyncio
import contextlib
import socket
import threading
from itertools import chain, zip_longest
from typing import Final, NamedTuple

#: Seconds for which addresses are reused. Short, because a new Pod has a new address.
ADDRESSES_SECONDS: Final = 5.0
#: The same for a failure, and for addresses that nobody listens on.
FAILURE_SECONDS: Final = 0.5
#: Seconds for which an address that another one overtook is tried after the others (RFC 8305, 4: at most 10 minutes).
SLOW_SECONDS: Final = 30.0


class Address(NamedTuple):
    """An address to connect to."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


class ResolveError(OSError):
    """A name without an address; the message names both and says why."""


class _Result(NamedTuple):
    addresses: list[Address]
    problem: str
    since: float

    @property
    def seconds(self) -> float:
        return FAILURE_SECONDS if self.problem else ADDRESSES_SECONDS


class Resolver:
    """Finds the addresses of one host and port."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        self.host = host
        self._loop = loop
        self._port = port
        self._result: _Result | None = None
        self._pending: asyncio.Future[_Result] | None = None
        self._slow: dict[Address, float] = {}  # and until when
        self._turn = 0

    async def addresses(self) -> list[Address]:
        """The addresses, in the order in which to try them. Raises `ResolveError`."""
        result = self._result
        if result is None or self._loop.time() - result.since >= result.seconds:
            # Shielded: a waiter that is cancelled must not end the lookup for the others.
            result = await asyncio.shield(self._pending or self._start())
        if result.problem:
            raise ResolveError(f"can't resolve {self.host}: {result.problem}")
        return self._in_order(result.addresses)

    def overtaken(self, addresses: list[Address]) -> None:
        """Notes that another address responded sooner than these."""
        until = self._loop.time() + SLOW_SECONDS
        self._slow |= dict.fromkeys(addresses, until)

    def unreachable(self) -> None:
        """Notes that no address could be connected to: the name may have others by now."""
        if self._result is not None and self._loop.time() - self._result.since >= FAILURE_SECONDS:
            self._result = None

    def _in_order(self, addresses: list[Address]) -> list[Address]:
        """Families in turn, the system's first choice first (RFC 8305, 4); slow ones last.

        The addresses of a family take turns as well: name servers rotate them to distribute connections, and a result
        that is used several times must not undo that.
        """
        if len(addresses) == 1:
            return addresses
        now, self._turn = self._loop.time(), self._turn + 1
        self._slow = {address: until for address, until in self._slow.items() if until > now}
        first = [each for each in addresses if each.family == addresses[0].family]
        second = [each for each in addresses if each.family != addresses[0].family]
        pairs = zip_longest(_rotate(first, self._turn), _rotate(second, self._turn))
        order = [each for each in chain.from_iterable(pairs) if each is not None]
        return sorted(order, key=self._slow.__contains__)

    def _start(self) -> "asyncio.Future[_Result]":
        pending = self._loop.create_future()
        thread = threading.Thread(target=self._look_up, args=(pending,), name=f"resolve {self.host}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            raise ResolveError(f"can't resolve {self.host}: {error}") from None
        self._pending = pending
        return pending

    def _look_up(self, pending: "asyncio.Future[_Result]") -> None:
        """Runs in the thread."""
        addresses: list[Address] = []
        problem = ""
        try:
            found = socket.getaddrinfo(self.host, self._port, type=socket.SOCK_STREAM)
            for family, _, _, _, sockaddr in found:
                addresses.append(Address(family, sockaddr))  # type: ignore[arg-type] # INET and INET6 only
        except (OSError, UnicodeError) as error:
            problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if not addresses:
            problem = problem or "it has no address"
        with contextlib.suppress(RuntimeError):  # the loop was closed in the meantime
            self._loop.call_soon_threadsafe(self._finish, pending, addresses, problem)

    def _finish(self, pending: "asyncio.Future[_Result]", addresses: list[Address], problem: str) -> None:
        self._pending = None
        self._result = _Result(list(dict.fromkeys(addresses)), problem, self._loop.time())
        pending.set_result(self._result)


def _rotate(addresses: list[Address], turn: int) -> list[Address]:
    at = turn % len(addresses) if addresses else 0
    return addresses[at:] + addresses[:at]
