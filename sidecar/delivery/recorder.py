"""Stage 10: one record for each delivery, whatever happened to it: log, metrics, trace, recent rejections."""

import asyncio
import functools
import traceback
from collections.abc import Callable
from typing import Final, Protocol

from sidecar.delivery import decide
from sidecar.delivery.delivery import Delivery
from sidecar.diagnosis.live import Hints, LiveRejection
from sidecar.http1.head import RequestHead
from sidecar.outcomes import DeliveryEnd, Hint, Outcome, Reason
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.metrics import IN_FLIGHT, Metrics
from sidecar.telemetry.recent_rejections import RecentRejections
from sidecar.telemetry.record import DeliveryRecord
from sidecar.telemetry.tenant_uses import TenantUses
from sidecar.telemetry.tracing import Tracing

#: The hints on a body that was parsed, or rewritten, after it was signed.
_REENCODED: Final = frozenset(
    {
        Hint.BODY_NEWLINE_CHANGED,
        Hint.BODY_LINE_ENDINGS_CHANGED,
        Hint.BODY_BOM_CHANGED,
        Hint.BODY_JSON_RESERIALISED,
    }
)


class CaptureStore(Protocol):
    """Takes rejected deliveries of routes with `capture:`: delivery/captures.py."""

    def add(self, delivery: Delivery) -> None: ...


