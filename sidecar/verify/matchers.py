"""Keys at work: whether one of a route's secrets made one of the signatures that came. The only place that compares them.

Every comparison takes the same time whatever differs. Who can make any key match knows that secret, so the order of keys
tells nothing.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import Any, Final, Protocol

from sidecar.secret import Secret
from sidecar.verify.algorithms import HASHES, Algorithm, hash_pieces
from sidecar.verify.keys import key_bytes, public_key
from sidecar.verify.message import SECRET_PLACE
from sidecar.verify.scheme import BEARER_KINDS, PUBLIC_KEY_KINDS, Kind, Scheme

Pieces = Sequence[bytes]


class Proof(Protocol):
    """The keys of a route, ready to work."""

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        """The id of the secret that made one of `signatures` of `message`; None if none did."""


def proof_of(scheme: Scheme, secrets: Sequence[Secret]) -> Proof:
    """Raises `KeyFormError` where a secret is not in the scheme's form."""
    kind, algorithm = scheme.signature.kind, scheme.signature.algorithm
    if kind in PUBLIC_KEY_KINDS:
        public = [(secret.id, public_key(kind, scheme.key, secret.reveal())) for secret in secrets]
        return PublicKeyProof(kind, algorithm, public)
    if kind in BEARER_KINDS:
        return TokenProof([(secret.id, token_of(scheme, secret)) for secret in secrets])
    keys = [(secret.id, key_bytes(scheme.key, secret.reveal())) for secret in secrets]
    if kind is Kind.HASH:
        return HashProof(algorithm, keys)
    return HmacProof([(secret_id, Hmac(algorithm, key)) for secret_id, key in keys])


def token_of(scheme: Scheme, secret: Secret) -> bytes:
    """What a sender that knows the secret itself sends, without the prefix."""
    value = key_bytes(scheme.key, secret.reveal())
    return b64encode(value) if scheme.signature.kind is Kind.BASIC else value


class Hmac:
    """HMAC (RFC 2104) under one key, whose two hash blocks are computed once: a third cheaper than keying anew."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        make = HASHES[algorithm]
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
    __slots__ = ("_algorithm", "_keys")

    def __init__(self, algorithm: Algorithm, keys: list[tuple[str, bytes]]) -> None:
        self._algorithm = algorithm
        self._keys = keys

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        for secret_id, key in self._keys:
            digest = keyed_digest(self._algorithm, key, message)
            for signature in signatures:
                if compare_digest(digest, signature):
                    return secret_id
        return None


def keyed_digest(algorithm: Algorithm, key: bytes, message: Pieces) -> bytes:
    """The plain hash of a message with the key in its place."""
    return hash_pieces(algorithm, [key if piece is SECRET_PLACE else piece for piece in message])


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


UNRESOLVED: Final = NoProof()

#: Public key, signature, and the message or its digest. Raises `InvalidSignature`.
Verification = Callable[[Any, bytes, bytes], None]


class PublicKeyProof:
    __slots__ = ("_algorithm", "_invalid", "_keys", "_verify")

    def __init__(self, kind: Kind, algorithm: Algorithm, keys: list[tuple[str, Any]]) -> None:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        self._keys = keys
        self._algorithm = None if kind is Kind.ED25519 else algorithm
        self._verify = _verification(kind, algorithm)
        self._invalid = InvalidSignature

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        # Once for all keys and signatures: Ed25519 takes the message itself, the others its digest.
        text = b"".join(message) if self._algorithm is None else hash_pieces(self._algorithm, message)
        for secret_id, key in self._keys:
            for signature in signatures:
                try:
                    self._verify(key, signature, text)
                except self._invalid:
                    continue
                return secret_id
        return None


def _verification(kind: Kind, algorithm: Algorithm) -> Verification:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, padding, utils  # noqa: PLC0415

    if kind is Kind.ED25519:
        return lambda key, signature, message: key.verify(signature, message)
    hashed: hashes.HashAlgorithm = getattr(hashes, algorithm.upper())()
    prehashed = utils.Prehashed(hashed)
    if kind is Kind.ECDSA:
        scheme = ec.ECDSA(prehashed)
        return lambda key, signature, digest: key.verify(signature, digest, scheme)
    pad = padding.PKCS1v15() if kind is Kind.RSA_PKCS1 else padding.PSS(padding.MGF1(hashed), padding.PSS.AUTO)
    return lambda key, signature, digest: key.verify(signature, digest, pad, prehashed)
