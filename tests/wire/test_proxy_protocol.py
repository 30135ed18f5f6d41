"""The PROXY protocol on the data listener: 127.0.0.9 is a trusted proxy that speaks it, everybody else speaks HTTP."""

import socket
import struct
import time

import pytest
from craft import Craft
from receiver import Receiver
from sidecar_process import Sidecar

CONFIG = {"proxy_protocol": True, "limits": {"header_timeout": "1s"}}

ALLOWED = b"/webhooks/allowed"  # 203.0.113.0/24 and 2001:db8::/32
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v1(source: bytes, family: bytes = b"TCP4") -> bytes:
    return b"PROXY %b %b %b 56324 443\r\n" % (family, source, b"192.0.2.1" if family == b"TCP4" else b"2001:db8::1")


def v2(source: str, *, command: int = 0x21, tlvs: bytes = b"") -> bytes:
    family, code = (socket.AF_INET6, 0x21) if ":" in source else (socket.AF_INET, 0x11)
    content = socket.inet_pton(family, source) * 2 + struct.pack("!HH", 56324, 443) + tlvs
    return SIGNATURE + struct.pack("!BBH", command, code, len(content)) + content


UNSPEC = SIGNATURE + struct.pack("!BBH", 0x21, 0x00, 0)
UNIX = SIGNATURE + struct.pack("!BBH", 0x21, 0x31, 216) + bytes(216)
LOCAL = v2("203.0.113.9", command=0x20)


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (v1(b"203.0.113.9"), "203.0.113.9"),
        (v1(b"2001:db8::9", b"TCP6"), "2001:db8::9"),
        (v1(b"::ffff:203.0.113.9", b"TCP6"), "203.0.113.9"),
        (v2("203.0.113.9"), "203.0.113.9"),
        (v2("2001:db8::9"), "2001:db8::9"),
        (v2("203.0.113.9", tlvs=b"\xea\x00\x05\x01vpce" + b"\x04\x00\x03abc"), "203.0.113.9"),
    ],
)
def test_the_address_that_a_balancer_names_is_the_connections(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], header: bytes, client: str
) -> None:
    mark = sidecar.mark()
    request = craft.begini(path=ALLOWED, headers=[(b"X-Forwarded-For", b"198.51.100.66")])
    answer = sidecar.ask(header + request, source=craft.trusted)
    assert (answer.status, answer.body) == (200, b"ok")
    line = sidecar.delivery(mark)
    assert (line["client"], line["peer"]) == (client, client)
    assert receiver.requests[0].values(b"x-forwarded-for") == [client.encode()]  # the sender's own word is gone


@pytest.mark.parametrize("header", [v1(b"198.51.100.66"), v2("198.51.100.66"), v2("2001:db9::9")])
def test_an_address_that_is_not_allowed_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], header: bytes
) -> None:
    request = craft.begini(path=ALLOWED, headers=[(b"X-Forwarded-For", b"203.0.113.9")])
    sidecar.refused(header + request, 403, "ip_not_allowed", receiver=receiver, route="allowed", source=craft.trusted)


@pytest.mark.parametrize("header", [v1(b"", b"UNKNOWN")[:13] + b"\r\n", UNSPEC, UNIX])
def test_a_connection_whose_sender_nobody_knows_is_in_no_allowlist(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], header: bytes
) -> None:
    mark = sidecar.mark()
    spoofed = [(b"X-Forwarded-For", b"203.0.113.9")]
    sidecar.refused(
        header + craft.begini(path=ALLOWED, headers=spoofed),
        403,
        "ip_not_allowed",
        receiver=receiver,
        route="allowed",
        source=craft.trusted,
    )
    assert (sidecar.delivery(mark)["client"], sidecar.delivery(mark)["peer"]) == ("", "unknown")
    assert sidecar.ask(header + craft.begini(headers=spoofed), source=craft.trusted).status == 200
    assert receiver.requests[0].values(b"x-forwarded-for") == [b"unknown"]


