"""A sidecar process, a strict receiver, and senders that write any bytes, many at once.

Each sender connects from an address of its own (127.0.0.0/8 is all loopback). The sidecar appends it to X-Forwarded-For, so
the receiver knows which sender's bytes it is being shown, whatever became of them.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import re
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import leak_watch

SECRET = "CANARY-SECRET-hostile-8c1e"
leak_watch.marker(SECRET.encode(), b"CANARY-BODY")
#: Longest time that a sender may be left without an answer: the sidecar's own deadlines, and contention.
PATIENCE = 40.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ROUTES = {
    b"/webhooks/begini": (b"x-signature", b"", "sha512"),
    b"/webhooks/allowed": (b"x-signature", b"", "sha512"),
    b"/webhooks/github": (b"x-hub-signature-256", b"sha256=", "sha256"),
}
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_SERVING = re.compile(rb'"listen": "([^"]+)", "admin": "([^"]+)"(?:, "authorize": "([^"]+)")?')
_LINE = re.compile(rb"POST (/[!-~]*) HTTP/1\.1")


def mac(body: bytes, algorithm: str = "sha512") -> bytes:
    made = hmac.new(SECRET.encode(), body, algorithm).hexdigest().encode()
    leak_watch.signature(made)
    return made


def config(receiver: str) -> dict[str, object]:
    def route(name: str, preset: str, **more: object) -> dict[str, object]:
        return {"name": name, "path": f"/webhooks/{name}", "verify": preset, "secrets": [{"env": "HOSTILE"}]} | more

    return {
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "upstream": receiver,
        "trusted_proxies": ["127.0.0.0/8"],
        "limits": {"body": "1MiB", "header_timeout": "3s", "body_timeout": "4s"},
        "timeouts": {"response": "5s"},
        "drain": "500ms",
        "routes": [
            route("begini", "begini"),
            route("allowed", "begini", allow=["203.0.113.0/24", "2001:db8::/32"]),
            route("github", "github"),
        ],
    }


@dataclass
class Seen:
    """What the receiver was shown as one request, and everything that is wrong with it."""

    line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    sender: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name.lower()]


def judged(head: bytes) -> Seen:
    """A head as a strict reader sees it. Nobody reads more strictly than this, and nobody must have to."""
    line, *lines = head.split(b"\r\n")
    seen = Seen(line, [], b"")
    if re.search(rb"[\r\n\0]", head.replace(b"\r\n", b"")):
        seen.problems.append("a bare CR, LF or NUL in the head")
    if not _LINE.fullmatch(line):
        seen.problems.append(f"request line {line[:80]!r}")
    for each in lines:
        name, colon, value = each.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            seen.problems.append(f"header line {each[:80]!r}")
        seen.fields.append((name, value.strip(b" \t")))
    folded = [re.sub(rb"[^a-z0-9]", b"-", name.lower()) for name, _ in seen.fields]
    for name in (b"host", b"content-length", b"x-forwarded-for", b"x-webhook-verified", b"x-webhook-secret-id"):
        if folded.count(name) != 1:
            seen.problems.append(f"{folded.count(name)} fields that read as {name!r}")
    for name in (b"transfer-encoding", b"te", b"trailer", b"upgrade", b"expect", b"connection", b"keep-alive"):
        if name in folded:
            seen.problems.append(f"{name!r} was passed on")
    lengths = seen.values(b"content-length")
    if lengths and not re.fullmatch(rb"[0-9]{1,9}", lengths[0]):
        seen.problems.append(f"Content-Length {lengths[0]!r}")
    hops = seen.values(b"x-forwarded-for")
    seen.sender = hops[-1].rpartition(b",")[2].strip().decode("latin-1") if hops else ""
    return seen


def check_proof(seen: Seen) -> None:
    """Whether a request that reached the receiver is one that the holder of the secret made."""
    path = seen.target.partition(b"?")[0] if seen.line.count(b" ") == 2 else b""
    if path not in ROUTES:
        seen.problems.append(f"no route has the path {path!r}")
        return
    header, prefix, algorithm = ROUTES[path]
    if seen.values(header) != [prefix + mac(seen.body, algorithm)]:
        seen.problems.append(f"not verified: {seen.values(header)!r}")


class Receiver:
    """Takes what it is sent apart, and answers 200."""

    def __init__(self) -> None:
        self.by_sender: dict[str, list[Seen]] = defaultdict(list)
        self.problems: list[str] = []
        self.url = ""

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512, limit=1 << 18)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                seen = judged(head[:-4])
                lengths = seen.values(b"content-length")
                if not seen.problems:
                    seen.body = await reader.readexactly(int(lengths[0]))
                    check_proof(seen)
                self.by_sender[seen.sender].append(seen)
                self.problems += [f"{problem} in {head[:600]!r}" for problem in seen.problems]
                if seen.problems:
                    return
                writer.write(OK)
        except asyncio.IncompleteReadError as short:
            if short.partial:
                self.problems.append(f"an unfinished request {short.partial[:200]!r}")
        except (OSError, asyncio.LimitOverrunError) as broken:
            self.problems.append(repr(broken))
        finally:
            writer.close()


class Sidecar:
    """A process of the program; its output is kept."""

    def __init__(self, settings: dict[str, object], directory: Path, env: dict[str, str]) -> None:
        self.file = directory / "sidecar.yaml"
        self.file.write_text(json.dumps(settings))
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "sidecar", "serve", "--config", str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"HOSTILE": SECRET} | env,
            )
        self.listen = self.admin = self.authorize = ("", 0)

    async def wait_serving(self) -> None:
        async with asyncio.timeout(30):
            while not (found := re.search(_SERVING, self.log.read_bytes())):
                assert self.process.poll() is None, self.log.read_bytes()
                await asyncio.sleep(0.05)
        self.listen, self.admin, self.authorize = (
            (host, int(port)) for host, port in ((text or b":0").decode().rsplit(":", 1) for text in found.groups())
        )

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def scrape(self) -> str:
        """The exposition of its metrics."""
        reader, writer = await asyncio.open_connection(*self.admin, limit=1 << 22)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = await reader.read()
        writer.close()
        leak_watch.shown("/metrics", text)
        return text.decode()

    async def back_to_start(self, descriptors: int) -> None:
        """Waits until nothing is in flight or held, and no more is open than `descriptors`."""
        for _ in range(200):
            text = await self.scrape()
            idle = all(f"\nwebhook_sidecar_{name} 0.0\n" in text for name in ("in_flight", "buffered_bytes"))
            if idle and self.descriptors() <= descriptors:
                return
            await asyncio.sleep(0.03)
        raise AssertionError(f"not back to the start: {self.descriptors()} of {descriptors} descriptors, idle: {idle}")

    async def stop(self) -> bytes:
        """Ends it; it must have been alive, must end cleanly and must have met no bug. Returns its output."""
        assert self.process.poll() is None, self.log.read_bytes()[-2000:]
        self.process.terminate()
        status = await asyncio.to_thread(self.process.wait, 15)
        output = self.log.read_bytes()
        leak_watch.shown("output of a sidecar", output)
        assert status == 0, output[-2000:]
        assert b"internal_error" not in output, re.findall(rb".*internal_error.*", output)[:3]
        assert b"Traceback" not in output
        assert SECRET.encode() not in output
        return output


@contextlib.contextmanager
def running(settings: dict[str, object], directory: Path, *, env: dict[str, str] | None = None) -> Iterator[Sidecar]:
    sidecar = Sidecar(settings, directory, env or {})
    try:
        yield sidecar
    finally:
        if sidecar.process.poll() is None:
            sidecar.process.kill()
            sidecar.process.wait()


def address(number: int) -> str:
    """The loopback address of sender `number`."""
    return f"127.{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


@dataclass
class Got:
    """What a sender was told."""

    raw: bytes = b""
    closed: bool = False
    seconds: float = 0.0

    @property
    def statuses(self) -> list[int]:
        """Of the final answers, in order. No body of an answer here holds a status line."""
        return [int(code) for code in re.findall(rb"HTTP/1\.1 ([2-9][0-9]{2}) [ -~]*\r\n", self.raw)]


#: A whole answer stands at the end of what was received.
_WHOLE = re.compile(
    rb"HTTP/1\.1 [2-9].*?\r\ncontent-length: ([0-9]+)\r\n(?:.*?\r\n)?\r\n(.*)\Z", re.IGNORECASE | re.DOTALL
)


async def send(
    sidecar: Sidecar,
    segments: Sequence[bytes],
    *,
    number: int,
    pause: float = 0.01,
    half_close: bool = False,
    quiet: float | None = None,
) -> Got:
    """Writes the segments and reads until the connection ends, or an answer is whole and nothing follows it.

    `quiet` seconds show that nothing follows; by default few where there was one request, more where there may be several.
    With plain sockets, because a stream forgets what it has read once a write fails.
    """
    loop = asyncio.get_running_loop()
    got = Got()
    if quiet is None:
        quiet = 0.05 if b"".join(segments).count(b" HTTP/1.") < 2 else 2.0
    began = loop.time()
    with socket.socket() as sender:
        sender.setblocking(False)
        sender.bind((address(number), 0))
        await loop.sock_connect(sender, sidecar.listen)
        writing = asyncio.create_task(_write(sender, segments, pause, half_close))
        try:
            while True:
                whole = _WHOLE.search(got.raw[got.raw.rfind(b"HTTP/1.1 ") :])
                kept = whole and len(whole[2]) >= int(whole[1]) and b"connection: close" not in whole[0].lower()
                head_only = got.statuses and b"HEAD " in b"".join(segments)
                if kept or head_only:
                    await asyncio.wait([writing], timeout=PATIENCE)
                async with asyncio.timeout(quiet if kept or head_only else PATIENCE):
                    data = await loop.sock_recv(sender, 1 << 16)
                if not data:
                    got.closed = True
                    break
                got.raw += data
                await asyncio.sleep(0)
        except TimeoutError:
            pass
        except OSError:
            got.closed = True
        finally:
            writing.cancel()
            await asyncio.wait([writing])
    got.seconds = loop.time() - began
    leak_watch.shown("answers", got.raw)
    return got


async def _write(sender: socket.socket, segments: Sequence[bytes], pause: float, half_close: bool) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        for index, segment in enumerate(segments):
            if index:
                await asyncio.sleep(pause)
            await loop.sock_sendall(sender, segment)
        if half_close:
            sender.shutdown(socket.SHUT_WR)


def digest(data: bytes) -> str:
    """A short name for some bytes."""
    return hashlib.sha256(data).hexdigest()[:10]
