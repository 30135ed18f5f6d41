"""Connecting to the receiver: the one coroutine of the data path that an `asyncio.Task` runs.

It is not compiled, and must not be. When something that a task waits for fails, the task throws the exception into its
coroutine. A coroutine compiled by mypyc passes it on to what it awaits as `throw(type, value, traceback)`, which Python
deprecated in 3.12 (mypyc/lib-rt/misc_ops.c, `CPy_YieldFromErrorHandle`). With warnings as errors, a refused connection
ended in a DeprecationWarning, and the sender got 500 instead of 502. A `LightTask` never throws into what a
compiled coroutine awaits, other than into a `Signal`, which is compiled as well.
"""

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from sidecar.http1.resolver import Address, ResolveError, Resolver
from sidecar.outcomes import Reason, Rejected

if TYPE_CHECKING:
    from sidecar.http1.upstream import UpstreamAddress

P = TypeVar("P", bound=asyncio.Protocol)

#: First pause between attempts to connect to a receiver that refuses connections; it doubles up to the maximum.
RETRY_PAUSE: Final = 0.02
MAX_RETRY_PAUSE: Final = 0.5
#: Seconds after which the next address is tried as well (RFC 8305, 5: recommended). Less, if `timeouts.connect` would be
#: over before the last one was tried.
NEXT_ADDRESS_SECONDS: Final = 0.25


class Connector:
    """Opens connections to one receiver."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: "UpstreamAddress",
        tls: ssl.SSLContext | None,
        server_name: str = "",
    ) -> None:
        """`server_name` is the name that the receiver's certificate must have; empty: the host of `address`."""
        self._loop = loop
        self._address = address
        self._tls = tls
        self._server_name = (server_name or address.host) if tls is not None else None
        self._resolver = None if _needs_no_name(address) else Resolver(loop, address.host, address.port)

    async def connect(self, seconds: float, protocol: Callable[[], P]) -> P:
        """A new connection; a receiver that refuses connections is tried again within `seconds`, because it may be restarting."""
        address = self._address
        deadline = self._loop.time() + seconds
        pause = RETRY_PAUSE
        while True:
            left = deadline - self._loop.time()
            addresses = None
            try:
                async with asyncio.timeout(left):
                    if self._resolver is None:
                        return await self._open(protocol)
                    addresses = await self._resolver.addresses()
                    return await self._open_any(addresses, left, protocol)
            except TimeoutError:
                if self._resolver is not None and addresses is None:
                    problem = f"can't resolve {address.host} within {seconds:g} s"
                else:
                    problem = f"no connection to {address} within {seconds:g} s"
                raise Rejected(Reason.UPSTREAM_UNREACHABLE, problem) from None
            except ssl.SSLError as error:
                raise Rejected(
                    Reason.UPSTREAM_UNREACHABLE, f"TLS with {address} failed: {_tls_problem(error)}"
                ) from None
            except ResolveError as error:
                problem = str(error)
            except OSError as error:
                problem = f"no connection to {address}: {error.strerror or type(error).__name__}"
                if self._resolver is not None:
                    self._resolver.unreachable()
            if self._loop.time() + pause >= deadline:
                raise Rejected(Reason.UPSTREAM_UNREACHABLE, problem) from None
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RETRY_PAUSE)

    async def _open(self, protocol: Callable[[], P]) -> P:
        address, tls = self._address, self._tls
        if address.scheme == "unix":
            _, connection = await self._loop.create_unix_connection(protocol, address.path)
        else:
            _, connection = await self._loop.create_connection(
                protocol, address.host, address.port, ssl=tls, server_hostname=self._server_name
            )
        return connection

    async def _open_any(self, addresses: list[Address], left: float, protocol: Callable[[], P]) -> P:
        assert self._resolver is not None
        opened, place = await open_first(self._loop, addresses, min(NEXT_ADDRESS_SECONDS, left / len(addresses)))
        if place:
            self._resolver.overtaken(addresses[:place])
        try:
            _, connection = await self._loop.create_connection(
                protocol, sock=opened, ssl=self._tls, server_hostname=self._server_name
            )
        except BaseException:
            opened.close()
            raise
        return connection


async def open_first(
    loop: asyncio.AbstractEventLoop, addresses: list[Address], delay: float
) -> tuple[socket.socket, int]:
    """A connection to one of the addresses, and that address's index: "happy eyeballs" (RFC 8305, 5).

    The next address is tried as soon as one fails, or `delay` seconds after the one before. The first that connects is
    used, and the others are given up. Raises the `OSError` of the first address if none connects.
    """
    attempts: dict[asyncio.Task[socket.socket], int] = {}
    problems: dict[int, OSError] = {}
    tried = 0
    try:
        while True:
            if tried < len(addresses):
                attempts[loop.create_task(_open_socket(loop, addresses[tried]))] = tried
                tried += 1
            done, _ = await asyncio.wait(
                attempts, timeout=delay if tried < len(addresses) else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in sorted(done, key=attempts.__getitem__):
                place = attempts[task]
                try:
                    opened = task.result()
                except OSError as error:
                    problems[place] = error
                    del attempts[task]
                else:
                    del attempts[task]
                    return opened, place
            if not attempts and tried == len(addresses):
                raise problems[0]
    finally:
        for task in attempts:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                task.result().close()


async def _open_socket(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    opened = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await _finish_connect(loop, opened, opened.connect_ex(address.sockaddr))
    except BaseException:
        opened.close()
        raise
    return opened


async def _finish_connect(loop: asyncio.AbstractEventLoop, opening: socket.socket, error: int) -> None:
    """Not `loop.sock_connect`: uvloop resolves even numeric addresses in libuv's threads, which slow lookups may occupy."""
    if error == errno.EINPROGRESS:
        ready = asyncio.Event()
        loop.add_writer(opening, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(opening)
        error = opening.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _needs_no_name(address: "UpstreamAddress") -> bool:
    if address.scheme == "unix":
        return True
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return False
    return True


def _tls_problem(error: ssl.SSLError) -> str:
    if error.reason == "WRONG_VERSION_NUMBER":
        return "the receiver speaks no TLS; is its URL http://?"
    return getattr(error, "verify_message", "") or error.reason or type(error).__name__
