"""The budget that all bodies share. Reading one from a connection is tested over the wire."""

import pytest
from fake_loop import FakeLoop, FakeTransport

from sidecar.delivery.body import Body, Budget
from sidecar.http1.admission import PATIENCE_SECONDS, ConnectionCount, Deadlines, Listener
from sidecar.http1.connection import DataProtocol
from sidecar.http1.incoming import Incoming
from sidecar.http1.light_task import Signal
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


class Sender:
    """One request whose body is on its way: a fake transport on the real protocol."""

    def __init__(self, budget: Budget, framing: bytes = b"Transfer-Encoding: chunked") -> None:
        loop = FakeLoop()  # type: ignore[abstract]  # it has what is used
        deadlines = Deadlines(loop, head=10, body=10)
        listener = Listener(deadlines, 9, ConnectionCount([0.0], 0))
        self.protocol = DataProtocol(self, deadlines=deadlines, listener=listener, connections=set(), tasks=set())
        self.protocol.connection_made(FakeTransport(peername=("192.0.2.1", 4000)))
        self.protocol.data_received(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)
        loop.turn()
        self.body = Body(budget)

    async def __call__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        await Signal()

    def reject_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        raise AssertionError(rejected)

    def send(self, size: int, *, more: bool = True) -> None:
        end = b"" if more else b"0\r\n\r\n"
        self.protocol.data_received(b"%x\r\n%b\r\n%b" % (size, bytes(size), end))

    def arrive(self, size: int, *, more: bool = True) -> None:
        self.send(size, more=more)
        assert self.body.take(self.incoming, 10**9) == more

    @property
    def evicted(self) -> bool:
        return self.incoming.fault is not None and self.incoming.fault.reason is Reason.OVERLOADED


class Bodies:
    """Bodies that arrive, and the clock."""

    def __init__(self, limit: int) -> None:
        self.now = 0.0
        self.budget = Budget(limit, [0.0] * GAUGES_SIZE, now=lambda: self.now)

    def begin(self) -> Sender:
        return Sender(self.budget)


def test_an_announced_length_takes_nothing_from_the_budget() -> None:
    bodies = Bodies(100)
    for _ in range(50):
        sender = Sender(bodies.budget, b"Content-Length: 100")
        sender.body.begin(sender.incoming, 100)
        assert sender.body.take(sender.incoming, 100)
    assert bodies.budget.held == 0
    bodies.begin().arrive(100, more=False)
    assert bodies.budget.held == 100


def test_an_announced_length_over_the_limit_of_a_body_is_rejected_at_once() -> None:
    sender = Sender(Bodies(100).budget, b"Content-Length: 11")
    sender.body.begin(sender.incoming, 11)
    with pytest.raises(Rejected) as rejected:
        sender.body.begin(sender.incoming, 10)
    assert rejected.value.reason is Reason.BODY_TOO_LARGE


def test_the_slowest_unfinished_body_makes_room() -> None:
    bodies = Bodies(100)
    slow, fast, new = bodies.begin(), bodies.begin(), bodies.begin()
    slow.arrive(30)
    bodies.now = 1.0
    fast.arrive(60)
    bodies.now = 3.0
    new.arrive(40, more=False)
    assert (slow.evicted, fast.evicted, slow.body.pieces) == (True, False, [])
    assert bodies.budget.held == 100
    with pytest.raises(Rejected):
        slow.body.take(slow.incoming, 100)
    slow.body.release()  # its delivery ends later
    assert bodies.budget.held == 100


def test_more_than_one_body_makes_room_if_one_is_not_enough() -> None:
    bodies = Bodies(100)
    stalled = [bodies.begin() for _ in range(5)]
    for sender in stalled:
        sender.arrive(20)
    bodies.now = 1.0
    bodies.begin().arrive(50, more=False)
    assert [sender.evicted for sender in stalled] == [True, True, True, False, False]
    assert bodies.budget.held == 90


def test_a_complete_body_is_never_evicted() -> None:
    bodies = Bodies(100)
    complete, arrived = bodies.begin(), bodies.begin()
    complete.arrive(60, more=False)
    arrived.arrive(39)
    arrived.send(1, more=False)  # its end has arrived and hasn't been read yet
    bodies.now = 100.0
    with pytest.raises(Rejected):
        bodies.begin().arrive(2)
    assert (complete.evicted, arrived.evicted) == (False, False)


def test_a_body_that_has_just_begun_is_not_evicted() -> None:
    bodies = Bodies(100)
    young = bodies.begin()
    young.arrive(100)
    bodies.now = PATIENCE_SECONDS - 0.01
    with pytest.raises(Rejected):
        bodies.begin().arrive(1, more=False)
    bodies.now = PATIENCE_SECONDS
    bodies.begin().arrive(1, more=False)
    assert young.evicted


def test_the_slowest_body_evicts_no_other_for_itself() -> None:
    bodies = Bodies(100)
    slow, fast = bodies.begin(), bodies.begin()
    slow.arrive(10)
    fast.arrive(90)
    bodies.now = 1.0
    with pytest.raises(Rejected) as rejected:
        slow.arrive(10)
    assert (rejected.value.reason, fast.evicted) == (Reason.OVERLOADED, False)


def test_a_burst_of_large_bodies_ends_with_complete_ones() -> None:
    """Everybody's bytes arrive in turn; senders that were rejected don't come again."""
    bodies = Bodies(1000)
    left = {bodies.begin(): 20 for _ in range(100)}
    accepted = 0
    while left:
        for sender in list(left):
            left[sender] -= 1
            try:
                sender.arrive(10, more=left[sender] > 0)
            except Rejected:
                ended = True
            else:
                ended = not left[sender]
                accepted += ended
            if ended:
                sender.body.release()
                del left[sender]
        bodies.now += 0.1
    assert accepted >= 4
    assert bodies.budget.held == 0
