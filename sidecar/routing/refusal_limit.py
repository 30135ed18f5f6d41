"""`limits.refusals`: a source that a route keeps refusing waits, before anything of it is read or computed.

A source is a client's address on one route: who is refused on one route is not kept from another, because providers send
everybody's deliveries from the same addresses. Of IPv6 the /64 counts, which is what one customer is given.

The generic cell rate algorithm (ITU-T I.371): one number for each source, the time at which all its refusals have been
worked off. `most` of them may come at once, and then one for each `seconds / most`.
"""

import math
from typing import NamedTuple

from sidecar.routing.networks import IPAddress

#: Sources that are remembered, about 2 MB. Beyond it who was refused longest ago is forgotten, and judged like anybody.
MAX_SOURCES = 10_000


class Rate(NamedTuple):
    """So many in so many seconds."""

    most: int
    seconds: float
    text: str  #: as it was written

    def __str__(self) -> str:
        return self.text


class RefusalLimit:
    """The sources that were refused of late. `rate` may be set anew at any time; None: no limit."""

    __slots__ = ("_limit", "_worked_off", "rate")

    def __init__(self, rate: Rate | None = None, limit: int = MAX_SOURCES) -> None:
        self.rate = rate
        self._limit = limit
        self._worked_off: dict[tuple[str, int, int], float] = {}  # in the order of their last refusals

    def __len__(self) -> int:
        return len(self._worked_off)

    def wait(self, route: str, address: IPAddress | None, now: float) -> int:
        """Seconds that this source has to wait, 0 for who need not. `now` is any clock that only goes forward, in seconds."""
        if self.rate is None or address is None or not self._worked_off:
            return 0
        until = self._worked_off.get(_source(route, address), now)
        # The next one may come when there is room for it. A millionth for what sums of fractions lose.
        left = until - now - self.rate.seconds * (1 - 1 / self.rate.most)
        return math.ceil(left) if left > 1e-6 else 0

    def refused(self, route: str, address: IPAddress | None, now: float) -> None:
        """Counts a refusal of this source."""
        if self.rate is None or address is None:
            return
        source = _source(route, address)
        until = max(self._worked_off.pop(source, now), now)
        self._worked_off[source] = until + self.rate.seconds / self.rate.most
        for _ in range(2):  # as many as come, and one more, so that what is over does not stay
            first = next(iter(self._worked_off))
            if len(self._worked_off) > self._limit or self._worked_off[first] <= now:
                del self._worked_off[first]

    def forget(self) -> None:
        self._worked_off.clear()


def _source(route: str, address: IPAddress) -> tuple[str, int, int]:
    number = int(address)
    return route, address.version, number if address.version == 4 else number >> 64
