"""Which route takes what, and what passes without a signature."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from craft import Craft
from receiver import Receiver
from sidecar_process import Sidecar, Start


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/webhooks",
        b"/webhooks/",
        b"/webhooks/begin",
        b"/webhooks/begini/",
        b"/webhooks/beginix",
        b"/webhooks/Begini",
        b"/WEBHOOKS/begini",
        b"//webhooks/begini",
        b"/webhooks//begini",
        b"/./webhooks/begini",
        b"/x/../webhooks/begini",
        b"/webhooks/begin%69",
        b"/webhooks%2Fbegini",
        b"/webhooks/begini;x",
        b"/webhooks/begini%00",
        b"/webhooks/begini%20",
        b"/webhooks\\begini",
        b"/metrics",
        b"/livez",
        b"/-/config",
        b"/v1/webhooks-management/test",
        b"/healthz/",
        b"/healthz/../webhooks/begini",
    ],
)
def test_a_path_that_no_route_takes_is_404_and_not_forwarded(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], path: bytes
) -> None:
    answer = sidecar.refused(craft.begini(path=path), 404, "no_route", route="", receiver=receiver)
    assert answer.body == b'{"detail":"Not Found"}'


@pytest.mark.parametrize(
    "name", [b"X-Original-URL", b"X-Rewrite-URL", b"X-Forwarded-Uri", b"X-Forwarded-Path", b"X-Forwarded-Prefix"]
)
def test_no_header_chooses_the_path(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: bytes) -> None:
    raw = craft.request(b"/nowhere", [(name, b"/healthz")], b"{}")
    sidecar.refused(raw, 404, "no_route", route="", receiver=receiver)
    raw = craft.request(b"/webhooks/begini", [(name, b"/healthz")], b"{}")
    sidecar.refused(raw, 403, "signature_missing", receiver=receiver)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"PROPFIND"])
def test_another_method_is_405_with_allow_and_not_forwarded(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], method: bytes
) -> None:
    raw = craft.begini(method=method)
    answer = sidecar.refused(raw, 405, "method_not_allowed", receiver=receiver, method=method.decode())
    assert answer.values(b"allow") == [b"POST"]


def test_allow_lists_every_method_of_the_route(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    answer = sidecar.refused(
        craft.request(b"/hooks/x", method=b"GET"),
        405,
        "method_not_allowed",
        route="below",
        receiver=receiver,
        method="GET",
    )
    assert answer.values(b"allow") == [b"POST, PUT"]


@pytest.mark.parametrize("name", [b"X-HTTP-Method-Override", b"X-HTTP-Method", b"X-Method-Override"])
def test_no_header_chooses_the_method(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: bytes) -> None:
    raw = craft.request(headers=[(name, b"POST")], method=b"GET")
    sidecar.refused(raw, 405, "method_not_allowed", receiver=receiver, method="GET")


@pytest.mark.parametrize(
    "path",
    [b"/hooks/", b"/hooks/a", b"/hooks/a/b/c", b"/hooks/a%20b", b"/hooks/a.b", b"/hooks/...", b"/hooks/a?x=/../"],
)
def test_a_prefix_route_takes_everything_below(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], path: bytes
) -> None:
    assert sidecar.ask(craft.begini(path=path)).status == 200
    assert receiver.requests[0].target == path
    assert receiver.requests[0].values(b"X-Webhook-Verified") == [b"below"]


@pytest.mark.parametrize(
    "path",
    [
        b"/hooks",
        b"/hooks/../webhooks/begini",
        b"/hooks/./a",
        b"/hooks/a/..",
        b"/hooks/..;x/a",
        b"/hooks//a",
        b"/hooks/a\\b",
        b"/hooks/%2e%2e/webhooks/begini",
        b"/hooks/%2E./x",
        b"/hooks/a%2fb",
        b"/hooks/a%5cb",
        b"/hooks/%252e%252e/x",
        b"/hooks/a%00b",
    ],
)
def test_an_ambiguous_path_below_a_prefix_is_404(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], path: bytes
) -> None:
    sidecar.refused(craft.begini(path=path), 404, "no_route", route="", receiver=receiver)


def test_an_open_route_passes_unverified(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    mark = sidecar.mark()
    answer = sidecar.ask(craft.request(b"/healthz?deep=1", method=b"GET"), method="GET")
    assert answer.status == 200
    seen = receiver.requests[0]
    assert seen.line == b"GET /healthz?deep=1 HTTP/1.1"
    assert seen.values(b"content-length") == []
    assert seen.values(b"X-Webhook-Verified") == []
    line = sidecar.delivery(mark)
    assert (line["route"], line["outcome"], line["secret"]) == ("probe", "accepted", "")


def test_a_route_by_address_alone_admits_its_network_only(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.request(b"/network", body=b"{}")
    sidecar.refused(raw, 403, "ip_not_allowed", route="network", receiver=receiver)
    sidecar.refused(raw, 403, "ip_not_allowed", route="network", source="127.0.0.4", receiver=receiver)
    assert sidecar.ask(raw, source="127.0.0.3").status == 200
    assert receiver.requests[0].values(b"X-Webhook-Verified") == [b"network"]
    assert receiver.requests[0].values(b"X-Webhook-Secret-Id") == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(
            lambda craft: craft.request(b"/webhooks/shadow", body=craft.json_body), "signature_missing", id="missing"
        ),
        pytest.param(
            lambda craft: craft.request(b"/webhooks/shadow", [(b"X-Signature", b"zz")], craft.json_body),
            "signature_malformed",
            id="malformed",
        ),
        pytest.param(
            lambda craft: craft.begini(path=b"/webhooks/shadow", secret="ACME_SECRET"),
            "signature_mismatch",
            id="mismatch",
        ),
    ],
)
def test_shadow_mode_forwards_and_counts_what_it_would_have_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], spoil: Callable[[type[Craft]], bytes], reason: str
) -> None:
    before = sidecar.metric("shadow_rejections_total", route="shadow", reason=reason)
    mark = sidecar.mark()
    assert sidecar.ask(spoil(craft)).status == 200
    seen = receiver.requests[0]
    assert seen.values(b"X-Webhook-Verified") == [b"shadow-rejected"]
    assert seen.values(b"X-Webhook-Secret-Id") == []
    assert seen.body == craft.json_body
    line = sidecar.delivery(mark)
    assert (line["outcome"], line["reason"], line["shadow_reason"]) == ("accepted", "", reason)
    assert sidecar.metric("shadow_rejections_total", route="shadow", reason=reason) == before + 1


def test_shadow_mode_forwards_from_a_foreign_address_and_counts_it(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    before = sidecar.metric("shadow_rejections_total", route="shadow", reason="ip_not_allowed")
    assert sidecar.ask(craft.begini(path=b"/webhooks/shadow"), source="127.0.0.4").status == 200
    assert receiver.requests[0].values(b"X-Webhook-Verified") == [b"shadow-rejected"]
    assert sidecar.metric("shadow_rejections_total", route="shadow", reason="ip_not_allowed") == before + 1


def test_shadow_mode_says_verified_where_it_is(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    assert sidecar.ask(craft.begini(path=b"/webhooks/shadow")).status == 200
    assert receiver.requests[0].values(b"X-Webhook-Verified") == [b"shadow"]
    assert receiver.requests[0].values(b"X-Webhook-Secret-Id") == [b"current"]


def test_shadow_mode_still_refuses_what_is_no_question_of_verification(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar.refused(
        craft.begini(path=b"/webhooks/shadow", method=b"PUT"),
        405,
        "method_not_allowed",
        route="shadow",
        receiver=receiver,
    )
    raw = craft.request(b"/webhooks/shadow", [(b"Content-Length", b"99999999")])
    sidecar.refused(raw, 413, "body_too_large", route="shadow", receiver=receiver)


def test_random_paths_methods_and_headers_make_no_new_series(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    before = len(sidecar.samples())
    with sidecar.connect() as client:
        for number in range(60):
            client.send(craft.request(b"/random-%d" % number, [(b"User-Agent", b"agent-%d" % number)]))
            assert client.answer().status == 404
    sidecar.settled()
    assert len(sidecar.samples()) == before


def test_a_unix_socket_listener_serves_and_names_no_address(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    path = tmp_path / "data.sock"
    sidecar = start({"listen": f"unix:{path}"})
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini(headers=[(b"X-Forwarded-For", b"192.0.2.66")])).status == 200
    seen = receiver.requests[0]
    assert seen.values(b"X-Forwarded-For") == []
    line = sidecar.delivery(mark)
    assert (line["peer"], line["client"]) == ("unix:", "")
    sidecar.refused(
        craft.begini(path=b"/webhooks/allowed"), 403, "ip_not_allowed", route="allowed", receiver=receiver, source=None
    )
    sidecar.stop()
    assert not path.exists()


def test_a_trusted_proxy_on_the_unix_socket_names_the_client(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    sidecar = start({"listen": f"unix:{tmp_path}/data.sock", "trusted_proxies": ["unix:"]})
    raw = craft.begini(path=b"/webhooks/allowed", headers=[(b"X-Forwarded-For", b"198.51.100.1, 203.0.113.7")])
    mark = sidecar.mark()
    assert sidecar.ask(raw).status == 200
    assert receiver.requests[0].values(b"X-Forwarded-For") == [b"198.51.100.1, 203.0.113.7"]
    assert sidecar.delivery(mark)["client"] == "203.0.113.7"
    receiver.forget()
    raw = craft.begini(path=b"/webhooks/allowed")
    sidecar.refused(raw, 403, "ip_not_allowed", route="allowed", receiver=receiver)


def test_a_socket_file_left_behind_is_taken_over(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    path = tmp_path / "data.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    sidecar = start({"listen": f"unix:{path}"})
    assert sidecar.ask(craft.begini()).status == 200
