"""The budget that all bodies share. Reading one from a connection is tested over the wire."""

import pytest

from sidecar.delivery.body import Budget
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
    elsewhere.take(60)
    assert budget.held == 100
