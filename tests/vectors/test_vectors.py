"""Providers' published examples against the presets, and the same deliveries fed in every splitting of the body.

`vectors.json` says where each comes from. Vectors marked `policy` depend on a parser's strictness (upper-case hex); we give
the verdict of the official SDK or snippet for all of them, so none needs an exception here.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.outcomes import VERIFICATION, Reason, Rejected
from sidecar.request import RequestHead, make_head
from sidecar.schema import load_preset
from sidecar.secret import Secret
from sidecar.signature import Verified, Verifier
from sidecar.signing import sign

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="utf-8"))["vectors"]

#: The reason that log and metric show for each way to be wrong; every invalid vector's case is listed.
REASONS = {
    "body-with-trailing-newline": Reason.SIGNATURE_MISMATCH,
    "empty-signature": Reason.SIGNATURE_MISSING,
    "future-timestamp": Reason.TIMESTAMP_IN_FUTURE,
    "hex-instead-of-base64": Reason.SIGNATURE_MALFORMED,
    "missing-prefix": Reason.SIGNATURE_MALFORMED,
    "missing-signature": Reason.SIGNATURE_MISSING,
    "missing-signature-header": Reason.SIGNATURE_MISSING,
    "missing-timestamp": Reason.TIMESTAMP_MISSING,
    "prefix-only": Reason.SIGNATURE_MALFORMED,
    "reserialised-body": Reason.SIGNATURE_MISMATCH,
    "sha256-instead-of-sha512": Reason.SIGNATURE_MALFORMED,
    "tampered-body": Reason.SIGNATURE_MISMATCH,
    "timestamp-header-changed": Reason.SIGNATURE_MISMATCH,
    "truncated-signature": Reason.SIGNATURE_MALFORMED,
    "two-signatures-in-one-value": Reason.SIGNATURE_MALFORMED,
    "uppercase-hex": Reason.SIGNATURE_MALFORMED,
    "wrong-algorithm-prefix": Reason.SIGNATURE_MALFORMED,
    "wrong-secret": Reason.SIGNATURE_MISMATCH,
}


def selected(expected: str) -> list[Any]:
    return [
        pytest.param(vector, id=f"{vector['id']}-{vector['case']}")
        for vector in VECTORS
        if vector["expected"] == expected
    ]


def delivery(vector: Vector) -> tuple[Verifier, RequestHead, bytes, float]:
    secrets = [Secret(f"s{number}", text.encode()) for number, text in enumerate(vector["secrets"])]
    headers = [(name.encode(), value.encode()) for name, value in vector["headers"]]
    head = make_head("POST", b"/hooks/in", headers, "192.0.2.1")
    now = 0.0 if vector["now"] is None else float(vector["now"])
    return Verifier(load_preset(vector["provider"]), secrets), head, vector["body"].encode(vector["encoding"]), now


def verify(verifier: Verifier, head: RequestHead, pieces: list[bytes], now: float) -> Verified:
    return verifier.verify(verifier.read_claim(head, now), head, pieces)


@pytest.mark.parametrize("vector", selected("valid"))
def test_what_the_provider_signed_is_accepted(vector: Vector) -> None:
    verifier, head, body, now = delivery(vector)
    assert verify(verifier, head, [body], now) == Verified("s0")


@pytest.mark.parametrize("vector", selected("invalid"))
def test_what_the_provider_did_not_sign_is_refused_for_its_own_reason(vector: Vector) -> None:
    verifier, head, body, now = delivery(vector)
    with pytest.raises(Rejected) as refusal:
        verify(verifier, head, [body], now)
    assert refusal.value.reason is REASONS[vector["case"]]
    assert refusal.value.reason in VERIFICATION


@pytest.mark.parametrize("vector", selected("valid"))
def test_the_verdict_does_not_depend_on_how_the_body_arrives(vector: Vector) -> None:
    verifier, head, body, now = delivery(vector)
    assert verify(verifier, head, [bytes([byte]) for byte in body], now)
    for cut in range(len(body) + 1):
        assert verify(verifier, head, [body[:cut], body[cut:]], now)


@pytest.mark.parametrize("vector", selected("valid"))
def test_sign_writes_the_very_headers_that_the_provider_wrote(vector: Vector) -> None:
    verifier, _, body, _ = delivery(vector)
    sent = dict(vector["headers"])
    clock = verifier.scheme.timestamp
    signed_at = int(sent[clock.header]) if clock else 0
    made = dict(sign(verifier.scheme, verifier.secrets[0], body=body, now=signed_at, headers=list(sent.items())))
    made.pop(verifier.scheme.delivery_id if not verifier.scheme.signs_id else None, None)
    assert made.items() <= sent.items()


@pytest.mark.parametrize(
    ("preset", "secret", "now", "body", "headers"),
    [
        pytest.param(
            # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
            "github",
            b"It's a Secret to Everybody",
            0,
            b"Hello, World!",
            [(b"X-Hub-Signature-256", b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")],
            id="github",
        ),
        pytest.param(
            # https://docs.slack.dev/authentication/verifying-requests-from-slack
            "slack",
            b"8f742231b10e8888abcd99yyyzzz85a5",
            1531420618,
            b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
            b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
            b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
            b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
            [
                (b"X-Slack-Request-Timestamp", b"1531420618"),
                (b"X-Slack-Signature", b"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
            ],
            id="slack",
        ),
    ],
)
def test_the_value_printed_in_the_documentation_is_accepted(
    preset: str, secret: bytes, now: int, body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    verifier = Verifier(load_preset(preset), [Secret("documented", secret)])
    head = make_head("POST", b"/", headers, None)
    assert verify(verifier, head, [body], now) == Verified("documented")


@pytest.mark.parametrize("preset", sorted({vector["provider"] for vector in VECTORS}))
def test_every_preset_has_a_vector_that_is_valid_and_one_that_is_not(preset: str) -> None:
    verdicts = {vector["expected"] for vector in VECTORS if vector["provider"] == preset}
    assert verdicts == {"valid", "invalid"}


def test_every_vector_names_its_source_and_its_own_id() -> None:
    assert all(vector["source"] and vector["origin"] for vector in VECTORS)
    assert len({vector["id"] for vector in VECTORS}) == len(VECTORS)
