"""A search for the input that costs most at each stage finds nothing dearer than docs/reliability.md says, with much room.

`python tests/bench/worst.py` searches longer, and prints what it found.
"""

import pytest
from hypothesis import HealthCheck, given, settings, target
from hypothesis import strategies as st
from worst_cases import STAGES, measure


@pytest.mark.parametrize("stage", STAGES)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_input_costs_a_stage_much(stage: str, data: st.DataObject) -> None:
    limit = STAGES[stage]
    case = data.draw(limit.cases)
    cost = measure(case)
    target(cost.seconds)
    assert cost.seconds * 1000 < limit.milliseconds, case.what
    assert cost.memory < limit.kilobytes * 1000, case.what
