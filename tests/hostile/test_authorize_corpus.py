"""The hostile corpus asked as gateways' questions: nothing that the data listener would reject is ever allowed."""

import asyncio
from pathlib import Path

from compiled import BOTH
from corpus import shoot_corpus
from hostile_cases import Case
from hostile_wire import PATIENCE, Got, Receiver, Seen, config
from needs import needs_compiled_code


def judge(case: Case, got: Got, seen: list[Seen]) -> str:
    """What went wrong, or nothing."""
    statuses = got.statuses
    first = statuses[0] if statuses else 0
    # A header that imitates one of ours is rejected, because the gateway forwards it, and not we.
    imitated = first == 400 and case.name.startswith(("alias ", "ours "))
    if first not in case.statuses and not imitated:
        return f"answered {statuses}, must be {sorted(case.statuses)}"
    if any(status >= 500 for status in statuses):
        return f"answered {statuses}"
    if got.seconds >= PATIENCE:
        return "left without an answer"
    if statuses.count(200) > case.forwarded:
        return f"allowed {statuses.count(200)} of {case.forwarded}: {statuses}"
    if first >= 400 and not case.stays_open and not got.closed and not imitated:
        return "the connection stayed open"
    if b"FORGED" in got.raw:
        return "a forged field is in the answer"
    return ""


@BOTH
def test_every_hostile_question_ends_as_it_must(tmp_path: Path, pure: str) -> None:
    needs_compiled_code(pure)
    failures = asyncio.run(_run(tmp_path, pure))
    assert not failures, f"{len(failures)} failures\n" + "\n".join(failures[:40])


async def _run(directory: Path, pure: str) -> list[str]:
    receiver = Receiver()
    await receiver.start()
    settings = config(receiver.url) | {"authorize": {"listen": "127.0.0.1:0"}}
    failures = await shoot_corpus(settings, directory, pure, receiver, judge)
    failures += [f"the receiver saw {seen}" for seen in receiver.by_sender.values() if seen]
    await receiver.stop()
    return failures
