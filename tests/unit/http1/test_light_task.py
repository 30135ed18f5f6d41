"""Coroutines driven in batches: who goes on when, and what a cancellation does."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sidecar.http1.light_task import LightTask, ReadyQueue, Signal


class Stage:
    """A loop's turn, and what happened in it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.turn = ReadyQueue(self.loop)
        self.seen: list[str] = []
        self.ended = 0

    def start(self, coroutine: Coroutine[Any, None, None]) -> LightTask:
        return LightTask(coroutine, self.turn, self.done)

    def done(self, task: LightTask) -> None:
        self.ended += 1

    async def wait(self, name: str, waits_for: Any) -> None:
        """Notes how the wait ended."""
        self.seen.append(f"{name} waits")
        try:
            result = await waits_for
        except asyncio.CancelledError:
            self.seen.append(f"{name} cancelled")
            raise
        self.seen.append(f"{name} goes on" if result is None else f"{name} got {result}")


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def run(play: Callable[[Stage], Coroutine[Any, None, None]]) -> Stage:
    """Plays on a new loop."""

    async def main() -> Stage:
        stage = Stage()
        await play(stage)
        return stage

    return asyncio.run(main())


def test_all_who_are_ready_go_on_at_the_end_of_the_turn_in_order() -> None:
    async def play(stage: Stage) -> None:
        first, second = Signal(), Signal()
        stage.start(stage.wait("a", first))
        stage.start(stage.wait("b", second))
        assert stage.seen == []
        await turns()
        second.set()
        first.set()
        assert stage.seen == ["a waits", "b waits"]
        await turns()

    stage = run(play)
    assert stage.seen == ["a waits", "b waits", "b goes on", "a goes on"]
    assert stage.ended == 2


def test_a_signal_that_nobody_waits_for_is_lost() -> None:
    async def play(stage: Stage) -> None:
        signal = Signal()
        signal.set()
        stage.start(stage.wait("a", signal))
        await turns()

    assert run(play).seen == ["a waits"]


def test_it_waits_for_futures_and_tasks_too() -> None:
    async def play(stage: Stage) -> None:
        stage.start(stage.wait("a", asyncio.sleep(0.01, "slept")))
        stage.start(stage.wait("b", stage.loop.create_task(asyncio.sleep(0.01, "also"))))
        await asyncio.sleep(0.05)

    stage = run(play)
    assert sorted(stage.seen) == ["a got slept", "a waits", "b got also", "b waits"]
    assert stage.ended == 2


def test_cancelling_raises_where_it_waits_and_later_signals_find_nobody() -> None:
    async def play(stage: Stage) -> None:
        signal = Signal()
        task = stage.start(stage.wait("a", signal))
        await turns()
        task.cancel(msg="uvicorn gives a reason")
        assert stage.seen == ["a waits"]
        await turns()
        signal.set()
        task.cancel()
        await turns()

    stage = run(play)
    assert stage.seen == ["a waits", "a cancelled"]
    assert stage.ended == 1


def test_cancelling_what_was_just_woken_still_cancels() -> None:
    async def play(stage: Stage) -> None:
        signal = Signal()
        task = stage.start(stage.wait("a", signal))
        await turns()
        signal.set()
        task.cancel()
        await turns()

    stage = run(play)
    assert stage.seen == ["a waits", "a cancelled"]
    assert stage.ended == 1


def test_cancelling_before_the_start_lets_it_begin_so_that_it_can_clean_up() -> None:
    async def play(stage: Stage) -> None:
        stage.start(stage.wait("a", Signal())).cancel()
        await turns(5)

    stage = run(play)
    assert stage.seen == ["a waits", "a cancelled"]
    assert stage.ended == 1


def test_cancelling_cancels_the_task_it_waits_for() -> None:
    async def play(stage: Stage) -> None:
        inner = stage.loop.create_task(asyncio.sleep(60))
        task = stage.start(stage.wait("a", inner))
        await turns()
        task.cancel()
        await turns(5)
        assert inner.cancelled()

    stage = run(play)
    assert stage.seen == ["a waits", "a cancelled"]
    assert stage.ended == 1


def test_a_result_that_is_already_there_is_not_lost_to_a_cancellation() -> None:
    """It may be a connection; the next wait ends instead."""

    async def both(stage: Stage, future: asyncio.Future[str]) -> None:
        await stage.wait("a", future)
        await stage.wait("b", Signal())

    async def play(stage: Stage) -> None:
        future = stage.loop.create_future()
        task = stage.start(both(stage, future))
        await turns()
        future.set_result("connection")
        task.cancel()
        await turns(6)

    stage = run(play)
    assert stage.seen == ["a waits", "a got connection", "b waits", "b cancelled"]
    assert stage.ended == 1


def test_an_escaped_exception_is_reported_to_the_loop_and_ends_the_task() -> None:
    async def fails() -> None:
        raise ValueError("a bug")

    async def play(stage: Stage) -> None:
        told: list[dict[str, Any]] = []
        stage.loop.set_exception_handler(lambda loop, context: told.append(context))
        stage.start(fails())
        stage.start(stage.wait("b", asyncio.sleep(0)))
        await turns(6)
        assert [str(context["exception"]) for context in told] == ["a bug"]

    stage = run(play)
    assert stage.seen == ["b waits", "b goes on"]
    assert stage.ended == 2


@pytest.mark.parametrize("count", [1, 1000])
def test_one_turn_runs_everybody_who_was_ready(count: int) -> None:
    async def nothing() -> None:
        return

    async def play(stage: Stage) -> None:
        for _ in range(count):
            stage.start(nothing())
        await asyncio.sleep(0)
        assert stage.ended == count

    run(play)


def test_one_that_ended_is_freed_without_the_collector() -> None:
    """Deliveries must leave no circles: the collector is tuned to look rarely."""

    class Holder:
        def __init__(self, turn: ReadyQueue, coroutine: Coroutine[Any, None, None]) -> None:
            self.task = LightTask(coroutine, turn, self.done)

        def done(self, task: LightTask) -> None:
            pass

    async def play(stage: Stage) -> None:
        holder = Holder(stage.turn, stage.wait("a", asyncio.sleep(0)))
        freed = weakref.ref(holder)
        await turns()
        gc.disable()
        try:
            del holder
            assert freed() is None
        finally:
            gc.enable()

    run(play)
