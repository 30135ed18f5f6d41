"""Diagnosis on live traffic: how much is begun, when it is given up, and what it holds meanwhile."""

import asyncio
import itertools
import threading

import pytest

from sidecar.config.presets import load_preset
from sidecar.diagnosis.effort import MAX_LIVE_BODY, OutOfTimeError
from sidecar.diagnosis.live import (
    CPU_PER_SECOND,
    DEADLINE,
    MAX_PENDING,
    PAUSE,
    PER_SECOND,
    TURN,
    Hints,
    LiveRejection,
    Turns,
)
from sidecar.http1.head import make_head
from sidecar.http1.upstream import UpstreamAddress
from sidecar.outcomes import DEFAULT_REJECTION, Hint, Reason
from sidecar.routing.routes import Route
from sidecar.secret import Secret
from sidecar.verify.verifier import Verifier

HEAD = make_head("POST", b"/", [], None)
ROUTE = Route(
    name="a",
    path=b"/",
    prefix=False,
    methods=frozenset({"POST"}),
    upstream=UpstreamAddress("http", "", 0, ""),
    body_limit=1,
    rejection=DEFAULT_REJECTION,
    verifier=Verifier(load_preset("github"), [Secret("s", b"a secret of some length")]),
)


class Clock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_diagnosis_is_given_up_at_its_deadline() -> None:
    clock = Clock()
    turns = Turns(clock, lambda seconds: None, DEADLINE)
    clock.now += DEADLINE * 0.99
    turns.check()
    clock.now += DEADLINE * 0.02
    with pytest.raises(OutOfTimeError):
        turns.check()


def test_the_loop_gets_its_turn_in_between() -> None:
    clock, paused = Clock(), list[float]()
    turns = Turns(clock, paused.append, DEADLINE)
    turns.check()
    assert paused == []
    for _ in range(3):
        clock.now += TURN * 1.01
        turns.check()
        turns.check()
    assert paused == [PAUSE] * 3


def begin(hints: Hints) -> "asyncio.Future[Hint | None]":
    return hints.begin(LiveRejection(Reason.SIGNATURE_MISMATCH, ROUTE, HEAD, [b"a", b"b"], 0.0, []))


def wants(hints: Hints, size: int = 0) -> bool:
    return hints.wants(Reason.SIGNATURE_MISMATCH, ROUTE, size)


def test_rejections_that_come_while_others_are_diagnosed_have_no_hint() -> None:
    go = threading.Event()
    seen = []

    def wait(reason: Reason, verifier: object, head: object, body: bytes, **options: object) -> None:
        seen.append((threading.current_thread() is threading.main_thread(), body))
        go.wait(10)

    async def main() -> None:
        hints = Hints(Clock(), diagnose=wait)
        for _ in range(MAX_PENDING):  # in one turn of the loop, and begun in the next
            assert wants(hints)
            asyncio.get_running_loop().call_soon(begin, hints)
        assert not wants(hints)
        asyncio.get_running_loop().call_later(0.01, go.set)
        await hints.finish()
        assert wants(hints)

    asyncio.run(main())
    assert seen == [(False, b"ab")] * MAX_PENDING


def test_a_second_has_so_many_diagnoses_and_so_much_processor_time() -> None:
    used = itertools.count()

    def cpu() -> float:
        return next(used) * CPU_PER_SECOND * 0.6

    async def main() -> None:
        def find_nothing(*arguments: object, **options: object) -> None: ...

        hints = Hints(Clock(), diagnose=find_nothing, cpu=lambda: 0.0)
        for _ in range(PER_SECOND):
            assert wants(hints)
            await begin(hints)
        assert not wants(hints)
        clock = Clock()
        hints = Hints(clock, diagnose=find_nothing, cpu=cpu)
        for _ in range(2):
            assert wants(hints)
            assert await begin(hints) is None
        assert not wants(hints)
        clock.now += 1
        assert wants(hints)
        assert not wants(hints, MAX_LIVE_BODY + 1)

    asyncio.run(main())


def test_what_takes_too_long_has_no_hint() -> None:
    def late(*arguments: object, **options: object) -> None:
        raise OutOfTimeError

    async def main() -> None:
        assert await begin(Hints(Clock(), diagnose=late)) is None

    asyncio.run(main())
