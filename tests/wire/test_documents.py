"""Bodies that are parsed before they are verified, JSON and forms: what a stranger makes them cost, and who waits meanwhile."""

import base64
import threading
import time

from craft import Craft
from receiver import Receiver
from sidecar_process import Sidecar

JSON, FORM = b"application/json", b"application/x-www-form-urlencoded"
ENV = {"DOCUMENT_SECRET": "CANARY-SECRET-document-8d1f"}
CONFIG = {
    "public_url": "https://hooks.example.com",
    "log": {"accepted": False},
    "routes": [
        {"name": "mailgun", "path": "/mailgun", "verify": "mailgun", "secrets": [{"env": "DOCUMENT_SECRET"}]},
        {"name": "twilio", "path": "/", "verify": "twilio", "secrets": [{"env": "DOCUMENT_SECRET"}]},
        {"name": "github", "path": "/webhooks/github", "verify": "github", "secrets": [{"env": "GITHUB_SECRET"}]},
    ],
}
SIGNATURE = b'{"signature":{"timestamp":"7","token":"u","signature":"' + b"1" * 64 + b'"},"y":'
SIZE = 1024 * 1000
#: What each megabyte of it took before: 110 to 45 ms, for each of up to four spellings of the URL.
DENSE = {
    "objects in lists": (SIGNATURE + b"[" + b'[{"":[]}],' * (SIZE // 10) + b"1]}", b"/mailgun", JSON),
    "short numbers": (SIGNATURE + b"[" + b"7," * (SIZE // 2) + b"1]}", b"/mailgun", JSON),
    "form of escapes": (b"b=" + b"%42" * (SIZE // 3), b"/", FORM),
    "form of many fields": (b"%42=%43&" * (SIZE // 8), b"/", FORM),
}


def forged(craft: type[Craft], body: bytes, path: bytes, kind: bytes) -> bytes:
    headers = [(b"Content-Type", kind), (b"X-Twilio-Signature", base64.b64encode(b"\1" * 20))]
    return craft.request(path, headers, body)


def test_a_dense_document_costs_milliseconds(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    for name, (body, path, kind) in DENSE.items():
        raw = forged(craft, body, path, kind)
        sidecar.ask(raw)
        before = sidecar.cpu()
        for _ in range(5):
            assert sidecar.ask(raw).status == 403, name
        assert sidecar.cpu() - before < 5 * 0.06, name
    assert receiver.requests == []


def test_genuine_deliveries_come_through_while_others_are_parsed(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    over = threading.Event()
    dear = [forged(craft, *each) for each in DENSE.values()]

    def attack() -> None:
        while not over.is_set():
            for raw in dear:
                assert sidecar.ask(raw).status == 403

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        worst = 0.0
        for _ in range(40):
            began = time.monotonic()
            assert sidecar.ask(craft.github()).status == 200
            worst = max(worst, time.monotonic() - began)
    finally:
        over.set()
        attacker.join()
    assert worst < 2
    assert len(receiver.requests) == 40
