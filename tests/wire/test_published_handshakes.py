"""What senders that publish their keys ask before they send: on the wire, with a key server that also takes confirmations."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import leak_watch
import pytest
from craft import Craft
from key_server import KeyServer
from published_vectors import Vector, body_of, sender, verify_of
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start
from waiting import WaitUntil

SNS = "https://sns.us-east-1.amazonaws.com/"
CONFIRM = "/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-east-1:123456789012:MyTopic&Token=2336412f37"
NOW = 1_796_000_000.0
HOOK = "https://receiver.example/hooks/in"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeyServer]:
    made = KeyServer(tmp_path)
    for url, page in sender("amazon-sns")["keys"].items():
        if url.startswith(SNS) and not page.get("trap") and "?" not in url:
            made.serve(url.removeprefix(SNS.rstrip("/")), page["content"].encode(), status=page.get("status", 200))
    yield made
    made.stop()


def find(name: str, case: str) -> Vector:
    return next(vector for vector in sender(name)["vectors"] if case in vector["case"])


def raw_of(vector: Vector) -> bytes:
    headers = [(name.encode(), value.encode()) for name, value in vector["headers"]]
    return Craft.request(b"/hooks/in", headers, body_of(vector))


SUBSCRIBE = find("amazon-sns", "valid: v2 subscription confirmation")


def sns(start: Start, server: KeyServer, receiver: Receiver, **settings: Any) -> Sidecar:
    route: Config = {"name": "sns", "path": "/hooks/in", "verify": verify_of("amazon-sns", SUBSCRIBE) | settings}
    return start(
        text=json.dumps({
            "listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "upstream": receiver.url, "drain": "100ms",
            "keys": {"mirrors": {SNS: f"{server.url}/"}, "ca": str(server.ca_file)}, "routes": [route],
        }),
        clock=NOW,
    )  # fmt: skip


def results(sidecar: Sidecar) -> dict[str, float]:
    return {
        dict(labels)["result"]: value for (_, labels), value in sidecar.samples("confirmations_total").items() if value
    }


def test_a_verified_subscription_is_confirmed_once_and_the_receiver_sees_nothing_of_it(
    start: Start, receiver: Receiver, server: KeyServer, wait_until: WaitUntil
) -> None:
    allowed = threading.Event()
    server.serve(CONFIRM, b"<ConfirmSubscriptionResponse/>", after=allowed)
    sidecar = sns(start, server, receiver, confirm=True)
    assert sidecar.ask(raw_of(SUBSCRIBE)).status == 200  # the sender doesn't wait for Amazon
    allowed.set()
    assert sidecar.ask(raw_of(SUBSCRIBE)).status == 200  # a copy
    line = sidecar.line(event="subscription_confirmed")
    assert (line["route"], line["host"]) == ("sns", "sns.us-east-1.amazonaws.com")
    wait_until(lambda: results(sidecar) == {"ok": 1.0}, "the count")
    assert server.requests(CONFIRM) == 1
    assert not receiver.requests
    assert "2336412f37" not in json.dumps(sidecar.lines)  # the token is a credential
    assert sidecar.metric("handshakes_total", route="sns", result="answered") == 2


@pytest.mark.parametrize(
    "case",
    [
        "SubscribeURL on another host, signed",
        "Token changed in a confirmation",
        "a subscribe URL added to a notification",
        "valid: v2 unsubscribe confirmation (Token and SubscribeURL signed)",
    ],
)
def test_nothing_else_causes_a_call(start: Start, receiver: Receiver, server: KeyServer, case: str) -> None:
    sidecar = sns(start, server, receiver, confirm=True)
    vector = find("amazon-sns", case)
    answer = sidecar.ask(raw_of(vector))
    assert answer.status == (200 if vector["want"] == "valid" else 403)
    assert [seen.body for seen in receiver.requests] == ([body_of(vector)] if vector["want"] == "valid" else [])
    time.sleep(0.3)
    assert not results(sidecar)
    assert not [path for path in server.counts if "Action" in path]


def test_without_confirm_the_receiver_gets_the_verified_confirmation(
    start: Start, receiver: Receiver, server: KeyServer
) -> None:
    sidecar = sns(start, server, receiver)
    assert sidecar.ask(raw_of(SUBSCRIBE)).status == 200
    assert [seen.body for seen in receiver.requests] == [body_of(SUBSCRIBE)]
    assert not [path for path in server.counts if "Action" in path]


@pytest.mark.parametrize(
    ("how", "result"),
    [
        ({"status": 302, "headers": {"Location": "/stolen"}}, "status"),
        ({"status": 500}, "status"),
        ({"endless": True}, "too_large"),
        ({"raw": b"nonsense"}, "unreachable"),
    ],
)
def test_a_confirmation_that_fails_is_counted_logged_and_tried_again(
    start: Start, receiver: Receiver, server: KeyServer, wait_until: WaitUntil, how: dict[str, Any], result: str
) -> None:
    server.serve(CONFIRM, b"", **how)
    server.serve("/stolen", b"")
    sidecar = sns(start, server, receiver, confirm=True)
    assert sidecar.ask(raw_of(SUBSCRIBE)).status == 200
    line = sidecar.line(event="subscription_not_confirmed")
    assert (line["result"], line["next_seconds"]) == (result, 5)
    assert results(sidecar) == {result: 1.0}
    server.serve(CONFIRM, b"ok")
    wait_until(lambda: results(sidecar) == {result: 1.0, "ok": 1.0}, "the second attempt")
    assert server.requests("/stolen") == 0


def test_workers_have_the_main_process_confirm(
    start: Start, receiver: Receiver, server: KeyServer, wait_until: WaitUntil
) -> None:
    server.serve(CONFIRM, b"ok")
    text = json.loads((sns(start, server, receiver, confirm=True)).file.read_text())
    sidecar = start(text=json.dumps(text | {"workers": 2}), clock=NOW)
    for _ in range(6):
        assert sidecar.ask(raw_of(SUBSCRIBE)).status == 200
    wait_until(lambda: results(sidecar) == {"ok": 1.0}, "the count")
    assert server.requests(CONFIRM) == 1


# -- without calls --


@pytest.fixture
def shaking(start: Start, receiver: Receiver) -> Callable[[str, str], Sidecar]:
    def begin(name: str, verify: str, **more: Any) -> Sidecar:
        route: Config = {
            "name": name,
            "path": "/hooks/in",
            "verify": json.loads(verify),
            "public_url": "https://receiver.example",
        }
        config: Config = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "upstream": receiver.url, "drain": "100ms"}
        # No document of keys was fetched, and a handshake needs none.
        config |= {
            "keys": {"mirrors": {"https://login.microsoftonline.com/": "https://127.0.0.1:9/"}},
            "routes": [route | more],
        }
        return start(
            text=json.dumps(config),
            env={"S": "secret-of-the-app-0123456789", "T": "71745723-d031-455c-bfa5-f90d11b4f20a"},
        )

    return begin


def test_mondays_challenge_is_answered_and_nothing_like_it_gets_through(
    shaking: Callable[..., Sidecar], receiver: Receiver
) -> None:
    sidecar = shaking("monday", '"monday"', secrets=[{"env": "S"}])
    shake = b'{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}'
    answer = sidecar.ask(Craft.request(b"/hooks/in", body=shake))
    assert (answer.status, json.loads(answer.body)) == (200, json.loads(shake))
    assert sidecar.line(event="handshake", route="monday")
    for body in (
        b'{"challenge":"abc","event":{"x":1}}', b'{"challenge":"<b>"}', b'{"challenge":1}', b'{"challenge":["a"]}',
        b'[{"challenge":"abc"}]', b'{"challenge":"abc","challenge":"abd"}', b"", b"challenge", b'{"challenge":"abc"' ,
        b'{"challenge":"abc","x":"' + b"a" * 5000 + b'"}',
    ):  # fmt: skip
        answer = sidecar.ask(Craft.request(b"/hooks/in", body=body))
        assert answer.status in (400, 403), (body, answer)
    signed = Craft.request(b"/hooks/in", [(b"Authorization", b"abc")], shake)
    assert sidecar.ask(signed).status == 403
    assert not receiver.requests


def test_ebays_challenge_is_hashed_with_the_verification_token_and_the_url(
    shaking: Callable[..., Sidecar], receiver: Receiver
) -> None:
    verify = {"preset": "ebay", "client_id": "app", "client_secret": {"env": "EBAY_CLIENT_SECRET"}}
    sidecar = shaking("ebay", json.dumps(verify), verify_token={"env": "T"})
    raw = Craft.request(b"/hooks/in?challenge_code=a8628072-3d33-45ee-9004-bee86830a22d", body=b"", method=b"GET")
    answer = sidecar.ask(raw, method="GET")
    # By eBay's SDK: event-notification-nodejs-sdk 1.0.3, generateChallengeResponse.
    wanted = "f4f9b5a507a722c21bc4252f0d634558d4c2a1949b017c568d1ca0795e2fa138"
    assert (answer.status, json.loads(answer.body)) == (200, {"challengeResponse": wanted})
    assert not receiver.requests


TENANT = {"tenants": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"}
GRID = json.dumps({"preset": "azure-event-grid", "audience": "api://a"} | TENANT)
RICH = json.dumps({"preset": "microsoft-graph-rich", "app_ids": "8e8d4f0c-1a2b-4c3d-9e5f-60718293a4b5"} | TENANT)


def test_event_grids_question_by_options_is_answered(shaking: Callable[..., Sidecar], receiver: Receiver) -> None:
    sidecar = shaking("grid", GRID)
    fields = [(b"WebHook-Request-Origin", b"eventgrid.azure.net"), (b"WebHook-Request-Rate", b"120")]
    answer = sidecar.ask(Craft.request(b"/hooks/in", fields, b"", method=b"OPTIONS"), method="OPTIONS")
    assert answer.status == 200
    assert answer.values(b"webhook-allowed-origin") == [b"eventgrid.azure.net"]
    assert not receiver.requests


def test_event_grids_validation_event_is_answered_only_with_its_token(
    start: Start, receiver: Receiver, server: KeyServer
) -> None:
    data = sender("azure-event-grid")
    found: dict[str, str] = {}
    for url, page in data["keys"].items():
        if not page.get("trap"):
            path = "/" + url.removeprefix("https://")
            server.serve(path, page["content"].encode())
            found[url] = server.url + path
    valid = next(each for each in data["vectors"] if each["want"] == "valid")
    route: Config = {"name": "grid", "path": "/hooks/in", "verify": verify_of("azure-event-grid", valid)}
    config: Config = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "upstream": receiver.url, "drain": "100ms"}
    config |= {"keys": {"mirrors": found, "ca": str(server.ca_file)}, "routes": [route]}
    sidecar = start(text=json.dumps(config), clock=valid["now"])
    event = json.dumps([
        {"id": "1", "data": {"validationCode": "512d38b6"}, "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent"}
    ]).encode()  # fmt: skip
    token = dict(valid["headers"])["Authorization"].encode()
    leak_watch.signature(token.rpartition(b".")[2])
    fields = [(b"aeg-event-type", b"SubscriptionValidation"), (b"Content-Type", b"application/json")]
    answer = sidecar.ask(Craft.request(b"/hooks/in", [*fields, (b"Authorization", token)], event))
    assert (answer.status, json.loads(answer.body)) == (200, {"validationResponse": "512d38b6"})
    assert sidecar.ask(Craft.request(b"/hooks/in", fields, event)).status == 403
    assert not receiver.requests


def test_graphs_validation_token_is_answered_as_text(shaking: Callable[..., Sidecar], receiver: Receiver) -> None:
    sidecar = shaking("graph", RICH)
    target = b"/hooks/in?validationToken=Validation%3A%20Testing%20client%20application%20reachability"
    answer = sidecar.ask(Craft.request(target, body=b""))
    assert (answer.status, answer.body) == (200, b"Validation: Testing client application reachability")
    assert answer.values(b"content-type")[0].startswith(b"text/plain")
    assert not receiver.requests
