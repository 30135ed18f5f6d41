"""`kind: hmac`: HMAC (RFC 2104) of the message, keyed with a shared secret."""

from collections.abc import Iterator
from hmac import compare_digest
from typing import Any

from sidecar.verify.algorithms import HASHES, Algorithm
from sidecar.verify.keys import SHARED_FORMS, KeyForm, key_bytes
from sidecar.verify.kinds.kind import Construction, Keys, Kind, Matcher, Pieces
from sidecar.verify.template import Part, Piece


class Hmac:
    """HMAC under one key, whose two hash blocks are computed once: a third cheaper than keying for every message."""

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


class HmacMatcher:
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


def _make_matcher(algorithm: Algorithm, keys: Keys) -> Matcher:
    return HmacMatcher([(secret_id, Hmac(algorithm, key)) for secret_id, key in keys])


def _sign(algorithm: Algorithm, key: Any, message: Pieces) -> bytes:
    return Hmac(algorithm, key).digest(message)


def _constructions(parts: tuple[Part, ...]) -> Iterator[Construction]:
    """Many senders compute a hash over secret and message where an HMAC is meant."""
    yield Construction("as a plain hash of secret and message, not an HMAC", "hash", (Piece.SECRET, *parts))
    yield Construction("as a plain hash of message and secret, not an HMAC", "hash", (*parts, Piece.SECRET))
    yield Construction("as a plain hash of the message, without a secret", "hash", parts)


HMAC = Kind(
    name="hmac",
    title="HMAC-{algorithm}",
    key_forms=SHARED_FORMS,
    read_key=key_bytes,
    make_matcher=_make_matcher,
    sign=_sign,
    digest_sized=True,
    misread_as=(KeyForm.UTF8, KeyForm.HEX, KeyForm.WHSEC),
    constructions=_constructions,
)
