"""What Prometheus reads: the counts of one process, or the sums of several, written by prometheus-client.

Writing takes some 10 us a line, and a route has over a hundred lines. So a scrape is written in slices of a few routes
with a turn of the event loop between them: no delivery waits longer than one slice takes, however many routes there are.
(In a thread it would hold the interpreter's lock for 5 ms against each event of the loop.)
"""

import asyncio
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from prometheus_client import samples
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar import __version__
from sidecar.outcomes import Outcome, outcome_of
from sidecar.telemetry.metrics import (
    BODY,
    BUFFERED,
    CODES,
    CODES_AT,
    DELIVERY,
    EVICTIONS_AT,
    EXEMPLAR_SIZE,
    EXEMPLARS,
    EXEMPLARS_SIZE,
    HANDSHAKE_AT,
    HINT_AT,
    IN_FLIGHT,
    LAST_USED,
    MATCHES,
    REASON_AT,
    SHADOW_AT,
    SIGNED_AGE,
    STORE_LOST,
    UNCHECKED_AT,
    UPSTREAM,
    VERIFYING,
    Block,
    Histogram,
    Metrics,
    RouteCounts,
    added,
    exemplar_at,
    exemplar_place,
)

#: Routes in one slice of a scrape.
SLICE = 4
OPENMETRICS_END = b"# EOF\n"

#: Turns a collector's families into text: one of prometheus-client's encoders.
Encode = Callable[[Collector], bytes]

_HISTOGRAMS = (
    ("delivery_seconds", "From the request's head to the end of the answer.", DELIVERY),
    ("verify_seconds", "Computing and comparing MACs.", VERIFYING),
    ("upstream_seconds", "From connecting to the upstream to the end of its answer.", UPSTREAM),
    ("body_bytes", "Size of the deliveries' bodies, as far as they were read.", BODY),
    (
        "signature_age_seconds",
        "Our clock minus the signed timestamp; negative if the sender's clock is ahead.",
        SIGNED_AGE,
    ),
)

Counts = Sequence[tuple[str, RouteCounts]]


