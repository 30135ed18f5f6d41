"""`kind: jws`: detached JSON Web Signatures, with keys of the route. Those of providers have vectors: tests/vectors."""

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from rsa_key import rsa_key

from sidecar.config.presets import Verify
from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.detached import encode_pieces
from sidecar.verify.jose import sign_token
from sidecar.verify.keys import KeyFormError
from sidecar.verify.scheme import Scheme
from sidecar.verify.sign import sign_delivery
from sidecar.verify.token import encode_base64url
from sidecar.verify.verifier import Verifier

NOW = 1_700_000_000.0
BODY = b'{"n":1}'
KEYS = {
    "RS256": rsa_key(),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def scheme_of(**keys: Any) -> Scheme:
    made = Verify().read({"signature": {"header": "X-Sig", "kind": "jws", "algorithms": ["EdDSA"]}} | keys)
    assert isinstance(made, Scheme)
    return made


def public(key: Any, secret_id: str = "current") -> Secret:
    return Secret(secret_id, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private(key: Any) -> Secret:
    return Secret("private", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def token(head: dict[str, Any], payload: bytes = BODY, key: Any = KEYS["EdDSA"], algorithm: str = "EdDSA") -> bytes:
    first = encode_base64url(json.dumps(head).encode())
    second = payload if head.get("b64") is False else encode_base64url(payload)
    return b"%b..%b" % (first, encode_base64url(sign_token(algorithm, key, first + b"." + second)))


def judge(scheme: Scheme, text: bytes, *secrets: Secret, body: bytes = BODY, headers: Any = ()) -> Reason | str:
    """The id of the secret that matched, or the reason of the rejection."""
    verifier = Verifier(scheme, secrets or [public(KEYS["EdDSA"])])
    head = make_head("POST", b"/hooks?a=1", [(b"X-Sig", text), *headers], None)
    try:
        return verifier.verify(verifier.read_claim(head, NOW), head, [body]).secret_id
    except Rejected as rejected:
        return rejected.reason


@pytest.mark.parametrize("algorithm", [*KEYS, "HS256"])
@pytest.mark.parametrize("head", [{}, {"b64": False}, {"v": "2"}])
def test_what_we_sign_verifies_with_the_key_and_no_other(algorithm: str, head: dict[str, Any]) -> None:
    keys = {"head": head} if head else {}
    scheme = scheme_of(signature={"header": "X-Sig", "kind": "jws", "algorithms": [algorithm]}, **keys)
    signing = Secret("s", b"shared secret") if algorithm == "HS256" else private(KEYS[algorithm])
    verifying = signing if algorithm == "HS256" else public(KEYS[algorithm])
    signed = sign_delivery(scheme, signing, body=BODY, now=NOW)
    text = dict(signed.headers)["X-Sig"].encode()
    assert judge(scheme, text, verifying) == verifying.id
    assert judge(scheme, text, verifying, body=BODY + b" ") is Reason.SIGNATURE_MISMATCH
    other = Secret("o", b"another") if algorithm == "HS256" else public(_another(algorithm))
    assert judge(scheme, text, other) is Reason.SIGNATURE_MISMATCH
    forged = sign_delivery(scheme, signing, body=BODY, now=NOW, forged=True)
    assert judge(scheme, dict(forged.headers)["X-Sig"].encode(), verifying) is Reason.SIGNATURE_MISMATCH


def _another(algorithm: str) -> Any:
    if algorithm == "RS256":
        return rsa_key(1)
    return ec.generate_private_key(ec.SECP384R1()) if algorithm == "ES384" else ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ({"alg": "EdDSA"}, "current"),
        ({"alg": "EdDSA", "jku": "https://evil.example/", "x5u": "https://evil.example/", "kid": "../../x"}, "current"),
        ({"alg": "none"}, Reason.SIGNATURE_MALFORMED),
        ({"alg": "Ed25519"}, Reason.SIGNATURE_MALFORMED),
        ({}, Reason.SIGNATURE_MALFORMED),
        ({"alg": "EdDSA", "b64": False, "crit": ["b64"]}, Reason.SIGNATURE_MALFORMED),
        ({"alg": "EdDSA", "b64": True}, Reason.SIGNATURE_MALFORMED),
        ({"alg": "EdDSA", "crit": []}, Reason.SIGNATURE_MALFORMED),
        ({"alg": "EdDSA", "crit": ["exp"]}, Reason.SIGNATURE_MALFORMED),
    ],
)
def test_a_head_says_nothing_but_the_algorithm_unless_the_scheme_wants_more(
    head: dict[str, Any], reason: Reason | str
) -> None:
    assert judge(scheme_of(), token(head)) == reason


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ({"alg": "EdDSA", "b64": False, "crit": ["b64"]}, "current"),
        ({"alg": "EdDSA", "b64": False}, Reason.SIGNATURE_MALFORMED),
        ({"alg": "EdDSA", "b64": False, "crit": ["b64", "b64"]}, Reason.SIGNATURE_MALFORMED),
        ({"alg": "EdDSA", "b64": 0, "crit": ["b64"]}, Reason.SIGNATURE_MALFORMED),
        ({"alg": "EdDSA"}, Reason.SIGNATURE_MALFORMED),
    ],
)
def test_an_unencoded_payload_must_be_said_twice(head: dict[str, Any], reason: Reason | str) -> None:
    assert judge(scheme_of(head={"b64": False}), token(head)) == reason


