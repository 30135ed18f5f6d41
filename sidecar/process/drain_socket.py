"""How `sidecar drain` finds the running process: a socket that only its own container can use.

The socket is in Linux's abstract namespace (unix(7)): it has no file, so it works on a read-only file system, and it ends with
its process. Containers of a pod share that namespace, and so do all processes of a host. So both ends ask the kernel who the
other one is (SO_PEERCRED): it must be the same user, or root, and in the same PID namespace, because the kernel reports
PID 0 for a process of another one. No other container, no port forward, no mesh's proxy and no web page can begin a drain.
"""

import os
import re
import secrets
import socket
import struct
from pathlib import Path
from typing import Final, NamedTuple

_PREFIX: Final = "webhook-sidecar/drain/"
#: The kernel's list of unix sockets: each has flags (0x10000: it listens) and a name, where `@` is the NUL of an abstract one.
_SOCKETS: Final = Path("/proc/net/unix")
_LISTENS: Final = re.compile(rf"^\S+ \S+ \S+ 00010000 .* @({re.escape(_PREFIX)}[0-9]+-[0-9a-f]+)$", re.MULTILINE)
REQUEST: Final = b"drain\n"
RESPONSE: Final = b"draining\n"
#: How long the process may take to begin, seconds. A worker that doesn't respond within ten is restarted.
ANSWER_SECONDS: Final = 15.0
_CREDENTIALS: Final = struct.Struct("3i")


class DrainError(Exception):
    """Why no drain has begun; the message includes the remedy."""


class Peer(NamedTuple):
    """The process at the other end of a unix socket, as the kernel reports it: PID 0 if it is in another PID namespace."""

    pid: int
    uid: int


def open_drain_socket() -> socket.socket | None:
    """Listens for `sidecar drain`. None where there is no abstract namespace: the program runs without it there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Each of two containers in a pod may have PID 1.
        listener.bind(f"\0{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}")
        listener.listen(4)
    except OSError:
        listener.close()
        return None
    return listener


def peer_of(connection: socket.socket) -> Peer:
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(pid, uid)


def may_drain(peer: Peer) -> bool:
    """Whether a process may begin the drain of this one."""
    return peer.pid > 0 and peer.uid in (os.geteuid(), 0)


def request_drain(pid: int | None) -> int:
    """Begins the drain of the running sidecar with this PID, or of the only one; returns its PID.

    Returns once responses close their connections, in every worker. Raises `DrainError`.
    """
    running = _running()
    try:
        if pid is None and len(running) > 1:
            raise DrainError(f"several are running: {', '.join(map(str, sorted(running)))}; choose one with --pid")
        if not running or (pid is not None and pid not in running):
            raise DrainError(
                f"no running sidecar {f'with PID {pid} ' if pid is not None else ''}found; "
                "run this in its container, or on its host, as the same user"
            )
        found = pid if pid is not None else next(iter(running))
        connection = running[found]
        try:
            connection.sendall(REQUEST)
            response = connection.recv(len(RESPONSE), socket.MSG_WAITALL)
        except OSError as error:
            raise DrainError(
                f"PID {found} does not respond: {error.strerror or error}; try again when it has started"
            ) from None
        if response != RESPONSE:
            raise DrainError(f"PID {found} is already stopping; wait for its end")
        return found
    finally:
        for each in running.values():
            each.close()


def _running() -> dict[int, socket.socket]:
    """Connections to the sidecars of this user and PID namespace, by PID."""
    found: dict[int, socket.socket] = {}
    try:
        names = _LISTENS.findall(_SOCKETS.read_text(errors="replace"))
    except OSError as error:
        raise DrainError(f"{_SOCKETS} can't be read: {error.strerror}; this needs Linux") from None
    for name in names:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(f"\0{name}")
            peer = peer_of(connection)
        except OSError:  # it has ended in the meantime
            connection.close()
            continue
        # Anybody can listen under such a name: only a process of ours may say that it drains.
        if peer.pid > 0 and (peer.uid == os.geteuid() or os.geteuid() == 0):
            found[peer.pid] = connection
        else:
            connection.close()
    return found
