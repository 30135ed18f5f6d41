"""Begini's delivery test on the admin listener: every row of the contract's table, through a real sidecar."""

import base64
import contextlib
import gzip
import hashlib
import hmac
import json
import re
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from craft import Craft
from ports import free_port
from receiver import Peer, Receiver, Script
from sidecar_process import Sidecar, Start
from waiting import until

PATH = "/v1/webhooks-management/test"
KEYS = {
    "BEGINI_API_KEY": "CANARY-SECRET-begini-current-7f3a",
    "OTHER_API_KEY": "CANARY-SECRET-other-account-0d5c",
    "ABSENT_API_KEY": "CANARY-SECRET-without-url-77aa",
    "NOBODY_API_KEY": "CANARY-SECRET-nobody-listens-12bc",
}


#: A sidecar, and the receiver of one of its accounts.
Tested = tuple[Sidecar, Receiver]


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound, never listening: connections are refused
        yield holder.getsockname()[1]


@pytest.fixture
def tested(start: Start, new_receiver: Callable[..., Receiver], closed_port: int) -> Tested:
    """A sidecar whose accounts are one for each row; the first delivers to itself, through the sidecar's own data port."""
    port = free_port()
    direct = new_receiver()
    accounts = [
        {
            "id": "through",
            "api_key": {"env": "BEGINI_API_KEY"},
            "webhook_url": f"http://127.0.0.1:{port}/webhooks/begini",
        },
        {
            "id": "direct",
            "api_key": {"env": "OTHER_API_KEY"},
            "webhook_url": f"http://127.0.0.1:{direct.port}/hook?x=1",
        },
        {"id": "622056dce007dc805c741751", "api_key": {"env": "ABSENT_API_KEY"}},
        {"id": "nobody", "api_key": {"env": "NOBODY_API_KEY"}, "webhook_url": f"http://127.0.0.1:{closed_port}/"},
    ]
    sidecar = start({"listen": f"127.0.0.1:{port}", "delivery_test": {"accounts": accounts}}, env=KEYS)
    return sidecar, direct


def ask(sidecar: Sidecar, key: str | None = None) -> tuple[int, dict[str, Any]]:
    headers = {} if key is None else {"Api-key": KEYS.get(key, key)}
    status, body = sidecar.admin(PATH, method="POST", headers=headers)
    return status, json.loads(body)


def test_every_row_of_the_table(tested: Tested, receiver: Receiver) -> None:
    sidecar, direct = tested

    # no key, an unknown key, an account without webhook_url
    assert ask(sidecar) == (400, {"detail": "No Api-key supplied"})
    assert ask(sidecar, "") == (400, {"detail": "No Api-key supplied"})
    for wrong in (
        "wrong",
        KEYS["OTHER_API_KEY"][:-1],
        KEYS["OTHER_API_KEY"] + "x",
        "caf\xe9",
        "622056dce007dc805c741751",
    ):
        assert ask(sidecar, wrong) == (403, {"detail": "Invalid Api-key"})
    assert ask(sidecar, "ABSENT_API_KEY") == (
        424,
        {"detail": "Webhooks not set for 622056dce007dc805c741751, please set in Begini Dashboard"},
    )
    assert not receiver.requests
    assert not direct.requests

    # 2xx, through the sidecar itself: verified on the way
    status, answer = ask(sidecar, "BEGINI_API_KEY")
    assert (status, answer["webhook_receiver_status_code"], sorted(answer)) == (
        200,
        200,
        ["detail", "webhook_receiver_status_code"],
    )
    assert receiver.requests[0].values(b"X-Webhook-Verified") == [b"begini"]

    # 2xx, directly: signed with the account's key
    direct.then(b"HTTP/1.1 204 No Content\r\n\r\n")
    status, answer = ask(sidecar, "OTHER_API_KEY")
    assert (status, answer["webhook_receiver_status_code"]) == (200, 204)
    seen = direct.requests[0]
    assert seen.line == b"POST /hook?x=1 HTTP/1.1"
    expected = hmac.new(KEYS["OTHER_API_KEY"].encode(), seen.body, hashlib.sha512).hexdigest().encode()
    assert seen.values(b"X-Signature") == [expected]
    assert seen.values(b"Content-Type") == [b"application/json"]
    json.loads(seen.body)

    # another status, with its body
    refusal = b'{"detail":"Validation Failure"}'
    for code, body in ((403, refusal), (500, b""), (302, b"moved"), (400, "caf\xe9 \u2603".encode())):
        direct.then(b"HTTP/1.1 %d X\r\nLocation: /elsewhere\r\nContent-Length: %d\r\n\r\n%b" % (code, len(body), body))
        assert ask(sidecar, "OTHER_API_KEY") == (
            422,
            {"detail": {"webhook_receiver_status_code": code, "webhook_receiver_body_content": body.decode()}},
        )
    assert len(direct.requests) == 5  # no redirect was followed, nothing was sent twice

    # nobody there
    assert ask(sidecar, "NOBODY_API_KEY") == (503, {"detail": "Cannot connect to host 127.0.0.1 "})


