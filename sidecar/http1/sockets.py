"""Addresses to listen on, and the sockets bound to them."""

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

#: Longest path of a unix socket in bytes (`sun_path` in unix(7), without its NUL).
MAX_SOCKET_PATH: Final = 107


class ListenAddress(NamedTuple):
    """Where a listener binds. For a unix socket `path` is set, and host and port are unused.

    The host `::` is every address of the machine, IPv4 ones included, also on a machine without IPv6.
    """

    host: str
    port: int
    path: str = ""
    mode: int | None = None  #: of a unix socket's file; None for what the umask leaves
    group: str = ""  #: of a unix socket's file, by name or number; empty for the process's own

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


BACKLOG = 512
#: The files of the unix sockets that this process bound, as `_identity` knows them.
_own_files: dict[str, tuple[int, int, int]] = {}


class ListenError(Exception):
    """An address that can't be listened on; the message names it and the remedy."""


def bind(address: ListenAddress) -> socket.socket:
    """A bound socket. Raises `ListenError`."""
    return bind_shared(address, 1)[0]


def bind_shared(address: ListenAddress, count: int) -> list[socket.socket]:
    """Binds `count` sockets to one address; the system distributes connections among them. A unix socket is shared."""
    if address.path:
        return [_bind_unix(address)] * count
    try:
        try:
            return _bind_tcp(address.host, address.port, count)
        except OSError as error:
            if address.host != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            return _bind_tcp("0.0.0.0", address.port, count)  # noqa: S104 - the machine has no IPv6, or it is disabled
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        remedy = "stop the program that uses it, or choose another port" if in_use else "choose another address"
        raise ListenError(f"can't listen on {address}: {error.strerror}; {remedy}") from None


def _bind_tcp(host: str, port: int, count: int) -> list[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listeners: list[socket.socket] = []
    try:
        for _ in range(count):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if host == "::":
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # whatever the system's default is
            if len(listeners) > 1:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
            if count > 1:  # on the first one only now: before, it could have joined another program's sockets
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port = listener.getsockname()[1]
        for listener in listeners:
            listener.listen(BACKLOG)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _bind_unix(address: ListenAddress) -> socket.socket:
    path = Path(address.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked(path.parent):
            if _is_socket(path):
                if _is_in_use(address.path):
                    raise ListenError(
                        f"can't listen on {address}: another process listens there; stop it first, or use another path"
                    )
                path.unlink()  # left by a process that was killed
            listener.bind(address.path)
            _own_files[address.path] = _identity(path)
            # Nobody can connect before it listens, so nobody gets in by the mode that the umask left.
            if address.group:
                shutil.chown(path, group=int(address.group) if address.group.isdecimal() else address.group)
            if address.mode is not None:
                path.chmod(address.mode)
            listener.listen(BACKLOG)
    except ListenError:
        listener.close()
        raise
    except (OSError, LookupError) as error:
        listener.close()
        remove(address)
        problem = f"there is no group {address.group}" if isinstance(error, LookupError) else error.strerror or error
        raise ListenError(f"can't listen on {address}: {problem}; check the directory, mode and group") from None
    return listener


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keeps another sidecar from binding in the same directory: of two that start at once, one must see the other."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # not readable, or absent, which `bind` will say
        yield
        return
    try:
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _is_in_use(path: str) -> bool:
    """Whether a process listens on a unix socket. True if that is uncertain: it must not be taken away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as question:
        question.setblocking(False)
        return question.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def _identity(path: Path) -> tuple[int, int, int]:
    """Tells a file from its successor at the same path: inode numbers are reused, but not within an instant."""
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_mtime_ns


def remove(address: ListenAddress) -> None:
    """Removes a unix socket's file, if it is still the one that this process made."""
    own = _own_files.pop(address.path, None)
    if own is None:
        return
    path = Path(address.path)
    with _locked(path.parent), contextlib.suppress(FileNotFoundError):
        if _identity(path) == own:
            path.unlink()


def bound_address(address: ListenAddress, listener: socket.socket) -> str:
    """The address as text, with the port that the system chose for port 0, and as IPv4 on a machine without IPv6."""
    if address.path:
        return str(address)
    name = listener.getsockname()
    host = name[0] if address.host == "::" else address.host
    return str(ListenAddress(host, name[1]))
