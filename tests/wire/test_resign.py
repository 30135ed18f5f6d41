"""`sign:` on the wire: what is forwarded verifies with the official libraries, and nothing else does.

The receivers are the examples of docs/resign.md, run as they are.
"""

import base64
import hashlib
import hmac
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leak_watch
import pytest
from craft import Craft, Fields
from needs import needs
from ports import free_port
from receiver import Receiver, Seen
from sidecar_process import Config, Sidecar, Start
from standardwebhooks import Webhook, WebhookVerificationError
from waiting import WaitUntil

ROOT = Path(__file__).parents[2]


def whsec(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


APP_SECRET = whsec(b"CANARY-SECRET-app-resigned-9a4e")
NEXT_SECRET = whsec(b"CANARY-SECRET-app-the-next-one-1c")
STANDARD_SECRET = whsec(b"CANARY-SECRET-a-standard-sender")
leak_watch.marker(*(secret.encode()[6:] for secret in (APP_SECRET, NEXT_SECRET, STANDARD_SECRET)))
OURS = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
SIGN = {"sign": {"secret": {"env": "APP_SECRET"}}}


def route(name: str, verify: str | Config = "begini", secret: str = "BEGINI_API_KEY", **more: Any) -> Config:
    base = {"name": name, "path": f"/webhooks/{name}", "verify": verify, "secrets": [{"id": "current", "env": secret}]}
    return base | SIGN | more


CONFIG = {
    "routes": [
        route("begini"),
        route("slack", "slack", "SLACK_SECRET"),
        route("standard", "standard-webhooks", "STANDARD_SECRET"),
        route("token", {"signature": {"header": "X-Token", "kind": "token"}}),
        route("shadow", mode="shadow", replay="10m", allow=["127.0.0.1/32"]),
        route("both", sign={"secret": [{"env": "APP_SECRET"}, {"env": "NEXT_SECRET"}]}),
        route("meta", "meta", handshake="pass"),
        {"path": "/network", "verify": "none", "allow": ["127.0.0.3/32"]} | SIGN,
        {"path": "/unsigned", "verify": "begini", "secrets": [{"env": "BEGINI_API_KEY"}]},
        {"path": "/open", "open": True},
    ]
}
ENV = {"APP_SECRET": APP_SECRET, "NEXT_SECRET": NEXT_SECRET, "STANDARD_SECRET": STANDARD_SECRET}


def ours(seen: Seen) -> list[bytes]:
    """The three headers, each once."""
    assert [name.lower() for name in seen.names if name.lower().startswith(b"webhook")] == list(OURS), seen.head
    return [seen.values(name)[0] for name in OURS]


def unsigned(seen: Seen) -> bool:
    return not any(name.lower().replace(b"_", b"-") in OURS for name in seen.names)


def verified(seen: Seen, secret: str = APP_SECRET) -> bytes:
    """The delivery's id, if the official library finds it genuine."""
    ident, timestamp, signature = ours(seen)
    for each in signature.split():
        leak_watch.signature(each[3:])
    Webhook(secret).verify(seen.body, {name.decode().lower(): value.decode() for name, value in seen.headers})
    assert abs(time.time() - int(timestamp)) < 30
    return ident


def standard(
    craft: type[Craft],
    body: bytes,
    ident: bytes = b"msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
    *,
    age: int = 0,
    path: bytes = b"/webhooks/standard",
    more: Fields = (),
) -> bytes:
    timestamp = b"%d" % (time.time() - age)
    key = base64.b64decode(STANDARD_SECRET[6:])
    made = base64.b64encode(hmac.new(key, b"%b.%b.%b" % (ident, timestamp, body), hashlib.sha256).digest())
    craft.sent(made)
    headers = [(b"Webhook-Id", ident), (b"Webhook-Timestamp", timestamp), (b"Webhook-Signature", b"v1," + made), *more]
    return craft.request(path, headers, body)


def test_what_is_forwarded_verifies_with_the_official_library_and_no_other_byte_does(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(craft.begini(headers=[(b"X-Kept", b"as it was")])).status == 200
    seen = receiver.requests[0]
    assert re.fullmatch(rb"msg_[0-9a-f]{64}", verified(seen))
    assert seen.body == craft.json_body
    assert seen.values(b"x-kept") == [b"as it was"]
    assert seen.values(b"x-signature")
    seen.body = seen.body.replace(b"scored", b"Scored")
    with pytest.raises(WebhookVerificationError):
        verified(seen)


def test_the_id_is_the_same_when_the_provider_sends_again_and_tells_nothing_of_its_signature(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    receiver.then(BUSY)
    raw = craft.begini()
    assert [sidecar.ask(raw).status, sidecar.ask(raw).status] == [503, 200]
    assert sidecar.ask(craft.begini(craft.json_body + b"\n")).status == 200
    first, again, other = map(verified, receiver.requests)
    assert first == again != other
    mac = receiver.requests[0].values(b"x-signature")[0]
    assert first[4:] not in (mac[:64], hashlib.sha256(mac).hexdigest().encode())
    assert first[4:] != hashlib.sha256(bytes.fromhex(mac.decode())).hexdigest().encode()


def test_a_body_of_several_pieces_and_one_hashed_in_a_thread_verify_too(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    for count in (3000, 30000):
        assert sidecar.ask(craft.begini(b"[%b]" % b",".join([craft.json_body] * count))).status == 200
        verified(receiver.requests[-1])
    assert len(receiver.requests[-1].body) > 1024 * 1024


def test_an_id_that_the_provider_signs_is_kept_and_the_rest_is_ours(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(standard(craft, craft.json_body, age=100)).status == 200
    assert sidecar.ask(standard(craft, craft.json_body, age=0)).status == 200
    ids = [verified(seen) for seen in receiver.requests]
    assert ids == [b"msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"] * 2


@pytest.mark.parametrize("ident", [b"a.b", b"a b", b"\xc3\xab", b"x" * 129])
def test_a_signed_id_that_is_not_a_valid_webhook_id_is_hashed(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], ident: bytes
) -> None:
    """A dot would end it in the signed message: two deliveries could have one signature."""
    assert sidecar.ask(standard(craft, craft.json_body, ident)).status == 200
    assert sidecar.ask(standard(craft, craft.json_body, ident, age=5)).status == 200
    assert sidecar.ask(standard(craft, craft.json_body, ident + b"!"[: 129 - len(ident)] + b"?")).status == 200
    first, again, other = map(verified, receiver.requests)
    assert first == again != other
    assert re.fullmatch(rb"msg_[0-9a-f]{64}", first)


def test_the_senders_headers_of_these_names_go_where_ours_come_and_stay_elsewhere(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    forged = [
        (b"Webhook-Id", b"x"),
        (b"WEBHOOK_SIGNATURE", b"v1,x"),
        (b"webhook-timestamp", b"1"),
        (b"Webhook-Id", b"y"),
    ]
    assert sidecar.ask(craft.begini(headers=forged)).status == 200
    verified(receiver.requests[0])
    assert sidecar.ask(craft.begini(headers=forged, path=b"/unsigned")).status == 200
    assert [field for field in receiver.requests[1].headers if field in forged] == forged


def test_connection_options_take_none_of_our_headers_away(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(craft.begini(headers=[(b"Connection", b"webhook-id, webhook-signature")])).status == 200
    verified(receiver.requests[0])


def test_nothing_signed_by_the_provider_means_a_new_id_each_time(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.request(b"/webhooks/token", [(b"X-Token", b"CANARY-SECRET-begini-current-7f3a")], craft.json_body)
    assert [sidecar.ask(raw).status, sidecar.ask(raw).status] == [200, 200]
    network = craft.request(b"/network", body=craft.json_body)
    assert [sidecar.ask(network, source="127.0.0.3").status for _ in range(2)] == [200, 200]
    assert len({verified(seen) for seen in receiver.requests}) == 4


def test_what_shadow_mode_would_refuse_is_never_signed_nor_does_it_keep_a_signature(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def sent(raw: bytes, source: str | None = None) -> Seen:
        assert sidecar.ask(raw, source=source).status == 200
        return receiver.requests[-1]

    path = b"/webhooks/shadow"
    genuine = craft.begini(path=path)
    verified(sent(genuine))
    forged = [(name, b"v1,AAAA") for name in OURS]
    for refused in (
        sent(genuine),  # a replay
        sent(craft.begini(path=path, secret="OTHER_API_KEY", headers=forged)),
        sent(craft.request(path, forged, craft.json_body)),
        sent(craft.begini(craft.json_body + b" ", path=path), source="127.0.0.4"),
    ):
        assert refused.values(b"x-webhook-verified") == [b"shadow-rejected"]
        assert unsigned(refused)


def test_a_handshake_that_is_passed_on_unsigned_stays_so(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    target = b"/webhooks/meta?hub.mode=subscribe&hub.challenge=1&hub.verify_token=x"
    assert sidecar.ask(craft.request(target, method=b"GET"), method="GET").status == 200
    assert unsigned(receiver.requests[0])


def test_an_open_route_is_never_signed(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    assert sidecar.ask(craft.request(b"/open", body=craft.json_body)).status == 200
    assert unsigned(receiver.requests[0])


def test_of_several_secrets_each_makes_a_signature_for_the_time_of_a_change(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(craft.begini(path=b"/webhooks/both")).status == 200
    seen = receiver.requests[0]
    assert verified(seen) == verified(seen, NEXT_SECRET)
    with pytest.raises(WebhookVerificationError):
        verified(seen, STANDARD_SECRET)


def test_a_secret_file_that_changes_is_signed_with_from_then_on(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    file = tmp_path / "app"
    file.write_text(APP_SECRET + "\n")
    running = start({"routes": [route("begini", sign={"secret": {"file": str(file)}})]})
    assert running.ask(craft.begini()).status == 200
    mark = running.mark()
    file.write_text("not base64")
    running.line(mark, event="config_reload_failed")
    assert running.ask(craft.begini()).status == 200
    mark = running.mark()
    file.write_text(NEXT_SECRET)
    running.line(mark, event="config_loaded")
    assert running.ask(craft.begini()).status == 200
    first, second, third = receiver.requests
    assert verified(first) == verified(second) == verified(third, NEXT_SECRET)


# The receivers of docs/resign.md

EXAMPLES = dict(re.findall(r"```(python|javascript|php)\n(.*?)```", (ROOT / "docs/resign.md").read_text(), re.DOTALL))
NODE_MODULES = ROOT / ".venv/node/node_modules"
COMMANDS = {"python": ("py", [sys.executable]), "javascript": ("js", ["node"]), "php": ("php", ["php", "-S"])}


@pytest.fixture(scope="module", params=COMMANDS)
def example(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, wait_until: WaitUntil
) -> Iterator[int]:
    """The port of a running example."""
    needs(COMMANDS[request.param][1][0])
    if request.param == "javascript":
        needs(NODE_MODULES / "standardwebhooks")
    port = free_port()
    suffix, command = COMMANDS[request.param]
    file = tmp_path_factory.mktemp("example") / f"receiver.{suffix}"
    file.write_text(EXAMPLES[request.param])
    where = [f"127.0.0.1:{port}"] if suffix == "php" else []
    env = os.environ | {"PORT": str(port), "APP_SECRET": APP_SECRET, "NODE_PATH": str(NODE_MODULES)}
    running = subprocess.Popen([*command, *where, str(file)], env=env, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert running.poll() is None, "the example ended by itself"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, f"the {request.param} example")
        yield port
    finally:
        running.kill()
        running.wait()


def test_each_receiver_of_the_documentation_takes_what_came_through_and_nothing_else(
    start: Start, craft: type[Craft], example: int, receiver: Receiver
) -> None:
    running = start({"upstream": f"http://127.0.0.1:{example}", "routes": CONFIG["routes"]}, env=ENV)
    assert running.ask(craft.begini()).status == 200
    assert running.ask(craft.slack(b'{"mark":"%b","name":"Zo\xc3\xab"}' % craft.body_mark)).status == 200
    # What goes round the sidecar, or through it unsigned, is distinguished.
    assert running.ask(craft.begini(path=b"/unsigned")).status == 401
    assert running.ask(standard(craft, craft.json_body)).status == 200
    assert running.ask(craft.begini(path=b"/webhooks/shadow", secret="OTHER_API_KEY")).status == 401
