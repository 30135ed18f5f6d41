"""The authorize listener: what gateways ask, in both forms, and what they are told. Nothing reaches a receiver."""

import gzip
import hmac
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import leak_watch
import pytest
from client import Client, Response
from craft import SECRETS, Craft
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start
from standardwebhooks import Webhook
from waiting import until

#: The secret that receivers verify with.
WHSEC = "whsec_" + "Y2FuYXJ5LXNpZ25pbmctc2VjcmV0LTAx"
ENV = {"APP_SECRET": WHSEC}
leak_watch.marker(WHSEC.encode())


def begini(name: str, **more: Any) -> Config:
    secrets = [{"id": "current", "env": "BEGINI_API_KEY"}]
    return {"name": name, "path": f"/webhooks/{name}", "verify": "begini", "secrets": secrets} | more


CONFIG: Config = {
    "authorize": {"listen": "127.0.0.1:0"},
    "upstream": None,
    "routes": [
        begini("begini"),
        begini("allowed", allow=["203.0.113.0/24"]),
        begini("shadow", mode="shadow"),
        begini("small", limits={"body": 1000}),
        begini("polite", reject={"status": 401, "body": '{"error":"no"}'}),
        begini("signed", sign={"secret": {"env": "APP_SECRET"}}),
        begini("signed-shadow", mode="shadow", sign={"secret": {"env": "APP_SECRET"}}),
        begini("hosted", hosts=["one.example"]),
        begini(
            "changed",
            headers={"set": {"X-Env": "prod", "X-Key": {"env": "OTHER_API_KEY"}}, "remove": ["X-Internal-*"]},
        ),
        begini("lost", replay={"for": "10m", "on_failure": "lost"}),
        begini("repeat", replay={"for": "10m", "on_failure": "allow_repeat"}),
        begini("below", path="/hooks/*", methods=["POST", "PUT"]),
        {
            "name": "token",
            "path": "/webhooks/token",
            "verify": {"signature": {"header": "X-Token", "kind": "token"}},
            "secrets": [{"id": "only", "env": "ACME_SECRET"}],
        },
        {
            "name": "inside",
            "path": "/webhooks/inside",
            "verify": {"signature": {"field": "sig"}, "signed": "{json:id}", "binds_body": False},
            "secrets": [{"env": "ACME_SECRET"}],
        },
        {"name": "meta", "path": "/webhooks/meta", "verify": "meta", "secrets": [{"env": "ACME_SECRET"}]}
        | {"verify_token": {"env": "OTHER_API_KEY"}},
        {"name": "network", "path": "/network", "verify": "none", "allow": ["127.0.0.1/32", "198.51.100.0/24"]},
        {"name": "probe", "path": "/healthz", "open": True},
    ],
}
FORBIDDEN = b'{"detail":"Validation Failure"}'


def ask(
    sidecar: Sidecar, raw: bytes, *, source: str | None = None, method: str = "POST"
) -> tuple[Response, dict[str, Any]]:
    """The response to a question, and its log line."""
    mark = sidecar.mark()
    with Client(sidecar.authorize_address, source=source) as client:
        answer = client.send(raw).answer(method)
    # The route `changed` has a secret for the receiver.
    leak_watch.shown("an authorizer's answer", answer.raw.replace(SECRETS["OTHER_API_KEY"].encode(), b""))
    return answer, sidecar.line(mark, event="authorization")


def allowed(sidecar: Sidecar, raw: bytes, *, route: str = "begini", **more: Any) -> Response:
    before = sidecar.metric("authorizations_total", route=route, outcome="allowed", reason="")
    answer, line = ask(sidecar, raw, **more)
    assert (answer.status, answer.body) == (200, b""), answer
    assert (line["outcome"], line["reason"], line["route"], line["status"]) == ("allowed", "", route, 200)
    assert sidecar.metric("authorizations_total", route=route, outcome="allowed", reason="") == before + 1
    return answer


def assert_without_own_fields(answer: Response) -> None:
    assert not [name for name in answer.names if name.lower().startswith((b"x-webhook", b"x-envoy", b"webhook-"))]


def rejected(
    sidecar: Sidecar, raw: bytes, status: int, reason: str, *, route: str = "begini", **more: Any
) -> tuple[Response, str]:
    """The response, and the detail of the log line."""
    before = sidecar.metric("authorizations_total", route=route, outcome="rejected", reason=reason)
    answer, line = ask(sidecar, raw, **more)
    assert (answer.status, line["reason"], line["route"], line["outcome"]) == (status, reason, route, "rejected"), line
    assert_without_own_fields(answer)
    assert sidecar.metric("authorizations_total", route=route, outcome="rejected", reason=reason) == before + 1
    return answer, line.get("detail", "")


