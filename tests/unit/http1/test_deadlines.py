"""One timer for many deadlines. The loop's clock is set by hand."""

import asyncio

import pytest
from fake_loop import FakeLoop

from sidecar.http1.deadlines import DeadlineQueue


@pytest.fixture
def clock() -> FakeLoop:
    return FakeLoop()  # type: ignore[abstract]  # it has what is used


def test_an_item_expires_at_its_deadline_and_not_before(clock: FakeLoop) -> None:
    expired: list[str] = []
    queue = DeadlineQueue(clock, 10.0, expired.append)
    queue.add("a")
    clock.advance(9.9)
    assert (expired, len(queue)) == ([], 1)
    clock.advance(10.0)
    assert (expired, len(queue)) == (["a"], 0)
    assert clock.timers == []


def test_many_items_share_one_timer_and_expire_each_in_its_time(clock: FakeLoop) -> None:
    expired: list[tuple[float, int]] = []
    queue = DeadlineQueue[int](clock, 10.0, lambda item: expired.append((clock.now, item)))
    for item in range(5):
        clock.advance(float(item))
        queue.add(item)
        assert len(clock.timers) == 1
    clock.advance(100.0)
    assert expired == [(10.0 + item, item) for item in range(5)]


def test_a_discarded_item_never_expires(clock: FakeLoop) -> None:
    expired: list[str] = []
    queue = DeadlineQueue(clock, 10.0, expired.append)
    for item in ("a", "b", "c"):
        queue.add(item)
    queue.discard("a")
    queue.discard("c")
    queue.discard("never added")
    clock.advance(100.0)
    assert expired == ["b"]


def test_the_timer_of_an_emptied_queue_fires_into_nothing_and_the_next_item_has_its_full_time(clock: FakeLoop) -> None:
    expired: list[tuple[float, str]] = []
    queue = DeadlineQueue[str](clock, 10.0, lambda item: expired.append((clock.now, item)))
    queue.add("a")
    queue.discard("a")
    clock.advance(5.0)
    queue.add("b")
    assert len(clock.timers) == 1
    clock.advance(14.9)
    assert expired == []
    clock.advance(20.0)
    assert expired == [(15.0, "b")]
    queue.add("c")
    queue.discard("c")
    clock.advance(40.0)
    assert (len(expired), clock.timers) == (1, [])


def test_adding_an_item_again_restarts_its_clock(clock: FakeLoop) -> None:
    expired: list[tuple[float, str]] = []
    queue = DeadlineQueue[str](clock, 10.0, lambda item: expired.append((clock.now, item)))
    queue.add("a")
    clock.advance(4.0)
    queue.add("b")
    clock.advance(8.0)
    queue.add("a")
    assert len(queue) == 2
    clock.advance(100.0)
    assert expired == [(14.0, "b"), (18.0, "a")]


def test_what_expire_adds_has_its_full_time_and_what_it_discards_is_spared(clock: FakeLoop) -> None:
    expired: list[tuple[float, str]] = []

    def expire(item: str) -> None:
        expired.append((clock.now, item))
        if len(expired) == 1:
            queue.add("again")
            queue.discard("b")

    queue = DeadlineQueue(clock, 10.0, expire)
    for item in ("a", "b", "c"):
        queue.add(item)
    clock.advance(19.9)
    assert expired == [(10.0, "a"), (10.0, "c")]
    assert len(clock.timers) == 1
    clock.advance(100.0)
    assert expired[2:] == [(20.0, "again")]
    assert clock.timers == []


def test_it_keeps_time_on_a_real_loop() -> None:
    async def run() -> list[str]:
        expired: list[str] = []
        queue = DeadlineQueue(asyncio.get_running_loop(), 0.01, expired.append)
        queue.add("a")
        queue.add("b")
        queue.discard("a")
        await asyncio.sleep(0.1)
        return expired

    assert asyncio.run(run()) == ["b"]
