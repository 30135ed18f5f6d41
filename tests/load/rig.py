"""Shared parts of the load tests: a real sidecar process, a receiver that counts, and senders. Loopback only."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

KEY = "load-test-secret-0123456789"
#: Host and port.
Address = tuple[str, int]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def signed(
    body: bytes, *, ident: object = "", path: str = "/webhooks/begini", secret: str = KEY, more: str = ""
) -> bytes:
    """A delivery as Begini signs it, its id in a header."""
    mac = hmac.new(secret.encode(), body, hashlib.sha512).hexdigest()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: load.test\r\nX-Signature: {mac}\r\nX-Id: {ident}\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bool] | None:
    """The status of a response and whether the connection may be reused; None if there was no whole response."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0]
        await reader.readexactly(int(length or 0))
    except (OSError, asyncio.IncompleteReadError):
        return None
    return int(head[9:12]), b"connection: close" not in head


async def deliver(address: Address, raw: bytes, *, source: str | None = None) -> int | None:
    """Sends on a new connection; returns the status, None if there was no response."""
    try:
        reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0) if source else None)
    except OSError:
        return None
    try:
        writer.write(raw)
        with contextlib.suppress(OSError):  # the response may have arrived all the same
            await writer.drain()
        answer = await read_answer(reader)
    finally:
        writer.close()
    return answer and answer[0]


class Receiver:
    """Counts deliveries by their ids, and notes the checksum of each whole body."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.checksums: dict[str, int] = {}
        self.acknowledged: Counter[str] = Counter()

    async def start(self) -> Self:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024, limit=1 << 20)
        self.port: int = server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
                checksum, left = 0, int(fields.get("content-length", 0))
                while left:
                    piece = await reader.read(min(left, 1 << 18))
                    if not piece:
                        return
                    checksum, left = zlib.crc32(piece, checksum), left - len(piece)
                ident = fields["x-id"]
                self.seen[ident] += 1
                self.checksums[ident] = checksum
                await self.answer(head.split(" ", 2)[1], writer)
                self.acknowledged[ident] += 1
        writer.close()

    async def answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        """A receiver that fails on purpose if the path says so."""
        if path.endswith("/faulty"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot so many")
            raise ConnectionAbortedError
        if path.endswith("/long"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + bytes(1 << 20))
        else:
            writer.write(OK)
        await writer.drain()


class Sidecar:
    """A running `sidecar serve`. Its log goes to a file, or nowhere."""

    def __init__(self, receiver_port: int, *, listen: str = "127.0.0.1:0", **changes: Any) -> None:
        route = {"verify": "begini", "secrets": [{"id": "current", "env": "LOAD_KEY"}]}
        self.directory = tempfile.TemporaryDirectory()
        self.config = config = {
            "listen": listen,
            "admin": "127.0.0.1:0",
            "upstream": f"http://127.0.0.1:{receiver_port}",
            "log": {"accepted": False},
            "drain": "1s",
            "routes": [
                {"name": name, "path": f"/webhooks/{name}"} | route for name in ("begini", "faulty", "long", "other")
            ],
        } | changes
        self.file = Path(self.directory.name) / "sidecar.yaml"
        self.file.write_text(json.dumps(config))
        self.log = Path(self.directory.name) / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sidecar", "serve", "--config", str(self.file)],
                stdout=log,
                env=os.environ | {"LOAD_KEY": KEY},
            )

    async def serving(self) -> Self:
        for _ in range(600):
            for line in self.log.read_bytes().splitlines():
                if b'"serving"' in line:
                    said = json.loads(line)
                    self.address, self.admin = (split_address(said[key]) for key in ("listen", "admin"))
                    self.authorize_address = split_address(said.get("authorize", said["listen"]))
                    return self
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.05)
        raise SystemExit("the sidecar did not start")

    @property
    def pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]

    def resident(self) -> int:
        """Memory of all its processes, bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids)
        return pages * os.sysconf("SC_PAGE_SIZE")

    def peak(self) -> int:
        """The peak of this process's memory, bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids)

    async def metric(self, line: str) -> float:
        reader, writer = await asyncio.open_connection(*self.admin, limit=1 << 24)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n")
        text = (await reader.read(-1)).decode()
        writer.close()
        return sum(float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.startswith(line))

    def stop(self, patience: float = 60) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(patience)
        self.directory.cleanup()
        return status


def split_address(text: str) -> Address:
    host, port = text.rsplit(":", 1)
    return host, int(port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def verdict(problems: list[str]) -> int:
    """Prints the checks that failed; returns the exit status."""
    for problem in problems:
        print("DOES NOT HOLD:", problem)
    if not problems:
        print("holds")
    return 1 if problems else 0
