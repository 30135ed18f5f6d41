"""`limits.refusals` on the wire: who keeps being refused waits; nobody waits for somebody else's forgeries."""

from pathlib import Path
from typing import Any

import pytest
from craft import Craft, Fields
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start

TRUSTED = "127.0.0.9"


def route(name: str, verify: str = "begini", secret: str = "BEGINI_API_KEY", **more: Any) -> Config:
    base = {"name": name, "path": f"/webhooks/{name}", "verify": verify, "secrets": [{"id": "current", "env": secret}]}
    return base | more


CONFIG = {
    "limits": {"refusals": "3/h"},
    "routes": [
        route("begini"),
        route("other"),
        route("small", limits={"body": 100}),
        route("shadow", mode="shadow"),
        route("allowed", allow=["203.0.113.0/24"]),
        {"path": "/open", "open": True, "allow": ["203.0.113.0/24"]},
    ],
}
addresses = (f"127.0.1.{number}" for number in range(1, 250))


@pytest.fixture
def source() -> str:
    """An address that no test sent from before."""
    return next(addresses)


def forged(craft: type[Craft], *, name: str = "begini", headers: Fields = ()) -> bytes:
    return craft.begini(secret="OTHER_API_KEY", path=b"/webhooks/" + name.encode(), headers=headers)


def exhaust(sidecar: Sidecar, craft: type[Craft], source: str, *, name: str = "begini", headers: Fields = ()) -> None:
    for _ in range(3):
        assert sidecar.ask(forged(craft, name=name, headers=headers), source=source).status == 403


def limited(
    sidecar: Sidecar, receiver: Receiver, raw: bytes, *, name: str = "begini", source: str | None = None
) -> None:
    answer = sidecar.refused(raw, 429, "rate_limited", receiver=receiver, route=name, source=source)
    assert answer.body == b'{"detail":"Too Many Requests"}'
    assert answer.values(b"retry-after") == [b"1200"]


def test_a_sender_that_keeps_being_refused_is_answered_429_and_others_are_not(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], source: str
) -> None:
    exhaust(sidecar, craft, source)
    for raw in (forged(craft), craft.begini()):
        limited(sidecar, receiver, raw, source=source)
    assert sidecar.ask(craft.begini(), source=next(addresses)).status == 200


def test_the_answer_comes_before_the_body_is_read_and_no_100_continue_invites_it(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], source: str
) -> None:
    exhaust(sidecar, craft, source)
    head = craft.request(headers=[(b"Content-Length", b"1000"), (b"Expect", b"100-continue")])
    with sidecar.connect(source) as client:
        answer = client.send(head).answer()
        assert (answer.status, answer.informational) == (429, [])
        assert client.send(b"x" * 1000).head_if_any() is None
    assert receiver.requests == []


def test_one_route_does_not_keep_a_sender_from_another(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], source: str
) -> None:
    exhaust(sidecar, craft, source)
    assert sidecar.ask(craft.begini(path=b"/webhooks/other"), source=source).status == 200
    exhaust(sidecar, craft, source, name="other")
    limited(sidecar, receiver, forged(craft, name="other"), name="other", source=source)


def test_what_is_accepted_or_refused_for_another_reason_does_not_count(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], source: str
) -> None:
    for _ in range(4):
        assert sidecar.ask(craft.begini(), source=source).status == 200
        assert sidecar.ask(craft.request(b"/nowhere"), source=source).status == 404
        assert sidecar.ask(craft.request(method=b"PUT"), source=source).status == 405
        assert sidecar.ask(craft.begini(b"x" * 101, path=b"/webhooks/small"), source=source).status == 413
        assert sidecar.ask(craft.request(headers=[(b"Host", b"again")]), source=source).status == 400
    for name in ("begini", "small"):
        exhaust(sidecar, craft, source, name=name)
        limited(sidecar, receiver, forged(craft, name=name), name=name, source=source)


def test_refusals_by_allowlist_count_on_every_kind_of_route(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], source: str
) -> None:
    for path, name in ((b"/webhooks/allowed", "allowed"), (b"/open", "open")):
        for _ in range(3):
            assert sidecar.ask(craft.begini(path=path), source=source).status == 403
        limited(sidecar, receiver, craft.begini(path=path), name=name, source=source)