class Exposition(Collector):
    """The families of several processes' counts together; of one process, usually."""

    def __init__(self, parts: Sequence[Metrics], workers: Callable[[], tuple[int, int]] = lambda: (1, 0)) -> None:
        """`workers` tells how many processes take deliveries, and how many have ended that should not have."""
        self.parts = parts
        self.workers = workers
        #: Published networks in use: preset, seconds since they were published, failures to fetch them.
        self.ranges: Callable[[], Iterable[tuple[str, float, int]]] = tuple
        #: Secrets that have a day by which they should be out of use: route, secret, unix time.
        self.retirements: Callable[[], Iterable[tuple[str, str, float]]] = tuple
        self.memory_limit = 0  #: bytes; 0 if nobody knows
        self.shared_store = False  #: whether deliveries are remembered in a store that can be lost
        self.reload_successful = True
        self.reload_success_time = 0.0

    def collect(self) -> Iterator[Metric]:
        """All families, for prometheus-client."""
        counts = [(name, self.sum_of(name)) for name in self._names()]
        for family in _ROUTE_FAMILIES:
            yield family(counts)
        yield from self._process_families()

    async def scrape(self, encode: Encode, others: Iterable[Collector] = ()) -> bytes:
        """The whole exposition as text, `others` at its end, made in slices."""
        names = iter(self._names())
        slices: list[Counts] = []
        while some := [(name, self.sum_of(name)) for name in islice(names, SLICE)]:
            slices.append(some)
            await asyncio.sleep(0)
        pieces = []
        for family in _ROUTE_FAMILIES:
            for index, counts in enumerate(slices):
                text = encode(_Families([family(counts)])).removesuffix(OPENMETRICS_END)
                pieces.append(text if index == 0 else _without_comments(text))
                await asyncio.sleep(0)
        rest = [*self._process_families()]
        for other in others:
            rest += other.collect()
        return b"".join((*pieces, encode(_Families(rest))))

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for part in self.parts for name in part.routes))

    def sum_of(self, name: str) -> RouteCounts:
        """The counts of one route, all processes together."""
        of_parts = [part.routes[name] for part in self.parts if name in part.routes]
        total = RouteCounts(added([counts.block for counts in of_parts]))
        total.hints = any(counts.hints for counts in of_parts)
        total.handshakes = any(counts.handshakes for counts in of_parts)
        total.replay = any(counts.replay for counts in of_parts)
        total.exemplars = _newest([counts.exemplars for counts in of_parts if counts.exemplars is not None])
        for secret_id in dict.fromkeys(secret_id for counts in of_parts for secret_id in counts.secrets):
            blocks = [counts.secrets[secret_id] for counts in of_parts if secret_id in counts.secrets]
            total.secrets[secret_id] = secret = added(blocks)
            secret[LAST_USED] = max(block[LAST_USED] for block in blocks)
        return total

    def gauges(self) -> Block:
        """What all processes together hold."""
        return added([part.gauges for part in self.parts])

    def _process_families(self) -> Iterator[Metric]:
        gauges = self.gauges()
        yield GaugeMetricFamily("webhook_sidecar_in_flight", "Deliveries being worked on.", gauges[IN_FLIGHT])
        yield GaugeMetricFamily("webhook_sidecar_buffered_bytes", "Bytes of bodies held in memory.", gauges[BUFFERED])
        if self.memory_limit:
            yield GaugeMetricFamily(
                "webhook_sidecar_memory_limit_bytes",
                "Memory that the program may hold: what its control groups allow, or all that the machine has.",
                self.memory_limit,
            )
        if self.shared_store:
            yield GaugeMetricFamily(
                "webhook_sidecar_replay_store_up",
                "1 if every process that takes deliveries can ask the replay store.",
                int(not gauges[STORE_LOST]),
            )
        serving, exits = self.workers()
        yield GaugeMetricFamily("webhook_sidecar_workers", "Processes that take deliveries.", serving)
        yield CounterMetricFamily(
            "webhook_sidecar_worker_exits", "Worker processes that ended unasked and were replaced.", exits
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
        retire_by = GaugeMetricFamily(
            "webhook_sidecar_secret_retire_by_timestamp_seconds",
            "When a secret should be out of use (retire_by), unix time.",
            labels=("route", "secret"),
        )
        for route, secret, by in self.retirements():
            retire_by.add_metric((route, secret), by)
        yield retire_by
        age = GaugeMetricFamily(
            "webhook_sidecar_ip_ranges_age_seconds",
            "Since a provider's list of networks was fetched, or published if it never was.",
            labels=("preset",),
        )
        failures = CounterMetricFamily(
            "webhook_sidecar_ip_ranges_fetch_failures",
            "Times that a provider's list of networks could not be fetched or read; the last good one was kept.",
            labels=("preset",),
        )
        for preset, seconds, failed in self.ranges():
            age.add_metric((preset,), seconds)
            failures.add_metric((preset,), failed)
        yield from (age, failures)
        build = GaugeMetricFamily(
            "webhook_sidecar_build_info", "Always 1; what is running is in the labels.", labels=("version", "python")
        )
        build.add_metric((__version__, platform.python_version()), 1)
        yield build


class _Families(Collector):
    """Families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def _deliveries(counts: Counts) -> Metric:
    family = CounterMetricFamily(
        "webhook_sidecar_deliveries",
        "Deliveries: answered by the upstream (accepted), refused here (rejected), verified but not answered (failed).",
        labels=("route", "outcome", "reason"),
    )
    for name, route in counts:
        for reason, place in REASON_AT.items():
            labels = (name, Outcome.ACCEPTED, "") if reason is None else (name, outcome_of(reason), reason)
            family.add_metric(labels, route.block[place])
    return family


def _shadow_rejections(counts: Counts) -> Metric:
    family = CounterMetricFamily(
        "webhook_sidecar_shadow_rejections",
        "Deliveries that a route in shadow mode forwarded but would have refused.",
        labels=("route", "reason"),
    )
    for name, route in counts:
        for reason, place in SHADOW_AT.items():
            family.add_metric((name, reason), route.block[place])
    return family


def _upstream_responses(counts: Counts) -> Metric:
    family = CounterMetricFamily(
        "webhook_sidecar_upstream_responses",
        "Answers of the upstream by class of status code.",
        labels=("route", "code"),
    )
    for name, route in counts:
        for index, code in enumerate(CODES):
            family.add_metric((name, code), route.block[CODES_AT + index])
    return family


def _mismatch_hints(counts: Counts) -> Metric:
    family = CounterMetricFamily(
        "webhook_sidecar_mismatch_hints",
        "Refused signatures that were looked into, by what explains them.",
        labels=("route", "hint"),
    )
    for name, route in counts:
        for hint, place in HINT_AT.items() if route.hints else ():
            family.add_metric((name, hint), route.block[place])
    return family


def _handshakes(counts: Counts) -> Metric:
    family = CounterMetricFamily(
        "webhook_sidecar_handshakes",
        "Providers' handshakes: answered here, passed on to the receiver, refused.",
        labels=("route", "result"),
    )
    for name, route in counts:
        for result, place in HANDSHAKE_AT.items() if route.handshakes else ():
            family.add_metric((name, result), route.block[place])
    return family


def _replay_unchecked(counts: Counts) -> Metric:
    family = CounterMetricFamily(
        "webhook_sidecar_replay_unchecked",
        "Deliveries forwarded although the replay store could not be asked (replay_fail_open).",
        labels=("route",),
    )
    for name, route in counts:
        if route.replay:
            family.add_metric((name,), route.block[UNCHECKED_AT])
    return family


def _replay_evictions(counts: Counts) -> Metric:
    family = CounterMetricFamily(
        "webhook_sidecar_replay_evictions",
        "Deliveries forgotten before their time, to remember one of this route in a full memory store.",
        labels=("route",),
    )
    for name, route in counts:
        if route.replay:
            family.add_metric((name,), route.block[EVICTIONS_AT])
    return family


def _secret_matches(counts: Counts) -> Metric:
    family = CounterMetricFamily(
        "webhook_sidecar_secret_matches",
        "Verified deliveries by the secret that matched.",
        labels=("route", "secret"),
    )
    for name, route in counts:
        for secret_id, block in route.secrets.items():
            family.add_metric((name, secret_id), block[MATCHES])
    return family


def _secret_last_used(counts: Counts) -> Metric:
    family = GaugeMetricFamily(
        "webhook_sidecar_secret_last_used_timestamp_seconds",
        "When a secret last matched, unix time; 0 if not since the start.",
        labels=("route", "secret"),
    )
    for name, route in counts:
        for secret_id, block in route.secrets.items():
            family.add_metric((name, secret_id), block[LAST_USED])
    return family


def _histogram(name: str, about: str, places: Histogram) -> Callable[[Counts], Metric]:
    bounds = [*map(repr, places.bounds), "+Inf"]

    def family_of(counts: Counts) -> Metric:
        family = HistogramMetricFamily(f"webhook_sidecar_{name}", about, labels=("route",))
        for route, numbers in counts:
            buckets: list[tuple[str, float] | tuple[str, float, samples.Exemplar]] = []
            running = 0.0
            for index, (bound, count) in enumerate(zip(bounds, numbers.block[places.first : places.sum])):
                running += count
                exemplar = _exemplar(numbers.exemplars, places, index)
                buckets.append((bound, running) if exemplar is None else (bound, running, exemplar))
            family.add_metric((route,), buckets, numbers.block[places.sum])
        return family

    return family_of


_ROUTE_FAMILIES: tuple[Callable[[Counts], Metric], ...] = (
    _deliveries,
    _shadow_rejections,
    _upstream_responses,
    _mismatch_hints,
    _handshakes,
    _replay_unchecked,
    _replay_evictions,
    _secret_matches,
    _secret_last_used,
    *(_histogram(name, about, places) for name, about, places in _HISTOGRAMS),
)


def _exemplar(block: Block | None, places: Histogram, bucket: int) -> samples.Exemplar | None:
    if block is None or places not in EXEMPLARS:
        return None
    found = exemplar_at(block, exemplar_place(places, bucket))
    if found is None:
        return None
    return samples.Exemplar({"trace_id": found.trace_id, "span_id": found.span_id}, found.value, found.time)


def _newest(blocks: Sequence[Block]) -> Block | None:
    """Of each exemplar the one that was written last."""
    if len(blocks) < 2:
        return list(blocks[0]) if blocks else None
    made: list[float] = []
    for place in range(0, EXEMPLARS_SIZE, EXEMPLAR_SIZE):
        there = [list(block[place : place + EXEMPLAR_SIZE]) for block in blocks]
        newest: list[float] = max(there, key=lambda exemplar: exemplar[-1])
        made += newest
    return made


def _without_comments(text: bytes) -> bytes:
    """Without the lines that describe the family: they stand at its beginning."""
    at = 0
    while text.startswith(b"# ", at):
        at = text.index(b"\n", at) + 1
    return text[at:]
