"""Steps that go together: which ones, how many, and what they get when the store fails."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Connection

from sidecar.replay.redis_steps import MAX_STEPS, SCRIPT, Step, StepQueue, Verb, pack, unpack
from sidecar.replay.store import StoreUnavailableError


def step(number: int) -> Step:
    return Step(Verb.BEGIN, f"key-{number}", f"claim-{number}", 60.0)


def test_a_command_is_packed_as_the_servers_protocol_says() -> None:
    steps = [step(1), Step(Verb.DONE, "another-key", "c", 1.5)]
    packed = pack(steps)
    assert packed.startswith(b"*6\r\n$7\r\nEVALSHA\r\n$40\r\n")
    assert packed.endswith(
        b"\r\n$1\r\n2\r\n$5\r\nkey-1\r\n$11\r\nanother-key\r\n$31\r\nbegin claim-1 60000\ndone c 1500\r\n"
    )
    by_library = Connection().pack_command(
        "EVAL", SCRIPT, "2", "key-1", "another-key", "begin claim-1 60000\ndone c 1500"
    )
    assert pack(steps, whole=True) == b"".join(by_library)


@pytest.mark.parametrize(("reply", "answers"), [(b"", [b""]), (b",done,", [b"", b"done", b""]), (b"a-1", [b"a-1"])])
def test_a_reply_has_an_answer_to_each_step(reply: bytes, answers: list[bytes]) -> None:
    assert unpack(reply, len(answers)) == answers
    with pytest.raises(ValueError, match="another number of answers"):
        unpack(reply, len(answers) + 1)


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
