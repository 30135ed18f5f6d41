"""The admin listener: probes, metrics, the masked configuration, reload."""

import copy
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from craft import Craft
from receiver import Peer, Receiver
from sidecar_process import Config, Sidecar, Start

REASONS = [
    "no_route",
    "method_not_allowed",
    "malformed_request",
    "ip_not_allowed",
    "client_ip_unreadable",
    "signature_missing",
    "signature_malformed",
    "signature_mismatch",
    "timestamp_missing",
    "timestamp_malformed",
    "timestamp_too_old",
    "timestamp_in_future",
    "token_mismatch",
    "claim_mismatch",
    "key_unknown",
    "client_certificate_mismatch",
    "replayed",
    "body_too_large",
    "body_timeout",
    "body_incomplete",
    "headers_too_large",
    "header_timeout",
    "overloaded",
    "draining",
    "rate_limited",
    "replay_store_unavailable",
    "key_unavailable",
    "upstream_unreachable",
    "upstream_timeout",
    "upstream_broke",
    "client_disconnected",
    "internal_error",
]
VERIFICATION = REASONS[3:16]
FAILED = ("upstream_unreachable", "upstream_timeout", "upstream_broke", "client_disconnected", "internal_error")
ENDS = [
    *(("failed" if reason in FAILED else "rejected", reason) for reason in REASONS),
    ("duplicate", "replayed"),
    ("failed", "draining"),
]
ROUTES = [
    "begini",
    "allowed",
    "shadow",
    "small",
    "polite",
    "tls",
    "socket",
    "down",
    "github",
    "shopify",
    "slack",
    "webhooks-acme",
    "below",
    "network",
    "probe",
]


def test_probes_answer_ok(sidecar: Sidecar) -> None:
    assert sidecar.admin("/livez") == (200, b"ok\n")
    assert sidecar.admin("/readyz") == (200, b"ok\n")


def test_the_front_page_names_the_program(sidecar: Sidecar) -> None:
    status, body = sidecar.admin("/")
    assert status == 200
    assert b"webhook-sidecar" in body.lower().replace(b" ", b"-")


@pytest.mark.parametrize("path", ["/nowhere", "/webhooks/begini", "/-/", "/metrics/", "/readyz/x"])
def test_other_paths_of_the_admin_listener_are_404(sidecar: Sidecar, path: str) -> None:
    assert sidecar.admin(path)[0] in (307, 404)


@pytest.mark.parametrize(("path", "method"), [("/metrics", "POST"), ("/-/reload", "GET"), ("/-/config", "DELETE")])
def test_other_methods_of_the_admin_listener_are_405(sidecar: Sidecar, path: str, method: str) -> None:
    assert sidecar.admin(path, method=method)[0] == 405


def test_every_series_exists_at_zero_before_the_first_delivery(start: Start) -> None:
    sidecar = start()
    samples = sidecar.samples()
    for route in ["", *ROUTES]:
        assert (
            samples["deliveries_total", frozenset({"route": route, "outcome": "accepted", "reason": ""}.items())] == 0
        )
        for outcome, reason in ENDS:
            labels = {"route": route, "outcome": outcome, "reason": reason}
            assert samples["deliveries_total", frozenset(labels.items())] == 0
    for route in ROUTES:
        for reason in VERIFICATION:
            assert samples["shadow_rejections_total", frozenset({"route": route, "reason": reason}.items())] == 0
        for code in ("2xx", "3xx", "4xx", "5xx"):
            assert samples["upstream_responses_total", frozenset({"route": route, "code": code}.items())] == 0
        for name in (
            "delivery_duration_seconds",
            "verify_duration_seconds",
            "upstream_duration_seconds",
            "body_bytes",
            "signature_age_seconds",
        ):
            assert samples[f"{name}_bucket", frozenset({"route": route, "le": "+Inf"}.items())] == 0
    for secret in ("current", "previous"):
        secret_labels = frozenset({"route": "begini", "secret": secret}.items())
        assert samples["secret_matches_total", secret_labels] == 0
        assert samples["secret_last_used_timestamp_seconds", secret_labels] == 0
    assert samples["in_flight", frozenset()] == 0
    assert samples["buffered_bytes", frozenset()] == 0
    assert samples["config_last_reload_successful", frozenset()] == 1
    assert samples["config_last_reload_success_timestamp_seconds", frozenset()] > 1e9
    build = [dict(labels) for (name, labels) in samples if name == "build_info"]
    assert [sorted(labels) for labels in build] == [["python", "version"]]
    ends = {
        (dict(labels)["outcome"], dict(labels)["reason"]) for (name, labels) in samples if name == "deliveries_total"
    }
    assert ends == {("accepted", ""), *ENDS}


