"""Rates: what was counted within the last minute."""

import asyncio

from sidecar.outcomes import Outcome, Reason
from sidecar.telemetry.metrics import END_AT, Metrics
from sidecar.telemetry.rates import EVERY, WINDOW, Rates
from sidecar.telemetry.totals import Totals

AT = END_AT[Outcome.REJECTED, Reason.NO_ROUTE]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_in_the_first_minute_everything_since_the_start_counts_as_it_is() -> None:
    metrics, clock = Metrics(), Clock()
    rates = Rates(Totals([metrics]), clock)
    metrics.routes[""].block[AT] = 6
    clock.now += 10
    assert rates.per_minute("", Totals([metrics]).ends(""))[AT] == 6


def test_what_is_older_than_a_minute_counts_no_more() -> None:
    metrics, clock = Metrics(), Clock()
    rates = Rates(Totals([metrics]), clock)
    metrics.routes[""].block[AT] = 600
    for _ in range(int(WINDOW / EVERY) + 1):
        clock.now += EVERY
        asyncio.run(rates.sample())
    metrics.routes[""].block[AT] += 3
    assert rates.per_minute("", Totals([metrics]).ends(""))[AT] == 3


def test_processes_are_added_up_and_a_new_route_begins_at_nothing() -> None:
    parts, clock = [Metrics(), Metrics()], Clock()
    rates = Rates(Totals(parts), clock)
    clock.now += 5
    asyncio.run(rates.sample())
    for part in parts:
        part._add("new", ())
        part.routes["new"].block[AT] = 2
    clock.now += 5
    assert rates.per_minute("new", Totals(parts).ends("new"))[AT] == 4
