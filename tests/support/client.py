"""The sender's side: raw sockets, and responses read strictly."""

import contextlib
import re
import socket
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from message import Message
from waiting import PATIENCE


class Response(Message):
    """One response as it appeared on the wire. `whole` is false if the connection ended before its framing said so."""

    def __init__(self, head: bytes, *, informational: Iterable[int] = ()) -> None:
        super().__init__(head)
        match = re.fullmatch(rb"HTTP/1\.1 ([0-9]{3}) [ -~]*", self.line)
        assert match, f"not a status line: {self.line!r}"
        self.status = int(match[1])
        self.informational = list(informational)
        self.chunks: list[bytes] = []
        self.whole = True

    @property
    def raw(self) -> bytes:
        return self.head + self.body

    def __repr__(self) -> str:
        return f"<Response {self.head!r} {self.body[:200]!r} whole={self.whole}>"


class Client:
    """One connection of a sender; reads responses strictly."""

    def __init__(self, address: str, *, source: str | None = None) -> None:
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(address[5:])
        else:
            host, port = address.rsplit(":", 1)
            self.socket = socket.create_connection(
                (host, int(port)), PATIENCE, source_address=(source, 0) if source else None
            )
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.ended = False
        self.was_reset = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def try_send(self, data: bytes) -> Self:
        """Sends data that the other end may no longer accept."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)
        return self

    def more(self) -> bool:
        """Reads once; returns false at the end."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            self.was_reset = True
            data = b""
        self.buffer += data
        self.ended = not data
        return bool(data)

    def rest(self) -> bytes:
        """Everything until the end of the connection."""
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def head(self) -> bytes:
        """The next head; there must be one."""
        head = self.head_if_any()
        assert head is not None, "closed without a response"
        return head

    def head_if_any(self) -> bytes | None:
        """The next head; None if the connection ended cleanly before it."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.more():
                assert not self.buffer, f"the connection ended in the middle of a head: {self.buffer!r}"
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return head + b"\r\n\r\n"

    def answer(self, method: str = "POST") -> Response:
        """The next response, with the informational ones before it; there must be one."""
        answer = self.answer_if_any(method)
        assert answer is not None, "closed without a response"
        return answer

    def answer_if_any(self, method: str = "POST") -> Response | None:
        """As `answer`, but None if the connection ended without a response."""
        informational: list[int] = []
        while True:
            head = self.head_if_any()
            if head is None:
                return None
            answer = Response(head, informational=informational)
            if answer.status >= 200:
                break
            informational.append(answer.status)
        lengths, codings = answer.values(b"content-length"), answer.values(b"transfer-encoding")
        assert len(lengths) + len(codings) <= 1, answer
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        if codings:
            assert codings == [b"chunked"]
            self._chunked(answer)
        elif lengths:
            size = int(lengths[0])
            while len(self.buffer) < size and answer.whole:
                answer.whole = self.more()
            answer.body, self.buffer = self.buffer[:size], self.buffer[size:]
        else:
            answer.body = self.rest()
            answer.whole = not self.was_reset
        return answer

    def _chunked(self, answer: Response) -> None:
        while True:
            while b"\r\n" not in self.buffer:
                if not self.more():
                    answer.whole = False
                    return
            line, self.buffer = self.buffer.split(b"\r\n", 1)
            size = int(line, 16)
            while len(self.buffer) < size + 2:
                if not self.more():
                    answer.body += self.buffer
                    answer.whole = False
                    return
            answer.chunks.append(self.buffer[:size])
            answer.body += self.buffer[:size]
            assert self.buffer[size : size + 2] == b"\r\n"
            self.buffer = self.buffer[size + 2 :]
            if size == 0:
                return

    def leave(self) -> None:
        """Closes with a reset, like a sender whose process died."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()
