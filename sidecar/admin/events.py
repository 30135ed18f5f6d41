"""Server-sent events for the status page."""

import asyncio
import contextlib
import json

from starlette.types import Receive, Scope, Send

from sidecar.admin.live_page import LivePage

#: Seconds. A listener that takes longer to receive an event is disconnected, and its place becomes free.
SEND_SECONDS = 10.0


class Events:
    """A response that streams each change as a server-sent event: `{part: HTML}` as JSON, with the version as its id."""

    def __init__(self, page: LivePage, version: int) -> None:
        """`version` is the one that the page already shows."""
        self._page = page
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._page.listening() as place:
            if not place:
                await _start(send, 503, b"text/plain", more=False)
                return
            stream = asyncio.create_task(self._stream(send))
            disconnected = asyncio.create_task(_wait_for_disconnect(receive))
            try:
                await asyncio.wait([stream, disconnected], return_when=asyncio.FIRST_COMPLETED)
            finally:
                disconnected.cancel()
                stream.cancel()

    async def _stream(self, send: Send) -> None:
        """Ends when the program stops, or when the listener doesn't receive in time."""
        page = self._page
        with contextlib.suppress(TimeoutError):
            await _start(send, 200, b"text/event-stream", more=True)
            while not page.closed:
                text = ":\n\n"
                if page.version > self._version:
                    newer, self._version = page.newer(self._version), page.version
                    text = f"id: {self._version}\ndata: {json.dumps(newer)}\n\n"
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
                await page.news(self._version)
            await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, status: int, content_type: bytes, *, more: bool) -> None:
    headers = [(b"content-type", content_type), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    if status == 503:
        headers.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if not more:
        await send({"type": "http.response.body", "body": b""})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
