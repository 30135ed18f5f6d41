"""How fast counts grow: what was counted within the last minute, from looks at the counts every few seconds."""

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Sequence

from sidecar.telemetry.metrics import CODES_AT, Metrics, added

WINDOW = 60.0
#: Seconds between two looks.
EVERY = 5.0
#: Routes that are looked at in one turn of the event loop.
SLICE = 50

#: The counts of one route by reason, then by reason in shadow mode: the begin of its block, added up over all processes.
Totals = Sequence[float]


def totals(parts: Sequence[Metrics], route: str) -> Totals:
    return added([part.routes[route].block[:CODES_AT] for part in parts if route in part.routes])


class Rates:
    """Some 300 bytes for each route and look, thirteen of which are kept."""

    def __init__(self, parts: Sequence[Metrics], now: Callable[[], float]) -> None:
        """`now` gives monotonic seconds."""
        self._parts = parts
        self._now = now
        self._looks: deque[tuple[float, dict[str, array[float]]]] = deque([(now(), {})], int(WINDOW / EVERY) + 1)

    async def keep(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.look()

    async def look(self) -> None:
        """In slices: no delivery waits for many routes."""
        counts: dict[str, array[float]] = {}
        for number, route in enumerate(self._routes()):
            counts[route] = array("d", totals(self._parts, route))
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self._looks.append((self._now(), counts))

    def per_minute(self, route: str, counted: Totals) -> list[float]:
        """Of each count: how much of it came within the last minute. In the first minute: since the start."""
        began, before = self._looks[0]
        share = WINDOW / max(self._now() - began, WINDOW)
        return [(count - old) * share for count, old in zip(counted, before.get(route) or [0.0] * len(counted))]

    def _routes(self) -> list[str]:
        return list(dict.fromkeys(route for part in self._parts for route in part.routes))
