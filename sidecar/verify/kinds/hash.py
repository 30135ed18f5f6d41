"""`kind: hash`: a plain hash of a message that holds the secret."""

from collections.abc import Iterator
from hmac import compare_digest
from typing import Any, Final

from sidecar.verify.algorithms import Algorithm, hash_pieces
from sidecar.verify.keys import SHARED_FORMS, key_bytes
from sidecar.verify.kinds.kind import Construction, Keys, Kind, Matcher, Pieces
from sidecar.verify.template import Part, Piece

#: Marks the secret's place in a message, and is known by its identity: only a matcher fills the secret in.
SECRET_PLACE: Final = b"".join((b"{", b"secret", b"}"))


class HashMatcher:
    __slots__ = ("_algorithm", "_keys")

    def __init__(self, algorithm: Algorithm, keys: list[tuple[str, bytes]]) -> None:
        self._algorithm = algorithm
        self._keys = keys

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        for secret_id, key in self._keys:
            digest = _sign(self._algorithm, key, message)
            for signature in signatures:
                if compare_digest(digest, signature):
                    return secret_id
        return None


def _make_matcher(algorithm: Algorithm, keys: Keys) -> Matcher:
    return HashMatcher(algorithm, keys)


def _sign(algorithm: Algorithm, key: Any, message: Pieces) -> bytes:
    return hash_pieces(algorithm, [key if piece is SECRET_PLACE else piece for piece in message])


def _constructions(parts: tuple[Part, ...]) -> Iterator[Construction]:
    message = tuple(part for part in parts if part is not Piece.SECRET)
    yield Construction("as an HMAC, not a plain hash of secret and message", "hmac", message)


HASH = Kind(
    name="hash",
    title="keyed {algorithm}",
    key_forms=SHARED_FORMS,
    read_key=key_bytes,
    make_matcher=_make_matcher,
    sign=_sign,
    digest_sized=True,
    message_holds_secret=True,
    constructions=_constructions,
)
