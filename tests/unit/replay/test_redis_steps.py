"""Steps that go together: which ones, how many, and what they get when the store fails."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sidecar.replay.redis_steps import MAX_STEPS, Step, StepQueue, Verb
from sidecar.replay.store import StoreUnavailableError


def step(number: int) -> Step:
    return Step(Verb.BEGIN, f"key-{number}", f"claim-{number}", 60.0)


class FakeStore:
    """Answers each step with its claim, once it may."""

    def __init__(self) -> None:
        self.requests: list[list[Step]] = []
        self.seconds: list[float] = []
        self.may_answer = asyncio.Event()
        self.fails = False

    async def send(self, steps: list[Step], seconds: float) -> list[bytes]:
        self.requests.append(steps)
        self.seconds.append(seconds)
        await self.may_answer.wait()
        if self.fails:
            raise StoreUnavailableError("away")
        return [each.claim.encode() for each in steps]


def run(test: Callable[[FakeStore, StepQueue], Awaitable[None]]) -> FakeStore:
    async def main() -> FakeStore:
        store = FakeStore()
        await test(store, StepQueue(store.send, 2.0))
        return store

    return asyncio.run(main())


def test_steps_of_one_turn_share_a_request_and_each_gets_its_own_answer() -> None:
    async def test(store: FakeStore, queue: StepQueue) -> None:
        store.may_answer.set()
        answers = [queue.add(step(number)) for number in range(3)]
        assert await asyncio.gather(*answers) == [b"claim-0", b"claim-1", b"claim-2"]

    assert run(test).requests == [[step(0), step(1), step(2)]]


def test_steps_that_come_while_a_request_is_under_way_share_the_next_one() -> None:
    async def test(store: FakeStore, queue: StepQueue) -> None:
        answers = [queue.add(step(0))]
        await asyncio.sleep(0)
        answers += [queue.add(step(1)), queue.add(step(2))]
        await asyncio.sleep(0)
        assert store.requests == [[step(0)]]
        store.may_answer.set()
        await asyncio.gather(*answers)

    assert run(test).requests == [[step(0)], [step(1), step(2)]]


def test_a_request_has_a_bounded_number_of_steps() -> None:
    async def test(store: FakeStore, queue: StepQueue) -> None:
        store.may_answer.set()
        await asyncio.gather(*(queue.add(step(number)) for number in range(2 * MAX_STEPS + 1)))

    assert [len(steps) for steps in run(test).requests] == [MAX_STEPS, MAX_STEPS, 1]


def test_the_time_that_a_step_waits_for_its_turn_counts() -> None:
    async def test(store: FakeStore, queue: StepQueue) -> None:
        first = queue.add(step(0))
        await asyncio.sleep(0)
        second = queue.add(step(1))
        asyncio.get_running_loop().call_later(0.1, store.may_answer.set)
        await asyncio.gather(first, second)

    assert run(test).seconds[1] <= 1.91


def test_every_step_of_a_failed_request_fails_and_later_ones_are_sent() -> None:
    async def test(store: FakeStore, queue: StepQueue) -> None:
        store.fails = True
        store.may_answer.set()
        answers = await asyncio.gather(queue.add(step(0)), queue.add(step(1)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnavailableError, StoreUnavailableError]
        store.fails = False
        assert await queue.add(step(2)) == b"claim-2"

    run(test)


def test_a_step_that_nobody_waits_for_any_longer_is_sent_and_disturbs_no_other() -> None:
    async def test(store: FakeStore, queue: StepQueue) -> None:
        left, stays = queue.add(step(0)), queue.add(step(1))
        left.cancel()
        store.may_answer.set()
        assert await stays == b"claim-1"
        with pytest.raises(asyncio.CancelledError):
            await left

    assert run(test).requests == [[step(0), step(1)]]


def test_closing_waits_for_what_is_under_way_but_not_for_long() -> None:
    async def test(store: FakeStore, queue: StepQueue) -> None:
        answer = queue.add(step(0))
        await queue.close(0.01)
        assert not answer.done()
        store.may_answer.set()
        await queue.close(1.0)
        assert answer.result() == b"claim-0"

    run(test)
