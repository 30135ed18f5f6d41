"""The receiver's side: a server that follows a script."""

import contextlib
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Self

from message import Message
from waiting import PATIENCE

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Seen(Message):
    """One request as it appeared on the wire."""

    def __init__(self, head: bytes, connection: int) -> None:
        super().__init__(head)
        self.connection = connection
        self.target = self.line.split(b" ")[1]
        self.body_read = False


class Peer:
    """One connection of the sidecar to the receiver, controlled by a script."""

    def __init__(self, receiver: "Receiver", sock: socket.socket, number: int) -> None:
        self.receiver = receiver
        self.socket = sock
        self.number = number
        self.buffer = b""
        self.over = False
        self.seen: Seen  # set when the first head has been read

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 18)
        except OSError:
            data = b""
        self.receiver.bytes_seen += len(data)
        self.buffer += data
        return bool(data)

    def read_head(self) -> Seen | None:
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        self.seen = Seen(head + b"\r\n\r\n", self.number)
        self.receiver.note(self.seen)
        return self.seen

    def read_body(self) -> bytes:
        """Reads to the announced length; the sidecar uses no other framing."""
        assert not self.seen.values(b"transfer-encoding")
        lengths = self.seen.values(b"content-length")
        assert len(lengths) <= 1
        size = int(lengths[0]) if lengths else 0
        pieces, have = [self.buffer], len(self.buffer)
        while have < size:
            self.buffer = b""
            if not self._more():
                break
            pieces.append(self.buffer)
            have += len(self.buffer)
        whole = b"".join(pieces)
        self.seen.body, self.buffer = whole[:size], whole[size:]
        self.seen.body_read = len(self.seen.body) == size
        return self.seen.body

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def gone(self, patience: float = PATIENCE) -> bool:
        """Whether the sidecar closes this connection within `patience`."""
        self.socket.settimeout(patience)
        try:
            return not self.socket.recv(1)
        except TimeoutError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self.over = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def reset(self) -> None:
        self.over = True
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)  # wakes the script's thread, because otherwise nothing is closed
        self.socket.close()


#: The bytes of the response, sent after the request was read, or a function that gets the `Peer` after the head.
Script = bytes | Callable[[Peer], object]


def held(release: threading.Event, response: bytes) -> Script:
    """Responds to a whole request when `release` is set."""

    def script(peer: Peer) -> None:
        peer.read_body()
        release.wait(PATIENCE)
        peer.send(response)

    return script


class Receiver:
    """A server that records requests, and responds to each by the next script; without one, with 200 `ok`."""

    def __init__(
        self, *, path: Path | str | None = None, tls: ssl.SSLContext | None = None, listening: bool = True
    ) -> None:
        if path is not None:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.url = f"unix:{path}"
        else:
            self.listener = socket.socket()
            self.listener.bind(("127.0.0.1", 0))
            self.port: int = self.listener.getsockname()[1]
            self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.tls = tls
        self.changed = threading.Condition()
        self.stopping = False
        self.connections = 0
        self.peers: list[Peer] = []
        self.problems: list[str] = []
        self.forget()
        if listening:
            self.listen()

    def listen(self) -> None:
        self.listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self) -> None:
        """Before each test."""
        self.bytes_seen = 0
        self.requests: list[Seen] = []
        self.scripts: deque[Script] = deque()

    def then(self, *scripts: Script) -> Self:
        """Sets the scripts of the next requests, in order."""
        self.scripts.extend(scripts)
        return self

    def note(self, seen: Seen) -> None:
        with self.changed:
            self.requests.append(seen)
            self.changed.notify_all()

    def wait(self, count: int = 1) -> Seen:
        """The `count`th request, once its head has arrived."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, PATIENCE), "the receiver got no request"
        return self.requests[count - 1]

    @property
    def open_peers(self) -> list[Peer]:
        return [peer for peer in self.peers if not peer.over]

    def stop(self) -> None:
        self.stopping = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.open_peers:
            peer.close()
        assert not self.problems, self.problems

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            elif sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            return
        peer = Peer(self, sock, number)
        self.peers.append(peer)
        try:
            while not peer.over and peer.read_head() is not None:
                script = self.scripts.popleft() if self.scripts else OK
                if callable(script):
                    script(peer)
                else:
                    peer.read_body()
                    peer.send(script)
        except OSError:
            pass
        except Exception as problem:
            self.problems.append(repr(problem))
        finally:
            if not peer.over:
                peer.close()
