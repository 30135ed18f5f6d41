"""Writing to a transport, and pausing either direction of it."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from sidecar.http1.light_task import Signal

#: Pieces of at most this many bytes together are joined before they are written.
JOIN_LIMIT: Final = 64 * 1024


def write_pieces(transport: asyncio.Transport, pieces: Sequence[bytes], size: int) -> None:
    """Writes all pieces, about `size` bytes, at once.

    Joining a few bytes costs less than a gathering system call; many bytes aren't copied.
    """
    if size <= JOIN_LIMIT:
        transport.write(b"".join(pieces))
    else:
        transport.writelines(pieces)


class FlowControl:
    """Pauses reading from one transport, and keeps its writer waiting while the transport's buffer is full."""

    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable = Signal()
        self.read_paused = False
        self.write_paused = False

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        self._writable.set()

    async def drain(self) -> None:
        """Waits until writing is resumed. Only one `LightTask` may wait at a time."""
        if self.write_paused:
            await self._writable


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())


STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}
