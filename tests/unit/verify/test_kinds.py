"""The kinds of signature: each against another implementation, and one more that a test registers."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from jsonschema import Draft202012Validator
from rsa_key import rsa_key

from sidecar.config.keys import json_schema
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.delivery.explain import Subject, explain
from sidecar.delivery.explanation import Explanation
from sidecar.diagnosis.capture import read_capture
from sidecar.outcomes import Hint, Reason
from sidecar.secret import Secret
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.keys import KeyForm, KeyFormError, read_keys
from sidecar.verify.kinds import KINDS, Kind, register
from sidecar.verify.kinds.basic import BASIC
from sidecar.verify.kinds.ecdsa import ECDSA
from sidecar.verify.kinds.ed25519 import ED25519
from sidecar.verify.kinds.hash import HASH, SECRET_PLACE
from sidecar.verify.kinds.hmac import HMAC, Hmac
from sidecar.verify.kinds.kind import MATCHES_NOTHING, Matcher
from sidecar.verify.kinds.rsa import RSA_PKCS1, RSA_PSS
from sidecar.verify.kinds.token import TOKEN
from sidecar.verify.scheme import Scheme, SignatureField
from sidecar.verify.sign import sign

MESSAGE = [b"", b"a message ", b"in pieces"]
WHOLE = b"".join(MESSAGE)


def matcher_of(kind: Kind, *secrets: Secret) -> Matcher:
    scheme = Scheme(signature=SignatureField(header="X", kind=kind), key=kind.key_forms[0])
    return kind.make_matcher(Algorithm.SHA256, read_keys(scheme, secrets))


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 129, 300])
def test_the_hmac_is_the_standard_librarys(algorithm: Algorithm, size: int) -> None:
    key = bytes(range(256)) * 2
    made = Hmac(algorithm, key[:size])
    for message in ([], MESSAGE, [b"x" * 10_000]):  # and again: it keeps no state
        assert made.digest(message) == hmac.digest(key[:size], b"".join(message), algorithm.value)


def test_any_signature_may_match_any_secret_and_the_id_says_which() -> None:
    matcher = matcher_of(HMAC, Secret("a", b"1"), Secret("b", b"2"))
    right = hmac.digest(b"2", WHOLE, "sha256")
    assert matcher.match([bytes(32), right], MESSAGE) == "b"
    assert matcher.match([right], MESSAGE) == "b"
    assert matcher.match([bytes(32), right[:-1], b"", right + b"x"], MESSAGE) is None
    assert matcher.match([], MESSAGE) is None
    assert MATCHES_NOTHING.match([right], MESSAGE) is None


def test_a_keyed_hash_fills_the_secret_into_its_place_and_only_there() -> None:
    matcher = matcher_of(HASH, Secret("a", b"no"), Secret("b", b"yes"))
    message = [SECRET_PLACE, b"{secret}", *MESSAGE]
    assert matcher.match([hashlib.sha256(b"yes{secret}" + WHOLE).digest()], message) == "b"
    assert matcher.match([hashlib.sha256(b"{secret}{secret}" + WHOLE).digest()], message) is None


@pytest.mark.parametrize(
    ("kind", "secret", "sent"),
    [(TOKEN, b"token \xff", b"token \xff"), (BASIC, b"user:pass", base64.b64encode(b"user:pass"))],
)
def test_a_token_is_compared_whole(kind: Kind, secret: bytes, sent: bytes) -> None:
    matcher = matcher_of(kind, Secret("a", b"u:x"), Secret("b", secret))
    assert matcher.match([sent], []) == "b"
    for wrong in (sent[:-1], sent + b"x", sent.swapcase(), b""):
        assert matcher.match([wrong], []) is None


ED25519_KEY = ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa_key()
SHA256 = hashes.SHA256()


@pytest.mark.parametrize(
    ("kind", "key", "signature"),
    [
        (ED25519, ED25519_KEY, ED25519_KEY.sign(WHOLE)),
        (ECDSA, P256, P256.sign(WHOLE, ec.ECDSA(SHA256))),
        (RSA_PKCS1, RSA, RSA.sign(WHOLE, padding.PKCS1v15(), SHA256)),
        (RSA_PSS, RSA, RSA.sign(WHOLE, padding.PSS(padding.MGF1(SHA256), 32), SHA256)),
        (RSA_PSS, RSA, RSA.sign(WHOLE, padding.PSS(padding.MGF1(SHA256), padding.PSS.MAX_LENGTH), SHA256)),
    ],
    ids=["ed25519", "ecdsa", "pkcs1", "pss", "pss with the longest salt"],
)
def test_a_public_key_takes_its_own_signatures_and_no_others(
    kind: Kind, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, signature: bytes
) -> None:
    matcher = kind.make_matcher(Algorithm.SHA256, [("a", key.public_key())])
    assert matcher.match([b"garbage", signature], MESSAGE) == "a"
    changed = bytearray(signature)
    changed[-1] ^= 1
    for wrong in (bytes(changed), signature[:-1], signature + b"\0", b"", bytes(len(signature))):
        assert matcher.match([wrong], MESSAGE) is None
    assert matcher.match([signature], [*MESSAGE, b"x"]) is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if not (kind.is_jws or kind.listed)], ids=str)
def test_every_kind_verifies_what_it_signs(kind: Kind, key_pair: Callable[..., tuple[bytes, bytes]]) -> None:
    for form in kind.key_forms:
        scheme = Scheme(signature=SignatureField(header="X", kind=kind), key=form)
        signs, verifies = key_pair(scheme)
        message = [SECRET_PLACE, *MESSAGE] if kind.message_holds_secret else MESSAGE
        signature = kind.sign(Algorithm.SHA256, kind.read_signing_key(form, signs), message)
        keys = read_keys(scheme, [Secret("other", key_pair(scheme, 1)[1]), Secret("a", verifies)])
        assert kind.make_matcher(Algorithm.SHA256, keys).match([signature], message) == "a"
        size = kind.size(Algorithm.SHA256)
        assert size in (0, len(signature))
        assert kind.bearer or KeyForm.PEM in kind.key_forms or size


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_what_senders_confuse_with_a_kind_is_of_a_kind_that_exists(kind: Kind) -> None:
    assert {each.kind for each in kind.constructions((b"x",))} <= set(KINDS) - {kind.name}


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="hmac"):
        register(HMAC)


# -- a kind is one file and one registration: this is the file --


class ReversedMatcher:
    def __init__(self, keys: list[tuple[str, bytes]]) -> None:
        self.keys = keys

    def match(self, signatures: Sequence[bytes], message: Sequence[bytes]) -> str | None:
        return next((id for id, key in self.keys if sign_reversed(Algorithm.SHA256, key, message) in signatures), None)


def sign_reversed(algorithm: Algorithm, key: bytes, message: Sequence[bytes]) -> bytes:
    return b"".join([*message, key])[::-1][:8]


def read_upper(form: KeyForm, text: bytes) -> bytes:
    if not text.isupper():
        raise KeyFormError("is not in upper case; shout it")
    return text


REVERSED = Kind(
    name="reversed",
    title="Reversed {algorithm}",
    key_forms=(KeyForm.UTF8,),
    read_key=read_upper,
    make_matcher=lambda algorithm, keys: ReversedMatcher(keys),
    sign=sign_reversed,
)
CONFIG = """
upstream: http://127.0.0.1:3000
routes:
  - path: /hooks
    verify: {signature: {header: X-Sig, kind: reversed, encoding: base64}}
    secrets: [{id: current, env: KEY}]
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Iterator[str]:
    register(REVERSED)
    file = tmp_path / "sidecar.yaml"
    file.write_text(CONFIG)
    yield str(file)
    del KINDS["reversed"]


