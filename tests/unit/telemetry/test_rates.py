"""Rates: what was counted within the last minute."""

import asyncio

from sidecar.outcomes import Reason
from sidecar.telemetry.metrics import REASON_AT, Metrics
from sidecar.telemetry.rates import EVERY, WINDOW, Rates, totals

AT = REASON_AT[Reason.NO_ROUTE]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_in_the_first_minute_everything_since_the_start_counts_as_it_is() -> None:
    metrics, clock = Metrics(), Clock()
    rates = Rates([metrics], clock)
    metrics.routes[""].block[AT] = 6
    clock.now += 10
    assert rates.per_minute("", totals([metrics], ""))[AT] == 6


def test_what_is_older_than_a_minute_counts_no_more() -> None:
    metrics, clock = Metrics(), Clock()
    rates = Rates([metrics], clock)
    metrics.routes[""].block[AT] = 600
    for _ in range(int(WINDOW / EVERY) + 1):
        clock.now += EVERY
        asyncio.run(rates.look())
    metrics.routes[""].block[AT] += 3
    assert rates.per_minute("", totals([metrics], ""))[AT] == 3


def test_processes_are_added_up_and_a_new_route_begins_at_nothing() -> None:
    parts, clock = [Metrics(), Metrics()], Clock()
    rates = Rates(parts, clock)
    clock.now += 5
    asyncio.run(rates.look())
    for part in parts:
        part._add("new", ())
        part.routes["new"].block[AT] = 2
    clock.now += 5
    assert rates.per_minute("new", totals(parts, "new"))[AT] == 4
