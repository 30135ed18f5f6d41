"""What is counted, as Prometheus reads it."""

import asyncio
import platform
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from sidecar import __version__
from sidecar.outcomes import ENDS, VERIFICATION, Outcome, Reason
from sidecar.telemetry.metrics import AGE, BUFFERED, BYTES, IN_FLIGHT, LATENCY, STORE_LOST, VERIFY, Metrics
from sidecar.telemetry.process_metrics import ProcessMetrics
from sidecar.telemetry.prometheus import family
from sidecar.telemetry.record import DeliveryRecord
from sidecar.telemetry.scrape import Scraper
from sidecar.telemetry.shared_counts import SharedCounts
from sidecar.telemetry.totals import Totals

Sample = tuple[str, frozenset[tuple[str, str]]]


def scrape(*parts: Metrics, shared_store: bool = False) -> dict[Sample, float]:
    """Every series of a scrape, read back by prometheus-client's own parser."""
    scraper = Scraper(Totals(parts), shared_store=shared_store)
    samples: dict[Sample, float] = {}
    for metric in text_string_to_metric_families(asyncio.run(scraper.scrape(generate_latest)).decode()):
        assert metric.documentation
        for sample in metric.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, f"{key} is exposed twice"
            samples[key] = sample.value
    return samples


def series(name: str, **labels: str) -> Sample:
    return "webhook_sidecar_" + name, frozenset(labels.items())


@pytest.fixture
def metrics(make_route: Any) -> Metrics:
    metrics = Metrics()
    metrics.configure(
        [
            make_route("/hooks/acme", name="acme", secrets=["next", "current"]),
            make_route("/open", name="open", secrets=[]),
        ]
    )
    return metrics


@pytest.fixture
def finished(make_route: Any) -> Any:
    """`finished(name, field=value, ...)`: an record at its end."""

    def make(name: str = "acme", **fields: Any) -> DeliveryRecord:
        record = DeliveryRecord(number=1, peer="192.0.2.1", started=0.0)
        record.route = make_route("/hooks/acme", name=name) if name else None
        for field, value in fields.items():
            setattr(record, field, value)
        return record

    return make


def test_every_series_of_a_configured_route_exists_at_0_before_the_first_delivery(metrics: Metrics) -> None:
    expected = set()
    for route in ("", "acme", "open"):
        expected |= {
            series("deliveries_total", route=route, outcome=outcome, reason=reason or "") for outcome, reason in ENDS
        }
        expected |= {series("shadow_rejections_total", route=route, reason=reason) for reason in VERIFICATION}
        expected |= {
            series("upstream_responses_total", route=route, code=code) for code in ("2xx", "3xx", "4xx", "5xx")
        }
        for name in (
            "delivery_duration_seconds",
            "verify_duration_seconds",
            "upstream_duration_seconds",
            "body_bytes",
            "signature_age_seconds",
        ):
            expected.add(series(f"{name}_bucket", route=route, le="+Inf"))
            if name != "signature_age_seconds":
                expected |= {series(f"{name}_count", route=route), series(f"{name}_sum", route=route)}
    for secret in ("next", "current"):
        expected.add(series("secret_matches_total", route="acme", secret=secret))
        expected.add(series("secret_last_used_timestamp_seconds", route="acme", secret=secret))
    expected |= {series("in_flight"), series("buffered_bytes")}
    samples = scrape(metrics)
    assert expected - samples.keys() == set()
    constant = {series("build_info", version=__version__, python=platform.python_version())}
    assert constant <= samples.keys()
    assert {key: value for key, value in samples.items() if value != 0 and key not in constant} == {}


def test_no_label_has_a_name_that_the_contract_does_not_give_it(metrics: Metrics) -> None:
    names = {name for _, labels in scrape(metrics) for name, _ in labels}
    assert names == {"route", "outcome", "reason", "code", "hint", "secret", "le", "version", "python"}


