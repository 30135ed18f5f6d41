"""Two sidecars, one store, and several copies of each delivery at once to both: does the receiver see each exactly once?

python tests/load/copies.py [--deliveries 2000] [--copies 5] [--kill] [--workers N] [--store KIND] [--of PROGRAM]

With --kill the store is killed in the middle of the run (SIGKILL) and restarted a second later; it keeps its data on disk
(appendfsync always). If the store has replicas (sentinel, cluster), a primary is killed, and another server takes its place. It
passes if no delivery reached the receiver twice, every response was 200, 503 or 409, a client that gets 503 or 409 and sends
again gets 200, and in the end each delivery was forwarded exactly once.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop
from rig import Receiver, Sidecar, deliver, signed, verdict

sys.path.append(str(Path(__file__).parents[1] / "support"))
from stores import PROGRAMS, ClusterStore, SentinelStore, SingleStore

AT_ONCE = 200  # deliveries under way, but at most a tenth of all


class OneRedis(SingleStore):
    """A Redis that keeps its data on disk."""

    def __init__(self, kind: str, directory: Path) -> None:
        super().__init__(kind, directory)
        self.servers[0].arguments += ["--appendonly", "yes", "--appendfsync", "always"]


STORES = {"server": OneRedis, "sentinel": SentinelStore, "cluster": ClusterStore}


class Slow(Receiver):
    """Responds slowly, so that copies overlap."""

    async def answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        await super().answer(path, writer)


async def main(arguments: argparse.Namespace) -> int:
    directory = tempfile.TemporaryDirectory()
    store, receiver = STORES[arguments.store](arguments.of, Path(directory.name)), await Slow().start()
    store.start()
    route = {"name": "begini", "path": "/webhooks/begini", "verify": "begini", "secrets": [{"env": "LOAD_KEY"}]}
    changes = {
        "replay_store": store.url,
        "routes": [route | {"replay": "10m"}],
        "workers": arguments.workers,
    }
    sidecars = [await Sidecar(receiver.port, **changes).serving() for _ in range(2)]
    # Each delivery has its own body, because the body is signed.
    requests = {
        str(number): signed(b"%d " % number + os.urandom(200), ident=number) for number in range(arguments.deliveries)
    }
    answers: dict[str, list[int | None]] = {ident: [] for ident in requests}
    free = asyncio.Semaphore(min(AT_ONCE, arguments.deliveries // 10))
    begun = 0

    async def copy(ident: str, sidecar: Sidecar) -> None:
        answers[ident].append(await deliver(sidecar.address, requests[ident]))

    async def all_copies(ident: str) -> None:
        nonlocal begun
        async with free:
            begun += 1
            chosen = [sidecars[number % 2] for number in range(arguments.copies)]
            random.shuffle(chosen)
            await asyncio.gather(*(copy(ident, sidecar) for sidecar in chosen))

    began = time.monotonic()
    running = [asyncio.create_task(all_copies(ident)) for ident in requests]
    if arguments.kill:
        while begun < arguments.deliveries // 2:
            await asyncio.sleep(0.005)
        killed = store.primary("")
        killed.kill()
        before = len(receiver.seen)
        await asyncio.sleep(1)
    await asyncio.gather(*running)
    elapsed = time.monotonic() - began
    counted = Counter(answer for of_one in answers.values() for answer in of_one)
    print(f"{arguments.deliveries} deliveries, {arguments.copies} copies each, {elapsed:.1f} s: {dict(counted)}")
    problems = [f"{count} answers were {status}" for status, count in counted.items() if status not in (200, 409, 503)]
    if not arguments.kill and 503 in counted:
        problems.append("the store was there, and some were answered 503")
    if arguments.kill and (503 not in counted or not before):
        problems.append("the store was not killed in the middle of the run")
    unforwarded = [ident for ident in requests if ident not in receiver.seen]
    if any(set(answers[ident]) != {503} for ident in unforwarded):
        problems.append("one that was not forwarded was not answered 503")
    unanswered = [ident for ident in requests if 200 not in answers[ident]]
    print(f"{len(unforwarded)} were not forwarded, {len(unanswered)} were not answered 200")

    if arguments.kill:
        if arguments.store == "server":
            killed.start()
        began = time.monotonic()
        again: Counter[int | None] = Counter()

        async def once_more(
            ident: str,
        ) -> None:  # like a provider: at once, and again after a 503 or 409
            async with free:
                for _ in range(150):
                    status = await deliver(random.choice(sidecars).address, requests[ident])
                    if status == 200:
                        break
                    await asyncio.sleep(0.1)
                again[status] += 1

        await asyncio.gather(*map(once_more, unanswered))
        print(f"sent again when the store was back, {time.monotonic() - began:.1f} s: {dict(again)}")
        problems += [f"{count} sent again were answered {status}" for status, count in again.items() if status != 200]
    print(f"the receiver saw {len(receiver.seen)}, {sum(receiver.seen.values())} times")
    if set(receiver.seen) != set(requests):
        problems.append(f"{len(requests) - len(receiver.seen)} never reached the receiver")
    if twice := [ident for ident, count in receiver.seen.items() if count > 1]:
        problems.append(f"{len(twice)} reached the receiver twice")
    statuses = [sidecar.stop() for sidecar in sidecars]
    if any(statuses):
        problems.append(f"exit statuses {statuses}")
    store.stop()
    directory.cleanup()
    return verdict(problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=2000)
    parser.add_argument("--copies", type=int, default=5)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--store", choices=STORES, default="server")
    parser.add_argument("--of", choices=PROGRAMS, default="redis")
    sys.exit(uvloop.run(main(parser.parse_args())))
