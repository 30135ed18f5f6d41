"""One line for each delivery, that no sender can forge and no secret stands in."""

import contextlib
import re
import signal
import time

import pytest
from craft import Craft
from ports import free_port
from receiver import Receiver
from sidecar_process import Sidecar, Start
from waiting import WaitUntil


def test_the_line_of_a_delivery_holds_what_an_operator_needs(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    receiver.then(b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nthere")
    mark = sidecar.mark()
    sidecar.ask(
        craft.begini(path=b"/webhooks/begini?token=in-the-query", headers=[(b"X-Forwarded-For", b"203.0.113.7")]),
        source=craft.trusted,
    )
    line = sidecar.delivery(mark)
    for key, value in {
        "level": "info",
        "event": "delivery",
        "route": "begini",
        "outcome": "accepted",
        "reason": "",
        "client": "203.0.113.7",
        "peer": "127.0.0.9",
        "method": "POST",
        "path": "/webhooks/begini",
        "status": 202,
        "upstream_status": 202,
        "secret": "current",
        "request_bytes": len(craft.json_body),
        "answer_bytes": 5,
    }.items():
        assert line[key] == value, key
    assert 0 < line["verify_ms"] < line["duration_ms"]
    assert 0 < line["upstream_ms"] <= line["duration_ms"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert line["id"]


def test_every_delivery_has_its_own_line_and_id(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    mark = sidecar.mark()
    with sidecar.connect() as client:
        for number in range(30):
            secret = "ACME_SECRET" if number % 3 == 0 else "BEGINI_API_KEY"
            client.send(craft.begini(secret=secret)).answer()
    sidecar.delivery(mark, 30)
    lines = [line for line in sidecar.lines[mark:] if line.get("event") == "delivery"]
    assert len(lines) == 30
    assert len({line["id"] for line in lines}) == 30
    assert sum(line["outcome"] == "rejected" for line in lines) == 10
    assert {line["level"] for line in lines} == {"info", "warning"}


def test_a_refusal_says_why_in_words_without_what_was_sent(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    mark = sidecar.mark()
    sidecar.ask(craft.request(headers=[(b"X-Signature", b"deadbeef" * 15)], body=craft.json_body))
    line = sidecar.delivery(mark)
    assert line["level"] == "warning"
    assert "X-Signature" in line["detail"]
    assert "deadbeef" not in str(line)


def test_a_failure_of_the_receiver_is_an_error_with_its_time(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    receiver.then(lambda peer: peer.reset())
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini()).status == 502
    line = sidecar.delivery(mark)
    assert (line["level"], line["outcome"], line["upstream_status"]) == ("error", "failed", 0)
    assert "receiver" in line["detail"]


@pytest.mark.parametrize(
    "path",
    [
        b'/x","outcome":"accepted","y":"',
        b"/x\\",
        b'/"}{"event":"delivery"',
        b"/%0a%0d{}",
        b"/" + b"long" * 500,
    ],
)
def test_a_path_cannot_forge_a_field_or_a_line(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], path: bytes
) -> None:
    mark = sidecar.mark()
    assert sidecar.ask(craft.request(path)).status == 404
    line = sidecar.delivery(mark)
    assert line["path"] == path[:200].decode("latin-1")
    assert (line["outcome"], line["reason"]) == ("rejected", "no_route")
    assert len(sidecar.lines) == mark + 1
    assert len(sidecar.stdout[mark]) < 1500


@pytest.mark.parametrize("path", [b"/x\x1b[31m", b"/x\x00y", b"/x\x7fy", b"/x\xe2\x80\xa8y", b"/x\x85y"])
def test_control_characters_in_a_path_stay_escaped(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], path: bytes
) -> None:
    mark = sidecar.mark()
    assert sidecar.ask(craft.request(path)).status == 400
    sidecar.delivery(mark, reason="malformed_request")
    assert all(32 <= byte < 127 for byte in sidecar.stdout[mark].rstrip(b"\n"))


def test_a_delivery_id_cannot_forge_anything(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    mark = sidecar.mark()
    ident = b'1","outcome":"forged\xe9\xff' + b"x" * 500
    assert sidecar.ask(craft.github(headers=[(b"X-GitHub-Delivery", ident)])).status == 200
    line = sidecar.delivery(mark)
    assert line["outcome"] == "accepted"
    assert line["delivery_id"] == ident[:200].decode("latin-1")
    assert all(32 <= byte < 127 for byte in sidecar.stdout[mark].rstrip(b"\n"))


def test_no_secret_signature_or_body_is_ever_shown(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    mark = sidecar.mark()
    body = craft.body_mark * 3
    receiver.then(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body), b"HTTP/1.1 \r\n" + body)
    for raw in (
        craft.begini(body),
        craft.begini(body),
        craft.begini(body, secret="ACME_SECRET"),
        craft.slack(body, age=9999),
        craft.shopify(body).replace(b"=\r\n", b"\r\n"),
        craft.request(headers=[(b"X-Signature", craft.mac("BEGINI_API_KEY", body)[:-1])], body=body),
        craft.request(headers=[(b"X-Signature", craft.mac("BEGINI_API_KEY", body))] * 2, body=body),
        b"POST /webhooks/begini HTTP/1.1\r\nHost: a\r\nX-Signature: "
        + craft.mac("BEGINI_API_KEY", body)
        + b"\r\n"
        + body
        + b"\r\n\r\n",
    ):
        sidecar.ask(raw)
    sidecar.delivery(mark, 8)
    for path in ("/metrics", "/-/config", "/", "/readyz"):
        sidecar.admin(path)
    sidecar.check_leaks()
    # The search finds what it should find:
    sidecar.shown.append(body)
    with pytest.raises(AssertionError, match="leaked"):
        sidecar.check_leaks()
    sidecar.shown.pop()


def test_text_format_is_one_printable_line_for_each_delivery(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start({"log": {"format": "text"}})
    sidecar.ask(craft.begini())
    sidecar.ask(craft.request(b"/a" + b"%0a" + b'"x"'))
    sidecar.ask(craft.github(headers=[(b"X-GitHub-Delivery", b"id\xe9\xff \t[31m")]))
    end = time.monotonic() + 5
    while len([line for line in sidecar.stdout if b" POST " in line]) < 3:
        assert time.monotonic() < end, sidecar.stdout
        time.sleep(0.01)
    accepted, unknown, github = [line for line in sidecar.stdout if b" POST " in line]
    assert b"ACCEPTED" in accepted
    assert b"/webhooks/begini from 127.0.0.1 200" in accepted
    assert b"secret=current" in accepted
    assert b"REJECTED" in unknown
    assert b"reason=no_route" in unknown
    assert b"delivery_id=id??" in github
    for line in sidecar.stdout:
        assert all(32 <= byte < 127 for byte in line.rstrip(b"\n"))


def test_accepted_deliveries_can_be_left_out(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    sidecar = start({"log": {"accepted": False}})
    for _ in range(3):
        sidecar.ask(craft.begini())
    sidecar.ask(craft.begini(secret="ACME_SECRET"))
    line = sidecar.delivery()
    assert line["reason"] == "signature_mismatch"
    assert sidecar.metric("deliveries_total", route="begini", outcome="accepted", reason="") == 3


def test_level_error_leaves_out_everything_less(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    port = free_port()
    sidecar = start({"listen": f"127.0.0.1:{port}", "log": {"level": "error"}}, wait=False)
    sidecar.address = f"127.0.0.1:{port}"

    def serving() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            return sidecar.ask(craft.request()).status == 403
        return False

    wait_until(serving, "the start")
    assert sidecar.ask(craft.begini()).status == 200
    receiver.then(lambda peer: peer.reset())
    assert sidecar.ask(craft.begini()).status == 502
    assert sidecar.line()["reason"] == "upstream_broke"
    sidecar.send_signal(signal.SIGTERM)
    assert sidecar.exit_status() == 0
    assert len(sidecar.stdout) == 1


def test_short_secrets_and_blanks_are_warned_of_without_showing_them(start: Start) -> None:
    sidecar = start(env={"ACME_SECRET": "CANARY-S", "GITHUB_SECRET": " CANARY-SECRET-with-blanks \n"})
    warnings = [line for line in sidecar.lines if line.get("event") == "config_warning"]
    warnings = [line for line in warnings if "the secret in" in line["detail"]]
    assert len(warnings) == 2
    assert "CANARY" not in str(warnings)


def test_a_flood_of_rejections_is_sampled_and_what_is_left_out_is_counted(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    sidecar = start({"log": {"rejected": "30/s"}})  # 300 in ten seconds
    with sidecar.connect() as client:
        for _ in range(50):
            client.send(craft.request(b"/not-there", method=b"PUT", headers=[(b"Content-Length", b"0")]) * 10)
            for _ in range(10):
                assert client.answer().status == 404
        for number in range(310):
            client.send(craft.begini(headers=[(b"X-Try", b"%d" % number)]))
            assert client.answer().status == 200
    counted = b'webhook_sidecar_deliveries_total{outcome="rejected",reason="no_route",route=""} 500.0'
    wait_until(lambda: counted in sidecar.admin("/metrics")[1], "500 counted")
    wait_until(lambda: sidecar.lines[-1]["event"] == "lines_left_out", "the end of ten seconds")
    left_out = sidecar.lines[-1]
    for key, value in {"level": "warning", "of": "delivery", "route": "", "reason": "no_route", "lines": 200}.items():
        assert left_out[key] == value
    logged = [line for line in sidecar.lines if line["event"] == "delivery"]
    assert sum(line["reason"] == "no_route" for line in logged) == 300
    assert sum(line["outcome"] == "accepted" for line in logged) == 310


def test_what_is_left_out_at_the_end_is_reported_before_the_last_line(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start({"log": {"rejected": "2/m"}})
    for _ in range(5):
        assert sidecar.ask(craft.request(b"/other")).status == 404
    sidecar.send_signal(signal.SIGTERM)
    assert sidecar.exit_status(10) == 0
    assert [line["event"] for line in sidecar.lines[-2:]] == ["lines_left_out", "stopped"]
    assert sidecar.lines[-2]["lines"] == 3
