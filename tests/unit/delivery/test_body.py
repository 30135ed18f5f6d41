"""The budget that all bodies share. Reading one from a connection is tested over the wire."""

import pytest

from sidecar.delivery.body import Body, Budget
from sidecar.http1.admission import PATIENCE_SECONDS
from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.telemetry.metrics import BUFFERED, GAUGES_SIZE


def test_the_budget_can_be_used_to_its_last_byte_and_no_further() -> None:
    budget = Budget(100, [0.0] * GAUGES_SIZE)
    budget.take(60)
    budget.take(40)
    assert budget.held == 100
    budget.take(0)
    with pytest.raises(Rejected) as refused:
        budget.take(1)
    assert refused.value.reason is Reason.OVERLOADED
    assert refused.value.detail == "limits.buffer is used up: 100 of 100 bytes are held"


def test_what_was_refused_is_not_held() -> None:
    budget = Budget(100, [0.0] * GAUGES_SIZE)
    with pytest.raises(Rejected):
        budget.take(101)
    assert budget.held == 0


def test_what_is_given_back_can_be_taken_again() -> None:
    budget = Budget(100, [0.0] * GAUGES_SIZE)
    budget.take(100)
    budget.give(100)
    budget.take(100)
    assert budget.held == 100


def test_processes_that_share_their_gauges_share_the_budget() -> None:
    one, other = [0.0] * GAUGES_SIZE, [0.0] * GAUGES_SIZE
    budget, elsewhere = Budget(100, one, [other]), Budget(100, other, [one])
    budget.take(60)
    with pytest.raises(Rejected):
        elsewhere.take(41)
    elsewhere.take(40)
    assert budget.held == elsewhere.held == 100
    assert (one[BUFFERED], other[BUFFERED]) == (60, 40)
    budget.give(60)
    elsewhere.take(47)
    assert budget.held == 87


def test_a_part_of_the_budget_is_reserved_for_each_process() -> None:
    one, other = [0.0] * GAUGES_SIZE, [0.0] * GAUGES_SIZE
    budget, elsewhere = Budget(800, one, [other]), Budget(800, other, [one])
    budget.take(700)
    with pytest.raises(Rejected):
        budget.take(1)
    elsewhere.take(100)
    assert budget.held == 800
    with pytest.raises(Rejected):
        elsewhere.take(1)


class FakeIncoming:
    """One request's body, as far as it has arrived."""

    def __init__(self, *, announced: int | None = None) -> None:
        self.head = make_head("POST", b"/", [] if announced is None else [(b"Content-Length", b"%d" % announced)], None)
        self.piece = b""
        self.more_body = True
        self.fault: Rejected | None = None
        self.evicted: list[Rejected] = []

    def take(self) -> tuple[bytes, bool]:
        piece, self.piece = self.piece, b""
        return piece, self.more_body

    def evict(self, rejected: Rejected) -> None:
        self.fault = rejected
        self.evicted.append(rejected)


class Bodies:
    """Bodies that arrive, and the clock."""

    def __init__(self, limit: int) -> None:
        self.now = 0.0
        self.budget = Budget(limit, [0.0] * GAUGES_SIZE, now=lambda: self.now)

    def begin(self, announced: int | None = None) -> "tuple[Body, FakeIncoming]":
        incoming = FakeIncoming(announced=announced)
        body = Body(self.budget)
        body.begin(incoming, 10**9)  # type: ignore[arg-type]
        return body, incoming

    def arrive(self, body: Body, incoming: FakeIncoming, size: int, *, more: bool = True) -> None:
        incoming.piece, incoming.more_body = bytes(size), more
        assert body.take(incoming, 10**9) == more  # type: ignore[arg-type]


def test_an_announced_length_takes_nothing_from_the_budget() -> None:
    bodies = Bodies(100)
    for _ in range(50):
        bodies.begin(announced=100)
    assert bodies.budget.held == 0
    bodies.arrive(*bodies.begin(announced=100), 100, more=False)
    assert bodies.budget.held == 100


