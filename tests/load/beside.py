"""Measures how long deliveries take while something large happens at the same time: scrapes of 100 routes, or bodies of 5 MiB.

python tests/load/beside.py [--seconds 8] [--rate 200] [--workers N]

It prints percentiles of deliveries alone, with two scrapes a second, and with ten large bodies a second. It passes if all get 200
and a scrape or a large body delays none of them: p99 stays below 50 ms.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop
from rig import Receiver, Sidecar, deliver, percentile, signed, verdict


async def steadily(rate: float, seconds: float, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Begins `make()` at this rate."""
    began, running = time.monotonic(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))
        running.append(asyncio.create_task(make()))
    await asyncio.gather(*running)


async def main(arguments: argparse.Namespace) -> int:
    receiver = await Receiver().start()
    route = {"verify": "begini", "secrets": [{"id": "current", "env": "LOAD_KEY"}]}
    routes = [{"name": f"route-{number}", "path": f"/webhooks/{number}"} | route for number in range(100)]
    routes[0]["path"] = "/webhooks/begini"
    sidecar = await Sidecar(receiver.port, workers=arguments.workers, routes=routes).serving()
    small, large = signed(bytes(1024), ident="s"), signed(bytes(5 << 20), ident="l")
    problems, worst = [], 0.0

    async def nothing() -> None:
        pass

    async def scrape() -> None:
        nonlocal worst
        began = time.monotonic()
        await sidecar.metric("webhook_sidecar_workers")
        worst = max(worst, time.monotonic() - began)

    async def large_body() -> None:
        await deliver(sidecar.address, large)

    for name, rate, beside in (("alone", 1, nothing), ("scrapes", 2, scrape), ("bodies of 5 MiB", 10, large_body)):
        times: list[float] = []
        answers: Counter[int | None] = Counter()

        async def small_one(times: list[float] = times, answers: Counter[int | None] = answers) -> None:
            began = time.monotonic()
            answers[await deliver(sidecar.address, small)] += 1
            times.append(time.monotonic() - began)

        await asyncio.gather(
            steadily(arguments.rate, arguments.seconds, small_one), steadily(rate, arguments.seconds, beside)
        )
        p50, p99, most = (percentile(times, share) * 1000 for share in (0.5, 0.99, 1.0))
        print(f"{name:16} p50 {p50:5.1f} ms, p99 {p99:5.1f} ms, longest {most:5.1f} ms  {dict(answers)}")
        if set(answers) != {200} or p99 >= 50:
            problems.append(name)
    print(f"the longest scrape took {worst * 1000:.0f} ms")
    sidecar.stop()
    return verdict(problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    sys.exit(uvloop.run(main(parser.parse_args())))