def test_in_shadow_mode_nobody_waits(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], source: str) -> None:
    for _ in range(5):
        assert sidecar.ask(forged(craft, name="shadow"), source=source).status == 200
    assert len(receiver.requests) == 5


def test_behind_a_trusted_proxy_the_client_it_names_is_counted_and_never_the_proxy(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def of(client: bytes) -> Fields:
        return [(b"X-Forwarded-For", client)]

    exhaust(sidecar, craft, TRUSTED, headers=of(b"198.51.100.7"))
    limited(sidecar, receiver, craft.begini(headers=of(b"198.51.100.7")), source=TRUSTED)
    limited(sidecar, receiver, craft.begini(headers=of(b"203.0.113.9, 198.51.100.7:1234")), source=TRUSTED)
    assert sidecar.ask(craft.begini(headers=of(b"198.51.100.8")), source=TRUSTED).status == 200
    exhaust(sidecar, craft, TRUSTED, headers=of(b"2001:db8::1"))
    limited(sidecar, receiver, craft.begini(headers=of(b"[2001:db8::2]:443")), source=TRUSTED)
    assert sidecar.ask(craft.begini(headers=of(b"2001:db8:0:1::1")), source=TRUSTED).status == 200
    for headers in ((), of(b"nonsense"), of(TRUSTED.encode())):
        for _ in range(5):
            assert sidecar.ask(forged(craft, headers=headers), source=TRUSTED).status == 403
        assert sidecar.ask(craft.begini(), source=TRUSTED).status == 200


def test_a_sender_that_is_no_trusted_proxy_can_not_write_itself_another_address(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], source: str
) -> None:
    for number in range(3):
        headers = [(b"X-Forwarded-For", b"198.51.100.%d" % number)]
        assert sidecar.ask(forged(craft, headers=headers), source=source).status == 403
    limited(sidecar, receiver, craft.begini(headers=[(b"X-Forwarded-For", b"198.51.100.99")]), source=source)


def test_where_nobody_is_trusted_a_proxys_address_does_not_count_and_the_log_says_so(
    start: Start, receiver: Receiver, craft: type[Craft], source: str
) -> None:
    running = start(CONFIG | {"trusted_proxies": None})
    forwarded = [(b"X-Forwarded-For", b"198.51.100.7")]
    for _ in range(4):
        assert running.ask(forged(craft, headers=forwarded), source=source).status == 403
    assert running.ask(craft.begini(headers=forwarded), source=source).status == 200
    warned = [line for line in running.lines if line.get("event") == "forwarding_header_ignored"]
    assert [line["route"] for line in warned] == ["begini"]
    assert "limits.refusals" in warned[0]["detail"]
    exhaust(running, craft, source)
    limited(running, receiver, craft.begini(), source=source)


def test_a_unix_socket_has_no_address_to_count(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    running = start(CONFIG | {"listen": f"unix:{tmp_path}/s"})
    for _ in range(5):
        assert running.ask(forged(craft)).status == 403
    assert running.ask(craft.begini()).status == 200


def test_a_reload_forgets_who_was_refused_and_can_turn_the_limit_off(
    start: Start, receiver: Receiver, craft: type[Craft], source: str
) -> None:
    running = start(CONFIG)
    exhaust(running, craft, source)
    limited(running, receiver, craft.begini(), source=source)
    assert running.admin("/-/reload", method="POST")[0] == 200
    assert running.ask(craft.begini(), source=source).status == 200
    config = running.config | {
        "limits": {key: value for key, value in running.config["limits"].items() if key != "refusals"}
    }
    running.write(config)
    assert running.admin("/-/reload", method="POST")[0] == 200
    for _ in range(5):
        assert running.ask(forged(craft), source=source).status == 403


def test_after_the_time_for_one_more_a_sender_is_looked_at_again(
    start: Start, receiver: Receiver, craft: type[Craft], source: str
) -> None:
    running = start(CONFIG | {"limits": {"refusals": "2/s"}})
    answers = []
    while 429 not in answers:  # a slow machine takes longer for the first ones than their time
        answers.append(running.ask(forged(craft), source=source).status)
        assert len(answers) < 100
    mark = running.mark()
    answer = running.ask(craft.begini(), source=source)
    while answer.status == 429:
        assert answer.values(b"retry-after") == [b"1"]
        answer = running.ask(craft.begini(), source=source)
    assert answer.status == 200
    assert running.delivery(mark, outcome="accepted")