def test_a_registered_kind_works_everywhere_without_another_edit(config_file: str) -> None:
    config = load_config(config_file, {"KEY": "SECRET"})
    verifier = config.routes.routes[0].verifier
    assert verifier is not None
    scheme = verifier.scheme
    assert scheme.summary == "Reversed SHA256 in X-Sig"
    headers = sign(scheme, Secret("a", b"SECRET"), body=b"body", now=0)
    assert headers == [("X-Sig", base64.b64encode(b"TERCESyd").decode())]

    def explained(signature: str) -> Explanation:
        raw = f"POST /hooks HTTP/1.1\r\nHost: a\r\nX-Sig: {signature}\r\nContent-Length: 4\r\n\r\nbody".encode()
        return explain(read_capture(raw, peer=None), Subject(config=config), now=0)

    accepted = explained(headers[0][1])
    assert (accepted.verdict, accepted.secret) == ("accepted", "current")
    assert "Reversed SHA256 in X-Sig" in accepted.as_text()
    assert "a signature of kind reversed in base64" in accepted.as_text()
    assert explained(base64.b64encode(b"another!").decode()).reason is Reason.SIGNATURE_MISMATCH
    # What was made with a mistake that a sender may make: the secret with a newline is not in upper case only.
    other = base64.b64encode(sign_reversed(Algorithm.SHA256, b"SECRET\n", [b"body"])).decode()
    finding = explained(other).finding
    assert finding is not None
    assert finding.hint is Hint.SECRET_HAS_WHITESPACE


def test_a_registered_kind_checks_secrets_and_is_in_the_json_schema(config_file: str) -> None:
    with pytest.raises(ConfigError, match="the secret in env:KEY is not in upper case; shout it"):
        load_config(config_file, {"KEY": "secret"})
    with_pem = Path(config_file).with_name("pem.yaml")
    with_pem.write_text(CONFIG.replace("}}\n", "}, key: pem}\n"))
    with pytest.raises(ConfigError, match=r"pem can't be used with `kind: reversed`; use utf8"):
        load_config(str(with_pem), {"KEY": "SECRET"})
    schema = Draft202012Validator(json_schema())
    document = yaml.safe_load(CONFIG)
    assert schema.is_valid(document)
    document["routes"][0]["verify"]["signature"]["kind"] = "unregistered"
    assert not schema.is_valid(document)