def test_an_accepted_delivery_is_counted_in_every_series_that_it_touches(metrics: Metrics, finished: Any) -> None:
    record = finished(
        seconds=0.02,
        request_bytes=300,
        verify_seconds=0.00003,
        age=-2.5,
        secret_id="current",
        upstream_status=204,
        upstream_seconds=0.01,
    )
    before = scrape(metrics)
    metrics.record(record, 1_700_000_000.5)
    after = scrape(metrics)
    changed = {key: after[key] for key in after if after[key] != before[key] and not key[0].endswith("_bucket")}
    assert changed == {
        series("deliveries_total", route="acme", outcome="accepted", reason=""): 1,
        series("upstream_responses_total", route="acme", code="2xx"): 1,
        series("secret_matches_total", route="acme", secret="current"): 1,
        series("secret_last_used_timestamp_seconds", route="acme", secret="current"): 1_700_000_000.5,
        series("delivery_duration_seconds_count", route="acme"): 1,
        series("delivery_duration_seconds_sum", route="acme"): 0.02,
        series("verify_duration_seconds_count", route="acme"): 1,
        series("verify_duration_seconds_sum", route="acme"): 0.00003,
        series("upstream_duration_seconds_count", route="acme"): 1,
        series("upstream_duration_seconds_sum", route="acme"): 0.01,
        series("body_bytes_count", route="acme"): 1,
        series("body_bytes_sum", route="acme"): 300,
    }
    assert after[series("signature_age_seconds_bucket", route="acme", le="-5.0")] == 0
    assert after[series("signature_age_seconds_bucket", route="acme", le="-1.0")] == 1


@pytest.mark.parametrize(("outcome", "reason"), ENDS)
def test_a_delivery_is_counted_once_under_its_outcome_and_reason(
    metrics: Metrics, finished: Any, outcome: Outcome, reason: Reason | None
) -> None:
    metrics.record(finished(reason=reason, outcome=outcome), 0.0)
    counted = {key: value for key, value in scrape(metrics).items() if key[0].endswith("deliveries_total") and value}
    assert counted == {series("deliveries_total", route="acme", outcome=outcome, reason=reason or ""): 1}


def test_a_copy_is_a_duplicate_or_rejected_and_a_drain_rejects_or_cuts_off(metrics: Metrics, finished: Any) -> None:
    """One reason with two outcomes is counted apart."""
    ends = [
        (Outcome.DUPLICATE, Reason.REPLAYED),
        (Outcome.REJECTED, Reason.REPLAYED),
        (Outcome.REJECTED, Reason.DRAINING),
        (Outcome.FAILED, Reason.DRAINING),
    ]
    for count, (outcome, reason) in enumerate(ends, 1):
        for _ in range(count):
            metrics.record(finished(reason=reason, outcome=outcome), 0.0)
    samples = scrape(metrics)
    counted = [samples[series("deliveries_total", route="acme", outcome=end[0], reason=end[1])] for end in ends]
    assert counted == [1, 2, 3, 4]


@pytest.mark.parametrize("reason", sorted(VERIFICATION))
def test_a_rejection_in_shadow_mode_is_counted_beside_the_accepted_delivery(
    metrics: Metrics, finished: Any, reason: Reason
) -> None:
    metrics.record(finished(shadow_reason=reason, outcome=Outcome.ACCEPTED), 0.0)
    samples = scrape(metrics)
    assert samples[series("shadow_rejections_total", route="acme", reason=reason)] == 1
    assert samples[series("deliveries_total", route="acme", outcome="accepted", reason="")] == 1


def test_a_request_that_no_route_took_counts_under_the_empty_route(metrics: Metrics, finished: Any) -> None:
    metrics.record(finished("", reason=Reason.NO_ROUTE, outcome=Outcome.REJECTED, path=b"/wp-admin"), 0.0)
    samples = scrape(metrics)
    assert samples[series("deliveries_total", route="", outcome="rejected", reason="no_route")] == 1
    assert not [key for key in samples if "wp-admin" in str(key)]


@pytest.mark.parametrize(
    ("status", "code"), [(200, "2xx"), (299, "2xx"), (301, "3xx"), (404, "4xx"), (500, "5xx"), (599, "5xx")]
)
def test_answers_of_the_upstream_are_counted_by_class(metrics: Metrics, finished: Any, status: int, code: str) -> None:
    metrics.record(finished(upstream_status=status), 0.0)
    counted = {
        key: value for key, value in scrape(metrics).items() if key[0].endswith("upstream_responses_total") and value
    }
    assert counted == {series("upstream_responses_total", route="acme", code=code): 1}


def test_what_was_not_measured_is_not_observed(metrics: Metrics, finished: Any) -> None:
    metrics.record(finished(), 0.0)
    samples = scrape(metrics)
    for name in ("verify_duration_seconds", "upstream_duration_seconds", "signature_age_seconds"):
        assert samples[series(f"{name}_bucket", route="acme", le="+Inf")] == 0


