"""The memory store: what is new, pending and done, for how long, and within which bounds."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from sidecar.outcomes import Reason, Rejected
from sidecar.replay.memory_store import MemoryStore
from sidecar.replay.once import IN_PROGRESS, ReplayTurn
from sidecar.replay.store import Replay, Seen


class Clock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Drives what never waits."""
    with pytest.raises(StopIteration) as end:
        coroutine.send(None)
    return end.value.value


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock, limit=4)


def deliver(store: MemoryStore, key: bytes, seconds: float = 10.0) -> bool:
    assert run(store.begin(key, 60.0)) is Seen.NEW
    return bool(run(store.done(key, seconds)))


def test_a_delivery_is_new_then_pending_then_done(store: MemoryStore) -> None:
    assert run(store.begin(b"a", 60.0)) is Seen.NEW
    assert run(store.begin(b"a", 60.0)) is Seen.PENDING
    assert run(store.begin(b"b", 60.0)) is Seen.NEW
    run(store.done(b"a", 10.0))
    assert run(store.begin(b"a", 60.0)) is Seen.DONE


def test_what_was_released_is_new_again(store: MemoryStore) -> None:
    run(store.begin(b"a", 60.0))
    store.release(b"a")
    assert run(store.begin(b"a", 60.0)) is Seen.NEW


def test_what_is_done_is_new_again_when_its_time_is_over(store: MemoryStore, clock: Clock) -> None:
    deliver(store, b"a", 10.0)
    clock.now += 9.99
    assert run(store.begin(b"a", 60.0)) is Seen.DONE
    clock.now += 0.01
    assert run(store.begin(b"a", 60.0)) is Seen.NEW


def test_what_expired_leaves_the_memory_as_others_come(store: MemoryStore, clock: Clock) -> None:
    deliver(store, b"a", 10.0)
    deliver(store, b"b", 10.0)
    clock.now += 11
    deliver(store, b"c", 10.0)
    assert len(store) == 1


def test_a_full_store_forgets_what_is_nearest_to_its_end_and_says_so(store: MemoryStore, clock: Clock) -> None:
    assert not deliver(store, b"long", 100.0)
    clock.now += 1
    for key in (b"a", b"b", b"c"):
        assert not deliver(store, key, 10.0)
    assert deliver(store, b"d", 10.0)
    assert len(store) == 4
    assert run(store.begin(b"a", 60.0)) is Seen.NEW
    for key in (b"long", b"b", b"c", b"d"):
        assert run(store.begin(key, 60.0)) is Seen.DONE


def test_another_duration_after_a_reload_does_not_forget_what_was_remembered(store: MemoryStore, clock: Clock) -> None:
    deliver(store, b"a", 10.0)
    deliver(store, b"b", 500.0)
    clock.now += 5
    assert run(store.begin(b"a", 60.0)) is Seen.DONE
    clock.now += 5
    assert run(store.begin(b"a", 60.0)) is Seen.NEW
    assert run(store.begin(b"b", 60.0)) is Seen.DONE


def test_what_is_done_again_is_remembered_from_then_on(store: MemoryStore, clock: Clock) -> None:
    deliver(store, b"a", 10.0)
    deliver(store, b"b", 10.0)
    clock.now += 10
    deliver(store, b"a", 10.0)
    clock.now += 9
    deliver(store, b"c", 10.0)
    assert run(store.begin(b"a", 60.0)) is Seen.DONE


# -- one turn --


def turn(store: MemoryStore, key: bytes = b"a") -> ReplayTurn:
    return ReplayTurn(store, key, Replay(10.0, fail_open=False))


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_delivery_that_the_receiver_took_is_refused_from_then_on(store: MemoryStore, status: int) -> None:
    once = turn(store)
    run(once.begin(60.0, wait=True))
    assert not run(once.end(status))
    once.abandon()
    with pytest.raises(Rejected) as refused:
        run(turn(store).begin(60.0, wait=True))
    assert (refused.value.reason, refused.value.response) == (Reason.REPLAYED, None)


@pytest.mark.parametrize("status", [301, 400, 404, 410, 429, 500, 503])
def test_a_delivery_that_the_receiver_did_not_take_may_come_again(store: MemoryStore, status: int) -> None:
    once = turn(store)
    run(once.begin(60.0, wait=True))
    run(once.end(status))
    run(turn(store).begin(60.0, wait=True))


def test_a_turn_that_is_given_up_belongs_to_the_next_one(store: MemoryStore) -> None:
    once = turn(store)
    run(once.begin(60.0, wait=True))
    once.abandon()
    after = turn(store)
    run(after.begin(60.0, wait=True))
    once.abandon()  # for the second time: this is no longer its turn
    run(once.end(200))
    assert run(store.begin(b"a", 60.0)) is Seen.PENDING


def test_without_waiting_a_copy_of_what_is_pending_is_refused_at_once(store: MemoryStore) -> None:
    run(turn(store).begin(60.0, wait=True))
    with pytest.raises(Rejected) as refused:
        run(turn(store).begin(60.0, wait=False))
    assert (refused.value.reason, refused.value.response) == (Reason.REPLAYED, IN_PROGRESS)
    assert (IN_PROGRESS.status, IN_PROGRESS.retry_after) == (409, 5)


@pytest.mark.parametrize(("status", "refused"), [(200, True), (500, False)])
def test_a_copy_waits_for_how_the_first_one_ends(store: MemoryStore, status: int, refused: bool) -> None:
    async def both() -> None:
        first, second = turn(store), turn(store)
        await first.begin(60.0, wait=True)
        waiting = asyncio.create_task(second.begin(60.0, wait=True))
        await asyncio.sleep(0.03)
        assert not waiting.done()
        await first.end(status)
        await waiting

    if refused:
        with pytest.raises(Rejected, match="delivered before, within the last 10 s"):
            asyncio.run(both())
    else:
        asyncio.run(both())
