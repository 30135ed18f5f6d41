"""Sockets to listen on, and uvicorn's server on them, without what this program does itself."""

import asyncio
import contextlib
import logging
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from uvicorn import Config as UvicornConfig
from uvicorn import Server as UvicornServer

from sidecar.fields import ListenAddress

BACKLOG = 512


class ListenError(Exception):
    """An address that can't be listened on; the message names it and the remedy."""


class Server(UvicornServer):
    """uvicorn's server, with the signals left to us and without its ten wake-ups a second."""

    def __init__(self, config: UvicornConfig) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stopping.wait()

    def stop(self, seconds: float) -> None:
        """Closes the listener; what is in flight after `seconds` is cut off."""
        self.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment] # passed on to asyncio.wait_for
        self.stopping.set()


def bind(address: ListenAddress) -> socket.socket:
    """A bound socket. Raises `ListenError`."""
    return bind_shared(address, 1)[0]


def bind_shared(address: ListenAddress, count: int) -> list[socket.socket]:
    """As many sockets on one address; the system deals connections out to them. One for all if it is a unix socket."""
    if address.path:
        return [_bind_unix(address)] * count
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listeners: list[socket.socket] = []
    port = address.port
    try:
        for _ in range(count):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if len(listeners) > 1:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((address.host, port))
            if count > 1:  # for the first one after it was bound: else another program's sockets would be joined
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port = listener.getsockname()[1]
        for listener in listeners:
            listener.listen(BACKLOG)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise ListenError(f"can't listen on {address}: {error.strerror}; is another program there?") from None
    return listeners


def _bind_unix(address: ListenAddress) -> socket.socket:
    path = Path(address.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()  # left behind by a process that was killed
        listener.bind(address.path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"can't listen on {address}: {error.strerror}") from None
    return listener


def remove(address: ListenAddress) -> None:
    """Removes a unix socket's file."""
    if address.path:
        Path(address.path).unlink(missing_ok=True)


def shown(address: ListenAddress, listener: socket.socket) -> str:
    """The address with the port that the system chose for port 0."""
    return str(address if address.path else address._replace(port=listener.getsockname()[1]))


def uvicorn_config(app: object, protocol: object) -> UvicornConfig:
    return UvicornConfig(
        app,  # type: ignore[arg-type]
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        interface="asgi3",
        lifespan="off",
        loop="none",
        proxy_headers=False,  # else uvicorn overwrites the peer's address with X-Forwarded-For before we see it
        server_header=False,
        date_header=False,
        access_log=False,
        log_config=None,
    )


def quiet_uvicorn() -> None:
    """uvicorn's own messages repeat what our log says, in another format."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
