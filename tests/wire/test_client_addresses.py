"""Who is taken for the sender where X-Forwarded-For is not what counts, and a proxy that nobody named.

X-Forwarded-For itself: test_routing.py and tests/hostile; the PROXY protocol: test_proxy_protocol.py.
"""

import signal
import socket
import struct
from typing import Any

import pytest
from craft import Craft
from receiver import Receiver, Script
from sidecar_process import Sidecar, Start

ALLOWED = b"/webhooks/allowed"  # 203.0.113.0/24 and 2001:db8::/32


def test_the_client_is_read_from_the_forwarded_header_where_that_is_configured(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    running = start({"client_ip_header": "Forwarded"})

    def status(*fields: tuple[bytes, bytes], source: str = craft.trusted) -> int:
        return running.ask(craft.begini(path=ALLOWED, headers=fields), source=source).status

    named = (b"Forwarded", b'for=198.51.100.66, for="[2001:db8::9]:443";proto=https')
    assert status(named) == 200
    assert receiver.requests[-1].values(b"forwarded") == [named[1]]
    assert receiver.requests[-1].values(b"x-forwarded-for") == [b"2001:db8::9, 127.0.0.9"]
    assert status(named, source="127.0.0.1") == 403
    assert status((b"Forwarded", b"for=203.0.113.9"), (b"X-Forwarded-For", b"198.51.100.66")) == 200
    # Nobody vouches for what came in the other header.
    assert receiver.requests[-1].values(b"x-forwarded-for") == [b"203.0.113.9, 127.0.0.9"]
    assert len(receiver.requests) == 2

    assert status((b"X-Forwarded-For", b"203.0.113.9")) == 403
    assert status((b"Forwarded", b"for=203.0.113.9"), (b"Forwarded", b"for=198.51.100.66")) == 403
    for unreadable in (b"for=unknown", b"for=_hidden", b"203.0.113.9", b'for="203.0.113.9', b"for=203.0.113.9,", b""):
        mark = running.mark()
        assert status((b"Forwarded", unreadable)) == 403
        assert running.delivery(mark)["reason"] == "client_ip_unreadable"
    assert len(receiver.requests) == 2


def test_the_client_is_read_from_a_header_that_holds_one_address(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    running = start({"client_ip_header": "X-Real-IP"})

    def reason(*fields: tuple[bytes, bytes], source: str = craft.trusted) -> str:
        mark = running.mark()
        running.ask(craft.begini(path=ALLOWED, headers=fields), source=source)
        return str(running.delivery(mark)["reason"])

    assert reason((b"x-real-ip", b"203.0.113.9"), (b"X-Forwarded-For", b"198.51.100.66")) == ""
    assert receiver.requests[-1].values(b"x-forwarded-for") == [b"203.0.113.9, 127.0.0.9"]
    assert reason((b"X-Real-IP", b"198.51.100.66"), (b"X-Forwarded-For", b"203.0.113.9")) == "ip_not_allowed"
    assert reason((b"X-Real-IP", b"203.0.113.9"), source="127.0.0.1") == "ip_not_allowed"
    assert reason((b"X_Real_IP", b"203.0.113.9")) == "ip_not_allowed"
    assert reason((b"X-Real-IP", b"203.0.113.9"), (b"X-Real-IP", b"203.0.113.9")) == "client_ip_unreadable"
    assert reason((b"X-Real-IP", b"203.0.113.9, 127.0.0.9")) == "client_ip_unreadable"
    assert len(receiver.requests) == 1


def test_an_allowlist_behind_a_proxy_that_nobody_named_is_warned_of_once_for_each_route(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    running = start({"trusted_proxies": None})

    def warnings() -> list[dict[str, Any]]:
        return [line for line in running.lines if line.get("event") == "forwarding_header_ignored"]

    running.ask(craft.begini(path=ALLOWED))
    running.ask(craft.begini(headers=[(b"X-Forwarded-For", b"203.0.113.9")]))  # no allowlist
    assert not warnings()
    for header in (b"X-Forwarded-For", b"Forwarded", b"CF-Connecting-IP"):
        running.ask(craft.begini(path=ALLOWED, headers=[(header, b"203.0.113.9")]))
    running.ask(craft.request(b"/network", [(b"Forwarded", b"for=203.0.113.9")]))
    first, second = warnings()
    assert (first["route"], first["header"], first["peer"], first["level"]) == (
        "allowed",
        "x-forwarded-for",
        "127.0.0.1",
        "warning",
    )
    assert "trusted_proxies" in first["detail"]
    assert (second["route"], second["header"]) == ("network", "forwarded")


def test_with_trusted_proxies_there_is_nothing_to_warn_of(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    running = start({"trusted_proxies": ["10.0.0.0/8"]})
    running.ask(craft.begini(path=ALLOWED, headers=[(b"X-Forwarded-For", b"203.0.113.9")]))
    assert not any(line.get("event") == "forwarding_header_ignored" for line in running.lines)


LIST = b'{"hooks": ["203.0.113.0/24", "2001:db8::/32"], "web": ["198.51.100.0/24"]}'


def answer_with(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def listed_by(name: str) -> dict[str, Any]:
    return {"path": "/listed", "verify": "begini", "secrets": [{"env": "BEGINI_API_KEY"}], "allow": [f"preset:{name}"]}


def reason_of(running: Sidecar, craft: type[Craft], address: bytes) -> str:
    mark = running.mark()
    raw = craft.begini(path=b"/listed", headers=[(b"X-Forwarded-For", address)])
    running.ask(raw, source=craft.trusted)
    return str(running.delivery(mark)["reason"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_providers_list_is_fetched_at_the_start_and_takes_the_place_of_the_packages(
    start: Start, receivers: dict[str, Receiver], receiver: Receiver, craft: type[Craft], workers: int
) -> None:
    receivers["tls"].then(answer_with(LIST))
    mirror = receivers["tls"].url + "/meta"
    running = start(
        {
            "workers": workers,
            "routes": [listed_by("github")],
            "ip_ranges": {"refresh": "1h", "sources": {"github": mirror}},
        }
    )
    fetched = running.line(event="ip_ranges_fetched")
    assert (fetched["preset"], fetched["networks"], fetched["changed"]) == ("github", 2, True)
    addresses = (b"203.0.113.9", b"2001:db8::9", b"140.82.112.9", b"198.51.100.9")
    wait_for = [reason_of(running, craft, address) for address in addresses]
    assert wait_for == ["", "", "ip_not_allowed", "ip_not_allowed"]
    assert running.metric("ip_ranges_age_seconds", preset="github") < 60
    assert running.metric("ip_ranges_fetch_failures_total", preset="github") == 0

    # Another configuration, and the list stays.
    assert running.admin("/-/reload", method="POST")[0] == 200
    assert [reason_of(running, craft, address) for address in addresses] == wait_for
    assert len(receivers["tls"].requests) == 1


@pytest.mark.parametrize(
    "answer", [answer_with(b'{"hooks": ["0.0.0.0/0"]}'), answer_with(b"{}"), lambda peer: peer.close()]
)
def test_a_list_that_can_not_be_used_leaves_the_packages(
    start: Start, receivers: dict[str, Receiver], receiver: Receiver, craft: type[Craft], answer: Script
) -> None:
    receivers["tls"].then(answer)
    mirror = receivers["tls"].url + "/meta"
    running = start({"routes": [listed_by("github")], "ip_ranges": {"refresh": "1h", "sources": {"github": mirror}}})
    failed = running.line(event="ip_ranges_failed")
    assert (failed["preset"], failed["kept"], failed["level"]) == ("github", "the last good list", "warning")
    assert reason_of(running, craft, b"140.82.112.9") == ""
    assert reason_of(running, craft, b"203.0.113.9") == "ip_not_allowed"
    assert running.metric("ip_ranges_age_seconds", preset="github") > 86400
    assert running.metric("ip_ranges_fetch_failures_total", preset="github") == 1


def test_without_a_refresh_nothing_is_fetched_and_the_lists_day_is_reported(
    start: Start, receivers: dict[str, Receiver], receiver: Receiver, craft: type[Craft]
) -> None:
    running = start({"routes": [listed_by("stripe")]})
    warning = running.line(event="config_warning")
    assert (
        "allow[0]: uses the list of 2026-05-15; add `ip_ranges: {refresh: 24h}` to keep it current" in warning["detail"]
    )
    assert reason_of(running, craft, b"3.18.12.63") == ""
    assert reason_of(running, craft, b"3.18.12.64") == "ip_not_allowed"
    assert running.metric("ip_ranges_age_seconds", preset="stripe") > 86400
    assert not receivers["tls"].requests


def test_a_connection_that_is_reset_before_it_is_accepted_is_not_a_unix_sockets(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    """It has no address any more, but its request is still read; as a unix socket's it could name any client."""
    running = start({"trusted_proxies": ["unix:"]})
    mark = running.mark()
    host, port = running.address.rsplit(":", 1)
    running.process.send_signal(signal.SIGSTOP)
    try:
        with socket.create_connection((host, int(port))) as sender:
            sender.sendall(craft.begini(path=ALLOWED, headers=[(b"X-Forwarded-For", b"203.0.113.7")]))
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        running.process.send_signal(signal.SIGCONT)
    line = running.delivery(mark)
    assert (line["reason"], line["client"], line["peer"]) == ("ip_not_allowed", "", "unknown")
    assert receiver.requests == []
