"""The memory store: what is new, pending and done, for how long, and within which bounds."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from sidecar.outcomes import Reason, Rejected
from sidecar.replay.memory_store import MemoryStore
from sidecar.replay.once import IN_PROGRESS, ReplayTurn
from sidecar.replay.store import Replay, Seen, StoreUnavailableError


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


def deliver(store: MemoryStore, key: bytes, seconds: float = 10.0, share: str = "r") -> bool:
    assert run(store.begin(key, 60.0, share)) is Seen.NEW
    return bool(run(store.done(key, seconds, share)))


def test_a_delivery_is_new_then_pending_then_done(store: MemoryStore) -> None:
    assert run(store.begin(b"a", 60.0, "r")) is Seen.NEW
    assert run(store.begin(b"a", 60.0, "r")) is Seen.PENDING
    assert run(store.begin(b"b", 60.0, "r")) is Seen.NEW
    run(store.done(b"a", 10.0, "r"))
    assert run(store.begin(b"a", 60.0, "r")) is Seen.DONE


def test_what_was_released_is_new_again(store: MemoryStore) -> None:
    run(store.begin(b"a", 60.0, "r"))
    store.release(b"a")
    assert run(store.begin(b"a", 60.0, "r")) is Seen.NEW


def test_what_is_done_is_new_again_when_its_time_is_over(store: MemoryStore, clock: Clock) -> None:
    deliver(store, b"a", 10.0)
    clock.now += 9.99
    assert run(store.begin(b"a", 60.0, "r")) is Seen.DONE
    clock.now += 0.01
    assert run(store.begin(b"a", 60.0, "r")) is Seen.NEW


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
    assert run(store.begin(b"a", 60.0, "r")) is Seen.NEW
    for key in (b"long", b"b", b"c", b"d"):
        assert run(store.begin(key, 60.0, "r")) is Seen.DONE


def test_another_duration_after_a_reload_does_not_forget_what_was_remembered(store: MemoryStore, clock: Clock) -> None:
    deliver(store, b"a", 10.0)
    deliver(store, b"b", 500.0)
    clock.now += 5
    assert run(store.begin(b"a", 60.0, "r")) is Seen.DONE
    clock.now += 5
    assert run(store.begin(b"a", 60.0, "r")) is Seen.NEW
    assert run(store.begin(b"b", 60.0, "r")) is Seen.DONE


def test_what_is_done_again_is_remembered_from_then_on(store: MemoryStore, clock: Clock) -> None:
    deliver(store, b"a", 10.0)
    deliver(store, b"b", 10.0)
    clock.now += 10
    deliver(store, b"a", 10.0)
    clock.now += 9
    deliver(store, b"c", 10.0)
    assert run(store.begin(b"a", 60.0, "r")) is Seen.DONE


def seen(store: MemoryStore, key: bytes, share: str) -> bool:
    found = run(store.begin(key, 60.0, share))
    if found is Seen.NEW:
        store.release(key)
    return found is Seen.DONE


def test_a_flood_on_one_route_leaves_others_their_share(clock: Clock) -> None:
    store = MemoryStore(clock, limit=100)
    kept = [b"b%d" % number for number in range(50)]
    for key in kept:
        deliver(store, key, 1000.0, "b")
    evicted = [deliver(store, b"a%d" % number, 5000.0, "a") for number in range(500)]
    assert evicted == [False] * 50 + [True] * 450
    assert len(store) == 100
    assert all(seen(store, key, "b") for key in kept)
    assert [seen(store, b"a%d" % number, "a") for number in range(448, 452)] == [False, False, True, True]


def test_a_route_that_uses_more_than_its_share_makes_room_for_others(clock: Clock) -> None:
    store = MemoryStore(clock, limit=100)
    assert not any(deliver(store, b"a%d" % number, 10.0, "a") for number in range(100))
    assert all(deliver(store, b"b%d" % number, 10.0, "b") for number in range(50))
    assert not seen(store, b"a49", "a")
    assert seen(store, b"a50", "a")
    assert deliver(store, b"b50", 10.0, "b")
    assert not seen(store, b"b0", "b")  # its own, once it has its share


def test_a_new_delivery_is_never_the_one_that_makes_room(store: MemoryStore, clock: Clock) -> None:
    for key in (b"a", b"b", b"c", b"d"):
        deliver(store, key, 1000.0)
    assert deliver(store, b"e", 5.0)  # it expires before all others
    assert seen(store, b"e", "r")
    for number in range(10):  # more routes than places
        deliver(store, b"%d" % number, 1.0, f"r{number}")
        assert seen(store, b"%d" % number, f"r{number}")
    assert len(store) == 4


def test_room_made_by_what_expired_on_another_route_is_no_eviction(store: MemoryStore, clock: Clock) -> None:
    for key in (b"a", b"b", b"c", b"d"):
        deliver(store, key, 10.0, "idle")
    clock.now += 11
    assert not deliver(store, b"e", 10.0, "busy")
    assert len(store) == 4


def test_a_full_store_is_as_fast_as_an_empty_one(clock: Clock) -> None:
    """Removing from the start of a dictionary passes all that was removed before: 60 µs each with 100,000."""

    def cost(store: MemoryStore, first: int) -> float:
        began = time.process_time()
        for number in range(first, first + 5_000):
            deliver(store, b"%d" % number, 1000.0)
        return time.process_time() - began

    store = MemoryStore(clock, limit=50_000)
    empty = min(cost(MemoryStore(clock, limit=50_000), 0) for _ in range(3))
    for first in range(0, 50_000, 5_000):
        cost(store, first)
    full = min(cost(store, first) for first in range(50_000, 100_000, 5_000))
    assert full < 4 * empty


# -- one turn --


def turn(store: MemoryStore, key: bytes = b"a") -> ReplayTurn:
    return ReplayTurn(store, key, Replay(10.0, fail_open=False), "r")


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
    assert run(store.begin(b"a", 60.0, "r")) is Seen.PENDING


def test_what_needs_no_waiting_happens_at_once(store: MemoryStore) -> None:
    first = turn(store)
    assert first.begin_at_once()
    assert not turn(store).begin_at_once()  # pending
    assert first.end_at_once(200) is False
    first.abandon()  # no effect any more
    assert first.end_at_once(200) is None
    assert not turn(store).begin_at_once()  # delivered
    with pytest.raises(Rejected):
        run(turn(store).begin(60.0, wait=True))


@pytest.mark.parametrize("status", [199, 300, 404, 503])
def test_a_failure_is_not_ended_at_once(store: MemoryStore, status: int) -> None:
    first = turn(store)
    assert first.begin_at_once()
    assert first.end_at_once(status) is None
    run(first.end(status))
    assert turn(store).begin_at_once()


def test_what_has_more_keys_than_one_is_neither_begun_nor_ended_at_once(store: MemoryStore) -> None:
    replay = Replay(10.0, fail_open=False)
    for more in ({"others": [b"b"]}, {"items": [b"b", b"c"]}, {"also": [b"b"]}):
        assert not ReplayTurn(store, b"a", replay, "r", **more).begin_at_once()
    assert len(store) == 0
    both = ReplayTurn(store, b"a", replay, "r", items=[b"b", b"c"])
    run(both.begin(60.0, wait=True))
    assert both.end_at_once(200) is None
    run(both.end(200))
    assert run(store.begin(b"c", 60.0, "r")) is Seen.DONE


def test_the_room_that_is_made_at_once_is_told(store: MemoryStore) -> None:
    for key in (b"b", b"c", b"d", b"e"):
        deliver(store, key)
    first = turn(store)
    assert first.begin_at_once()
    assert first.end_at_once(200) is True


def test_without_waiting_a_copy_of_what_is_pending_is_refused_at_once(store: MemoryStore) -> None:
    run(turn(store).begin(60.0, wait=True))
    with pytest.raises(Rejected) as refused:
        run(turn(store).begin(60.0, wait=False))
    assert (refused.value.reason, refused.value.response) == (Reason.REPLAYED, IN_PROGRESS)
    assert (IN_PROGRESS.status, IN_PROGRESS.retry_after) == (409, 5)


def test_a_delivery_is_a_copy_of_what_has_one_of_its_other_keys(store: MemoryStore) -> None:
    def begin() -> ReplayTurn:
        made = ReplayTurn(store, b"long", Replay(10.0, fail_open=False), "r", [b"a", b"b"])
        run(made.begin(60.0, wait=True))
        return made

    begin().abandon()  # the others are free again
    first = turn(store, b"b")
    run(first.begin(60.0, wait=True))
    with pytest.raises(Rejected) as refused:
        begin()
    assert refused.value.response == IN_PROGRESS
    run(first.end(200))
    with pytest.raises(Rejected) as refused:
        begin()
    assert (refused.value.reason, refused.value.response) == (Reason.REPLAYED, None)
    run(turn(store, b"a").begin(60.0, wait=True))
    run(turn(store, b"long").begin(60.0, wait=True))


def items_turn(store: MemoryStore, *items: bytes) -> ReplayTurn:
    return ReplayTurn(store, b"whole", Replay(10.0, fail_open=False), "r", items=items)


def test_a_delivery_of_items_is_a_copy_only_if_every_item_was_delivered(store: MemoryStore) -> None:
    first = items_turn(store, b"a")
    run(first.begin(60.0, wait=True))
    run(first.end(200))
    with pytest.raises(Rejected) as refused:
        run(items_turn(store, b"a").begin(60.0, wait=True))
    assert (refused.value.reason, refused.value.response) == (Reason.REPLAYED, None)
    second = items_turn(store, b"a", b"b")  # b is new
    run(second.begin(60.0, wait=True))
    run(second.end(200))
    for items in ([b"b"], [b"a", b"b"]):
        with pytest.raises(Rejected):
            run(items_turn(store, *items).begin(60.0, wait=True))


def test_items_that_are_being_forwarded_keep_the_others_free(store: MemoryStore) -> None:
    first = items_turn(store, b"b")
    run(first.begin(60.0, wait=True))
    with pytest.raises(Rejected) as refused:
        run(items_turn(store, b"a", b"b").begin(60.0, wait=False))
    assert refused.value.response == IN_PROGRESS
    run(turn(store, b"a").begin(60.0, wait=False))
    first.abandon()
    run(turn(store, b"b").begin(60.0, wait=False))


def test_items_of_a_failed_delivery_are_new_again(store: MemoryStore) -> None:
    first = items_turn(store, b"a", b"b")
    run(first.begin(60.0, wait=True))
    run(first.end(500))
    run(items_turn(store, b"a", b"b").begin(60.0, wait=False))


def test_no_item_stays_claimed_when_the_store_fails(store: MemoryStore) -> None:
    class Failing:  # no subclass: the store is compiled
        async def begin(self, key: bytes, pending_seconds: float, share: str) -> Seen:
            if key == b"b":
                raise StoreUnavailableError("it is gone")
            return await store.begin(key, pending_seconds, share)

        def release(self, key: bytes) -> None:
            store.release(key)

    failing: Any = Failing()
    with pytest.raises(StoreUnavailableError):
        run(items_turn(failing, b"a", b"b").begin(60.0, wait=True))
    run(items_turn(store, b"a").begin(60.0, wait=False))


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
