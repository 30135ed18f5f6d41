"""Keeps the most recent rejections and failures for the status page.

Only deliveries that were rejected, failed, or would have been rejected in shadow mode are kept; accepted ones and duplicates
never are. Bodies, signatures and secrets have no field here, and text from senders is cut, so all of them take 50 kB at most.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from sidecar.outcomes import Outcome
from sidecar.telemetry.record import DeliveryRecord

#: How many are kept.
KEPT: Final = 100
#: Paths are cut to this many bytes; methods and details to as many characters.
MAX_FIELD: Final = 200


class RecentRejection(NamedTuple):
    """A rejected or failed delivery as plain values that fit JSON. A missing value is an empty string or 0."""

    time: float  #: unix seconds
    route: str
    outcome: str
    reason: str
    shadow: bool  #: forwarded all the same
    hint: str
    client: str
    method: str
    path: str
    status: int  #: of the response to the sender; 0 if there was none
    request_bytes: int
    answer_bytes: int
    detail: str


class RecentRejections:
    """`count` is the number since the start."""

    def __init__(self) -> None:
        self.count = 0
        # The fields of `RecentRejection` as tuples: creating one calls a Python function, and most are never read.
        self._last: deque[tuple[object, ...]] = deque(maxlen=KEPT)

    def record(self, record: DeliveryRecord, now: float) -> None:
        """Keeps a delivery, unless it is a duplicate. `now` is unix time in seconds."""
        if record.outcome is Outcome.DUPLICATE:
            return
        self.count += 1
        self._last.append(
            (
                now,
                record.route_name,
                record.outcome,
                record.reason or record.shadow_reason or "",
                record.reason is None,
                record.hint or "",
                record.client or record.peer or "unix:",
                record.method[:MAX_FIELD],
                record.path[:MAX_FIELD].decode("latin-1"),
                record.status,
                record.request_bytes,
                record.answer_bytes,
                record.detail[:MAX_FIELD],
            )
        )

    def since(self, count: int) -> list[RecentRejection]:
        """All after the first `count` that are still kept, oldest first."""
        newer = min(self.count - count, len(self._last))
        return [RecentRejection._make(values) for values in list(self._last)[-newer:]] if newer > 0 else []


def newest_first(lists: Iterable[Iterable[RecentRejection]]) -> list[RecentRejection]:
    """The most recent rejections of several processes."""
    return sorted((rejection for each in lists for rejection in each), reverse=True)[:KEPT]