def test_a_health_check_of_the_balancer_itself_has_the_balancers_address(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    mark = sidecar.mark()
    assert sidecar.ask(LOCAL + craft.request(b"/healthz", method=b"GET"), source=craft.trusted).status == 200
    assert sidecar.delivery(mark)["client"] == craft.trusted


def test_a_trusted_address_behind_the_balancer_is_believed_its_x_forwarded_for(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    """An HTTP proxy behind an L4 balancer: the balancer names the proxy, the proxy names the client."""
    mark = sidecar.mark()
    request = craft.begini(path=ALLOWED, headers=[(b"X-Forwarded-For", b"203.0.113.9")])
    assert sidecar.ask(v2(craft.trusted) + request, source=craft.trusted).status == 200
    assert sidecar.delivery(mark)["client"] == "203.0.113.9"


def test_the_header_holds_for_every_request_of_its_connection(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    with sidecar.connect(craft.trusted) as client:
        client.send(v2("203.0.113.9") + craft.begini(path=ALLOWED))
        assert client.answer().status == 200
        for _ in range(2):
            client.send(craft.begini(path=ALLOWED))
            assert client.answer().status == 200
        client.send(v2("203.0.113.10") + craft.begini(path=ALLOWED))  # and stands at the beginning only
        assert client.answer().status == 400
    assert len(receiver.requests) == 3


@pytest.mark.parametrize("header", [v1(b"203.0.113.9"), v2("203.0.113.9"), v2("2001:db8::9", tlvs=bytes(9)), LOCAL])
def test_a_header_may_be_split_at_any_byte(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], header: bytes
) -> None:
    path = b"/webhooks/begini" if header == LOCAL else ALLOWED
    request = craft.begini(path=path)
    for cut in range(1, len(header) + 1):
        with sidecar.connect(craft.trusted) as client:
            client.send(header[:cut])
            time.sleep(0.002)
            client.send(header[cut:] + request)
            assert client.answer().status == 200, cut
    with sidecar.connect(craft.trusted) as client:
        for byte in header:
            client.send(bytes([byte]))
        assert client.send(request).answer().status == 200


def test_the_slowest_way_of_sending_is_one_byte_at_a_time(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    with sidecar.connect(craft.trusted) as client:
        for byte in v1(b"203.0.113.9") + craft.begini(path=ALLOWED):
            client.send(bytes([byte]))
        assert client.answer().status == 200
    assert receiver.requests[0].body == craft.json_body


@pytest.mark.parametrize(
    "header",
    [
        b"",
        v1(b"203.0.113.009"),
        v1(b"203.0.113.9", b"TCP6"),
        v1(b"203.0.113.9").replace(b"\r\n", b"\n"),
        b"PROXY TCP4 " + b"1" * 200,
        v2("203.0.113.9", command=0x31),
        v2("203.0.113.9", tlvs=bytes(5000)),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_a_trusted_proxy_must_send_one_that_can_be_read(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], header: bytes
) -> None:
    answer = sidecar.refused(
        header + craft.begini(path=ALLOWED, headers=[(b"X-Forwarded-For", b"203.0.113.9")]),
        400,
        "malformed_request",
        receiver=receiver,
        route="",
        source=craft.trusted,
    )
    assert answer.values(b"connection") == [b"close"]


@pytest.mark.parametrize("header", [v1(b"203.0.113.9"), v2("203.0.113.9")])
def test_of_anybody_else_it_is_no_http(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], header: bytes) -> None:
    sidecar.refused(header + craft.begini(path=ALLOWED), 400, "malformed_request", receiver=receiver, route="")


def test_anybody_else_speaks_http_and_is_judged_by_their_own_address(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(craft.begini()).status == 200
    assert receiver.requests[0].values(b"x-forwarded-for") == [b"127.0.0.1"]
    sidecar.refused(craft.begini(path=ALLOWED), 403, "ip_not_allowed", receiver=receiver, route="allowed")


@pytest.mark.parametrize("part", [b"", b"PROXY TCP4 203.0", v2("203.0.113.9")[:20], v1(b"203.0.113.9")])
def test_the_heads_deadline_holds_for_the_header_too(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], part: bytes
) -> None:
    began = time.monotonic()
    with sidecar.connect(craft.trusted) as client:
        client.send(part)
        assert client.rest() == b""
    assert 0.5 < time.monotonic() - began < 5
    assert not receiver.requests


def test_it_can_not_be_turned_off_while_running(sidecar: Sidecar, receiver: Receiver) -> None:
    mark = sidecar.mark()
    sidecar.write(sidecar.config | {"proxy_protocol": False})
    try:
        status, body = sidecar.admin("/-/reload", method="POST")
    finally:
        sidecar.write(sidecar.config)
    assert status == 400
    assert b"proxy_protocol: can't change from True to False while running; restart to apply" in body
    assert sidecar.admin("/-/reload", method="POST")[0] == 200
    assert sidecar.line(mark, event="config_reload_failed")
