"""All metrics at `/metrics`, in one table: full name, type, labels and help text.

To add a metric, count it, describe it in `METRICS`, and document it in docs/metrics.md. Metrics of routes are read from the
route's counts by a function in the table. The others are yielded by the collector that owns their values, made by `family`.
prometheus-client formats them all.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from prometheus_client import samples
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar import __version__
from sidecar.telemetry.metrics import (
    BODY,
    BUFFERED,
    CAPTURES_AT,
    CODES,
    CODES_AT,
    DELIVERY,
    END_AT,
    EVICTIONS_AT,
    EXEMPLARS,
    HANDSHAKE_AT,
    HINT_AT,
    IN_FLIGHT,
    LAST_USED,
    LINES_DROPPED,
    MATCHES,
    QUESTION_AT,
    SHADOW_AT,
    SIGNED_AGE,
    STORE_LOST,
    UNCHECKED_AT,
    UPSTREAM,
    VERIFYING,
    Block,
    Histogram,
    RouteCounts,
    exemplar_at,
    exemplar_place,
)
from sidecar.telemetry.totals import Totals

#: Label values in the table's order, and the value. In a route's metrics the label `route` is left out.
Sample = tuple[tuple[str, ...], float]
#: The samples of one route.
Read = Callable[[RouteCounts], Iterable[Sample]]


class MetricInfo(NamedTuple):
    """One row of the table."""

    name: str  #: as Prometheus shows it
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    read: Read | Histogram | None = None  #: for metrics of routes


def _ends(counts: RouteCounts) -> Iterator[Sample]:
    return (((outcome, reason or ""), counts.block[place]) for (outcome, reason), place in END_AT.items())


def _questions(counts: RouteCounts) -> Iterator[Sample]:
    return (
        (("rejected" if reason else "allowed", reason or ""), counts.block[place])
        for reason, place in QUESTION_AT.items()
        if counts.authorizes
    )


def _shadow_rejections(counts: RouteCounts) -> Iterator[Sample]:
    return (((reason,), counts.block[place]) for reason, place in SHADOW_AT.items())


def _upstream_responses(counts: RouteCounts) -> Iterator[Sample]:
    return (((code,), counts.block[CODES_AT + index]) for index, code in enumerate(CODES))


def _hints(counts: RouteCounts) -> Iterator[Sample]:
    return (((hint,), counts.block[place]) for hint, place in HINT_AT.items() if counts.hints)


def _handshakes(counts: RouteCounts) -> Iterator[Sample]:
    return (((result,), counts.block[place]) for result, place in HANDSHAKE_AT.items() if counts.handshakes)


def _unchecked(counts: RouteCounts) -> list[Sample]:
    return [((), counts.block[UNCHECKED_AT])] if counts.replay else []


def _evictions(counts: RouteCounts) -> list[Sample]:
    return [((), counts.block[EVICTIONS_AT])] if counts.replay else []


def _captures(counts: RouteCounts) -> list[Sample]:
    return [((), counts.block[CAPTURES_AT])] if counts.captures else []


def _matches(counts: RouteCounts) -> Iterator[Sample]:
    return (((secret_id,), block[MATCHES]) for secret_id, block in counts.secrets.items())


def _last_used(counts: RouteCounts) -> Iterator[Sample]:
    return (((secret_id,), block[LAST_USED]) for secret_id, block in counts.secrets.items())


METRICS: Final = (
    MetricInfo(
        "webhook_sidecar_deliveries_total",
        "counter",
        ("route", "outcome", "reason"),
        "Deliveries by outcome: the upstream responded (accepted), a copy that got 200 from the sidecar "
        "(duplicate), rejected by the sidecar (rejected), verified but without a response from the upstream "
        "(failed).",
        _ends,
    ),
    MetricInfo(
        "webhook_sidecar_authorizations_total",
        "counter",
        ("route", "outcome", "reason"),
        "Questions from gateways on the authorize listener: the delivery may be forwarded (allowed) or not (rejected).",
        _questions,
    ),
    MetricInfo(
        "webhook_sidecar_shadow_rejections_total",
        "counter",
        ("route", "reason"),
        "Deliveries that a route in shadow mode forwarded but would have rejected.",
        _shadow_rejections,
    ),
    MetricInfo(
        "webhook_sidecar_upstream_responses_total",
        "counter",
        ("route", "code"),
        "Responses from the upstream, by class of status code.",
        _upstream_responses,
    ),
    MetricInfo(
        "webhook_sidecar_mismatch_hints_total",
        "counter",
        ("route", "hint"),
        "Diagnosed signature mismatches, by probable cause.",
        _hints,
    ),
    MetricInfo(
        "webhook_sidecar_handshakes_total",
        "counter",
        ("route", "result"),
        "Handshakes from providers: answered by the sidecar, passed on to the receiver, or rejected.",
        _handshakes,
    ),
    MetricInfo(
        "webhook_sidecar_replay_unchecked_total",
        "counter",
        ("route",),
        "Deliveries forwarded although the replay store was unavailable (replay_fail_open).",
        _unchecked,
    ),
    MetricInfo(
        "webhook_sidecar_replay_evictions_total",
        "counter",
        ("route",),
        "Deliveries that a full memory store forgot early in order to remember one of this route.",
        _evictions,
    ),
    MetricInfo(
        "webhook_sidecar_captures",
        "gauge",
        ("route",),
        "Rejected requests that are kept in memory for `sidecar explain`.",
        _captures,
    ),
    MetricInfo(
        "webhook_sidecar_secret_matches_total",
        "counter",
        ("route", "secret"),
        "Verified deliveries, by the secret that matched.",
        _matches,
    ),
    MetricInfo(
        "webhook_sidecar_secret_last_used_timestamp_seconds",
        "gauge",
        ("route", "secret"),
        "Unix time of a secret's last match; 0 if it has not matched since the start.",
        _last_used,
    ),
    MetricInfo(
        "webhook_sidecar_delivery_duration_seconds",
        "histogram",
        ("route",),
        "Time from the request's head to the end of the response.",
        DELIVERY,
    ),
    MetricInfo(
        "webhook_sidecar_verify_duration_seconds",
        "histogram",
        ("route",),
        "Time to compute and compare signatures.",
        VERIFYING,
    ),
    MetricInfo(
        "webhook_sidecar_upstream_duration_seconds",
        "histogram",
        ("route",),
        "Time from connecting to the upstream to the end of its response.",
        UPSTREAM,
    ),
    MetricInfo(
        "webhook_sidecar_body_bytes",
        "histogram",
        ("route",),
        "Size of the part of request bodies that was read.",
        BODY,
    ),
    MetricInfo(
        "webhook_sidecar_signature_age_seconds",
        "histogram",
        ("route",),
        "The sidecar's clock minus the signed timestamp; negative if the sender's clock is ahead.",
        SIGNED_AGE,
    ),
    MetricInfo("webhook_sidecar_in_flight", "gauge", (), "Deliveries in progress."),
    MetricInfo("webhook_sidecar_buffered_bytes", "gauge", (), "Bytes of request bodies held in memory."),
    MetricInfo("webhook_sidecar_replay_store_up", "gauge", (), "1 if every process can reach the replay store."),
    MetricInfo(
        "webhook_sidecar_memory_limit_bytes",
        "gauge",
        (),
        "Memory limit of the program's control groups, or without one the memory of the machine.",
    ),
    MetricInfo("webhook_sidecar_workers", "gauge", (), "Processes that accept deliveries."),
    MetricInfo(
        "webhook_sidecar_worker_exits_total",
        "counter",
        (),
        "Worker processes that exited unexpectedly and were restarted.",
    ),
    MetricInfo(
        "webhook_sidecar_log_lines_dropped_total",
        "counter",
        (),
        "Log lines that were dropped because standard output was stuck or could not be written.",
    ),
    MetricInfo(
        "webhook_sidecar_config_last_reload_successful",
        "gauge",
        (),
        "1 if the last attempt to load the configuration succeeded.",
    ),
    MetricInfo(
        "webhook_sidecar_config_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "Unix time at which a configuration was last loaded successfully.",
    ),
    MetricInfo(
        "webhook_sidecar_secret_retire_by_timestamp_seconds",
        "gauge",
        ("route", "secret"),
        "Unix time by which a secret should no longer be used (retire_by).",
    ),
    MetricInfo(
        "webhook_sidecar_ip_ranges_age_seconds",
        "gauge",
        ("preset",),
        "Time since a provider's list of networks was fetched, or since it was published if it was never fetched.",
    ),
    MetricInfo(
        "webhook_sidecar_ip_ranges_fetch_failures_total",
        "counter",
        ("preset",),
        "Failed attempts to fetch or read a provider's list of networks; the last good list was kept.",
    ),
    MetricInfo(
        "webhook_sidecar_keys_age_seconds",
        "gauge",
        ("source",),
        "Time since the oldest document of a provider's published keys was fetched; +Inf if one was never fetched.",
    ),
    MetricInfo(
        "webhook_sidecar_key_fetches_total",
        "counter",
        ("source", "result"),
        "Attempts to fetch a document of a provider's published keys.",
    ),
    MetricInfo(
        "webhook_sidecar_confirmations_total",
        "counter",
        ("route", "result"),
        "Attempts to confirm a subscription by calling the URL in a verified handshake.",
    ),
    MetricInfo(
        "webhook_sidecar_build_info",
        "gauge",
        ("version", "python"),
        "Always 1; the labels are the version of the program and of Python.",
    ),
)
_BY_NAME: Final = {metric.name: metric for metric in METRICS}
#: Metrics of routes, whose values are in the counts of deliveries.
ROUTE_METRICS: Final = tuple(metric for metric in METRICS if metric.read is not None)

#: Routes and their counts.
Routes = Sequence[tuple[str, RouteCounts]]


def family(name: str, samples: Iterable[Sample]) -> Metric:
    """A metric of the table, with these samples."""
    metric = _BY_NAME[name]
    make = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    result = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        result.add_metric(labels, value)
    return result


def route_family(metric: MetricInfo, routes: Routes) -> Metric:
    """A metric of the table, with the samples of these routes."""
    if isinstance(metric.read, Histogram):
        return _histogram_family(metric, metric.read, routes)
    read = metric.read
    assert read is not None
    return family(metric.name, (((name, *labels), value) for name, counts in routes for labels, value in read(counts)))


class GaugeMetrics(Collector):
    """The current values of the processes that handle deliveries, and the version of the program."""

    def __init__(self, totals: Totals, *, shared_store: bool) -> None:
        """`shared_store`: replay protection uses a store that can become unavailable."""
        self._totals = totals
        self._shared_store = shared_store

    def collect(self) -> Iterator[Metric]:
        gauges = self._totals.gauges()
        yield family("webhook_sidecar_in_flight", [((), gauges[IN_FLIGHT])])
        yield family("webhook_sidecar_buffered_bytes", [((), gauges[BUFFERED])])
        if self._shared_store:
            yield family("webhook_sidecar_replay_store_up", [((), int(not gauges[STORE_LOST]))])
        yield family("webhook_sidecar_build_info", [((__version__, platform.python_version()), 1)])


class LogMetrics(Collector):
    """The metrics of the log lines of all processes."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        """The log's block of each process."""
        self._blocks = tuple(blocks)

    def collect(self) -> Iterator[Metric]:
        dropped = sum(block[LINES_DROPPED] for block in self._blocks)
        yield family("webhook_sidecar_log_lines_dropped_total", [((), dropped)])


def _histogram_family(metric: MetricInfo, places: Histogram, routes: Routes) -> Metric:
    bounds = [*map(repr, places.bounds), "+Inf"]
    result = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for route, counts in routes:
        buckets: list[tuple[str, float] | tuple[str, float, samples.Exemplar]] = []
        running = 0.0
        for index, (bound, count) in enumerate(zip(bounds, counts.block[places.first : places.sum])):
            running += count
            exemplar = _exemplar(counts.exemplars, places, index)
            buckets.append((bound, running) if exemplar is None else (bound, running, exemplar))
        result.add_metric((route,), buckets, counts.block[places.sum])
    return result


def _exemplar(block: Block | None, places: Histogram, bucket: int) -> samples.Exemplar | None:
    if block is None or places not in EXEMPLARS:
        return None
    found = exemplar_at(block, exemplar_place(places, bucket))
    if found is None:
        return None
    return samples.Exemplar({"trace_id": found.trace_id, "span_id": found.span_id}, found.value, found.time)
