"""The last deliveries that did not get through, for the status page: a ring of plain values.

Only what is refused, fails, or would have been refused in shadow mode comes here; an accepted delivery never does. Nothing of
a body, a signature or a secret has a field, and what a sender wrote is cut, so that a ring holds some 50 kB at most.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from sidecar.telemetry.record import DeliveryRecord

#: How many are kept.
KEPT: Final = 100
#: Bytes of a path, and characters of a method or a detail.
MAX_SHOWN: Final = 200


class RecentRejection(NamedTuple):
    """One of them; JSON takes it as it is. Empty text and 0 stand for what there is not."""

    time: float  #: unix seconds
    route: str
    outcome: str
    reason: str
    shadow: bool  #: forwarded all the same
    hint: str
    client: str
    method: str
    path: str
    status: int  #: what the sender was answered; 0 if nothing
    request_bytes: int
    answer_bytes: int
    detail: str


class RecentRejections:
    """`count` is how many there were since the start."""

    def __init__(self) -> None:
        self.count = 0
        # The values of `RecentRejection`: making one is a call of a function of Python's, and most are never looked at.
        self._last: deque[tuple[object, ...]] = deque(maxlen=KEPT)

    def record(self, exchange: DeliveryRecord, now: float) -> None:
        """Keeps one. `now` is unix time in seconds."""
        self.count += 1
        self._last.append(
            (
                now,
                exchange.route_name,
                exchange.outcome,
                exchange.reason or exchange.shadow_reason or "",
                exchange.reason is None,
                exchange.hint or "",
                exchange.client or exchange.peer or "unix:",
                exchange.method[:MAX_SHOWN],
                exchange.path[:MAX_SHOWN].decode("latin-1"),
                exchange.status,
                exchange.request_bytes,
                exchange.answer_bytes,
                exchange.detail[:MAX_SHOWN],
            )
        )

    def since(self, count: int) -> list[RecentRejection]:
        """Those after the first `count`, as far as they are kept, oldest first."""
        newer = min(self.count - count, len(self._last))
        return [RecentRejection._make(values) for values in list(self._last)[-newer:]] if newer > 0 else []


def newest_first(rings: Iterable[Iterable[RecentRejection]]) -> list[RecentRejection]:
    """The last of several rings."""
    return sorted((refusal for ring in rings for refusal in ring), reverse=True)[:KEPT]
