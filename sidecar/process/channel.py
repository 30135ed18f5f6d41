"""Messages between the main process and a worker: JSON objects, one per line, over a socket pair."""

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any

#: A configuration with all its secrets is much smaller.
MAX_MESSAGE = 256 * 1024 * 1024


class Channel:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "Channel":
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_MESSAGE))

    def send(self, message: Mapping[str, object]) -> None:
        """Does nothing if the other end is gone; `receive` then returns None."""
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other end is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        self._writer.close()
