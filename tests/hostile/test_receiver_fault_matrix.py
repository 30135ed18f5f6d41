"""Every fault of a receiver, on a new connection and on a kept one: what the sender gets, and in what time.

Each combination has a route and a receiver of its own, so that all run at once and none can hide behind another. After its
fault the same receiver is healthy again: the next deliveries must reach it once each and get their own answers. In the end
nothing may be left over: no descriptor, nothing in flight, nothing of the budget.

The table is that of docs/reliability.md; a test compares them.
"""

import asyncio
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from hostile_wire import Sidecar, mac, running, send
from ports import free_port

Script = Callable[["Peer"], Awaitable[None]]
SLOWEST = 5.0
CONFIG: dict[str, object] = {
    "listen": "127.0.0.1:0",
    "admin": "127.0.0.1:0",
    "limits": {"body": "8MiB"},
    "timeouts": {"connect": "300ms", "response": "1s", "total": "1500ms", "idle": "3s"},
    "drain": "300ms",
}
LARGE = b"L" * 3_000_000
HEAD = b"HTTP/1.1 200 OK\r\n"
LENGTH = HEAD + b"Content-Length: 100\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"


class Peer:
    """A connection of the sidecar, as a script sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.nonce = b""
        self.length = 0

    async def head(self) -> None:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        self.nonce = re.search(rb"X-Nonce: (.*?)\r\n", raw)[1]  # type: ignore[index]
        self.length = int(re.search(rb"Content-Length: (\d+)\r\n", raw)[1])  # type: ignore[index]

    async def body(self) -> None:
        await self.reader.readexactly(self.length)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes, pause: float = 0.03) -> None:
        for at in range(len(data)):
            await self.say(data[at : at + 1])
            await asyncio.sleep(pause)

    async def hang(self) -> None:
        await self.reader.read()  # to the end of the connection
        await asyncio.sleep(0)

    def reset(self) -> None:
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def answer(self) -> None:
        await self.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self.nonce), self.nonce))


@dataclass(frozen=True)
class Fault:
    name: str
    answer: str  #: what the sender gets: a status, or `cut` for a response that visibly breaks off
    reason: str  #: of the log line; empty if accepted
    script: Script | None  #: given a peer whose request was read, or with `early` none of it; None: nobody listens
    early: bool = False
    goes_on: bool = False  #: serves the connection further
    body: bytes = b"{}"
    kept: bool = True  #: makes sense on a kept connection too


def says(data: bytes, then: str = "hang") -> Script:
    """Says this, and then closes, resets, hangs, or goes on as if nothing were."""

    async def script(peer: Peer) -> None:
        await peer.say(data)
        await asyncio.sleep(0.05)
        if then == "hang":
            await peer.hang()
        elif then == "reset":
            peer.reset()

    return script


def drips(head: bytes, data: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.say(head)
        await peer.drip(data)

    return script


async def drips_chunks(peer: Peer) -> None:
    await peer.say(CHUNKED)
    await forever(peer, b"1\r\nx\r\n", 0.03)


async def forever(peer: Peer, data: bytes, pause: float) -> None:
    while True:
        await peer.say(data)
        await asyncio.sleep(pause)


async def answers(peer: Peer) -> None:
    await peer.answer()


async def answers_twice(peer: Peer) -> None:
    await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(peer.nonce), peer.nonce) + POISON)
    await peer.hang()


async def answers_again_later(peer: Peer) -> None:
    await peer.answer()
    await asyncio.sleep(0.03)
    await peer.say(POISON)
    await peer.hang()


async def answers_early(peer: Peer) -> None:
    await peer.answer()
    await asyncio.sleep(0.1)
    await peer.body()


async def answers_early_and_leaves(peer: Peer) -> None:
    await peer.say(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(peer.nonce), peer.nonce))
    await asyncio.sleep(0.2)


async def resets_at_once(peer: Peer) -> None:
    peer.reset()


async def hints_first(peer: Peer) -> None:
    await peer.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    await peer.answer()


async def sends_trailers(peer: Peer) -> None:
    size = b"%x" % len(peer.nonce)
    await peer.say(CHUNKED + size + b"\r\n" + peer.nonce + b"\r\n0\r\nX-Trailer: x\r\n\r\n")


async def ends_by_closing(peer: Peer) -> None:
    await peer.say(HEAD + b"\r\n" + peer.nonce)


def broke(name: str, data: bytes) -> Fault:
    return Fault(name, "502", "upstream_broke", says(data))


FAULTS = [
    Fault("is not listening", "502", "upstream_unreachable", None, kept=False),
    Fault("accepts the connection and reads nothing", "504", "upstream_timeout", Peer.hang, early=True, body=LARGE),
    Fault("closes after the head of the request", "502", "upstream_broke", says(b"", "close"), early=True),
    Fault("resets after the head of the request", "502", "upstream_broke", resets_at_once, early=True),
    Fault("closes in the middle of a large body", "502", "upstream_broke", says(b"", "close"), early=True, body=LARGE),
    Fault("closes after the request", "502", "upstream_broke", says(b"", "close")),
    Fault("resets after the request", "502", "upstream_broke", resets_at_once),
    Fault("sends nothing", "504", "upstream_timeout", Peer.hang),
    Fault("closes within the head of its response", "502", "upstream_broke", says(LENGTH[:30], "close")),
    Fault("resets within the head of its response", "502", "upstream_broke", says(LENGTH[:30], "reset")),
    Fault("stalls within the head of its response", "504", "upstream_timeout", says(LENGTH[:30])),
    Fault("drips the head of its response", "504", "upstream_timeout", drips(b"", LENGTH * 9)),
    Fault("closes after the head of its response", "cut", "upstream_broke", says(LENGTH, "close")),
    Fault("resets after the head of its response", "cut", "upstream_broke", says(LENGTH, "reset")),
    Fault("stalls after the head of its response", "cut", "upstream_timeout", says(LENGTH)),
    Fault("closes within the body", "cut", "upstream_broke", says(LENGTH + b"part", "close")),
    Fault("resets within the body", "cut", "upstream_broke", says(LENGTH + b"part", "reset")),
    Fault("stalls within the body", "cut", "upstream_timeout", says(LENGTH + b"part")),
    Fault("drips the body", "cut", "upstream_timeout", drips(LENGTH, b"x" * 99)),
    Fault("closes within a chunk", "cut", "upstream_broke", says(CHUNKED + b"9\r\npart", "close")),
    Fault("closes before the last chunk", "cut", "upstream_broke", says(CHUNKED + b"4\r\npart\r\n", "close")),
    Fault("stalls within a chunk", "cut", "upstream_timeout", says(CHUNKED + b"9\r\npart")),
    Fault("drips chunks", "cut", "upstream_timeout", drips_chunks),
    Fault("sends an invalid chunk size", "cut", "upstream_broke", says(CHUNKED + b"4\r\npart\r\nzz\r\n")),
    Fault("sends endless trailer fields", "cut", "upstream_broke", says(CHUNKED + b"0\r\nX: " + b"x" * 300_000)),
    Fault("resets a response that is delimited by closing", "cut", "upstream_broke", says(HEAD + b"\r\npart", "reset")),
    broke("sends 20,000 tiny fields", HEAD + b"a:\r\n" * 20_000 + b"\r\n"),
    broke("sends a head over 64 KiB", HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n"),
    broke("sends a NUL in a field", HEAD + b"X: a\0b\r\nContent-Length: 0\r\n\r\n"),
    broke("sends a field without a colon", HEAD + b"nonsense\r\nContent-Length: 0\r\n\r\n"),
    broke("sends a bad status line", b"HTTP/1.1 OK 200\r\nContent-Length: 0\r\n\r\n"),
    broke("sends an invalid status", b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n"),
    broke("sends no HTTP at all", b"\x15\x03\x01\x00\x02\x02\x28SSH-2.0-x\r\n"),
    broke("sends two lengths", HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    broke("sends a length and chunks", HEAD + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    broke("sends another transfer coding", HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    broke("switches protocols", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"),
    broke("sends a storm of informational responses", b"HTTP/1.1 102 Processing\r\nX: xxxxxxxxxx\r\n\r\n" * 4000),
    Fault(
        "sends endless informational responses",
        "504",
        "upstream_timeout",
        lambda peer: forever(peer, b"HTTP/1.1 102 Processing\r\n\r\n", 0.05),
    ),
    Fault("sends early hints, then its response", "200", "", hints_first),
    Fault("responds twice at once", "200", "", answers_twice),
    Fault("responds again while the connection is idle", "200", "", answers_again_later),
    Fault("responds before it reads a large body", "200", "", answers_early, early=True, goes_on=True, body=LARGE),
    Fault("responds before it reads, then closes", "200", "", answers_early_and_leaves, early=True, body=LARGE),
    Fault("sends trailer fields", "200", "", sends_trailers),
    Fault("ends its response by closing", "200", "", ends_by_closing),
    Fault("closes an idle connection", "200", "", answers, kept=True),
]


@dataclass
class Combination:
    fault: Fault
    kept: bool
    number: int
    port: int = 0
    open: int = 0
    seen: Counter[bytes] = field(default_factory=Counter)
    server: asyncio.Server | None = None

    @property
    def route(self) -> str:
        return f"c{self.number}"

    async def start(self) -> None:
        if self.fault.script is None:
            self.port = free_port()  # that of no other combination
            return
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 22)
        self.port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.open += 1
        try:
            while True:
                await peer.head()
                self.seen[peer.nonce] += 1
                if peer.nonce != b"faulty":
                    await peer.body()
                    await peer.answer()
                    if peer.nonce == b"first" and self.fault.name == "closes an idle connection":
                        return
                    continue
                if not self.fault.early:
                    await peer.body()
                assert self.fault.script is not None
                await self.fault.script(peer)
                if not self.fault.goes_on:
                    return
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            self.open -= 1
            writer.close()


def delivery(combination: Combination, nonce: bytes, body: bytes) -> bytes:
    return (
        b"POST /%b HTTP/1.1\r\nHost: a\r\nX-Signature: %b\r\nX-Nonce: %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        % (combination.route.encode(), mac(body), nonce, len(body))
    ) + body


def outcome(raw: bytes) -> tuple[str, bytes]:
    """The status, or `cut`; and the body."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status = head[9:12].decode()
    if length := re.search(rb"content-length: (\d+)", head, re.IGNORECASE):
        whole = len(body) == int(length[1])
    else:
        whole = body.endswith(b"0\r\n\r\n")
        body = b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n", body, re.DOTALL))
    return (status if whole else "cut"), body