def test_a_sidecar_that_refuses_the_delivery_is_shown_as_422(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    port = free_port()
    account = {
        "id": "a",
        "api_key": {"env": "OTHER_API_KEY"},
        "webhook_url": f"http://127.0.0.1:{port}/webhooks/begini",
    }
    sidecar = start({"listen": f"127.0.0.1:{port}", "delivery_test": {"accounts": [account]}})
    assert ask(sidecar, "OTHER_API_KEY") == (
        422,
        {
            "detail": {
                "webhook_receiver_status_code": 403,
                "webhook_receiver_body_content": '{"detail":"Validation Failure"}',
            }
        },
    )
    assert not receiver.requests

    def counted() -> bool:  # after its diagnosis, which begins when the response has left
        found = sidecar.metric("deliveries_total", route="begini", outcome="rejected", reason="signature_mismatch")
        return found == 1

    until(counted, "the rejection's count")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(lambda peer: peer.reset(), id="reset"),
        pytest.param(b"garbage\r\n\r\n", id="garbage"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", id="broken gzip"),
    ],
)
def test_a_receiver_that_breaks_is_never_a_bug_of_ours(tested: Tested, script: Script) -> None:
    sidecar, direct = tested
    direct.then(script)
    status, answer = ask(sidecar, "OTHER_API_KEY")
    assert status in (200, 503)
    assert "127.0.0.1" in json.dumps(answer) or status == 200
    assert "CANARY" not in json.dumps(answer)


def test_the_delivery_test_takes_post_only_and_is_not_on_the_data_listener(
    tested: Tested, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar, _ = tested
    assert sidecar.admin(PATH)[0] == 405
    assert sidecar.ask(craft.request(PATH.encode(), [(b"Api-key", KEYS["BEGINI_API_KEY"].encode())])).status == 404
    assert not receiver.requests


def packed(size: int, layers: int) -> bytes:
    """Zeros, compressed several times."""
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = b"".join(made.compress(bytes(1 << 20)) for _ in range(size >> 20)) + made.flush()
    for _ in range(layers - 1):
        data = gzip.compress(data)
    return data


def test_a_compressed_response_is_not_unpacked(tested: Tested) -> None:
    sidecar, direct = tested
    body = packed(300 << 20, 2)
    head = b"HTTP/1.1 418 Teapot\r\nContent-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    direct.then(head + body)
    status, answer = ask(sidecar, "OTHER_API_KEY")
    assert status == 422
    assert answer["detail"]["webhook_receiver_status_code"] == 418
    assert answer["detail"]["webhook_receiver_body_content"] == body.decode("utf-8", "replace")
    assert direct.wait().values(b"accept-encoding") == [b"identity"]
    (peak,) = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{sidecar.process.pid}/status").read_text())
    assert int(peak) < 120 * 1024  # KiB


def test_a_response_without_end_is_cut(tested: Tested) -> None:
    sidecar, direct = tested

    def endless(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 500 Broken\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                peer.send(b"4000\r\n%b\r\n" % (b"z" * 0x4000))

    direct.then(endless)
    status, answer = ask(sidecar, "OTHER_API_KEY")
    assert status == 422
    assert answer["detail"]["webhook_receiver_body_content"] == "z" * 65536


def test_credentials_in_urls_are_shown_nowhere(
    start: Start, new_receiver: Callable[..., Receiver], craft: type[Craft]
) -> None:
    """User, password and query of `webhook_url` and of a mirror: used, but on no page and in no log line."""
    direct = new_receiver()
    url = f"http://joe:CANARY-URL-PASSWORD@127.0.0.1:{direct.port}/in?key=CANARY-URL-TOKEN&CANARY-URL-BARE"
    account = {"id": "direct", "api_key": {"env": "OTHER_API_KEY"}, "webhook_url": url}
    mirror = "https://CANARY-URL-USER:CANARY-URL-MIRROR@127.0.0.1:9/list?sig=CANARY-URL-SIG"
    route = {
        "path": "/hooks/listed",
        "verify": "github",
        "secrets": [{"env": "GITHUB_SECRET"}],
        "allow": ["preset:github"],
    }
    config = {
        "delivery_test": {"accounts": [account]},
        "ip_ranges": {"refresh": "60s", "sources": {"github": mirror}},
        "routes": [route],
    }
    sidecar = start(config, env=KEYS)
    assert ask(sidecar, "OTHER_API_KEY")[0] == 200
    request = direct.wait()
    assert request.target == b"/in?key=CANARY-URL-TOKEN&CANARY-URL-BARE"
    assert request.values(b"authorization") == [b"Basic " + base64.b64encode(b"joe:CANARY-URL-PASSWORD")]
    failed = sidecar.line(event="ip_ranges_failed")
    assert "https://***@127.0.0.1:9/list?sig=*** can't be fetched" in failed["detail"]
    broken = json.loads(json.dumps(sidecar.config))
    broken["delivery_test"]["accounts"][0]["webhook_url"] = url.replace("http:", "ftp:")
    sidecar.write(broken)
    assert "ftp://***@127.0.0.1" in sidecar.line(event="config_reload_failed")["detail"]
    for path, headers in (("/", {}), ("/", {"Accept": "text/html"}), ("/-/config", {})):
        status, text = sidecar.admin(path, headers=headers)
        assert status == 200
        assert b"CANARY-URL" not in text
    assert b"CANARY-URL" not in b"".join(sidecar.stdout)
