"""A provider's key server, over https with an authority made for the test. Its paths behave as a test configures them.

server.serve("/jwks", content)                 from now on
server.serve("/jwks", content, hangs=True)     what it does instead of an ordinary response: see `Page`
server.requests("/jwks")                       how often that was asked for
"""

import asyncio
import gc
import re
import socket
import ssl
import threading
import time
import warnings
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from ports import free_port

#: In the body of a POST that requests one key. The name of such a page is the path, `#` and the id.
_KEY_ID = re.compile(rb'"key_id": ?"([^"]+)"')


@dataclass
class Page:
    """A path's response."""

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0  #: seconds before the response begins
    after: threading.Event | None = None  #: the response begins when it is set, and after 30 seconds at the latest
    hangs: bool = False  #: sends nothing
    endless: bool = False  #: sends a body without an end
    drips: float = 0.0  #: one byte of head and body every so many seconds
    raw: bytes = b""  #: sent instead of a response
    authorization: str = ""  #: required in requests; otherwise the response is 401 (RFC 6749, 5.2)


def run_beside_server(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs it, and removes its remains.

    A fetch that is cut off at the end still shuts down TLS when asyncio closes the loop. Otherwise the warning about its
    connection would appear in the test in which it is collected.
    """
    asyncio.run(scenario)
    with warnings.catch_warnings(category=ResourceWarning, action="ignore"):
        gc.collect()


class KeyServer:
    """Listens on a loopback port until `stop`."""

    def __init__(self, directory: Path, *, tls: bool = True) -> None:
        self.pages: dict[str, Page] = {}
        self.heads: list[bytes] = []  #: of all requests; that of a POST with the body
        self.counts: Counter[str] = Counter()
        self.last: dict[str, float] = {}  #: path -> when it was requested last, monotonic
        self.sent = 0  #: bytes of the bodies of all responses
        self._context: ssl.SSLContext | None = None
        self.ca_file = directory / "key-server-ca.pem"
        if tls:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(str(self.ca_file))
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._stopped = threading.Event()
        # Not one that the kernel chooses: after `stop`, it might give the port to another test's server.
        self._listener = socket.create_server(("127.0.0.1", free_port()), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def serve(self, path: str, content: bytes = b"", **how: object) -> None:
        self.pages[path] = Page(content, **how)  # type: ignore[arg-type]

    def requests(self, path: str) -> int:
        return self.counts[path]

    def stop(self) -> None:
        """From now on connections are refused, and open ones are closed."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def restart(self) -> None:
        """Listens again, on the same port."""
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        listener = self._listener
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(raw,), daemon=True).start()

    def _handle(self, raw: socket.socket) -> None:
        try:
            raw.settimeout(60)
            connection = raw if self._context is None else self._context.wrap_socket(raw, server_side=True)
            with connection:
                self._respond(connection)
        except OSError:
            raw.close()

    def _respond(self, connection: socket.socket) -> None:
        request = _read(connection)
        if not request:
            return
        path = request.split(b" ", 2)[1].decode()
        asked = _KEY_ID.search(request.partition(b"\r\n\r\n")[2])
        if asked is not None and f"{path}#{asked[1].decode()}" in self.pages:
            path = f"{path}#{asked[1].decode()}"
        self.heads.append(request)
        self.last[path] = time.monotonic()
        self.counts[path] += 1
        page = self.pages.get(path, Page(status=404))
        if page.authorization and f"\r\nauthorization: {page.authorization}\r\n".encode() not in request:
            page = Page(b'{"error":"invalid_client","error_description":"client authentication failed"}', 401)
        self._stopped.wait(page.delay)
        if page.after is not None:
            page.after.wait(30)
        if page.hangs:
            self._stopped.wait(60)
            return
        if page.raw:
            connection.sendall(page.raw)
            return
        headers = {"Content-Type": "application/json", "Content-Length": str(len(page.content))} | page.headers
        if page.endless:
            del headers["Content-Length"]
        head = f"HTTP/1.1 {page.status} Some\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        data = head.encode() + b"Connection: close\r\n\r\n" + page.content
        if page.drips:
            for at in range(len(data)):
                connection.sendall(data[at : at + 1])
                if self._stopped.wait(page.drips):
                    return
            return
        connection.sendall(data)
        began = time.monotonic()
        while page.endless and time.monotonic() - began < 60 and not self._stopped.is_set():
            connection.sendall(b"x" * 65536)
            self.sent += 65536


def _read(connection: socket.socket) -> bytes:
    """A request, with its body; nothing if it is incomplete."""
    request = b""
    missing = True
    while missing:
        piece = connection.recv(65536)
        if not piece:
            return b""
        request += piece
        head, end, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        missing = not end or (length is not None and len(body) < int(length[1]))
    return request
