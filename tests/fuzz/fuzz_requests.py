"""Mutated requests against a running sidecar: `python tests/fuzz/fuzz_requests.py --count 20000 --seed 7`.

Begins with every case of the hostile corpus and breaks it further, by a seed. Whatever is sent, this must hold:

- the receiver sees nothing but requests that verify, framed once, well-formed (the receiver of `hostile_wire` judges);
- no answer is 5xx: a sender's bytes are never our mistake;
- a client that sends anything but blank lines gets a response, in the time that the deadlines leave;
- there are as many 200s as the receiver saw requests: no answer is lost, none is given twice;
- the process lives, and ends as it should.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("support", "hostile")]
from hostile_cases import CASES, chunked, chunks, request
from hostile_wire import PATIENCE, Got, Receiver, address, config, running, send

CROWD = 120
SEEDS = [case.raw for case in CASES if len(case.raw) < 4000] + [request(), chunked(chunks())] * 200
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"#", b"?", b"%", b"/", b"..", b"\xff", b"\x85", b"\xa0", b"\x0b", b"_", b"-", b"+", b"0x", b"\r\n\r\n", b"0\r\n\r\n", b"5;a=b\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Content_Length: 5\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"Host: b\r\n", b"X-Signature: 00\r\n", b"X-Forwarded-For: 127.0.0.5\r\n", b"X_Webhook_Verified: begini\r\n", b"HTTP/1.0", b"HTTP/1.1",
    b"HTTP/0.9", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", b"POST ", b"CONNECT ", b"http://x", b"A" * 3000, b"X: " + b"y" * 66_000 + b"\r\n", b"%00", b"\xc4\xb0", b"f" * 16 + b"\r\n",
]  # fmt: skip


class Mutator:
    """Breaks requests. The same seed breaks them in the same way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def __iter__(self) -> Iterator[list[bytes]]:
        """Without end: the segments of one connection."""
        choose = self.random
        while True:
            raw = self.mutate(choose.choice(SEEDS))
            at = choose.choice((None, None, choose.randrange(1, len(raw) + 1)))
            yield [raw] if at is None else [raw[:at], raw[at:]] if at < len(raw) else [raw]

    def mutate(self, seed: bytes) -> bytes:
        choose = self.random
        raw = bytearray(seed)
        for _ in range(choose.choice((1, 1, 1, 2, 3))):
            at = choose.randrange(len(raw)) if raw else 0
            match choose.randrange(9):
                case 0:
                    del raw[at : at + 1]
                case 1:
                    raw[at : at + 1] = bytes([choose.randrange(256)])
                case 2:
                    raw[at:at] = choose.choice(TOKENS)
                case 3:  # at the start of a line
                    starts = [index + 2 for index in range(len(raw)) if raw[index : index + 2] == b"\r\n"] or [0]
                    start = choose.choice(starts)
                    raw[start:start] = choose.choice(TOKENS)
                case 4:  # a line gone, or twice
                    lines = bytes(raw).split(b"\r\n")
                    index = choose.randrange(len(lines))
                    lines[index : index + 1] = [] if choose.random() < 0.5 else [lines[index]] * 2
                    raw = bytearray(b"\r\n".join(lines))
                case 5:
                    raw += choose.choice(SEEDS)
                case 6:  # a piece gone
                    other = choose.randrange(len(raw)) if raw else 0
                    del raw[min(at, other) : max(at, other)]
                case 7:  # one bit
                    raw[at : at + 1] = bytes([byte ^ 1 << choose.randrange(8) for byte in raw[at : at + 1]])
                case 8:  # two lines change places
                    lines = bytes(raw).split(b"\r\n")
                    one, two = choose.randrange(len(lines)), choose.randrange(len(lines))
                    lines[one], lines[two] = lines[two], lines[one]
                    raw = bytearray(b"\r\n".join(lines))
        return bytes(raw) or b"\r\n"


def judge(segments: list[bytes], got: Got, forwarded: int) -> str:
    statuses = got.statuses
    if any(status >= 500 for status in statuses):
        return f"answered {statuses}"
    if got.seconds >= PATIENCE:
        return "not answered in time"
    if not statuses and b"".join(segments).strip(b"\r\n"):
        return "not answered at all"
    if statuses.count(200) != forwarded:
        return f"answered {statuses}, and the receiver saw {forwarded}"
    return ""


async def fuzz(*, count: int, seed: int, directory: Path) -> tuple[list[str], Counter[int]]:
    """Violations, and how often each status was answered (0: none)."""
    receiver = Receiver()
    await receiver.start()
    violations: list[str] = []
    statuses: Counter[int] = Counter()
    crowd = asyncio.Semaphore(CROWD)
    with running(config(receiver.url), directory) as sidecar:
        await sidecar.wait_serving()

        async def shoot(number: int, segments: list[bytes]) -> None:
            try:
                got = await send(sidecar, segments, number=number, pause=0.004)
                await asyncio.sleep(0.01)
                statuses.update(got.statuses or [0])
                seen = receiver.by_sender.pop(address(number), [])
                problem = judge(segments, got, len(seen))
                if problem:
                    violations.append(f"{problem}; sent {[segment[:1500] for segment in segments]!r}")
            except OSError as error:
                violations.append(f"{error!r}; sent {segments!r}")
            finally:
                crowd.release()

        async with asyncio.TaskGroup() as group:
            for number, segments in zip(range(1, count + 1), Mutator(seed)):
                await crowd.acquire()
                group.create_task(shoot(number, segments))
        violations += receiver.problems
        violations += [f"nobody sent {seen.line!r}" for each in receiver.by_sender.values() for seen in each]
        await sidecar.stop()
    await receiver.stop()
    return violations, statuses


def main() -> int:
    arguments = argparse.ArgumentParser(
        description="Sends mutated requests to a sidecar and watches what becomes of them."
    )
    arguments.add_argument("--count", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        violations, statuses = asyncio.run(fuzz(count=given.count, seed=given.seed, directory=Path(directory)))
    for violation in violations:
        print("VIOLATION", violation)
    print(
        f"{given.count} requests, seed {given.seed}, answers {dict(sorted(statuses.items()))}, {len(violations)} violations"
    )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
