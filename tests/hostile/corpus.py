"""Sends the whole corpus to a process: every case whole, and cut into segments at a place that its bytes choose."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from hostile_cases import CASES, Case
from hostile_wire import Got, Receiver, Seen, address, digest, running, send

#: Senders at a time.
CROWD = 100


def cuts(case: Case) -> list[list[bytes]]:
    """Whole; in two; and, if it is short, in five."""
    raw = case.raw
    ways = [[raw]]
    at = 1 + int(digest(raw), 16) % max(len(raw) - 1, 1)
    ways.append([raw[:at], raw[at:]])
    if len(raw) < 2000:
        step = len(raw) // 5 + 1
        ways.append([raw[start : start + step] for start in range(0, len(raw), step)])
    return ways


async def shoot_corpus(
    settings: dict[str, object],
    directory: Path,
    pure: str,
    receiver: Receiver,
    judge: Callable[[Case, Got, list[Seen]], str],
) -> list[str]:
    """What went wrong. `judge` says it for one case, with what the receiver saw of it.

    Asks the `authorize` listener if there is one.
    """
    failures: list[str] = []
    with running(settings, directory, env={"SIDECAR_PURE": pure}) as sidecar:
        await sidecar.wait_serving()
        sidecar.listen = sidecar.authorize if "authorize" in settings else sidecar.listen
        crowd = asyncio.Semaphore(CROWD)
        descriptors = sidecar.descriptors()

        async def shoot(case: Case, segments: list[bytes], number: int) -> None:
            async with crowd:
                got = await send(sidecar, segments, number=number, half_close=case.half_close)
                await asyncio.sleep(0.02)  # what was forwarded all the same is seen by now
                if problem := judge(case, got, receiver.by_sender[address(number)]):
                    failures.append(f"{case.name}, in {len(segments)}: {problem}")

        shots = [(case, segments) for case in CASES for segments in cuts(case)]
        await asyncio.gather(*(shoot(case, segments, number) for number, (case, segments) in enumerate(shots, 1)))
        await sidecar.back_to_start(descriptors)
        output = await sidecar.stop()
    if b"CANARY-BODY" in output:
        failures.append("the log shows a body")
    return failures
