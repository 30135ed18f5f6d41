"""Keys at work: each kind against an implementation of somebody else."""

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from sidecar.secret import Secret
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.matchers import UNRESOLVED, HashProof, Hmac, PublicKeyProof, proof_of
from sidecar.verify.message import SECRET_PLACE
from sidecar.verify.scheme import KeyForm, Kind, Scheme, SignatureField

MESSAGE = [b"", b"a message ", b"in pieces"]
WHOLE = b"".join(MESSAGE)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 129, 300])
def test_the_hmac_is_the_standard_librarys(algorithm: Algorithm, size: int) -> None:
    key = bytes(range(256)) * 2
    made = Hmac(algorithm, key[:size])
    for message in ([], MESSAGE, [b"x" * 10_000]):  # and again: it keeps no state
        assert made.digest(message) == hmac.digest(key[:size], b"".join(message), algorithm.value)


def test_any_signature_may_match_any_secret_and_the_id_says_which() -> None:
    scheme = Scheme(signature=SignatureField(header="X"))
    proof = proof_of(scheme, [Secret("a", b"1"), Secret("b", b"2")])
    right = hmac.digest(b"2", WHOLE, "sha256")
    assert proof.match([bytes(32), right], MESSAGE) == "b"
    assert proof.match([right], MESSAGE) == "b"
    assert proof.match([bytes(32), right[:-1], b"", right + b"x"], MESSAGE) is None
    assert proof.match([], MESSAGE) is None
    assert UNRESOLVED.match([right], MESSAGE) is None


def test_a_keyed_hash_fills_the_secret_into_its_place_and_only_there() -> None:
    proof = HashProof(Algorithm.SHA256, [("a", b"no"), ("b", b"yes")])
    message = [SECRET_PLACE, b"{secret}", *MESSAGE]
    assert proof.match([hashlib.sha256(b"yes{secret}" + WHOLE).digest()], message) == "b"
    assert proof.match([hashlib.sha256(b"{secret}{secret}" + WHOLE).digest()], message) is None


@pytest.mark.parametrize(
    ("kind", "secret", "sent"),
    [(Kind.TOKEN, b"token \xff", b"token \xff"), (Kind.BASIC, b"user:pass", base64.b64encode(b"user:pass"))],
)
def test_a_token_is_compared_whole(kind: Kind, secret: bytes, sent: bytes) -> None:
    proof = proof_of(
        Scheme(signature=SignatureField(header="X", kind=kind)), [Secret("a", b"u:x"), Secret("b", secret)]
    )
    assert proof.match([sent], []) == "b"
    for wrong in (sent[:-1], sent + b"x", sent.swapcase(), b""):
        assert proof.match([wrong], []) is None


ED25519 = ed25519.Ed25519PrivateKey.generate()
P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
SHA256 = hashes.SHA256()


@pytest.mark.parametrize(
    ("kind", "key", "signature"),
    [
        (Kind.ED25519, ED25519, ED25519.sign(WHOLE)),
        (Kind.ECDSA, P256, P256.sign(WHOLE, ec.ECDSA(SHA256))),
        (Kind.RSA_PKCS1, RSA, RSA.sign(WHOLE, padding.PKCS1v15(), SHA256)),
        (Kind.RSA_PSS, RSA, RSA.sign(WHOLE, padding.PSS(padding.MGF1(SHA256), 32), SHA256)),
        (Kind.RSA_PSS, RSA, RSA.sign(WHOLE, padding.PSS(padding.MGF1(SHA256), padding.PSS.MAX_LENGTH), SHA256)),
    ],
    ids=["ed25519", "ecdsa", "pkcs1", "pss", "pss with the longest salt"],
)
def test_a_public_key_takes_its_own_signatures_and_no_others(
    kind: Kind, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, signature: bytes
) -> None:
    proof = PublicKeyProof(kind, Algorithm.SHA256, [("a", key.public_key())])
    assert proof.match([b"garbage", signature], MESSAGE) == "a"
    changed = bytearray(signature)
    changed[-1] ^= 1
    for wrong in (bytes(changed), signature[:-1], signature + b"\0", b"", bytes(len(signature))):
        assert proof.match([wrong], MESSAGE) is None
    assert proof.match([signature], [*MESSAGE, b"x"]) is None


def test_every_kind_has_a_proof() -> None:
    forms = {Kind.ED25519: KeyForm.HEX}
    texts = {Kind.BASIC: b"a:b", Kind.ED25519: ED25519.public_key().public_bytes_raw().hex().encode()}
    for kind in (Kind.HMAC, Kind.HASH, Kind.TOKEN, Kind.BASIC, Kind.ED25519):
        scheme = Scheme(signature=SignatureField(header="X", kind=kind), key=forms.get(kind, KeyForm.UTF8))
        assert proof_of(scheme, [Secret("a", texts.get(kind, b"secret"))])
