"""Routes of one host: which sender reaches which, and what the receiver sees."""

import pytest
from craft import Craft
from receiver import Receiver
from sidecar_process import Config, Sidecar

CONFIG: Config = {
    "routes": [
        {
            "name": name,
            "path": "/webhooks/begini",
            "hosts": hosts,
            "verify": "begini",
            "secrets": [{"id": name, "env": secret}],
        }
        for name, hosts, secret in (
            ("one", ["one.example"], "BEGINI_API_KEY"),
            ("many", ["many.example", "*.many.example"], "ACME_SECRET"),
        )
    ]
}
CONFIG["routes"].append({"name": "probe", "path": "/healthz", "open": True})


def at(host: bytes, raw: bytes) -> bytes:
    """The request with another Host."""
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"host:")]
    return b"\r\n".join([lines[0], b"Host: " + host, *lines[1:]]) + b"\r\n\r\n" + body


@pytest.mark.parametrize("host", [b"one.example", b"ONE.example:8443", b"one.example."])
def test_the_host_chooses_the_route_and_is_passed_on_as_sent(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], host: bytes
) -> None:
    assert sidecar.ask(at(host, craft.begini())).status == 200
    seen = receiver.requests[0]
    assert seen.values(b"Host") == [host]
    assert seen.values(b"X-Webhook-Verified") == [b"one"]


@pytest.mark.parametrize("host", [b"many.example", b"a.many.example", b"a.b.many.example:1"])
def test_a_host_has_secrets_of_its_own(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], host: bytes) -> None:
    assert sidecar.ask(at(host, craft.begini(secret="ACME_SECRET"))).status == 200
    assert receiver.requests[0].values(b"X-Webhook-Verified") == [b"many"]
    receiver.forget()
    sidecar.refused(at(host, craft.begini()), 403, "signature_mismatch", route="many", receiver=receiver)


@pytest.mark.parametrize(
    "host",
    [b"other.example", b"sub.one.example", b"one.example.evil", b"xmany.example", b"127.0.0.1", b"", b"[::1]:80"],
)
def test_an_unknown_host_is_404_and_not_forwarded(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], host: bytes
) -> None:
    answer = sidecar.refused(at(host, craft.begini()), 404, "no_route", route="", receiver=receiver)
    assert answer.body == b'{"detail":"Not Found"}'


def test_no_header_chooses_the_host(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = craft.begini(headers=[(b"X-Forwarded-Host", b"one.example"), (b"X-Original-Host", b"one.example")])
    sidecar.refused(at(b"other.example", raw), 404, "no_route", route="", receiver=receiver)


def test_a_request_of_http_1_0_without_a_host_reaches_routes_of_any_host_only(
    sidecar: Sidecar, receiver: Receiver
) -> None:
    assert sidecar.ask(b"GET /healthz HTTP/1.0\r\n\r\n", method="GET").status == 200
    receiver.forget()
    raw = b"POST /webhooks/begini HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"
    sidecar.refused(raw, 404, "no_route", route="", receiver=receiver)


def test_a_route_of_any_host_takes_every_host(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = at(b"whatever.example", craft.request(b"/healthz", method=b"GET"))
    assert sidecar.ask(raw, method="GET").status == 200