async def play(combination: Combination, sidecar: Sidecar) -> list[str]:
    """One combination, from the first delivery to the last; what went wrong."""
    problems = []
    fault = combination.fault
    if combination.kept:
        first = await send(sidecar, [delivery(combination, b"first", b"{}")], number=1)
        if outcome(first.raw) != ("200", b"first"):
            problems.append(f"the delivery before: {first.raw!r}")
        await asyncio.sleep(0.2)
    got = await send(sidecar, [delivery(combination, b"faulty", fault.body)], number=2)
    told, body = outcome(got.raw)
    if told != fault.answer:
        problems.append(f"{told} instead of {fault.answer}: {got.raw[:200]!r}")
    if told == "200" and body != b"faulty":
        problems.append(f"another answer: {body!r}")
    if got.seconds > SLOWEST:
        problems.append(f"it took {got.seconds:.1f} s")
    await asyncio.sleep(0.3)
    for nonce in (b"next", b"last") if fault.script else ():
        after = await send(sidecar, [delivery(combination, nonce, b"{}")], number=3)
        if outcome(after.raw) != ("200", nonce):
            problems.append(f"the delivery after: {after.raw!r}")
    again = {nonce: count for nonce, count in combination.seen.items() if count != 1}
    if again:
        problems.append(f"sent again: {again}")
    return [f"{fault.name}, {'kept' if combination.kept else 'new'} connection: {problem}" for problem in problems]


