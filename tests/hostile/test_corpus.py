"""The hostile corpus over the wire: every case whole, and cut into segments at a place that its bytes choose."""

import asyncio
from collections import Counter
from pathlib import Path

from compiled import BOTH
from corpus import shoot_corpus
from hostile_cases import CASES, Case
from hostile_wire import PATIENCE, Got, Receiver, Seen, config
from needs import needs_compiled_code


def judge(case: Case, got: Got, seen: list[Seen]) -> str:
    """What went wrong, or nothing."""
    statuses = got.statuses
    first = statuses[0] if statuses else 0
    if first not in case.statuses:
        return f"answered {statuses}, must be {sorted(case.statuses)}"
    if any(status >= 500 for status in statuses):
        return f"answered {statuses}"
    if got.seconds >= PATIENCE:
        return "left without an answer"
    if len(seen) != case.forwarded and not (first == 400 and not seen):
        return f"the receiver saw {len(seen)} requests, must be {case.forwarded}: {[each.line[:80] for each in seen]}"
    if statuses.count(200) != len(seen):
        return f"{statuses} for {len(seen)} requests at the receiver"
    if first >= 400 and not case.stays_open and not got.closed:
        return "the connection stayed open"
    if not seen:
        return ""
    here = seen[0]
    if case.body is not None and here.body != case.body:
        return f"the receiver saw another body: {here.body[:80]!r}"
    if case.target is not None and here.target != case.target:
        return f"the receiver saw another target: {here.target[:80]!r}"
    if missing := [pair for pair in case.present if pair not in here.fields]:
        return f"not at the receiver: {missing}"
    if leaked := [name for name in case.absent if here.values(name)]:
        return f"at the receiver: {leaked}"
    ours = (b"x-webhook", b"x-forwarded-f")
    if any(b"FORGED" in value for name, value in here.fields if name.lower().replace(b"_", b"-").startswith(ours)):
        return "a forged field reached the receiver"
    return ""


def test_every_case_has_its_own_name() -> None:
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    assert len(CASES) > 900


@BOTH
def test_every_hostile_request_ends_as_it_must(tmp_path: Path, pure: str) -> None:
    needs_compiled_code(pure)
    failures = asyncio.run(_run(tmp_path, pure))
    assert not failures, f"{len(failures)} failures\n" + "\n".join(failures[:40])


async def _run(directory: Path, pure: str) -> list[str]:
    receiver = Receiver()
    await receiver.start()
    failures = await shoot_corpus(config(receiver.url), directory, pure, receiver, judge)
    smuggled = [seen.line for each in receiver.by_sender.values() for seen in each if b"smuggled" in seen.line]
    failures += [f"smuggled: {line!r}" for line in smuggled] + receiver.problems
    await receiver.stop()
    return failures
