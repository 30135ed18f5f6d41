"""Spans of deliveries for an OpenTelemetry collector: functions of the same record as log and metrics.

The SDK's batch processor and OTLP/HTTP exporter do the sending, in a thread of theirs, and drop what does not fit into
their queue. Nothing of opentelemetry is imported before a `Tracing` is made; it comes with the extra `otel`.

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
from sidecar.telemetry.log import MAX_SHOWN
from sidecar.telemetry.record import DeliveryRecord
from sidecar.telemetry.trace_context import Sampler, TracingSettings

#: How long the last spans may take to leave, seconds.
LAST_SECONDS = 1.0
#: Methods that a span is named by; others are one name, because strangers make them up.
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

#: Attributes of a span.
Attributes = dict[str, str | int | float | bool]


class Tracing:
    """`sampler` says what is traced; `record` is given what it said."""

    def __init__(
        self, settings: TracingSettings, loop: asyncio.AbstractEventLoop, changed: Callable[[bool], None]
    ) -> None:
        """`changed` is told, in the loop, when the collector takes spans no longer, and when it does again."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk import resources, trace  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags  # noqa: PLC0415

        for name in ("opentelemetry", "urllib3"):  # they would write to standard error, a line for each failure
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self.sampler = Sampler(settings.sample, random.getrandbits)
        self._loop = loop
        exporter = OTLPSpanExporter(endpoint=settings.traces_url)
        watched = _Watched(exporter.export, exporter.shutdown, loop, changed, SpanExportResult.SUCCESS)
        self._processor = BatchSpanProcessor(watched)  # type: ignore[arg-type]  # all that it calls is there
        own = resources.Resource({"service.name": "webhook-sidecar", "service.version": __version__})
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
        self._resource = own.merge(resources.OTELResourceDetector().detect())
        self._scope = InstrumentationScope("webhook-sidecar", __version__)
        self._flags = TraceFlags(TraceFlags.SAMPLED)
        self._context, self._span = SpanContext, trace.ReadableSpan
        self._server, self._client, self._internal = SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL
        self._unset, self._error = Status(StatusCode.UNSET), Status(StatusCode.ERROR)

    def record(self, exchange: DeliveryRecord, ended: float, offset: float) -> None:
        """The spans of one delivery. `ended` is by the monotonic clock; with `offset` added that is unix time."""
        trace = exchange.trace
        assert trace is not None
        failed = exchange.outcome is Outcome.FAILED
        if trace.verify_began is not None and exchange.verify_seconds is not None:
            self._end(
                "verify",
                (trace.trace_id, random.getrandbits(64) or 1, trace.span_id),
                kind=self._internal,
                began=trace.verify_began + offset,
                ended=trace.verify_began + exchange.verify_seconds + offset,
                attributes=_verify_attributes(exchange),
            )
        if trace.upstream_began is not None:
            seconds = exchange.upstream_seconds
            self._end(
                "upstream",
                (trace.trace_id, trace.upstream_id, trace.span_id),
                kind=self._client,
                began=trace.upstream_began + offset,
                ended=(ended if seconds is None else trace.upstream_began + seconds) + offset,
                attributes=_upstream_attributes(exchange),
                failed=failed or exchange.upstream_status >= 400,
            )
        method = exchange.method if exchange.method in METHODS else "HTTP"
        self._end(
            f"{method} {exchange.route.pattern}" if exchange.route is not None else method,
            (trace.trace_id, trace.span_id, trace.parent_id),
            kind=self._server,
            began=exchange.started + offset,
            ended=ended + offset,
            attributes=_attributes(exchange),
            failed=failed or exchange.status >= 500,
        )

    def _end(
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
        """`ids`: of the trace, the span, and its parent or 0. Times are unix time."""
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
        """What is left leaves, if it can before `until` (loop time)."""
        closed = asyncio.Event()

        def close() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=close, daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closed.wait(), min(until - self._loop.time(), LAST_SECONDS))


class _Watched:
    """An exporter, and whether its last attempt succeeded."""

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
        self._good = True

    def export(self, spans: Sequence[Any]) -> Any:
        """In the processor's thread."""
        result = None
        try:
            result = self._export(spans)
        finally:
            good = result is self._success
            if good is not self._good:
                self._good = good
                with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody to tell
                    self._loop.call_soon_threadsafe(self._changed, good)
        return result


def _attributes(exchange: DeliveryRecord) -> Attributes:
    made: Attributes = {
        "http.request.method": exchange.method if exchange.method in METHODS else "_OTHER",
        "url.path": exchange.path[:MAX_SHOWN].decode("latin-1"),
        "url.scheme": "http",
        "http.request.body.size": exchange.request_bytes,
        "webhook.outcome": exchange.outcome,
    }
    return made | _present(
        {
            "http.route": exchange.route.pattern if exchange.route is not None else "",
            "http.response.status_code": exchange.status,
            "client.address": exchange.client,
            "network.peer.address": exchange.peer or "",
            "webhook.route": exchange.route_name,
            "webhook.reason": exchange.reason or "",
            "webhook.shadow_reason": exchange.shadow_reason or "",
            "webhook.delivery_id": exchange.delivery_id[:MAX_SHOWN].decode("latin-1"),
            "error.type": (exchange.reason or "") if exchange.outcome is Outcome.FAILED else "",
        }
    )


def _verify_attributes(exchange: DeliveryRecord) -> Attributes:
    made = _present({"webhook.secret": exchange.secret_id})
    if exchange.age is not None:
        made["webhook.signature_age"] = exchange.age
    return made


def _upstream_attributes(exchange: DeliveryRecord) -> Attributes:
    route = exchange.route
    assert route is not None  # without one nothing is forwarded
    made: Attributes = {
        "http.request.method": exchange.method,
        "server.address": route.upstream.host or route.upstream.path,
    }
    return made | _present(
        {
            "http.response.status_code": exchange.upstream_status,
            "error.type": (exchange.reason or "") if exchange.outcome is Outcome.FAILED else "",
        }
    )


def _present(made: Mapping[str, str | int]) -> Attributes:
    return {name: value for name, value in made.items() if value}
