"""Slow heads, slow bodies and slow readers, a thousand of each at once, while good deliveries must pass.

python tests/load/slow.py [--hostile 1000] [--rate 200] [--seconds 20] [--connections N] [--workers N]

It needs Debian's slowhttptest. Three instances of it open their connections within the first seconds. Good deliveries, each on
its own connection, begin at the same time. It passes if all of them get 200, 99 % of them within 100 ms. `--connections` sets
`limits.connections`; the default is 1000, fewer than the hostile connections.
"""

import argparse
import asyncio
import shutil
import sys
import time
from collections import Counter

import uvloop
from rig import Receiver, Sidecar, deliver, percentile, signed, verdict

MODES = {
    "heads": ["-H", "-i", "5"],
    "bodies": ["-B", "-i", "5", "-s", "8192"],
    "readers": ["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "10", "-k", "3"],
}


async def main(arguments: argparse.Namespace) -> int:
    if shutil.which("slowhttptest") is None:
        raise SystemExit("slowhttptest is not installed; on Debian: apt-get install slowhttptest")
    receiver = await Receiver().start()
    limits = {"connections": arguments.connections} if arguments.connections else {}
    sidecar = await Sidecar(receiver.port, workers=arguments.workers, limits=limits).serving()
    before = sidecar.descriptors()
    url = f"http://{sidecar.address[0]}:{sidecar.address[1]}/webhooks/begini"
    count = [f"-c{arguments.hostile}", f"-r{max(arguments.hostile // 3, 1)}", f"-l{arguments.seconds:.0f}", "-u", url]
    hostile = [
        await asyncio.create_subprocess_exec(
            "slowhttptest",
            *mode,
            *count,
            "-p",
            "5",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        for mode in MODES.values()
    ]
    times: list[float] = []
    answers: Counter[int | None] = Counter()
    running: set[asyncio.Task[None]] = set()
    most_connections = 0.0

    async def good(number: int) -> None:
        began = time.monotonic()
        answers[await deliver(sidecar.address, signed(bytes(1024), ident=str(number)), source="127.0.0.2")] += 1
        times.append(time.monotonic() - began)

    began = time.monotonic()
    for number in range(int(arguments.rate * arguments.seconds)):
        await asyncio.sleep(max(began + number / arguments.rate - time.monotonic(), 0))
        task = asyncio.create_task(good(number))
        running.add(task)
        task.add_done_callback(running.discard)
        if number % arguments.rate == 0:
            most_connections = max(most_connections, sidecar.descriptors() - before)
    await asyncio.gather(*running)
    for process in hostile:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    p50, p99 = (percentile(times, share) * 1000 for share in (0.5, 0.99))
    print(f"{len(times)} good deliveries, {arguments.rate}/s: {dict(answers)}; p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    print(
        f"up to {most_connections:.0f} descriptors more than at the start; {sidecar.resident() / 1e6:.0f} MB resident"
    )
    await asyncio.sleep(3)
    overloaded = await sidecar.metric('webhook_sidecar_deliveries_total{outcome="rejected",reason="overloaded"')
    timeouts = await sidecar.metric('webhook_sidecar_deliveries_total{outcome="rejected",reason="header_timeout"')
    timeouts += await sidecar.metric('webhook_sidecar_deliveries_total{outcome="rejected",reason="body_timeout"')
    print(f"hostile ones: {overloaded:.0f} made room for others, {timeouts:.0f} ran out of time")
    status = sidecar.stop()
    problems = []
    if set(answers) != {200}:
        problems.append("not every good delivery was accepted")
    if p99 >= 100:
        problems.append("p99 is 100 ms or more")
    if status:
        problems.append(f"exit status {status}")
    return verdict(problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hostile", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connections", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    sys.exit(uvloop.run(main(parser.parse_args())))