def forward_auth(
    raw: bytes, *, body: bool = True, host: bytes = b"hooks.test", fields: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """The question that Traefik makes of a delivery."""
    head, _, content = raw.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    method, target, _ = line.split(b" ")
    kept = [each for each in lines if not each.lower().startswith((b"host:", b"content-length:"))]
    given = [
        (b"X-Forwarded-For", b"203.0.113.7"),
        (b"X-Forwarded-Host", host),
        (b"X-Forwarded-Method", method),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Uri", target),
    ]
    names = {name for name, _ in fields}
    given = [*(each for each in given if each[0] not in names), *(each for each in fields if each[1])]
    kept += [b"%b: %b" % each for each in given]
    if body and content:
        kept.append(b"Content-Length: %d" % len(content))
    made = b"\r\n".join([b"GET /question HTTP/1.1", b"Host: authorizer:8081", *kept]) + b"\r\n\r\n"
    return made + (content if body else b"")


# -- Envoy's form --


def test_a_signed_delivery_is_allowed_and_says_by_which_route_and_secret(sidecar: Sidecar, craft: type[Craft]) -> None:
    answer = allowed(sidecar, craft.begini())
    assert answer.values(b"x-webhook-verified") == [b"begini"]
    assert answer.values(b"x-webhook-secret-id") == [b"current"]
    assert answer.values(b"x-webhook-client") == [b"127.0.0.1"]
    assert answer.values(b"content-length") == [b"0"]
    assert answer.values(b"x-envoy-auth-headers-to-remove") == [b"x-webhook-tenant"]


def test_a_forged_delivery_gets_the_routes_own_rejection(sidecar: Sidecar, craft: type[Craft]) -> None:
    forged = craft.begini(secret="somebody else's")
    answer, _ = rejected(sidecar, forged, 403, "signature_mismatch")
    assert answer.body == FORBIDDEN
    forged = craft.begini(secret="somebody else's", path=b"/webhooks/polite")
    answer, _ = rejected(sidecar, forged, 401, "signature_mismatch", route="polite")
    assert answer.body == b'{"error":"no"}'


def test_questions_are_not_counted_as_deliveries(sidecar: Sidecar, craft: type[Craft]) -> None:
    before = {key: value for key, value in sidecar.samples("deliveries").items() if key[0] == "deliveries_total"}
    allowed(sidecar, craft.begini())
    after = {key: value for key, value in sidecar.samples("deliveries").items() if key[0] == "deliveries_total"}
    assert before == after


def test_every_series_of_questions_exists_from_the_start(start: Start) -> None:
    sidecar = start(CONFIG, env=ENV)
    kinds = [
        dict(labels)
        for (name, labels), _ in sidecar.samples("authorizations").items()
        if name == "authorizations_total"
    ]
    reasons = {each["reason"] for each in kinds if each["route"] == "begini"}
    assert {"", "body_not_forwarded", "signature_mismatch", "no_route"} <= reasons
    assert not {reason for reason in reasons if reason.startswith("upstream")}
    assert {each["route"] for each in kinds} >= {"", "begini", "probe"}


def test_without_an_authorize_listener_there_are_no_such_series(start: Start) -> None:
    sidecar = start({})
    assert [key for key in sidecar.samples("authorizations") if key[0] == "authorizations_total"] == []


def test_the_data_listener_knows_no_route_without_a_receiver(sidecar: Sidecar, craft: type[Craft]) -> None:
    answer = sidecar.ask(craft.begini())
    assert (answer.status, answer.body) == (404, b'{"detail":"Not Found"}')


def test_a_delivery_is_judged_by_its_tenants_secret(start: Start, craft: type[Craft], tmp_path: Path) -> None:
    (tmp_path / "acme").write_text(SECRETS["ACME_SECRET"])
    files = {"dir": str(tmp_path), "name": "{tenant}"}
    route = {"name": "tenants", "path": "/tenants/{tenant}", "verify": "begini", "secrets": files}
    sidecar = start(CONFIG | {"routes": [route]}, env=ENV)
    answer = allowed(sidecar, craft.begini(path=b"/tenants/acme", secret="ACME_SECRET"), route="tenants")
    assert answer.values(b"x-webhook-tenant") == [b"acme"]
    rejected(sidecar, craft.begini(path=b"/tenants/acme"), 403, "signature_mismatch", route="tenants")
    rejected(sidecar, craft.begini(path=b"/tenants/other"), 403, "signature_mismatch", route="tenants")


def test_both_listeners_work_side_by_side(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    sidecar = start({"authorize": {"listen": "127.0.0.1:0"}})
    allowed(sidecar, craft.begini())
    assert receiver.bytes_seen == 0
    assert sidecar.ask(craft.begini()).status == 200
    assert receiver.requests[0].body == craft.json_body


def test_the_prefix_of_the_path_is_taken_off(start: Start, craft: type[Craft]) -> None:
    config = CONFIG | {"authorize": {"listen": "127.0.0.1:0", "path_prefix": "/ask/me"}}
    sidecar = start(config, env=ENV)
    allowed(sidecar, craft.begini(path=b"/ask/me/webhooks/begini?x=1"))
    allowed(sidecar, craft.begini(path=b"/ask/me/hooks/a/b"), route="below")
    for path in (b"/webhooks/begini", b"/ask/mewebhooks/begini", b"/ask/me", b"/ask/webhooks/begini"):
        _, detail = rejected(sidecar, craft.begini(path=path), 404, "no_route", route="")
        assert "path_prefix" in detail
    rejected(sidecar, craft.begini(path=b"/ask/me/ask/me/webhooks/begini"), 404, "no_route", route="")
    rejected(sidecar, craft.begini(path=b"/ask/me//webhooks/begini"), 404, "no_route", route="")


def test_the_host_of_the_question_chooses_the_route(sidecar: Sidecar, craft: type[Craft]) -> None:
    allowed(sidecar, craft.begini(path=b"/webhooks/hosted", host=b"one.example:443"), route="hosted")
    rejected(sidecar, craft.begini(path=b"/webhooks/hosted", host=b"two.example"), 404, "no_route", route="")


@pytest.mark.parametrize(
    ("path", "method", "status", "reason", "route"),
    [
        (b"/nowhere", b"POST", 404, "no_route", ""),
        (b"/hooks/../webhooks/begini", b"POST", 404, "no_route", ""),
        (b"/webhooks/begini", b"PUT", 405, "method_not_allowed", "begini"),
    ],
)
def test_other_rejections_are_passed_on_as_they_are(
    sidecar: Sidecar, craft: type[Craft], path: bytes, method: bytes, status: int, reason: str, route: str
) -> None:
    rejected(sidecar, craft.begini(path=path, method=method), status, reason, route=route)


def test_a_body_above_the_routes_limit_is_413(sidecar: Sidecar, craft: type[Craft]) -> None:
    raw = craft.begini(b"x" * 1001, path=b"/webhooks/small")
    rejected(sidecar, raw, 413, "body_too_large", route="small")


def test_a_body_of_a_megabyte_and_a_chunked_one_are_judged_whole(sidecar: Sidecar, craft: type[Craft]) -> None:
    body = craft.json_body + bytes(1024 * 1024)
    allowed(sidecar, craft.begini(body))
    fields = [(b"X-Signature", craft.mac("BEGINI_API_KEY", body)), (b"Transfer-Encoding", b"chunked")]
    allowed(sidecar, craft.request(headers=fields, body=craft.chunked(body, 60_000)))


def test_one_connection_carries_many_questions(sidecar: Sidecar, craft: type[Craft]) -> None:
    mark = sidecar.mark()
    with Client(sidecar.authorize_address) as client:
        for forged in (False, True, False):
            client.send(craft.begini(secret="x" if forged else "BEGINI_API_KEY"))
            assert client.answer().status == (403 if forged else 200)
    sidecar.line(mark, 3, event="authorization")


def test_garbage_is_400_and_counted_as_a_question(sidecar: Sidecar) -> None:
    answer, _ = rejected(sidecar, b"nonsense\r\n\r\n", 400, "malformed_request", route="")
    assert answer.values(b"connection") == [b"close"]


# -- what the gateway adds and removes --


def test_what_is_not_vouched_for_is_to_be_removed(sidecar: Sidecar, craft: type[Craft]) -> None:
    answer = allowed(sidecar, craft.request(b"/healthz", method=b"GET"), route="probe", method="GET")
    assert answer.values(b"x-webhook-verified") == []
    assert answer.values(b"x-envoy-auth-headers-to-remove") == [
        b"x-webhook-verified,x-webhook-secret-id,x-webhook-tenant"
    ]
    answer = allowed(sidecar, craft.request(b"/network", body=b"{}"), route="network")
    assert answer.values(b"x-webhook-verified") == [b"network"]
    assert answer.values(b"x-envoy-auth-headers-to-remove") == [b"x-webhook-secret-id,x-webhook-tenant"]


def test_a_delivery_is_signed_for_the_receiver(sidecar: Sidecar, craft: type[Craft]) -> None:
    answer = allowed(sidecar, craft.begini(path=b"/webhooks/signed"), route="signed")
    fields = {name.decode(): value.decode() for name, value in answer.headers}
    assert Webhook(WHSEC).verify(craft.json_body, fields)["event"] == "scored"


def test_nothing_is_signed_that_shadow_mode_lets_through(sidecar: Sidecar, craft: type[Craft]) -> None:
    raw = craft.begini(path=b"/webhooks/signed-shadow", secret="wrong", headers=[(b"webhook-id", b"FORGED")])
    before = sidecar.metric("shadow_rejections_total", route="signed-shadow", reason="signature_mismatch")
    answer = allowed(sidecar, raw, route="signed-shadow")
    assert answer.values(b"webhook-id") == []
    assert answer.values(b"x-webhook-verified") == [b"shadow-rejected"]
    assert answer.values(b"x-envoy-auth-headers-to-remove") == [
        b"x-webhook-secret-id,x-webhook-tenant,webhook-id,webhook-signature,webhook-timestamp"
    ]
    assert sidecar.metric("shadow_rejections_total", route="signed-shadow", reason="signature_mismatch") == before + 1


@pytest.mark.parametrize("name", [b"X_Webhook_Verified", b"X.Webhook-Secret-Id", b"x-webhook_client"])
def test_a_header_that_imitates_ours_is_400_because_not_every_gateway_removes_it(
    sidecar: Sidecar, craft: type[Craft], name: bytes
) -> None:
    _, detail = rejected(sidecar, craft.begini(headers=[(name, b"FORGED")]), 400, "malformed_request")
    assert "imitates" in detail


def test_the_routes_own_headers_are_for_the_gateway_to_add_and_remove(sidecar: Sidecar, craft: type[Craft]) -> None:
    fields = [(b"X-Internal-A", b"1"), (b"X-Env", b"FORGED"), (b"X-Other", b"2")]
    answer = allowed(sidecar, craft.begini(path=b"/webhooks/changed", headers=fields), route="changed")
    assert answer.values(b"x-env") == [b"prod"]
    assert answer.values(b"x-key") == [SECRETS["OTHER_API_KEY"].encode()]
    assert answer.values(b"x-envoy-auth-headers-to-remove") == [b"x-webhook-tenant,x-internal-a"]


# -- forward-auth --


def test_a_trusted_proxy_describes_the_delivery_in_headers(sidecar: Sidecar, craft: type[Craft]) -> None:
    answer = allowed(sidecar, forward_auth(craft.begini()), source=craft.trusted, method="GET")
    assert answer.values(b"x-webhook-client") == [b"203.0.113.7"]
    raw = craft.begini(path=b"/webhooks/allowed?x=/../y")
    allowed(sidecar, forward_auth(raw), route="allowed", source=craft.trusted, method="GET")
    forged = forward_auth(craft.begini(secret="somebody else's"))
    answer, _ = rejected(sidecar, forged, 403, "signature_mismatch", source=craft.trusted, method="GET")
    assert answer.body == FORBIDDEN


def test_the_forwarded_host_chooses_the_route(sidecar: Sidecar, craft: type[Craft]) -> None:
    raw = craft.begini(path=b"/webhooks/hosted")
    question = forward_auth(raw, host=b"one.example")
    allowed(sidecar, question, route="hosted", source=craft.trusted, method="GET")
    question = forward_auth(raw, host=b"other.example")
    rejected(sidecar, question, 404, "no_route", route="", source=craft.trusted, method="GET")


def test_the_forwarded_method_is_judged(sidecar: Sidecar, craft: type[Craft]) -> None:
    question = forward_auth(craft.begini(method=b"PUT"))
    answer, _ = rejected(sidecar, question, 405, "method_not_allowed", source=craft.trusted, method="GET")
    assert answer.values(b"allow") == [b"POST"]


def test_nobody_else_chooses_the_route_by_headers(sidecar: Sidecar, craft: type[Craft]) -> None:
    _, detail = rejected(sidecar, forward_auth(craft.begini()), 404, "no_route", route="", method="GET")
    assert "add 127.0.0.1 to trusted_proxies" in detail
    fields = [(b"X-Forwarded-Method", b"GET"), (b"X-Forwarded-Uri", b"/healthz")]
    rejected(sidecar, craft.request(headers=fields, body=b"{}"), 403, "signature_missing")


def test_a_sender_can_not_choose_the_route_through_envoy(sidecar: Sidecar, craft: type[Craft]) -> None:
    """Envoy passes the sender's X-Forwarded-Uri on, and asks about the path; it marks its own questions."""
    fields = [(b"X-Forwarded-Method", b"GET"), (b"X-Forwarded-Uri", b"/healthz"), (b"x-envoy-internal", b"true")]
    raw = craft.request(headers=fields, body=b"{}")
    _, detail = rejected(sidecar, raw, 400, "malformed_request", route="", source=craft.trusted)
    assert "authorize.form" in detail


def test_the_form_can_be_fixed(start: Start, craft: type[Craft]) -> None:
    envoy = start(CONFIG | {"authorize": {"listen": "127.0.0.1:0", "form": "envoy"}}, env=ENV)
    fields = [(b"X-Forwarded-Method", b"GET"), (b"X-Forwarded-Uri", b"/healthz")]
    rejected(envoy, craft.request(headers=fields, body=b"{}"), 403, "signature_missing", source=craft.trusted)
    allowed(envoy, craft.begini(headers=fields), source=craft.trusted)
    auth = start(CONFIG | {"authorize": {"listen": "127.0.0.1:0", "form": "forward-auth"}}, env=ENV)
    question = forward_auth(craft.begini(headers=[(b"x-envoy-internal", b"true")]))
    allowed(auth, question, source=craft.trusted, method="GET")
    rejected(auth, craft.begini(), 404, "no_route", route="")
    rejected(auth, craft.begini(), 400, "malformed_request", route="", source=craft.trusted)


def test_with_a_prefix_the_path_tells_the_forms_apart(start: Start, craft: type[Craft]) -> None:
    sidecar = start(CONFIG | {"authorize": {"listen": "127.0.0.1:0", "path_prefix": "/envoy"}}, env=ENV)
    fields = [(b"X-Forwarded-Method", b"GET"), (b"X-Forwarded-Uri", b"/healthz")]
    raw = craft.request(b"/envoy/webhooks/begini", fields, b"{}")
    rejected(sidecar, raw, 403, "signature_missing", source=craft.trusted)
    allowed(sidecar, forward_auth(craft.begini()), source=craft.trusted, method="GET")


@pytest.mark.parametrize(
    "fields",
    [
        [(b"X-Forwarded-Uri", b"/webhooks/begini"), (b"X-Forwarded-Uri", b"/healthz")],
        [(b"X-Forwarded-Method", b"post")],
        [(b"X-Forwarded-Method", b"CONNECT")],
        [(b"X-Forwarded-Uri", b"http://x/webhooks/begini")],
        [(b"X-Forwarded-Uri", b"/webhooks/begini#x")],
        [(b"X-Forwarded-Host", b"a,b")],
        [(b"X-Forwarded-Host", b"a"), (b"X-Forwarded-Host", b"b")],
    ],
)
def test_a_description_that_two_could_read_differently_is_400(
    sidecar: Sidecar, craft: type[Craft], fields: list[tuple[bytes, bytes]]
) -> None:
    question = forward_auth(craft.begini(), fields=fields)
    rejected(sidecar, question, 400, "malformed_request", route="", source=craft.trusted, method="GET")


# -- bodies that gateways keep --


@pytest.mark.parametrize("form", ["envoy", "forward-auth"])
def test_a_body_that_was_not_sent_along_never_verifies_and_names_the_setting(
    sidecar: Sidecar, craft: type[Craft], form: str
) -> None:
    fields = [(b"X-Signature", craft.mac("BEGINI_API_KEY", craft.json_body))]
    if form == "envoy":
        answer, detail = rejected(sidecar, craft.request(headers=fields), 403, "body_not_forwarded")
    else:
        question = forward_auth(craft.begini(), body=False)
        answer, detail = rejected(sidecar, question, 403, "body_not_forwarded", source=craft.trusted, method="GET")
    assert answer.body == FORBIDDEN
    for setting in ("with_request_body", "includeRequestBodyInCheck", "bodyToExtAuth", "forwardBody", "auth_request"):
        assert setting in detail


def test_a_signature_inside_a_body_that_was_not_sent_is_the_same_mistake(sidecar: Sidecar, craft: type[Craft]) -> None:
    rejected(sidecar, craft.request(b"/webhooks/inside"), 403, "body_not_forwarded", route="inside")


def test_a_signed_empty_body_is_allowed(sidecar: Sidecar, craft: type[Craft]) -> None:
    allowed(sidecar, craft.begini(b""))


def test_the_beginning_of_a_body_never_verifies_not_even_with_its_own_signature(
    sidecar: Sidecar, craft: type[Craft]
) -> None:
    raw = craft.begini(headers=[(b"x-envoy-auth-partial-body", b"true")])
    _, detail = rejected(sidecar, raw, 403, "body_not_forwarded")
    assert "max_request_bytes" in detail
    allowed(sidecar, craft.begini(headers=[(b"x-envoy-auth-partial-body", b"false")]))


def test_an_announced_body_that_never_comes_is_nginxs(sidecar: Sidecar, craft: type[Craft]) -> None:
    fields = [(b"X-Signature", craft.mac("BEGINI_API_KEY", craft.json_body)), (b"Content-Length", b"37")]
    _, detail = rejected(sidecar, craft.request(headers=fields), 403, "body_not_forwarded")
    assert "nginx" in detail


@pytest.mark.parametrize(
    ("signed", "sent", "hint"),
    [
        (b'{"id":"a","amount":12}', b'{"id": "a", "amount": 12}', "body_json_reserialised"),
        (b'{"name":"\\u00e9"}', '{"name":"é"}'.encode(), "body_json_reserialised"),
        (b'{"id":"a"}\n', b'{"id":"a"}', "body_newline_changed"),
        (b"id: a\r\nto: b", b"id: a\nto: b", "body_line_endings_changed"),
        (b'\xef\xbb\xbf{"id":"a"}', b'{"id":"a"}', "body_bom_changed"),
    ],
)
def test_a_body_that_was_re_encoded_on_its_way_never_verifies_and_is_named(
    sidecar: Sidecar, craft: type[Craft], signed: bytes, sent: bytes, hint: str
) -> None:
    raw = craft.request(headers=[(b"X-Signature", craft.mac("BEGINI_API_KEY", signed))], body=sent)
    labels = {"route": "begini", "outcome": "rejected", "reason": "body_not_forwarded"}
    before = sidecar.metric("authorizations_total", **labels)

    def diagnosed() -> dict[str, Any] | None:
        answer, line = ask(sidecar, raw)
        assert (answer.status, answer.body) == (403, FORBIDDEN)
        assert (line["route"], line["outcome"]) == ("begini", "rejected")
        assert_without_own_fields(answer)
        return line if "hint" in line else None

    # Only so many rejections of a second are diagnosed, and a diagnosis is given up after 50 ms.
    line = until(diagnosed, "a diagnosis")
    assert (line["reason"], line["hint"]) == ("body_not_forwarded", hint)
    assert "re-encoded" in line["detail"]
    assert sidecar.metric("authorizations_total", **labels) == before + 1


def test_a_body_that_was_decompressed_never_verifies_and_names_who_did_it(sidecar: Sidecar, craft: type[Craft]) -> None:
    plain = b'{"id":"a"}'
    for body in (plain, plain * 40000):  # the diagnosis has a limit, and this is found without it
        mac = craft.mac("BEGINI_API_KEY", gzip.compress(body))
        raw = craft.request(headers=[(b"X-Signature", mac), (b"Content-Encoding", b"gzip")], body=body)
        answer, detail = rejected(sidecar, raw, 403, "body_not_forwarded")
        assert answer.body == FORBIDDEN
        assert "decompressed" in detail
    compressed = gzip.compress(plain)
    mac = craft.mac("BEGINI_API_KEY", compressed)
    allowed(
        sidecar,
        craft.request(headers=[(b"X-Signature", mac), (b"Content-Encoding", b"gzip")], body=compressed),
    )


def test_another_body_is_a_mismatch_and_not_blamed_on_the_gateway(sidecar: Sidecar, craft: type[Craft]) -> None:
    raw = craft.request(headers=[(b"X-Signature", craft.mac("BEGINI_API_KEY", b'{"id":"a"}'))], body=b'{"id":"b"}')
    rejected(sidecar, raw, 403, "signature_mismatch")


def test_shadow_mode_allows_what_was_re_encoded_and_counts_it(sidecar: Sidecar, craft: type[Craft]) -> None:
    def counted() -> float:
        return sidecar.metric("shadow_rejections_total", route="shadow", reason="body_not_forwarded")

    before = counted()
    fields = [(b"X-Signature", craft.mac("BEGINI_API_KEY", b'{"id":"a"}'))]
    mark = sidecar.mark()
    with Client(sidecar.authorize_address) as client:
        answer = client.send(craft.request(b"/webhooks/shadow", fields, b'{ "id": "a" }')).answer("POST")
    assert answer.status == 200
    assert sidecar.line(mark, event="authorization")["shadow_reason"] == "body_not_forwarded"
    assert counted() == before + 1


def test_a_route_that_reads_no_body_needs_none(sidecar: Sidecar, craft: type[Craft]) -> None:
    """So such routes work with nginx's auth_request and Caddy's forward_auth."""
    fields = [(b"X-Token", SECRETS["ACME_SECRET"].encode())]
    raw = craft.request(b"/webhooks/token", fields, craft.json_body)
    allowed(sidecar, forward_auth(raw, body=False), route="token", source=craft.trusted, method="GET")
    partial = craft.request(b"/webhooks/token", [*fields, (b"x-envoy-auth-partial-body", b"true")], b"{")
    allowed(sidecar, partial, route="token")
    rejected(sidecar, craft.request(b"/webhooks/token", [(b"X-Token", b"wrong")]), 403, "token_mismatch", route="token")


def test_a_missing_signature_names_the_setting_that_sends_headers(sidecar: Sidecar, craft: type[Craft]) -> None:
    _, detail = rejected(sidecar, craft.request(body=b"{}"), 403, "signature_missing")
    assert "allowed_headers" in detail
    assert "headersToExtAuth" in detail


def test_shadow_mode_allows_what_has_no_body_and_counts_it(sidecar: Sidecar, craft: type[Craft]) -> None:
    before = sidecar.metric("shadow_rejections_total", route="shadow", reason="body_not_forwarded")
    fields = [(b"X-Signature", craft.mac("BEGINI_API_KEY", craft.json_body))]
    allowed(sidecar, craft.request(b"/webhooks/shadow", fields), route="shadow")
    assert sidecar.metric("shadow_rejections_total", route="shadow", reason="body_not_forwarded") == before + 1


# -- replay protection, handshakes, senders that must wait --


def test_lost_means_that_a_copy_is_never_allowed_and_never_answered_as_a_yes(
    sidecar: Sidecar, craft: type[Craft]
) -> None:
    raw = craft.begini(path=b"/webhooks/lost")
    allowed(sidecar, raw, route="lost")
    for _ in range(2):
        answer, _ = rejected(sidecar, raw, 409, "replayed", route="lost")
        assert answer.body == b'{"detail":"Already delivered"}'


def test_allow_repeat_rejects_a_copy_only_while_the_receiver_may_be_at_work(start: Start, craft: type[Craft]) -> None:
    times = {"connect": "1s", "response": "1s", "total": "1s"}
    sidecar = start(CONFIG | {"timeouts": times}, env=ENV)
    raw = craft.begini(path=b"/webhooks/repeat")
    allowed(sidecar, raw, route="repeat")
    answer, _ = rejected(sidecar, raw, 409, "replayed", route="repeat")
    assert answer.values(b"retry-after") == [b"5"]

    def forgotten() -> bool:
        with Client(sidecar.authorize_address) as client:
            return client.send(raw).answer().status == 200

    until(forgotten, "the end of the claim", 6)


def test_a_forged_copy_claims_nothing(sidecar: Sidecar, craft: type[Craft]) -> None:
    body = b'{"mark":"%b","n":"forged"}' % craft.body_mark
    fields = [(b"X-Signature", craft.mac("somebody else's", body))]
    rejected(sidecar, craft.request(b"/webhooks/lost", fields, body), 403, "signature_mismatch", route="lost")
    allowed(sidecar, craft.begini(body, path=b"/webhooks/lost"), route="lost")


def test_a_handshake_is_rejected_because_its_response_could_not_pass(sidecar: Sidecar, craft: type[Craft]) -> None:
    """A 200 would let it pass to the receiver, unverified."""
    token = b"CANARY-SECRET-other-account-0d5c"
    target = b"/webhooks/meta?hub.mode=subscribe&hub.challenge=12345&hub.verify_token=" + token
    _, detail = rejected(
        sidecar, craft.request(target, method=b"GET"), 403, "signature_missing", route="meta", method="GET"
    )
    assert "handshake" in detail
    assert sidecar.metric("handshakes_total", route="meta", result="rejected") == 1


def test_a_handshake_that_a_published_secret_signs_is_no_reason_to_forward(start: Start, craft: type[Craft]) -> None:
    """MailerSend's own is signed with what anybody can read. Not even `handshake: pass` lets it pass."""
    route = {"verify": "mailersend", "secrets": [{"env": "ACME_SECRET"}]}
    routes = [{"name": "answered", "path": "/a"} | route, {"name": "passed", "path": "/b", "handshake": "pass"} | route]
    sidecar = start({"authorize": {"listen": "127.0.0.1:0"}, "upstream": None, "routes": routes})
    body = b'{"type":"webhook.test"}'
    signature = hmac.new(b"test_Am3L1GuOIc4blLUuHqAPxxwkZaJyEk8G", body, "sha256").hexdigest().encode()
    for name, path in (("answered", b"/a"), ("passed", b"/b")):
        raw = craft.request(path, [(b"Signature", signature)], body)
        _, detail = rejected(sidecar, raw, 403, "signature_missing", route=name)
        assert detail.endswith("gateways pass on none; let it pass through the data listener")


def test_a_sender_that_is_rejected_too_often_must_wait_and_the_gateway_never(start: Start, craft: type[Craft]) -> None:
    sidecar = start(CONFIG | {"limits": {"refusals": "3/m"}}, env=ENV)
    forged, good = craft.begini(secret="wrong"), craft.begini()

    def of(client: bytes, raw: bytes) -> bytes:
        return forward_auth(raw, fields=[(b"X-Forwarded-For", client)])

    for _ in range(3):
        rejected(sidecar, of(b"192.0.2.1", forged), 403, "signature_mismatch", source=craft.trusted, method="GET")
    answer, _ = rejected(sidecar, of(b"192.0.2.1", good), 429, "rate_limited", source=craft.trusted, method="GET")
    assert answer.values(b"retry-after")
    allowed(sidecar, of(b"192.0.2.2", good), source=craft.trusted, method="GET")


# -- the process --


def test_workers_share_the_authorize_listener_and_its_counts(start: Start, craft: type[Craft]) -> None:
    sidecar = start(CONFIG | {"workers": 2, "replay_store": None} | {"routes": [begini("begini")]}, env=ENV)
    for number in range(8):
        allowed(sidecar, craft.begini(b'{"n":%d}' % number))
    assert sidecar.metric("authorizations_total", route="begini", outcome="allowed", reason="") == 8


def test_a_unix_socket_can_be_asked(start: Start, craft: type[Craft], tmp_path: Path) -> None:
    path = tmp_path / "authorize.sock"
    config = CONFIG | {"authorize": {"listen": f"unix:{path}"}, "trusted_proxies": ["unix:"]}
    sidecar = start(config, env=ENV)
    allowed(sidecar, forward_auth(craft.begini()), method="GET")
    sidecar.stop()
    assert not path.exists()


def test_a_reload_changes_the_routes_but_not_the_address(start: Start, craft: type[Craft]) -> None:
    sidecar = start(CONFIG | {"routes": [begini("begini")]}, env=ENV)
    config = sidecar.config | {"routes": [begini("other")]}
    sidecar.write(config)
    assert sidecar.admin("/-/reload", method="POST")[0] == 200
    allowed(sidecar, craft.begini(path=b"/webhooks/other"), route="other")
    rejected(sidecar, craft.begini(), 404, "no_route", route="")
    sidecar.write(config | {"authorize": {"listen": "127.0.0.1:1"}})
    status, body = sidecar.admin("/-/reload", method="POST")
    assert (status, b"authorize" in body) == (400, True), body
    sidecar.write(config)


def test_questions_in_flight_are_answered_before_the_end(start: Start, craft: type[Craft]) -> None:
    sidecar = start(CONFIG, env=ENV)
    raw = craft.begini()
    with Client(sidecar.authorize_address) as client:
        client.send(raw[:-5])
        sidecar.send_signal(signal.SIGTERM)
        sidecar.line(event="draining")
        answer = client.send(raw[-5:]).answer()
    assert answer.status == 200
    assert answer.values(b"connection") == [b"close"]
    assert sidecar.exit_status() == 0
    port = int(sidecar.authorize_address.rpartition(":")[2])
    with socket.socket() as late:
        assert late.connect_ex(("127.0.0.1", port)) != 0
