"""Hours of mixed traffic: do memory or descriptors grow? Accepted, rejected, faulty, large and slow deliveries.

python tests/load/soak.py [--minutes 60] [--rate N] [--workers N]

Without `--rate` it uses half of the rate that the machine reaches, measured for a few seconds at the start. It prints a line
every half minute. It passes if resident memory stays within 5 % after the warm-up, and if at the end there are as many
descriptors as at the start.
"""

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections import Counter

import uvloop
from rig import Address, Receiver, Sidecar, deliver, read_answer, signed, verdict

SMALL = bytes(1024)
LARGE = bytes(1 << 20)
EXPECTED: dict[str, set[int | None]] = {
    "accepted": {200},
    "refused": {403},
    "unrouted": {404},
    "faulty": {200, None},  # a response that breaks off
    "large": {200},
    "slow body": {200},
    "slow reader": {200},
    "leaves": {None},
}
KINDS = (["accepted"] * 160) + (["refused"] * 20) + (["unrouted"] * 8) + (["faulty"] * 4) + (["large"] * 4)
KINDS += ["slow body"] * 2 + ["slow reader", "leaves"]
REQUESTS = {
    "accepted": signed(SMALL, ident="a"),
    "refused": signed(SMALL, secret="another", ident="r"),
    "unrouted": signed(SMALL, path="/nowhere", ident="u"),
    "faulty": signed(SMALL, path="/webhooks/faulty", ident="f"),
    "large": signed(LARGE, ident="l"),
}
SLOW, LONG = signed(SMALL, ident="s"), signed(SMALL, path="/webhooks/long", ident="x")


async def send(address: Address, kind: str) -> int | None:
    """One delivery; returns its status."""
    if kind in REQUESTS:
        return await deliver(address, REQUESTS[kind])
    reader, writer = await asyncio.open_connection(*address, limit=1 << 14)
    try:
        if kind == "slow body":
            for at in range(0, len(SLOW), 300):
                writer.write(SLOW[at : at + 300])
                await asyncio.sleep(0.5)
            answer = await read_answer(reader)
            return answer and answer[0]
        writer.write(LONG)
        if kind == "leaves":
            return None
        head = await reader.readuntil(b"\r\n\r\n")
        left = len(LARGE)
        while left and (piece := await reader.read(1 << 16)):
            left -= len(piece)
            await asyncio.sleep(0.1)
        return None if left else int(head[9:12])
    finally:
        writer.close()


async def capacity(address: Address) -> float:
    """Accepted deliveries a second, from 16 senders with a new connection for each delivery."""
    done, end = 0, time.monotonic() + 5

    async def sender() -> None:
        nonlocal done
        while time.monotonic() < end:
            done += await deliver(address, REQUESTS["accepted"]) == 200

    await asyncio.gather(*(sender() for _ in range(16)))
    return done / 5


async def main(arguments: argparse.Namespace) -> int:
    receiver = await Receiver().start()
    sidecar = await Sidecar(receiver.port, workers=arguments.workers).serving()
    idle = sidecar.descriptors()
    rate = arguments.rate or await capacity(sidecar.address) / 2
    print(f"{rate:.0f} deliveries a second for {arguments.minutes:g} minutes", flush=True)
    counted: Counter[str] = Counter()
    wrong: Counter[tuple[str, int | None]] = Counter()
    samples: list[tuple[float, int, int]] = []
    running: set[asyncio.Task[None]] = set()

    async def one(kind: str) -> None:
        try:
            status = await send(sidecar.address, kind)
        except OSError:
            status = None
        counted[kind] += 1
        if status not in EXPECTED[kind]:
            wrong[kind, status] += 1

    began = time.monotonic()
    next_sample, due = began, began
    while (now := time.monotonic()) < began + arguments.minutes * 60:
        while due <= now:
            task = asyncio.create_task(one(random.choice(KINDS)))
            running.add(task)
            task.add_done_callback(running.discard)
            due += 1 / rate
        if now >= next_sample:
            next_sample += 5
            samples.append((now - began, sidecar.resident(), sidecar.descriptors()))
            if len(samples) % 6 == 1:
                at, resident, descriptors = samples[-1]
                mib = resident / 2**20
                print(
                    f"{at:6.0f} s  {mib:6.1f} MiB  {descriptors:4} fds  {sum(counted.values())} done  {dict(wrong)}",
                    flush=True,
                )
        await asyncio.sleep(0.01)
    await asyncio.gather(*running)
    await asyncio.sleep(6)
    after = sidecar.descriptors()
    status = sidecar.stop()
    steady = [resident for at, resident, _ in samples if at >= arguments.minutes * 60 * 0.2]
    tenth = max(len(steady) // 10, 1)
    first, last = statistics.median(steady[:tenth]), statistics.median(steady[-tenth:])
    print(f"{sum(counted.values())} deliveries: {dict(counted)}")
    print(f"resident memory after the warm-up {first / 2**20:.1f} MiB, at the end {last / 2**20:.1f} MiB")
    print(f"most {max(steady) / 2**20:.1f} MiB; descriptors {idle} before, {after} after; exit status {status}")
    problems = [f"{kind} answered {status}: {count} times" for (kind, status), count in wrong.items()]
    if last > first * 1.05:
        problems.append("resident memory grew by more than 5 %")
    if after > idle:
        problems.append("descriptors are left over")
    if status:
        problems.append(f"exit status {status}")
    return verdict(problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, help="deliveries a second")
    parser.add_argument("--workers", type=int, default=1)
    sys.exit(uvloop.run(main(parser.parse_args())))