def test_configuring_again_keeps_what_was_counted_and_adds_what_is_new(
    metrics: Metrics, finished: Any, make_route: Any
) -> None:
    metrics.record(finished(secret_id="current"), 5.0)
    metrics.configure(
        [make_route("/hooks/acme", name="acme", secrets=["current", "third"]), make_route("/new", name="new")]
    )
    samples = scrape(metrics)
    assert samples[series("secret_matches_total", route="acme", secret="current")] == 1
    assert samples[series("secret_matches_total", route="acme", secret="third")] == 0
    assert samples[series("secret_last_used_timestamp_seconds", route="acme", secret="current")] == 5
    assert samples[series("deliveries_total", route="acme", outcome="accepted", reason="")] == 1
    assert samples[series("deliveries_total", route="new", outcome="accepted", reason="")] == 0


def test_gauges_show_the_moment(metrics: Metrics) -> None:
    metrics.gauges[IN_FLIGHT] = 3
    metrics.gauges[BUFFERED] = 4096
    samples = scrape(metrics)
    assert samples[series("in_flight")] == 3
    assert samples[series("buffered_bytes")] == 4096
    assert series("replay_store_up") not in samples


@pytest.mark.parametrize("lost", [0.0, 1.0])
def test_the_shared_replay_store_is_up_while_every_process_can_reach_it(lost: float) -> None:
    parts = [Metrics(), Metrics()]
    parts[1].gauges[STORE_LOST] = lost
    assert scrape(*parts, shared_store=True)[series("replay_store_up")] == 1 - lost


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_a_scrape_in_slices_is_byte_for_byte_what_the_library_writes_at_once(accept: str, make_route: Any) -> None:
    metrics = Metrics()
    metrics.configure(make_route(f"/hooks/{number}", name=f"r{number}") for number in range(11))

    class Owner(Collector):
        def collect(self) -> list[Metric]:
            return [family("webhook_sidecar_workers", [((), 2)])]

    scraper, registry = Scraper(Totals([metrics])), CollectorRegistry()
    scraper.registry.register(Owner())
    registry.register(scraper)
    encode, _ = choose_encoder(accept)
    text = asyncio.run(scraper.scrape(encode))
    assert text == encode(registry)
    assert b"\nwebhook_sidecar_workers 2.0\n" in text


def test_the_event_loop_turns_while_many_routes_are_written(make_route: Any) -> None:
    metrics = Metrics()
    metrics.configure(make_route(f"/hooks/{number}", name=f"r{number}") for number in range(100))

    async def turns_during_a_scrape() -> int:
        scrape = asyncio.create_task(Scraper(Totals([metrics])).scrape(generate_latest))
        turns = 0
        while not scrape.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(turns_during_a_scrape()) > 200


def test_a_delivery_that_ends_during_a_scrape_is_in_flight_or_counted(metrics: Metrics, finished: Any) -> None:
    async def text_of_a_scrape() -> str:
        metrics.gauges[IN_FLIGHT] = 1
        scrape = asyncio.create_task(Scraper(Totals([metrics])).scrape(generate_latest))
        await asyncio.sleep(0)  # it has begun, and read the counts of the routes
        metrics.record(finished(outcome=Outcome.ACCEPTED), 0.0)
        metrics.gauges[IN_FLIGHT] = 0
        return (await scrape).decode()

    text = asyncio.run(text_of_a_scrape())
    counted = 'webhook_sidecar_deliveries_total{outcome="accepted",reason="",route="acme"} 1.0\n' in text
    assert counted or "webhook_sidecar_in_flight 1.0\n" in text


def test_the_counts_of_workers_are_added_up_and_the_latest_use_of_a_secret_is_shown(
    make_route: Any, finished: Any
) -> None:
    ledger = SharedCounts.create(2)
    routes = [make_route("/hooks/acme", name="acme", secrets=["current"])]
    parts = [Metrics(ledger.allocator(worker)) for worker in range(2)]
    for part in parts:
        part.configure(routes)
    # A worker that finds its places by what its parent tells, as in a process of its own.
    worker = Metrics(SharedCounts(ledger.fd, 2, dict(ledger.places)).allocator(1))
    worker.configure(routes)
    parts[0].record(finished(secret_id="current", seconds=0.5, request_bytes=10), 20.0)
    worker.record(finished(secret_id="current", seconds=0.25, request_bytes=5), 10.0)
    worker.record(finished(reason=Reason.NO_ROUTE, outcome=Outcome.REJECTED), 11.0)
    worker.gauges[IN_FLIGHT] = 2
    samples = scrape(*parts)
    assert samples[series("deliveries_total", route="acme", outcome="accepted", reason="")] == 2
    assert samples[series("deliveries_total", route="acme", outcome="rejected", reason="no_route")] == 1
    assert samples[series("delivery_duration_seconds_sum", route="acme")] == 0.75
    assert samples[series("body_bytes_count", route="acme")] == 3
    assert samples[series("secret_matches_total", route="acme", secret="current")] == 2
    assert samples[series("secret_last_used_timestamp_seconds", route="acme", secret="current")] == 20
    assert samples[series("in_flight")] == 2
    # The worker's replacement counts on.
    successor = Metrics(SharedCounts(ledger.fd, 2, dict(ledger.places)).allocator(1))
    successor.configure(routes)
    successor.record(finished(), 30.0)
    assert scrape(*parts)[series("deliveries_total", route="acme", outcome="accepted", reason="")] == 3


