"""Sends spans of deliveries to an OpenTelemetry collector, made from the same record as log and metrics.

The SDK's batch processor and OTLP/HTTP exporter send them in a thread of their own, and drop spans that don't fit into
their queue. The opentelemetry packages come with the extra `otel` and are imported when the first `Tracing` is created.

Conventions for names and attributes: https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
"""

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar import __version__
from sidecar.outcomes import Outcome
from sidecar.telemetry.log import MAX_LOGGED
from sidecar.telemetry.record import DeliveryRecord
from sidecar.telemetry.trace_context import Sampler, TracingSettings

#: How long sending the last spans may take, seconds.
CLOSE_SECONDS = 1.0
#: Methods that appear in span names. All others share one name, because anybody can make them up.
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

#: Attributes of a span.
Attributes = dict[str, str | int | float | bool]


class Tracing:
    """`sampler` decides which deliveries are traced; `record` takes their records."""

    def __init__(
        self, settings: TracingSettings, loop: asyncio.AbstractEventLoop, changed: Callable[[bool], None]
    ) -> None:
        """`changed` is called in the loop: with False when the collector stops accepting spans, with True when it resumes."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk import resources, trace  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags  # noqa: PLC0415

        for name in ("opentelemetry", "urllib3"):  # each failure would be a line on standard error
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self.sampler = Sampler(settings.sample, random.getrandbits)
        self._loop = loop
        exporter = OTLPSpanExporter(endpoint=settings.traces_url)
        monitored = _MonitoredExporter(exporter.export, exporter.shutdown, loop, changed, SpanExportResult.SUCCESS)
        self._processor = BatchSpanProcessor(monitored)  # type: ignore[arg-type]  # it has all methods that are called
        own = resources.Resource({"service.name": "webhook-sidecar", "service.version": __version__})
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence.
        self._resource = own.merge(resources.OTELResourceDetector().detect())
        self._scope = InstrumentationScope("webhook-sidecar", __version__)
        self._flags = TraceFlags(TraceFlags.SAMPLED)
        self._context, self._span = SpanContext, trace.ReadableSpan
        self._server, self._client, self._internal = SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL
        self._unset, self._error = Status(StatusCode.UNSET), Status(StatusCode.ERROR)

    def record(self, record: DeliveryRecord, ended: float, offset: float) -> None:
        """Sends the spans of one delivery. `ended` is monotonic time; `ended + offset` is unix time."""
        trace = record.trace
        assert trace is not None
        failed = record.outcome is Outcome.FAILED
        if trace.verify_began is not None and record.verify_seconds is not None:
            self._send_span(
                "verify",
                (trace.trace_id, random.getrandbits(64) or 1, trace.span_id),
                kind=self._internal,
                began=trace.verify_began + offset,
                ended=trace.verify_began + record.verify_seconds + offset,
                attributes=_verify_attributes(record),
            )
        if trace.upstream_began is not None:
            seconds = record.upstream_seconds
            self._send_span(
                "upstream",
                (trace.trace_id, trace.upstream_id, trace.span_id),
                kind=self._client,
                began=trace.upstream_began + offset,
                ended=(ended if seconds is None else trace.upstream_began + seconds) + offset,
                attributes=_upstream_attributes(record),
                failed=failed or record.upstream_status >= 400,
            )
        method = record.method if record.method in METHODS else "HTTP"
        self._send_span(
            f"{method} {record.route.pattern}" if record.route is not None else method,
            (trace.trace_id, trace.span_id, trace.parent_id),
            kind=self._server,
            began=record.started + offset,
            ended=ended + offset,
            attributes=_attributes(record),
            failed=failed or record.status >= 500,
        )

    def _send_span(
        self,
        name: str,
        ids: tuple[int, int, int],
        *,
        kind: Any,
        began: float,
        ended: float,
        attributes: Attributes,
        failed: bool = False,
    ) -> None:
        """`ids` are those of the trace, the span, and its parent or 0. Times are unix time."""
        trace_id, span_id, parent_id = ids
        parent = self._context(trace_id, parent_id, is_remote=kind is self._server) if parent_id else None
        span = self._span(
            name=name,
            context=self._context(trace_id, span_id, is_remote=False, trace_flags=self._flags),
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=self._error if failed else self._unset,
            start_time=int(began * 1e9),
            end_time=int(ended * 1e9),
            instrumentation_scope=self._scope,
        )
        self._processor.on_end(span)

    async def close(self, until: float) -> None:
        """Sends the remaining spans, as far as that is possible before `until` (loop time)."""
        closed = asyncio.Event()

        def close() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits for this
                self._loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=close, daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closed.wait(), min(until - self._loop.time(), CLOSE_SECONDS))


class _MonitoredExporter:
    """Passes spans to an exporter, and reports when exporting starts to fail and when it works again."""

    def __init__(
        self,
        export: Callable[[Any], Any],
        shutdown: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[bool], None],
        success: Any,
    ) -> None:
        self._export, self.shutdown = export, shutdown
        self._loop, self._changed, self._success = loop, changed, success
        self._succeeded = True

    def export(self, spans: Sequence[Any]) -> Any:
        """Runs in the processor's thread."""
        result = None
        try:
            result = self._export(spans)
        finally:
            succeeded = result is self._success
            if succeeded is not self._succeeded:
                self._succeeded = succeeded
                with contextlib.suppress(RuntimeError):  # the loop is closed: nothing to report to
                    self._loop.call_soon_threadsafe(self._changed, succeeded)
        return result


def _attributes(record: DeliveryRecord) -> Attributes:
    attributes: Attributes = {
        "http.request.method": record.method if record.method in METHODS else "_OTHER",
        "url.path": record.path[:MAX_LOGGED].decode("latin-1"),
        "url.scheme": "http",
        "http.request.body.size": record.request_bytes,
        "webhook.outcome": record.outcome,
    }
    return attributes | _drop_empty(
        {
            "http.route": record.route.pattern if record.route is not None else "",
            "http.response.status_code": record.status,
            "client.address": record.client,
            "network.peer.address": record.peer or "",
            "webhook.route": record.route_name,
            "webhook.reason": record.reason or "",
            "webhook.shadow_reason": record.shadow_reason or "",
            "webhook.delivery_id": record.delivery_id[:MAX_LOGGED].decode("latin-1"),
            "error.type": (record.reason or "") if record.outcome is Outcome.FAILED else "",
        }
    )


def _verify_attributes(record: DeliveryRecord) -> Attributes:
    attributes = _drop_empty({"webhook.secret": record.secret_id})
    if record.age is not None:
        attributes["webhook.signature_age"] = record.age
    return attributes


def _upstream_attributes(record: DeliveryRecord) -> Attributes:
    route = record.route
    assert route is not None  # a delivery without a route is never forwarded
    attributes: Attributes = {
        "http.request.method": record.method,
        "server.address": route.upstream.host or route.upstream.path,
    }
    return attributes | _drop_empty(
        {
            "http.response.status_code": record.upstream_status,
            "error.type": (record.reason or "") if record.outcome is Outcome.FAILED else "",
        }
    )


def _drop_empty(attributes: Mapping[str, str | int]) -> Attributes:
    return {name: value for name, value in attributes.items() if value}
