"""Writes all metrics as text for a scrape of `/metrics`.

Writing a line takes about 10 us, and a route has over a hundred lines. So a scrape is written in slices of a few routes, with
a turn of the event loop between them: however many routes there are, no delivery waits longer than one slice takes.
(A thread would hold the interpreter's lock for 5 ms each time that the event loop wants it.)
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sidecar.telemetry.prometheus import ROUTE_METRICS, GaugeMetrics, Routes, route_family
from sidecar.telemetry.totals import Totals

#: Routes that are written in one turn of the event loop.
WRITTEN_PER_TURN = 4
OPENMETRICS_END = b"# EOF\n"

#: One of prometheus-client's encoders: turns a collector's metrics into text.
Encode = Callable[[Collector], bytes]


class Scraper(Collector):
    """Writes the metrics of routes, and those of all collectors in `registry`, where the owners of values register."""

    def __init__(self, totals: Totals, *, shared_store: bool = False) -> None:
        """`shared_store`: replay protection uses a store that can become unavailable."""
        self.registry = CollectorRegistry()
        self.registry.register(GaugeMetrics(totals, shared_store=shared_store))
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """All metrics at once, in the order of `scrape`."""
        routes = [(name, self._totals.route(name)) for name in self._totals.route_names()]
        for metric in ROUTE_METRICS:
            yield route_family(metric, routes)
        yield from self.registry.collect()

    async def scrape(self, encode: Encode) -> bytes:
        """All metrics as text, written in slices.

        The gauges are read first: a delivery that they no longer show in flight is in the counts.
        """
        gauges = list(self.registry.collect())
        names = iter(self._totals.route_names())
        slices: list[Routes] = []
        while some := [(name, self._totals.route(name)) for name in islice(names, WRITTEN_PER_TURN)]:
            slices.append(some)
            await asyncio.sleep(0)
        pieces = []
        for metric in ROUTE_METRICS:
            for index, routes in enumerate(slices):
                text = encode(_Families([route_family(metric, routes)])).removesuffix(OPENMETRICS_END)
                pieces.append(text if index == 0 else _without_comments(text))
                await asyncio.sleep(0)
        return b"".join((*pieces, encode(_Families(gauges))))


class _Families(Collector):
    """Metrics that were collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def _without_comments(text: bytes) -> bytes:
    """Removes the comment lines, which belong only at the beginning of a metric."""
    at = 0
    while text.startswith(b"# ", at):
        at = text.index(b"\n", at) + 1
    return text[at:]
