"""Addresses to listen on, and the sockets bound to them."""

import socket
import stat
from pathlib import Path
from typing import NamedTuple


class ListenAddress(NamedTuple):
    """Where a listener binds. For a unix socket `path` is set, and host and port are unused."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


BACKLOG = 512


class ListenError(Exception):
    """An address that can't be listened on; the message names it and the remedy."""


def bind(address: ListenAddress) -> socket.socket:
    """A bound socket. Raises `ListenError`."""
    return bind_shared(address, 1)[0]


def bind_shared(address: ListenAddress, count: int) -> list[socket.socket]:
    """Binds `count` sockets to one address; the system distributes connections among them. A unix socket is shared."""
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
            if count > 1:  # on the first one after it was bound: else it could join another program's sockets
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
            path.unlink()  # left by a process that was killed
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


def bound_address(address: ListenAddress, listener: socket.socket) -> str:
    """The address as text, with the port that the system chose for port 0."""
    return str(address if address.path else address._replace(port=listener.getsockname()[1]))