def test_an_announced_length_over_the_limit_of_a_body_is_rejected_at_once() -> None:
    with pytest.raises(Rejected) as rejected:
        Body(Bodies(100).budget).begin(FakeIncoming(announced=11), 10)  # type: ignore[arg-type]
    assert rejected.value.reason is Reason.BODY_TOO_LARGE


def test_the_slowest_unfinished_body_makes_room() -> None:
    bodies = Bodies(100)
    slow, fast, new = bodies.begin(), bodies.begin(), bodies.begin()
    bodies.arrive(*slow, 30)
    bodies.now = 1.0
    bodies.arrive(*fast, 60)
    bodies.now = 3.0
    bodies.arrive(*new, 40, more=False)
    assert ([rejected.reason for rejected in slow[1].evicted], fast[1].evicted) == ([Reason.OVERLOADED], [])
    assert bodies.budget.held == 100
    assert slow[0].pieces == []
    slow[0].release()  # its delivery ends later
    assert bodies.budget.held == 100


def test_more_than_one_body_makes_room_if_one_is_not_enough() -> None:
    bodies = Bodies(100)
    stalled = [bodies.begin() for _ in range(5)]
    for each in stalled:
        bodies.arrive(*each, 20)
    bodies.now = 1.0
    bodies.arrive(*bodies.begin(), 50, more=False)
    assert [len(incoming.evicted) for _, incoming in stalled] == [1, 1, 1, 0, 0]
    assert bodies.budget.held == 90


def test_a_complete_body_is_never_evicted() -> None:
    bodies = Bodies(100)
    complete, arrived = bodies.begin(), bodies.begin()
    bodies.arrive(*complete, 60, more=False)
    bodies.arrive(*arrived, 40)
    arrived[1].more_body = False  # its end has arrived and hasn't been read yet
    bodies.now = 100.0
    with pytest.raises(Rejected):
        bodies.arrive(*bodies.begin(), 1)
    assert (complete[1].evicted, arrived[1].evicted) == ([], [])


def test_a_body_that_has_just_begun_is_not_evicted() -> None:
    bodies = Bodies(100)
    young = bodies.begin()
    bodies.arrive(*young, 100)
    bodies.now = PATIENCE_SECONDS - 0.01
    with pytest.raises(Rejected):
        bodies.arrive(*bodies.begin(), 1, more=False)
    bodies.now = PATIENCE_SECONDS
    bodies.arrive(*bodies.begin(), 1, more=False)
    assert len(young[1].evicted) == 1


def test_the_slowest_body_evicts_no_other_for_itself() -> None:
    bodies = Bodies(100)
    slow, fast = bodies.begin(), bodies.begin()
    bodies.arrive(*slow, 10)
    bodies.arrive(*fast, 90)
    bodies.now = 1.0
    with pytest.raises(Rejected) as rejected:
        bodies.arrive(*slow, 10)
    assert rejected.value.reason is Reason.OVERLOADED
    assert fast[1].evicted == []


def test_a_burst_of_large_bodies_ends_with_complete_ones() -> None:
    """Everybody's bytes arrive in turn; whoever was evicted or rejected doesn't come again."""
    bodies = Bodies(1000)
    senders = [bodies.begin() for _ in range(100)]
    left = dict.fromkeys(range(100), 200)
    accepted = 0
    while left:
        for number in list(left):
            body, incoming = senders[number]
            if incoming.fault is not None:
                del left[number]
                continue
            left[number] -= 1
            try:
                bodies.arrive(body, incoming, 1, more=left[number] > 0)
            except Rejected:
                body.release()
                del left[number]
                continue
            if not left[number]:
                accepted += 1
                body.release()
                del left[number]
        bodies.now += 0.01
    assert accepted >= 4
    assert bodies.budget.held == 0