def test_places_in_the_ledger_stay_when_the_configuration_changes(make_route: Any, finished: Any) -> None:
    ledger = SharedCounts.create(1)
    metrics = Metrics(ledger.allocator(0))
    metrics.configure([make_route("/a", name="a", secrets=["one"])])
    metrics.record(finished("a", secret_id="one"), 1.0)
    later = Metrics(ledger.allocator(0))
    later.configure([make_route("/b", name="b"), make_route("/a", name="a", secrets=["two", "one"])])
    samples = scrape(later)
    assert samples[series("secret_matches_total", route="a", secret="one")] == 1
    assert samples[series("secret_matches_total", route="a", secret="two")] == 0
    assert samples[series("deliveries_total", route="b", outcome="accepted", reason="")] == 0


@pytest.mark.parametrize("bounds", [LATENCY, VERIFY, BYTES, AGE])
def test_the_bounds_of_every_histogram_rise(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_buckets_are_cumulative_and_their_bounds_inclusive(metrics: Metrics, finished: Any) -> None:
    for age in (-301, -300, -2.5, -1, 0, 0.5, 600, 600.1, 1e9):
        metrics.record(finished(age=age), 0.0)
    name = "signature_age_seconds_bucket"
    buckets = {
        dict(labels)["le"]: value
        for (sample, labels), value in scrape(metrics).items()
        if sample == f"webhook_sidecar_{name}" and ("route", "acme") in labels
    }
    counted = [2, 2, 2, 4, 5, 6, 6, 6, 6, 6, 6, 7, 9]
    assert buckets == dict(zip([*map(repr, AGE), "+Inf"], counted, strict=True))


@pytest.mark.parametrize("name", ["delivery_duration_seconds", "body_bytes", "signature_age_seconds"])
def test_exposed_buckets_rise_to_the_number_of_deliveries(metrics: Metrics, finished: Any, name: str) -> None:
    for seconds in (0.0001, 0.3, 1000.0):
        metrics.record(finished(seconds=seconds, request_bytes=int(seconds * 1e6), age=seconds), 0.0)
    buckets = {
        float(dict(labels)["le"]): value
        for (sample, labels), value in scrape(metrics).items()
        if sample == f"webhook_sidecar_{name}_bucket" and ("route", "acme") in labels
    }
    counts = [buckets[bound] for bound in sorted(buckets)]
    assert counts == sorted(counts)
    assert counts[-1] == 3


def test_a_histogram_with_negative_bounds_has_buckets_but_no_count_and_no_sum(metrics: Metrics, finished: Any) -> None:
    """OpenMetrics forbids a sum that can fall; so panels of the signature's age are made of its buckets."""
    metrics.record(finished(age=-2.5), 0.0)
    names = {name for name, _ in scrape(metrics) if "signature_age" in name}
    assert names == {"webhook_sidecar_signature_age_seconds_bucket"}


class Group:
    """Processes as `ProcessMetrics` needs them."""

    exits = 3
    serving = 2
    pids: tuple[int, ...] = ()


@pytest.mark.parametrize(("limit", "shown"), [(1 << 30, [1 << 30]), (0, [])])
def test_the_processes_and_a_known_memory_limit_are_shown(limit: int, shown: list[int]) -> None:
    values = {
        metric.name: [sample.value for sample in metric.samples] for metric in ProcessMetrics(Group(), limit).collect()
    }
    assert values["webhook_sidecar_workers"] == [2]
    assert values["webhook_sidecar_worker_exits"] == [3]
    assert values.get("webhook_sidecar_memory_limit_bytes", []) == shown
    assert values["process_resident_memory_bytes"][0] > 1_000_000
