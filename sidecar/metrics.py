"""Counts of what happened, for Prometheus.

Counting is done here on plain numbers, one `record(exchange)` per delivery; prometheus-client writes the exposition
when somebody scrapes. Its own counters and histograms take a lock and a Python call for each of the ten values of a
delivery, which is as much time as verifying it. Label values come from the configuration and from closed lists only.
"""

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar import __version__
from sidecar.diagnosis import Hint
from sidecar.exchange import Exchange
from sidecar.handshake import Result
from sidecar.outcomes import VERIFICATION, Outcome, Reason, outcome_of
from sidecar.routes import Route

LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
VERIFY = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)
BYTES = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0)
#: Negative where the sender's clock is ahead of ours.
AGE = (-300.0, -60.0, -5.0, -1.0, 0.0, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 600.0)
CODES = ("1xx", "2xx", "3xx", "4xx", "5xx")


class Histogram:
    """Counts per bucket; `bounds` are inclusive upper bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as the exposition wants them."""
        made: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            running += count
            made.append(("+Inf" if bound == float("inf") else repr(bound), running))
        return made


class RouteCounts:
    """All series of one route, at 0 from the start."""

    __slots__ = (
        "accepted",
        "age",
        "body",
        "codes",
        "delivery",
        "handshakes",
        "hints",
        "last_used",
        "matches",
        "reasons",
        "shadow",
        "upstream",
        "verify",
    )

    def __init__(self, secret_ids: Iterable[str] = ()) -> None:
        self.accepted = 0
        self.reasons = dict.fromkeys(Reason, 0)
        self.shadow = dict.fromkeys(sorted(VERIFICATION), 0)
        self.codes = dict.fromkeys(CODES, 0)
        self.delivery = Histogram(LATENCY)
        self.verify = Histogram(VERIFY)
        self.upstream = Histogram(LATENCY)
        self.body = Histogram(BYTES)
        self.age = Histogram(AGE)
        self.hints: dict[Hint, int] = {}
        self.handshakes: dict[Result, int] = {}
        self.matches = dict.fromkeys(secret_ids, 0)
        self.last_used = dict.fromkeys(secret_ids, 0.0)


