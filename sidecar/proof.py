"""Keys at work: whether one of a route's secrets made one of the signatures that came. The only place that compares them.

Every comparison takes the same time whatever differs. Who can make any key match knows that secret, so the order of keys
tells nothing.
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import Any, Protocol

from sidecar.keys import key_bytes, public_key
from sidecar.message import SECRET_PLACE
from sidecar.scheme import PUBLIC_KEY_KINDS, Algorithm, Kind, Scheme
from sidecar.secret import Secret

Pieces = Sequence[bytes]


class Proof(Protocol):
    """The keys of a route, ready to work."""

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        """The id of the secret that made one of `signatures` of `message`; None if none did."""


def proof_of(scheme: Scheme, secrets: Sequence[Secret]) -> Proof:
    """Raises `KeyFormError` where a secret is not in the scheme's form."""
    kind = scheme.signature.kind
    if kind is Kind.HMAC:
        return HmacProof(
            [
                (secret.id, Hmac(scheme.signature.algorithm, key_bytes(scheme.key, secret.reveal())))
                for secret in secrets
            ]
        )
    if kind in PUBLIC_KEY_KINDS:
        keys = [(secret.id, public_key(kind, scheme.key, secret.reveal())) for secret in secrets]
        return PublicKeyProof(keys, _verification(kind, scheme.signature.algorithm))
    if kind is Kind.HASH:
        return HashProof(scheme.signature.algorithm, secrets)
    return TokenProof([(secret.id, token_of(scheme, secret)) for secret in secrets])


def token_of(scheme: Scheme, secret: Secret) -> bytes:
    """What a sender that knows the secret itself sends, without the prefix."""
    value = key_bytes(scheme.key, secret.reveal())
    return b64encode(value) if scheme.signature.kind is Kind.BASIC else value


class Hmac:
    """HMAC (RFC 2104) under one key, whose two hash blocks are computed once: a third cheaper than keying anew."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        make = _HASHES[algorithm]
        block = make().block_size
        if len(key) > block:
            key = make(key).digest()
        key = key.ljust(block, b"\0")
        self._inner = make(bytes(byte ^ 0x36 for byte in key))
        self._outer = make(bytes(byte ^ 0x5C for byte in key))

    def digest(self, message: Pieces) -> bytes:
        """The MAC of the message, given in pieces."""
        inner = self._inner.copy()
        for piece in message:
            inner.update(piece)
        outer = self._outer.copy()
        outer.update(inner.digest())
        mac: bytes = outer.digest()
        return mac


class HmacProof:
    __slots__ = ("_keys",)

    def __init__(self, keys: list[tuple[str, Hmac]]) -> None:
        self._keys = keys

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        for secret_id, key in self._keys:
            mac = key.digest(message)
            for signature in signatures:
                if compare_digest(mac, signature):
                    return secret_id
        return None


class HashProof:
    __slots__ = ("_hash", "_secrets")

    def __init__(self, algorithm: Algorithm, secrets: Sequence[Secret]) -> None:
        self._hash = _HASHES[algorithm]
        self._secrets = secrets

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        for secret in self._secrets:
            digest = self._hash()
            for piece in message:
                digest.update(secret.reveal() if piece is SECRET_PLACE else piece)
            expected = digest.digest()
            for signature in signatures:
                if compare_digest(expected, signature):
                    return secret.id
        return None


class TokenProof:
    __slots__ = ("_tokens",)

    def __init__(self, tokens: list[tuple[str, bytes]]) -> None:
        self._tokens = tokens

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        for secret_id, token in self._tokens:
            for signature in signatures:
                if compare_digest(token, signature):
                    return secret_id
        return None


class NoProof:
    """For a configuration that is checked where its secrets are not at hand."""

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        return None


UNRESOLVED = NoProof()

#: Public key, signature, message. Raises `InvalidSignature`.
Verification = Callable[[Any, bytes, Pieces], None]


class PublicKeyProof:
    __slots__ = ("_invalid", "_keys", "_verify")

    def __init__(self, keys: list[tuple[str, Any]], verify: Verification) -> None:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        self._keys = keys
        self._verify = verify
        self._invalid = InvalidSignature

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        for secret_id, key in self._keys:
            for signature in signatures:
                try:
                    self._verify(key, signature, message)
                except self._invalid:
                    continue
                return secret_id
        return None


def _verification(kind: Kind, algorithm: Algorithm) -> Verification:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, padding, utils  # noqa: PLC0415

    if kind is Kind.ED25519:
        return lambda key, signature, message: key.verify(signature, b"".join(message))
    names: dict[Algorithm, hashes.HashAlgorithm] = {
        Algorithm.SHA1: hashes.SHA1(),  # noqa: S303 - what the provider signs with
        Algorithm.SHA256: hashes.SHA256(),
        Algorithm.SHA384: hashes.SHA384(),
        Algorithm.SHA512: hashes.SHA512(),
    }
    algorithm_of_key = utils.Prehashed(names[algorithm])

    def digest(message: Pieces) -> bytes:
        made = _HASHES[algorithm]()
        for piece in message:
            made.update(piece)
        result: bytes = made.digest()
        return result

    if kind is Kind.ECDSA:
        scheme = ec.ECDSA(algorithm_of_key)
        return lambda key, signature, message: key.verify(signature, digest(message), scheme)
    pad = (
        padding.PKCS1v15() if kind is Kind.RSA_PKCS1 else padding.PSS(padding.MGF1(names[algorithm]), padding.PSS.AUTO)
    )
    return lambda key, signature, message: key.verify(signature, digest(message), pad, algorithm_of_key)


_HASHES: dict[Algorithm, Any] = {algorithm: getattr(hashlib, algorithm.value) for algorithm in Algorithm}