class Recorder:
    """Begins and ends the records of one process."""

    def __init__(
        self,
        *,
        log: Log,
        metrics: Metrics,
        rejections: RecentRejections,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.tracing: Tracing | None = None
        self.hints = Hints(monotonic)
        self.tenant_uses = TenantUses()
        self.captures: CaptureStore | None = None  #: set where routes may have `capture:`
        self._log = log
        self._metrics = metrics
        self._rejections = rejections
        self._now = now
        self._monotonic = monotonic
        self._count = 0

    def begin(self, head: RequestHead) -> DeliveryRecord:
        """The record of a request, which is in flight from now on and until its record is written."""
        self._metrics.gauges[IN_FLIGHT] += 1
        record = self.begin_unparsed(head.peer, head.method, head.path)
        if self.tracing is not None:
            record.trace = self.tracing.sampler.begin(head)
        return record

    def begin_unparsed(self, peer: str | None, method: str = "", path: bytes = b"") -> DeliveryRecord:
        """The record of input that may never become a request."""
        self._count += 1
        return DeliveryRecord(number=self._count, peer=peer, started=self._monotonic(), method=method, path=path)

    def end(self, delivery: Delivery) -> None:
        """Writes the record of a delivery that has ended, and releases its body: at once, or when it has been diagnosed."""
        record = delivery.record
        record.request_bytes = delivery.body.size
        _fill_in(record, delivery)
        if delivery.matcher is not None and delivery.matcher.rotates and delivery.verified is not None:
            self.tenant_uses.note(delivery.route.name, delivery.tenant, delivery.verified.secret_id, self._now())
        if (
            delivery.record.route is not None
            and delivery.record.route.capture is not None
            and self.captures is not None
        ):
            self.captures.add(delivery)
        ended = self._monotonic()
        reason = record.reason or record.shadow_reason
        if reason is None:
            self._write(record, ended)
        elif self.hints.wants(reason, record.route, delivery.body.size):
            # In a thread, begun in the loop's next turn: the response has left by then, so its time says nothing about what
            # is found.
            asyncio.get_running_loop().call_soon(self._diagnose, delivery, reason, ended)
            return
        else:
            self.end_rejected(record, ended)
        self._release(delivery)

    def end_rejected(self, record: DeliveryRecord, ended: float | None = None) -> None:
        """Writes the record of a rejection. `ended` is by the monotonic clock; default: now."""
        self._write(record, ended if ended is not None else self._monotonic())
        self._rejections.record(record, self._now())

    async def finish(self) -> None:
        """Waits for the records of rejections that are being diagnosed."""
        await self.hints.finish()

    def _diagnose(self, delivery: Delivery, reason: Reason, ended: float) -> None:
        routes = delivery.snapshot.config.routes.routes
        found = self.hints.begin(
            LiveRejection(
                reason,
                decide.with_secrets_of_tenant(delivery),
                delivery.head,
                delivery.body.pieces,
                self._now(),
                routes,
            )
        )
        found.add_done_callback(functools.partial(self._end_with_hint, delivery, ended))

    def _end_with_hint(self, delivery: Delivery, ended: float, found: "asyncio.Future[Hint | None]") -> None:
        record = delivery.record
        bug = None if found.cancelled() else found.exception()
        if bug is not None:
            self._log.event("diagnosis_failed", Level.ERROR, where=place_of(bug))
        elif not found.cancelled():
            record.hint = found.result()
            if record.authorizes:
                blame_gateway(record)
        self.end_rejected(record, ended)
        self._release(delivery)

    def _release(self, delivery: Delivery) -> None:
        delivery.body.release()
        self._metrics.gauges[IN_FLIGHT] -= 1

    def _write(self, record: DeliveryRecord, ended: float) -> None:
        record.seconds = ended - record.started
        self._metrics.record(record, self._now())
        self._log.record(record)
        if record.trace is not None and self.tracing is not None:
            self._metrics.exemplify(record, self._now())
            try:
                self.tracing.record(record, ended, self._now() - self._monotonic())
            except Exception as bug:  # no delivery may suffer from it
                self._log.event("traces_lost", Level.ERROR, detail=place_of(bug))


def note_end(record: DeliveryRecord, end: DeliveryEnd) -> None:
    """Notes why a delivery ended early."""
    record.reason = end.reason
    record.outcome = Outcome.REJECTED if record.authorizes else end.outcome
    record.detail = end.detail
    # An exception that a request or connection kept until it was raised refers back to it by its frames: a reference cycle.
    end.__traceback__ = None


def blame_gateway(record: DeliveryRecord) -> None:
    """Notes that the body of a question was re-encoded, if the diagnosis showed that another form of it was signed.

    Only someone who knows the secret can cause this, so it is the sender's own delivery. The response has been sent by then,
    and is that of any rejection by verification.
    """
    if record.hint not in _REENCODED:
        return
    if record.reason is Reason.SIGNATURE_MISMATCH:
        record.reason = Reason.BODY_NOT_FORWARDED
    elif record.shadow_reason is Reason.SIGNATURE_MISMATCH:
        record.shadow_reason = Reason.BODY_NOT_FORWARDED
    else:
        return
    record.detail = (
        "the sender signed another form of this body (see hint), so it was re-encoded on its way; the gateway must ask with "
        "the bytes that it received, before anything parses, decompresses or rewrites them"
    )


def place_of(bug: BaseException) -> str:
    """The kind of a bug and the line it happened in; never its message, which may quote what a sender wrote."""
    frames = traceback.extract_tb(bug.__traceback__)
    return f"{type(bug).__name__} in {frames[-1].name}, {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}"


def _fill_in(record: DeliveryRecord, delivery: Delivery) -> None:
    """Fills in the decisions of the stages."""
    record.path = delivery.snapshot.config.routes.shown_path(record.path)
    if delivery.client is not None:
        record.client = delivery.client.text
    record.age = decide.age(delivery)
    if delivery.verified is not None:
        record.secret_id = delivery.verified.secret_id
        record.also_matched = delivery.verified.also
    tolerated = delivery.tolerated
    if tolerated is not None:
        record.shadow_reason = tolerated.reason
        record.detail = record.detail or tolerated.detail
        tolerated.__traceback__ = None
    route = record.route
    if route is not None and route.tenants is not None:
        record.tenant = delivery.tenant
        verifier = route.verifier
        if record.reason is not None and verifier is not None and record.detail == verifier.mismatch.detail:
            record.detail = route.tenants.problem(delivery.tenant) or "no match with the secrets of this tenant"
    if route is not None and route.verifier is not None:
        record.delivery_id = route.verifier.delivery_id(delivery.head)
