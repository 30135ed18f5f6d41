"""The last rejected requests of routes with `capture:`, as they arrived, for `sidecar explain`.

They hold bodies, so they are in memory only: never on disk, never in a log. Each is dropped when its time is over, and all of
them with each new configuration. Only the admin listener shows them, to a holder of its token.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from sidecar.delivery.delivery import Delivery
from sidecar.http1.head import RequestHead, field_lines
from sidecar.outcomes import VERIFICATION
from sidecar.routing.routes import Route
from sidecar.telemetry.metrics import CAPTURES_AT, Metrics

#: A larger request is not captured, bytes.
MAX_REQUEST: Final = 1024 * 1024
#: All captures of one process, bytes; beyond it the oldest of all routes are dropped.
MAX_TOTAL: Final = 16 * 1024 * 1024


class CapturedRequest(NamedTuple):
    """One request, and how it ended."""

    id: str
    route: str
    at: float  #: when it was rejected, unix time
    reason: str
    detail: str
    peer: str  #: the address of the connection; empty for a unix socket
    method: str
    complete: bool  #: whether the whole body had been read
    raw: bytes

    def about(self) -> dict[str, Any]:
        """Everything but the request itself."""
        about = self._asdict()
        return about | {"bytes": len(about.pop("raw"))}


class Captures:
    """The captures of one process."""

    def __init__(self, metrics: Metrics, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._metrics = metrics
        self._loop = loop
        self._now = now
        self._rings: dict[str, deque[CapturedRequest]] = {}
        self._seconds: dict[str, float] = {}
        self._total = 0
        self._timer: asyncio.TimerHandle | None = None

    def configure(self, routes: Iterable[Route]) -> None:
        """Drops everything, and captures for these routes from now on."""
        for ring in self._rings.values():
            ring.clear()
        self._count()
        self._total = 0
        captured = [route for route in routes if route.capture is not None]
        self._rings = {route.name: deque() for route in captured}
        self._seconds = {route.name: route.capture.seconds for route in captured if route.capture is not None}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(self, delivery: Delivery) -> None:
        """Captures a delivery whose record is filled in, if its route asks for it and verification rejected it."""
        record, route = delivery.record, delivery.record.route
        reason = record.reason or record.shadow_reason
        if route is None or route.capture is None or reason not in VERIFICATION or route.name not in self._rings:
            return
        size = delivery.body.size
        if size > MAX_REQUEST:
            return
        raw = write_request(delivery.head, delivery.body.pieces, complete=not delivery.incoming.more_body)
        if len(raw) > MAX_REQUEST:
            return
        ring = self._rings[route.name]
        ring.append(
            CapturedRequest(
                os.urandom(8).hex(),
                route.name,
                self._now(),
                reason,
                record.detail,
                record.peer or "",
                record.method,
                not delivery.incoming.more_body,
                raw,
            )
        )
        self._total += len(raw)
        while len(ring) > route.capture.rejected:
            self._drop(ring)
        while self._total > MAX_TOTAL:
            self._drop(min((ring for ring in self._rings.values() if ring), key=lambda ring: ring[0].at))
        self._count()
        self._wait()

    def listed(self) -> list[CapturedRequest]:
        """All of them, the newest first."""
        self._expire()
        return sorted((each for ring in self._rings.values() for each in ring), key=lambda each: -each.at)

    def find(self, ident: str) -> CapturedRequest | None:
        return next((each for each in self.listed() if each.id == ident), None)

    def _drop(self, ring: deque[CapturedRequest]) -> None:
        self._total -= len(ring.popleft().raw)

    def _expire(self) -> None:
        now = self._now()
        for name, ring in self._rings.items():
            while ring and ring[0].at + self._seconds[name] <= now:
                self._drop(ring)
        self._count()

    def _wait(self) -> None:
        """Sets the timer for the next one that is due."""
        if self._timer is not None:
            return
        due = [ring[0].at + self._seconds[name] for name, ring in self._rings.items() if ring]
        if due:
            self._timer = self._loop.call_later(max(min(due) - self._now(), 0.01), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._expire()
        self._wait()

    def _count(self) -> None:
        for name, ring in self._rings.items():
            if (counts := self._metrics.routes.get(name)) is not None:
                counts.block[CAPTURES_AT] = float(len(ring))


def write_request(head: RequestHead, pieces: Sequence[bytes], *, complete: bool) -> bytes:
    """The request as bytes: its line, its fields as spelled, and its body, in one chunk if it came in chunks."""
    body = b"".join(pieces)
    if head.values(b"transfer-encoding") and complete:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (head.method.encode(), head.target, field_lines(head.headers), body)
