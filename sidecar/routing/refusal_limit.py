"""`limits.refusals`: a source that a route keeps rejecting has to wait, before its body is read or a MAC computed.

A source is a client address on one route. Rejections on one route don't affect another, because providers send all their
customers' deliveries from the same addresses. For IPv6 the /64 counts, which is what one customer gets.

It is the generic cell rate algorithm (ITU-T I.371): one number for each source, the time at which all its rejections have
been worked off. `most` of them may come at once, then one every `seconds / most`.
"""

import math
from typing import NamedTuple

from sidecar.routing.networks import IPAddress

#: How many sources are remembered: about 2 MB. Beyond that, the one whose last rejection is oldest is forgotten.
MAX_SOURCES = 10_000


class Rate(NamedTuple):
    """At most `most` in `seconds`."""

    most: int
    seconds: float
    text: str  #: as configured

    def __str__(self) -> str:
        return self.text


class RefusalLimit:
    """The sources that were recently rejected. `rate` can change at any time; None means no limit."""

    __slots__ = ("_limit", "_worked_off", "rate")

    def __init__(self, rate: Rate | None = None, limit: int = MAX_SOURCES) -> None:
        self.rate = rate
        self._limit = limit
        self._worked_off: dict[tuple[str, int, int], float] = {}  # in the order of their last rejections

    def __len__(self) -> int:
        return len(self._worked_off)

    def wait(self, route: str, address: IPAddress | None, now: float) -> int:
        """Seconds that this source has to wait, or 0. `now` is the time of a monotonic clock, in seconds."""
        if self.rate is None or address is None or not self._worked_off:
            return 0
        until = self._worked_off.get(_source(route, address), now)
        # The next one may come when there is room for it. The millionth allows for rounding errors.
        left = until - now - self.rate.seconds * (1 - 1 / self.rate.most)
        return math.ceil(left) if left > 1e-6 else 0

    def count_rejection(self, route: str, address: IPAddress | None, now: float) -> None:
        """Counts a rejection of this source."""
        if self.rate is None or address is None:
            return
        source = _source(route, address)
        until = max(self._worked_off.pop(source, now), now)
        self._worked_off[source] = until + self.rate.seconds / self.rate.most
        for _ in range(2):  # one more than is added, so that expired entries don't accumulate
            first = next(iter(self._worked_off))
            if len(self._worked_off) > self._limit or self._worked_off[first] <= now:
                del self._worked_off[first]

    def forget(self) -> None:
        self._worked_off.clear()


def _source(route: str, address: IPAddress) -> tuple[str, int, int]:
    number = int(address)
    return route, address.version, number if address.version == 4 else number >> 64