class Metrics(Collector):
    """Everything that is counted. `in_flight` is moved by the data path itself."""

    def __init__(self, *, buffered_bytes: Callable[[], int] = int) -> None:
        self.routes: dict[str, RouteCounts] = {"": RouteCounts()}
        self.in_flight = 0
        self.buffered_bytes = buffered_bytes
        self.reload_successful = True
        self.reload_success_time = 0.0

    def configure(self, routes: Iterable[Route]) -> None:
        """Makes every series of these routes exist; what was counted before stays."""
        for route in routes:
            counts = self.routes.setdefault(route.name, RouteCounts())
            if route.verifier is not None:
                counts.hints = dict.fromkeys(Hint, 0) | counts.hints
            if route.handshakes is not None:
                counts.handshakes = dict.fromkeys(Result, 0) | counts.handshakes
            for secret_id in route.secret_ids:
                counts.matches.setdefault(secret_id, 0)
                counts.last_used.setdefault(secret_id, 0.0)

    def record(self, exchange: Exchange, now: float) -> None:
        """Counts one delivery. `now` is unix time in seconds."""
        counts = self.routes[exchange.route_name]
        if exchange.handshake is not None:
            counts.handshakes[exchange.handshake] += 1
            if exchange.handshake is Result.ANSWERED:
                return  # no delivery: the receiver has no part in it
        if exchange.hint is not None:
            counts.hints[exchange.hint] += 1
        if exchange.reason is None:
            counts.accepted += 1
        else:
            counts.reasons[exchange.reason] += 1
        if exchange.shadow_reason is not None:
            counts.shadow[exchange.shadow_reason] += 1
        counts.delivery.observe(exchange.seconds)
        counts.body.observe(exchange.request_bytes)
        if exchange.verify_seconds is not None:
            counts.verify.observe(exchange.verify_seconds)
        if exchange.age is not None:
            counts.age.observe(exchange.age)
        if exchange.secret_id:
            counts.matches[exchange.secret_id] += 1
            counts.last_used[exchange.secret_id] = now
        if exchange.upstream_status:
            counts.codes[CODES[exchange.upstream_status // 100 - 1]] += 1
        if exchange.upstream_seconds is not None:
            counts.upstream.observe(exchange.upstream_seconds)

    def collect(self) -> Iterator[Metric]:
        """All families, for prometheus-client."""
        routes = list(self.routes.items())

        deliveries = CounterMetricFamily(
            "webhook_sidecar_deliveries",
            "Deliveries: answered by the upstream (accepted), refused here (rejected), verified but not answered (failed).",
            labels=("route", "outcome", "reason"),
        )
        shadow = CounterMetricFamily(
            "webhook_sidecar_shadow_rejections",
            "Deliveries that a route in shadow mode forwarded but would have refused.",
            labels=("route", "reason"),
        )
        responses = CounterMetricFamily(
            "webhook_sidecar_upstream_responses",
            "Answers of the upstream by class of status code.",
            labels=("route", "code"),
        )
        hints = CounterMetricFamily(
            "webhook_sidecar_mismatch_hints",
            "Refused signatures that were looked into, by what explains them.",
            labels=("route", "hint"),
        )
        handshakes = CounterMetricFamily(
            "webhook_sidecar_handshakes",
            "Providers' handshakes: answered here, passed on to the receiver, refused.",
            labels=("route", "result"),
        )
        matches = CounterMetricFamily(
            "webhook_sidecar_secret_matches",
            "Verified deliveries by the secret that matched.",
            labels=("route", "secret"),
        )
        last_used = GaugeMetricFamily(
            "webhook_sidecar_secret_last_used_timestamp_seconds",
            "When a secret last matched, unix time; 0 if not since the start.",
            labels=("route", "secret"),
        )
        for name, counts in routes:
            deliveries.add_metric((name, Outcome.ACCEPTED, ""), counts.accepted)
            for reason, count in counts.reasons.items():
                deliveries.add_metric((name, outcome_of(reason), reason), count)
            for reason, count in counts.shadow.items():
                shadow.add_metric((name, reason), count)
            for code, count in counts.codes.items():
                responses.add_metric((name, code), count)
            for hint, count in counts.hints.items():
                hints.add_metric((name, hint), count)
            for result, count in counts.handshakes.items():
                handshakes.add_metric((name, result), count)
            for secret_id, count in counts.matches.items():
                matches.add_metric((name, secret_id), count)
                last_used.add_metric((name, secret_id), counts.last_used[secret_id])
        yield from (deliveries, shadow, responses, hints, handshakes, matches, last_used)

        for attribute, name, about in (
            ("delivery", "delivery_seconds", "From the request's head to the end of the answer."),
            ("verify", "verify_seconds", "Computing and comparing MACs."),
            ("upstream", "upstream_seconds", "From connecting to the upstream to the end of its answer."),
            ("body", "body_bytes", "Size of the deliveries' bodies, as far as they were read."),
            (
                "age",
                "signature_age_seconds",
                "Our clock minus the signed timestamp; negative if the sender's clock is ahead.",
            ),
        ):
            family = HistogramMetricFamily(f"webhook_sidecar_{name}", about, labels=("route",))
            for route, counts in routes:
                histogram: Histogram = getattr(counts, attribute)
                family.add_metric((route,), histogram.buckets(), histogram.total)
            yield family

        yield GaugeMetricFamily("webhook_sidecar_in_flight", "Deliveries being worked on.", self.in_flight)
        yield GaugeMetricFamily(
            "webhook_sidecar_buffered_bytes", "Bytes of bodies held in memory.", self.buffered_bytes()
        )
        yield GaugeMetricFamily(
            "webhook_sidecar_config_last_reload_successful",
            "1 if the last attempt to load the configuration worked.",
            int(self.reload_successful),
        )
        yield GaugeMetricFamily(
            "webhook_sidecar_config_last_reload_success_timestamp_seconds",
            "When a configuration was last loaded, unix time.",
            self.reload_success_time,
        )
        build = GaugeMetricFamily(
            "webhook_sidecar_build_info", "Always 1; what is running is in the labels.", labels=("version", "python")
        )
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
