"""Reloads under load, half of them of broken files: no delivery fails because of it, and exactly one configuration judges each.

python tests/load/reloads.py [--reloads 200] [--senders 16] [--workers N] [--watched 20] [--routes 1]

Each good configuration has a number, which is in its route's name, its secret's id and its rejections. The header fields that the
receiver gets, and the response that a rejected sender gets, must have the same number in all places, and it must be that of a
configuration that was in use between the first byte of the delivery and the last of the response.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from collections import Counter
from typing import Any, Self

import uvloop
from rig import Sidecar, percentile, read_answer, signed, verdict

BODY = bytes(2000)
GOOD = signed(BODY)
FORGED = signed(BODY, secret="another")
BROKEN = (
    "",
    "routes: [",
    "upstream: http://127.0.0.1:3000\nroutes: []\n",
    "upstream: &a [*a]\nroutes: [*a]\n",
    "\0",
    '{"routes": [{"path": "/webhooks/begini", "verify": "begini", "secrets": [{"file": "/nowhere"}]}]}',
)


class Receiver:
    """Responds with the name of the route and the id of the secret that it got."""

    async def start(self) -> Self:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port: int = server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                await reader.readexactly(len(BODY))
                told = re.findall(r"X-Webhook-(?:Verified|Secret-Id): (\S+)", head)
                text = " ".join(told).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Versions:
    """The numbers of configurations that may be in use: the last that is known to be, and the last that was written."""

    def __init__(self) -> None:
        self.at_work = 0
        self.written = 0


def configuration(version: int, port: int, *, workers: int, routes: int) -> dict[str, Any]:
    refusal = {"status": 403, "body": json.dumps({"detail": f"v{version}"})}
    secret = {"id": f"v{version}", "env": "LOAD_KEY"}
    route = {
        "name": f"r{version}",
        "path": "/webhooks/begini",
        "verify": "begini",
        "secrets": [secret],
        "reject": refusal,
    }
    return {
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "upstream": f"http://127.0.0.1:{port}",
        "drain": "1s",
        "log": {"accepted": False},
        "workers": workers,
        "routes": [route, *({"path": f"/other/{number}", "open": True} for number in range(routes - 1))],
    }


class Run:
    """Senders, and a writer of configurations."""

    def __init__(self, *, reloads: int, senders: int, workers: int, watched: int, routes: int) -> None:
        self.reloads = reloads
        self.senders = senders
        self.shape = {"workers": workers, "routes": routes}
        self.watched = watched
        self.versions = Versions()
        self.counts: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.reload_seconds: list[float] = []
        self.problems: list[str] = []
        self.over = False

    async def run(self) -> list[str]:
        receiver = await Receiver().start()
        first = configuration(0, receiver.port, **self.shape)
        sidecar = await Sidecar(receiver.port, **first).serving()
        try:
            tasks = [asyncio.create_task(self._send(sidecar, number)) for number in range(self.senders)]
            for number in range(self.reloads):
                await self._reload(sidecar, receiver.port, number)
            self.over = True
            await asyncio.gather(*tasks)
            series = await sidecar.metric('webhook_sidecar_deliveries_total{route=""')
            if series:
                self.problems.append(f"{series:g} deliveries had no route")
        finally:
            status = await asyncio.to_thread(sidecar.stop)
        if status:
            self.problems.append(f"exit status {status}")
        return self.problems

    async def _send(self, sidecar: Sidecar, number: int) -> None:
        connection = None
        count = 0
        while not self.over:
            count += 1
            raw = FORGED if (count + number) % 4 == 0 else GOOD
            first = self.versions.at_work
            began = time.perf_counter()
            if connection is None:
                connection = await asyncio.open_connection(*sidecar.address)
            reader, writer = connection
            if count % 50 == 0:  # begun in one configuration, finished in another
                writer.write(raw[:-1000])
                await asyncio.sleep(0.2)
                writer.write(raw[-1000:])
            else:
                writer.write(raw)
            answer = await read_answer_with_body(reader)
            if count % 50:
                self.seconds.append(time.perf_counter() - began)
            if answer is None:
                self.problems.append("no answer")
                connection = None
                continue
            status, body, kept = answer
            self._judge(raw, status, body, first, self.versions.written)
            if not kept:
                writer.close()
                connection = None
        if connection is not None:
            connection[1].close()

    def _judge(self, raw: bytes, status: int, body: str, first: int, last: int) -> None:
        wanted = (403, r'\{"detail": "v(\d+)"\}') if raw is FORGED else (200, r"r(\d+) v\1")
        match = re.fullmatch(wanted[1], body)
        if status != wanted[0] or match is None:
            self.problems.append(f"{status} {body!r} instead of {wanted[0]}")
        elif not first <= int(match[1]) <= last:
            self.problems.append(f"judged by configuration {match[1]}, when those at work were {first} to {last}")
        self.counts[status] += 1

    async def _reload(self, sidecar: Sidecar, port: int, number: int) -> None:
        await asyncio.sleep(0.05)
        broken = number % 2
        if broken:
            text = BROKEN[number // 2 % len(BROKEN)]
        else:
            self.versions.written += 1
            text = json.dumps(configuration(self.versions.written, port, **self.shape))
        sidecar.file.write_text(text)
        began = time.perf_counter()
        if number % self.watched == 0:
            while await self._version(sidecar) != self.versions.written:
                await asyncio.sleep(0.05)
        else:
            status = await ask_for_reload(sidecar)
            if status != (400 if broken else 200):
                self.problems.append(f"the reload of {text[:60]!r} was answered {status}")
            self.reload_seconds.append(time.perf_counter() - began)
        self.versions.at_work = self.versions.written

    async def _version(self, sidecar: Sidecar) -> int:
        reader, writer = await asyncio.open_connection(*sidecar.admin)
        writer.write(b"GET /-/config HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n")
        text = (await reader.read(-1)).decode()
        writer.close()
        return int(re.findall(r'"name":"r(\d+)"', text)[0])


async def read_answer_with_body(reader: asyncio.StreamReader) -> tuple[int, str, bool] | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        body = await reader.readexactly(int(head.partition("content-length: ")[2].split("\r\n", 1)[0]))
    except (OSError, asyncio.IncompleteReadError):
        return None
    return int(head[9:12]), body.decode(), "connection: close" not in head


async def ask_for_reload(sidecar: Sidecar) -> int | None:
    reader, writer = await asyncio.open_connection(*sidecar.admin)
    writer.write(b"POST /-/reload HTTP/1.1\r\nHost: load\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    answer = await read_answer(reader)
    writer.close()
    return answer and answer[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--senders", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--watched", type=int, default=20, help="every so many nobody asks for: the change is noticed")
    parser.add_argument("--routes", type=int, default=1)
    chosen = parser.parse_args()
    run = Run(**vars(chosen))
    problems = uvloop.run(run.run())
    taken = " ".join(f"{percentile(run.seconds, share) * 1000:.1f}" for share in (0.5, 0.99, 1))
    reloads = " ".join(f"{percentile(run.reload_seconds, share) * 1000:.1f}" for share in (0.5, 1))
    print(f"{chosen.reloads} reloads, {chosen.workers} workers, {chosen.routes} routes: {dict(run.counts)} deliveries")
    print(f"deliveries: p50 p99 max {taken} ms; reloads: p50 max {reloads} ms")
    return verdict(sorted(set(problems)))


if __name__ == "__main__":
    sys.exit(main())