def test_metrics_are_offered_in_both_expositions(sidecar: Sidecar) -> None:
    status, text = sidecar.admin("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert status == 200
    assert text.endswith(b"# EOF\n")
    assert b"# EOF" not in sidecar.admin("/metrics")[1]


def test_the_process_is_measured_too(sidecar: Sidecar) -> None:
    assert b"process_resident_memory_bytes" in sidecar.admin("/metrics")[1]


def test_a_delivery_is_measured_in_every_histogram(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    def counts() -> list[float]:
        samples = sidecar.samples()
        names = (
            "delivery_duration_seconds",
            "verify_duration_seconds",
            "upstream_duration_seconds",
            "body_bytes",
            "signature_age_seconds",
        )
        return [samples[f"{name}_bucket", frozenset({"route": "slack", "le": "+Inf"}.items())] for name in names]

    before = counts()
    assert sidecar.ask(craft.slack()).status == 200
    assert counts() == [count + 1 for count in before]
    assert sidecar.metric("body_bytes_sum", route="slack") == before[3] * len(craft.json_body) + len(craft.json_body)
    assert sidecar.metric("secret_last_used_timestamp_seconds", route="slack", secret="SLACK_SECRET") > 1e9


def test_the_configuration_is_shown_without_secrets(sidecar: Sidecar) -> None:
    status, body = sidecar.admin("/-/config")
    assert status == 200
    assert b"CANARY" not in body
    shown = json.loads(body)
    assert [route["name"] for route in shown["routes"]] == ROUTES
    assert [secret["id"] for secret in shown["routes"][0]["secrets"]] == ["current", "previous"]
    assert {secret["value"] for route in shown["routes"] for secret in route["secrets"]} == {"<secret>"}


def changed(sidecar: Sidecar, **changes: Any) -> Config:
    return copy.deepcopy(sidecar.config) | changes


@pytest.mark.parametrize("how", ["POST", "SIGHUP"])
def test_a_good_reload_takes_effect(start: Start, receiver: Receiver, craft: type[Craft], how: str) -> None:
    sidecar = start()
    routes = sidecar.config["routes"]
    assert sidecar.ask(craft.begini(path=b"/webhooks/new")).status == 404
    new = {
        "name": "new",
        "path": "/webhooks/new",
        "verify": "begini",
        "secrets": [{"id": "it", "env": "BEGINI_API_KEY"}],
    }
    gone = [route for route in routes if route.get("name") != "small"]
    sidecar.write(changed(sidecar, routes=[*gone, new]))
    mark = sidecar.mark()
    if how == "POST":
        assert sidecar.admin("/-/reload", method="POST")[0] == 200
    else:
        sidecar.send_signal(signal.SIGHUP)
    sidecar.line(mark, event="config_loaded")
    assert sidecar.metric("deliveries_total", route="new", outcome="accepted", reason="") == 0
    assert sidecar.ask(craft.begini(path=b"/webhooks/new")).status == 200
    assert sidecar.ask(craft.begini(path=b"/webhooks/small")).status == 404
    assert sidecar.metric("config_last_reload_successful") == 1


@pytest.mark.parametrize("how", ["POST", "SIGHUP"])
def test_a_bad_reload_is_reported_and_the_old_configuration_keeps_working(
    start: Start, receiver: Receiver, craft: type[Craft], how: str
) -> None:
    sidecar = start()
    loaded = sidecar.metric("config_last_reload_success_timestamp_seconds")
    wrong = {"name": "x", "path": "/x", "verify": "begini", "secrets": [{"env": "ABSENT"}]}
    sidecar.write(changed(sidecar, routes=[wrong, {"path": "/y"}], drian="5s"))
    mark = sidecar.mark()
    if how == "POST":
        status, body = sidecar.admin("/-/reload", method="POST")
        assert status == 400
        problems = json.loads(body)["detail"]
    else:
        sidecar.send_signal(signal.SIGHUP)
        for count in (1, 2, 3):
            sidecar.line(mark, count, event="config_reload_failed")
        problems = [line["detail"] for line in sidecar.lines[mark:]]
    assert len(problems) == 3
    for part in ("ABSENT is not set", "verifies nothing", "did you mean 'drain'"):
        assert any(part in problem for problem in problems), problems
    assert sidecar.metric("config_last_reload_successful") == 0
    assert sidecar.metric("config_last_reload_success_timestamp_seconds") == loaded
    assert sidecar.ask(craft.begini()).status == 200
    sidecar.write(sidecar.config)
    assert sidecar.admin("/-/reload", method="POST")[0] == 200
    assert sidecar.metric("config_last_reload_successful") == 1


@pytest.mark.parametrize("text", ["", "a: [", "routes: &a [*a]\n", "[" * 600, "\0", "- x\n"])
def test_a_broken_file_never_replaces_what_works(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], text: str
) -> None:
    try:
        sidecar.file.write_text(text)
        status, body = sidecar.admin("/-/reload", method="POST")
        assert (status, bool(json.loads(body)["detail"])) == (400, True)
        assert sidecar.ask(craft.begini()).status == 200
    finally:
        sidecar.write(sidecar.config)
        assert sidecar.admin("/-/reload", method="POST")[0] == 200


def test_a_listener_cannot_be_moved_by_a_reload(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    try:
        sidecar.write(changed(sidecar, listen="127.0.0.1:1"))
        status, body = sidecar.admin("/-/reload", method="POST")
        assert (status, b"restart" in body) == (400, True)
    finally:
        sidecar.write(sidecar.config)
        assert sidecar.admin("/-/reload", method="POST")[0] == 200


def test_a_rotated_secret_works_after_the_reload(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    sidecar = start()
    previous = sidecar.directory / "previous"
    previous.write_text("CANARY-SECRET-rotated-in-31d0\n")
    assert sidecar.ask(craft.begini(secret="CANARY-SECRET-rotated-in-31d0")).status == 403
    assert sidecar.admin("/-/reload", method="POST")[0] == 200
    assert sidecar.ask(craft.begini(secret="CANARY-SECRET-rotated-in-31d0")).status == 200
    assert sidecar.ask(craft.begini(secret="CANARY-SECRET-begini-previous-e2d4")).status == 403


def test_a_delivery_in_flight_keeps_the_configuration_it_began_with(
    start: Start, receiver: Receiver, new_receiver: Callable[..., Receiver], craft: type[Craft]
) -> None:
    other = new_receiver()
    sidecar = start()
    release: list[bool] = []

    def script(peer: Peer) -> None:
        peer.read_body()
        while not release:
            peer.socket.settimeout(0.05)
            if peer.gone(0.05):
                return
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")

    receiver.then(script)
    with sidecar.connect() as client:
        client.send(craft.begini())
        receiver.wait()
        sidecar.write(changed(sidecar, upstream=other.url))
        assert sidecar.admin("/-/reload", method="POST")[0] == 200
        with sidecar.connect() as second:
            assert second.send(craft.begini()).answer().body == b"ok"
        assert (len(receiver.requests), len(other.requests)) == (1, 1)
        release.append(True)
        assert client.answer().body == b"old"
