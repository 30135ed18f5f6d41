"""Providers' published examples against the presets, and the same deliveries fed in every splitting of the body.

`vectors.json` says where each comes from. Vectors marked `policy` depend on a parser's strictness (letter case of hex, a blank
after a comma); we give the verdict of the official SDK or snippet for all of them, so none needs an exception here.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from published_vectors import SENDERS, sender

from sidecar.config.presets import Verify, load_preset, preset_names
from sidecar.http1.head import RequestHead, make_head
from sidecar.outcomes import VERIFICATION, Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.keys import KeyFormError
from sidecar.verify.scheme import PROVEN, Evidence, Scheme
from sidecar.verify.sign import sign_delivery
from sidecar.verify.verifier import Verified, Verifier

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="utf-8"))["vectors"]

#: Those whose message is composed; `test_messages.py` verifies them.
COMPOSED: list[Vector] = json.loads(Path(__file__).with_name("messages.json").read_text(encoding="utf-8"))["vectors"]

#: The reason that log and metric show for each way to be wrong; every invalid vector's case is listed.
REASONS = {
    Reason.SIGNATURE_MISSING: {
        "empty-header",
        "empty-signature",
        "missing-signature",
        "missing-signature-header",
        "missing-token",
    },
    Reason.SIGNATURE_MALFORMED: {
        "asymmetric-tag-only",
        "bad-header",
        "garbage-signature",
        "hex-instead-of-base64",
        "invalid-hex",
        "missing-id",
        "missing-prefix",
        "no-signature",
        "partial-signature",
        "prefix-only",
        "repeated-token",
        "sha1-length-signature",
        "sha1-signature-under-sha256-settings",
        "sha1-value-in-sha256-header",
        "sha256-instead-of-sha512",
        "truncated-signature",
        "two-signatures-in-one-value",
        "uppercase-hex",
        "wrong-algorithm-prefix",
        "wrong-app-key",
        "wrong-hash",
        "wrong-scheme-word",
        "wrong-signature",
        "wrong-signature-algorithm",
        "wrong-signature-version",
        "wrong-version-tag",
    },
    Reason.SIGNATURE_MISMATCH: {
        "bad-key",
        "bad-payload",
        "bad-signature",
        "body-with-trailing-newline",
        "crlf-stripped",
        "extra-trailing-space-in-body",
        "id-changed",
        "key-used-as-text",
        "message-id-changed",
        "neither-header-matches",
        "reformatted-body",
        "reserialised-body",
        "secret-without-prefix",
        "tampered-body",
        "tampered-parameter",
        "timestamp-changed",
        "timestamp-changed-to-2000",
        "timestamp-header-changed",
        "two-h1-none-right",
        "url-changed",
        "url-query-changed",
        "wrong-key",
        "wrong-secret",
    },
    Reason.TOKEN_MISMATCH: {"wrong-token"},
    Reason.TIMESTAMP_MISSING: {"missing-timestamp", "no-timestamp"},
    Reason.TIMESTAMP_MALFORMED: {"malformed-timestamp"},
    Reason.TIMESTAMP_TOO_OLD: {"old-timestamp", "old-timestamp-in-body"},
    Reason.TIMESTAMP_IN_FUTURE: {"future-timestamp"},
}
EXPECTED = {case: reason for reason, cases in REASONS.items() for case in cases}
#: What only the operator can know: the app key beside the secret.
SETTINGS = {"pusher-03": {"preset": "pusher", "require": {"X-Pusher-Key": "foo"}}}


def selected(expected: str) -> list[Any]:
    return [
        pytest.param(vector, id=f"{vector['id']}-{vector['case']}")
        for vector in VECTORS
        if vector["expected"] == expected
    ]


def scheme_of(vector: Vector) -> Scheme:
    scheme = Verify().read(SETTINGS.get(vector["id"], vector["provider"]))
    assert isinstance(scheme, Scheme)
    return scheme


def delivery(vector: Vector) -> tuple[Verifier, RequestHead, bytes]:
    url = urlsplit(vector["url"])
    secrets = [Secret(f"s{number}", text.encode()) for number, text in enumerate(vector["secrets"])]
    verifier = Verifier(scheme_of(vector), secrets, f"{url.scheme}://{url.netloc}")
    headers = [(name.encode(), value.encode()) for name, value in vector["headers"]]
    target = url.path + ("?" + url.query if url.query else "")
    return verifier, make_head(vector["method"], target.encode(), headers, "192.0.2.1"), vector["body"].encode()


def verify(verifier: Verifier, head: RequestHead, pieces: list[bytes], now: float | None) -> Verified:
    return verifier.verify(verifier.read_claim(head, now), head, pieces)


@pytest.mark.parametrize("vector", selected("valid"))
def test_what_the_provider_signed_is_accepted(vector: Vector) -> None:
    verifier, head, body = delivery(vector)
    # The one vector with several secrets is signed with the last.
    assert verify(verifier, head, [body], vector["now"]).secret_id == f"s{len(vector['secrets']) - 1}"


@pytest.mark.parametrize("vector", selected("invalid"))
def test_what_the_provider_did_not_sign_is_refused_for_its_own_reason(vector: Vector) -> None:
    if vector["id"] == "openai-03":
        with pytest.raises(KeyFormError):  # such a secret does not even load
            delivery(vector)
        return
    verifier, head, body = delivery(vector)
    for pieces in ([body], [bytes([byte]) for byte in body]):
        with pytest.raises(Rejected) as refusal:
            verify(verifier, head, pieces, vector["now"])
        # Twilio's "token" is a key that does not match, not a token that was sent.
        expected = Reason.SIGNATURE_MISMATCH if vector["id"] == "twilio-07" else EXPECTED[vector["case"]]
        assert refusal.value.reason is expected
        assert refusal.value.reason in VERIFICATION


@pytest.mark.parametrize("vector", selected("valid"))
def test_the_verdict_does_not_depend_on_how_the_body_arrives(vector: Vector) -> None:
    verifier, head, body = delivery(vector)
    assert verify(verifier, head, [bytes([byte]) for byte in body], vector["now"])
    for cut in range(0, len(body) + 1, max(1, len(body) // 100)):
        assert verify(verifier, head, [body[:cut], body[cut:]], vector["now"])


def resignable() -> list[Any]:
    """Valid ones of schemes whose headers are a function of secret, time and body."""
    return [
        parameter
        for parameter in selected("valid")
        if (scheme := scheme_of(parameter.values[0])).signature.kind.read_private_key is None
        and not scheme.signature.field
        and not scheme.signature.in_target
        and (scheme.timestamp is None or (scheme.timestamp.unit in ("s", "ms") and not scheme.timestamp.field))
        and len(parameter.values[0]["secrets"]) == 1
        and parameter.values[0]["case"] in ("valid", "valid-get", "valid-post", "valid-unicode-and-escapes")
    ]


@pytest.mark.parametrize("vector", resignable())
def test_sign_writes_the_very_headers_that_the_provider_wrote(vector: Vector) -> None:
    verifier, head, body = delivery(vector)
    claim = verifier.read_claim(head, None)
    scheme = verifier.scheme
    signed_at = int(claim.timestamp or b"0") / (1000 if scheme.timestamp and scheme.timestamp.unit == "ms" else 1)
    headers = [header for header in vector["headers"] if header[0].lower() != scheme.signature.header.lower()]
    made = sign_delivery(
        scheme,
        verifier.secrets[0],
        body=body,
        now=signed_at,
        method=vector["method"],
        url=vector["url"],
        headers=headers,
    )
    assert (
        dict(made.headers)[scheme.signature.header] == head.values(scheme.signature.header.lower().encode())[0].decode()
    )


@pytest.mark.parametrize("provider", sorted({vector["provider"] for vector in VECTORS}))
def test_every_provider_of_the_vectors_has_one_that_is_valid(provider: str) -> None:
    assert load_preset(provider).name == provider
    assert "valid" in {vector["expected"] for vector in VECTORS if vector["provider"] == provider}


def test_every_vector_names_its_source_and_its_own_id() -> None:
    assert all(vector["source"] and vector["origin"] for vector in VECTORS)
    assert len({vector["id"] for vector in VECTORS}) == len(VECTORS)


#: How the `origin` of a vector starts that a provider printed, tests with, or that its code signed or accepted when it was run.
MADE_BY_PROVIDER = {
    Evidence.PRINTED_VECTOR: ("doc-literal",),
    Evidence.VENDOR_TEST: ("sdk-test-literal", "printed by the source"),
    Evidence.SDK_RUN: ("generated by", "verdicts by"),
}


#: Presets whose vectors are those of another name.
SAME_VECTORS = {
    "http-signature": "rfc9421",
    "http-signature-jwks": "rfc9421",
    "truelayer-sandbox": "truelayer",
}


@pytest.mark.parametrize("preset", [name for name in preset_names() if load_preset(name).evidence in PROVEN])
def test_evidence_that_is_a_delivery_of_the_provider_is_a_vector(preset: str) -> None:
    evidence = Evidence(load_preset(preset).evidence)
    origins = MADE_BY_PROVIDER[evidence]
    name = SAME_VECTORS.get(preset, preset)
    if name in SENDERS:  # `case` says which deliveries are the provider's own, `want` the verdict
        published = sender(name)["vectors"]
        valid = [vector for vector in published if vector["want"] == "valid"]
        if evidence is Evidence.SDK_RUN:
            assert valid
            assert any("(run)" in source for source in sender(name)["source"])
        else:
            assert any("literal" in vector["case"] for vector in valid)
        assert any(vector["want"] == "invalid" for vector in published)
        return
    vectors = [vector for vector in [*VECTORS, *COMPOSED] if vector["provider"] == preset]
    assert any(vector["expected"] == "valid" and vector["origin"].startswith(origins) for vector in vectors)
    assert any(vector["expected"] == "invalid" for vector in vectors)
