"""Deliveries while the sidecar is replaced repeatedly: is any of them lost, or delivered but reported as failed?

python tests/load/rolling.py [--deliveries 50000] [--cycles 20] [--senders 16] [--pace 0.01] [--workers N]

Senders go through a small TCP balancer, which requests `/readyz` like a load balancer and gives new connections to a process that
is ready. Each cycle starts a new process, waits for it, and sends the old one SIGTERM. Senders keep their connections as long as
they may, and send so many deliveries at least, and until the last new process has had some. It passes if each delivery with 2xx
reached the receiver exactly once, the receiver acknowledged none with 4xx or 5xx, and all old processes exited with 0.
"""

import argparse
import asyncio
import contextlib
import itertools
import sys
import time
from collections import Counter

import uvloop
from rig import Receiver, Sidecar, read_answer, signed, verdict


class Balancer:
    """Passes connections on to a backend that is ready, byte by byte."""

    def __init__(self) -> None:
        self.backends: list[Sidecar] = []
        self.turn = 0

    async def start(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = server.sockets[0].getsockname()
        self.probes = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        """Checks twenty times a second; a backend that is not ready gets no new connections."""
        while True:
            for sidecar in list(self.backends):
                if not await self._ready(sidecar):
                    self.backends.remove(sidecar)
            await asyncio.sleep(0.05)

    async def _ready(self, sidecar: Sidecar) -> bool:
        try:
            reader, writer = await asyncio.open_connection(*sidecar.admin)
        except OSError:
            return False
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n")
        answer = await reader.read(-1)
        writer.close()
        return answer.startswith(b"HTTP/1.1 200")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.turn += 1
        sidecar = self.backends[self.turn % len(self.backends)]
        try:
            back_reader, back_writer = await asyncio.open_connection(*sidecar.address)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(self._pass(reader, back_writer), self._pass(back_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        writer.close()


async def main(arguments: argparse.Namespace) -> int:
    receiver = await Receiver().start()
    balancer = Balancer()
    await balancer.start()
    options = {"workers": arguments.workers, "drain": "4s"}
    sidecar = await Sidecar(receiver.port, **options).serving()
    balancer.backends.append(sidecar)
    answers: dict[int, int | None] = {}
    numbers = itertools.count()
    enough = asyncio.Event()

    async def sender() -> None:
        connection = None
        while not enough.is_set():
            number = next(numbers)
            if connection is None:
                connection = await asyncio.open_connection(*balancer.address)
            reader, writer = connection
            writer.write(signed(b'{"number":%d}' % number, ident=str(number)))
            answer = await read_answer(reader)
            answers[number] = answer and answer[0]
            if answer is None or not answer[1]:
                writer.close()
                connection = None
            if arguments.pace:
                await asyncio.sleep(arguments.pace)
        if connection is not None:
            connection[1].close()

    began = time.monotonic()
    senders = [asyncio.create_task(sender()) for _ in range(arguments.senders)]
    ends: list[asyncio.Task[int]] = []
    for cycle in range(arguments.cycles):
        while len(answers) < arguments.deliveries * (cycle + 1) // (arguments.cycles + 1):
            await asyncio.sleep(0.01)
        old, sidecar = sidecar, await Sidecar(receiver.port, **options).serving()
        balancer.backends.append(sidecar)
        ends.append(asyncio.create_task(asyncio.to_thread(old.stop)))
    answered = len(answers)
    while len(answers) < max(arguments.deliveries, answered * 1.05):
        await asyncio.sleep(0.01)
    enough.set()
    await asyncio.gather(*senders)
    statuses = [*await asyncio.gather(*ends), sidecar.stop()]
    balancer.probes.cancel()
    counted = Counter(answers.values())
    print(
        f"{len(answers)} deliveries, {arguments.cycles} replacements, {time.monotonic() - began:.0f} s: {dict(counted)}"
    )
    print(f"{answered} were answered when the last new process was ready; exit statuses {dict(Counter(statuses))}")
    problems = []
    good = {str(number) for number, answer in answers.items() if answer and answer < 300}
    denied = {str(number) for number, answer in answers.items() if answer and answer >= 300}
    unanswered = {str(number) for number, answer in answers.items() if answer is None}
    if not all(receiver.seen[ident] == 1 for ident in good):
        problems.append("a 2xx did not reach the receiver exactly once")
    if any(receiver.acknowledged[ident] for ident in denied):
        problems.append("something was denied that the receiver had acknowledged")
    if any(receiver.seen[ident] for ident in unanswered):
        problems.append("something reached the receiver and was not answered")
    if max(receiver.seen.values()) > 1:
        problems.append("something reached the receiver twice")
    if any(statuses):
        problems.append("a process did not exit with 0")
    if len(denied) + len(unanswered) > arguments.deliveries / 1000:
        problems.append(f"{len(denied)} denied and {len(unanswered)} unanswered, more than one in a thousand")
    return verdict(problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=50_000)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--senders", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pace", type=float, default=0.01, help="seconds between a sender's deliveries")
    sys.exit(uvloop.run(main(parser.parse_args())))
