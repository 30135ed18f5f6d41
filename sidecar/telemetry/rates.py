"""Calculates how many deliveries were counted within the last minute, by sampling the counts every few seconds."""

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Sequence

from sidecar.telemetry.totals import Totals

WINDOW = 60.0
#: Seconds between two samples.
EVERY = 5.0
#: Routes that are sampled in one turn of the event loop.
SAMPLED_PER_TURN = 50


class Rates:
    """A sample takes about 300 bytes for each route, and thirteen samples are kept."""

    def __init__(self, totals: Totals, now: Callable[[], float]) -> None:
        """`now` returns monotonic seconds."""
        self._totals = totals
        self._now = now
        self._samples: deque[tuple[float, dict[str, array[float]]]] = deque([(now(), {})], int(WINDOW / EVERY) + 1)

    async def keep(self) -> None:
        """Takes samples until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.sample()

    async def sample(self) -> None:
        """Takes a sample in slices, so that no delivery has to wait for many routes."""
        counts: dict[str, array[float]] = {}
        for number, route in enumerate(self._totals.route_names()):
            counts[route] = array("d", self._totals.ends(route))
            if number % SAMPLED_PER_TURN == SAMPLED_PER_TURN - 1:
                await asyncio.sleep(0)
        self._samples.append((self._now(), counts))

    def per_minute(self, route: str, counts: Sequence[float]) -> list[float]:
        """The part of each count that was added within the last minute, or since the start if that is shorter ago.

        `counts` are the present ones, in the order of `Totals.ends`.
        """
        began, before = self._samples[0]
        share = WINDOW / max(self._now() - began, WINDOW)
        return [(count - old) * share for count, old in zip(counts, before.get(route) or [0.0] * len(counts))]