def test_a_token_with_a_payload_is_no_detached_one() -> None:
    whole = token({"alg": "EdDSA"}).replace(b"..", b".%b." % encode_base64url(BODY))
    assert judge(scheme_of(), whole) is Reason.SIGNATURE_MALFORMED


def test_the_key_of_a_kid_is_the_secret_of_that_id_and_no_other() -> None:
    scheme = scheme_of(keys={"configured": True})
    one, two = public(KEYS["EdDSA"], "one"), public(ed25519.Ed25519PrivateKey.generate(), "two")
    assert judge(scheme, token({"alg": "EdDSA", "kid": "one"}), one, two) == "one"
    for kid in ("two", "On", None, 1, ["one"]):
        assert judge(scheme, token({"alg": "EdDSA", "kid": kid}), one, two) is Reason.SIGNATURE_MISMATCH
    assert judge(scheme, token({"alg": "EdDSA"}), one, two) is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    ("listed", "sent", "reason"),
    [
        ("X-Time", [(b"X-Time", b"1")], "current"),
        ("x-time,X-B", [(b"X-Time", b"1"), (b"X-B", b"2")], "current"),
        ("X-B", [(b"X-Time", b"1"), (b"X-B", b"2")], Reason.SIGNATURE_MALFORMED),
        ("X-Time,X-B", [(b"X-Time", b"1")], Reason.SIGNATURE_MALFORMED),
        ("X-Time,x-time", [(b"X-Time", b"1")], Reason.SIGNATURE_MALFORMED),
        ("X-Time", [(b"X-Time", b"1"), (b"X-Time", b"1")], Reason.SIGNATURE_MALFORMED),
        ("X-Time,", [(b"X-Time", b"1")], Reason.SIGNATURE_MALFORMED),
        ("X-Time,a b", [(b"X-Time", b"1"), (b"a b", b"")], Reason.SIGNATURE_MALFORMED),
        (",".join(["X-Time", *(f"X-{n}" for n in range(70))]), [(b"X-Time", b"1")], Reason.SIGNATURE_MALFORMED),
        (None, [(b"X-Time", b"1")], Reason.SIGNATURE_MALFORMED),
        (7, [(b"X-Time", b"1")], Reason.SIGNATURE_MALFORMED),
    ],
)
def test_the_headers_that_a_head_lists_are_signed(
    listed: Any, sent: list[tuple[bytes, bytes]], reason: Reason | str
) -> None:
    scheme = scheme_of(head={"headers": {"lists": ["X-Time"]}}, signed="{method} {path_query}\n{listed:headers}{body}")
    head = {"alg": "EdDSA"} | ({"headers": listed} if listed is not None else {})
    values = {name.lower(): value for name, value in sent}
    names = listed.encode().split(b",") if isinstance(listed, str) else []
    lines = b"".join(b"%b: %b\n" % (name, values.get(name.lower(), b"")) for name in names)
    signed = token(head, b"POST /hooks?a=1\n" + lines + BODY)
    assert judge(scheme, signed, headers=sent) == reason


def test_a_time_in_the_head_is_compared() -> None:
    scheme = scheme_of(timestamp={"head": "ts", "tolerance": "5m"})
    for ts, reason in (
        (NOW - 299, "current"), (NOW - 301, Reason.TIMESTAMP_TOO_OLD), (NOW + 301, Reason.TIMESTAMP_IN_FUTURE),
        (str(NOW), Reason.TIMESTAMP_MALFORMED), (True, Reason.TIMESTAMP_MALFORMED), (1e300, Reason.TIMESTAMP_MALFORMED),
    ):  # fmt: skip
        assert judge(scheme, token({"alg": "EdDSA", "ts": ts})) == reason
    assert judge(scheme, token({"alg": "EdDSA"})) is Reason.TIMESTAMP_MISSING


def test_a_private_key_of_another_kind_is_one_clear_error() -> None:
    with pytest.raises(KeyFormError, match="is not a private key for EdDSA; give one of its kind and curve"):
        sign_delivery(scheme_of(), private(KEYS["RS256"]), body=BODY, now=NOW)


@given(pieces=st.lists(st.binary(max_size=7), max_size=9))
def test_pieces_are_encoded_like_the_whole(pieces: list[bytes]) -> None:
    assert b"".join(encode_pieces(pieces)) == urlsafe_b64encode(b"".join(pieces)).rstrip(b"=")


def test_a_large_piece_is_encoded_like_the_whole() -> None:
    body = bytes(range(256)) * 1000
    assert b"".join(encode_pieces([body[:1], body[1:]])) == urlsafe_b64encode(body).rstrip(b"=")