def test_the_documentation_has_this_table() -> None:
    page = (Path(__file__).parents[2] / "docs/reliability.md").read_text()
    rows = [
        f"| {fault.name} | {fault.answer} | {f'`{fault.reason}`' if fault.reason else ''} | {'both' if fault.kept else 'new'} |"
        for fault in FAULTS
    ]
    assert [row for row in rows if row not in page] == []


def test_every_fault_on_every_connection_ends_as_documented(tmp_path: Path) -> None:
    combinations = [Combination(fault, False, number) for number, fault in enumerate(FAULTS)]
    kept = [fault for fault in FAULTS if fault.kept]
    combinations += [Combination(fault, True, number) for number, fault in enumerate(kept, len(FAULTS))]
    assert len(combinations) > 80
    problems = asyncio.run(_run(combinations, tmp_path))
    assert not problems, "\n".join(problems)


async def _run(combinations: list[Combination], directory: Path) -> list[str]:
    for combination in combinations:
        await combination.start()
    routes = [
        {
            "name": combination.route,
            "path": f"/{combination.route}",
            "upstream": f"http://127.0.0.1:{combination.port}",
            "verify": "begini",
            "secrets": [{"env": "HOSTILE"}],
        }
        for combination in combinations
    ]
    with running(CONFIG | {"routes": routes}, directory) as sidecar:
        await sidecar.wait_serving()
        await sidecar.scrape()
        descriptors = sidecar.descriptors()
        played = await asyncio.gather(*(play(each, sidecar) for each in combinations))
        problems = [problem for each in played for problem in each]
        await sidecar.back_to_start(descriptors)
        for _ in range(100):  # the sidecar has closed them; the receivers here may have yet to see it
            if not any(each.open for each in combinations):
                break
            await asyncio.sleep(0.05)
        problems += [f"{each.fault.name}: a connection is left" for each in combinations if each.open]
        output = await sidecar.stop()
    for combination in combinations:
        if combination.server:
            combination.server.close()
    lines = [json.loads(line) for line in output.splitlines() if b'"event":"delivery"' in line]
    for combination in combinations:
        reasons = [line["reason"] for line in lines if line["route"] == combination.route]
        wanted = [combination.fault.reason] if combination.fault.reason else []
        if [reason for reason in reasons if reason] != wanted:
            problems.append(f"{combination.fault.name}: logged {reasons}, must be {wanted}")
    return problems
