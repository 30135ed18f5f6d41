"""`kind: token`: the sender shows the secret itself."""

from hmac import compare_digest
from typing import Any

from sidecar.verify.algorithms import Algorithm
from sidecar.verify.keys import SHARED_FORMS, key_bytes
from sidecar.verify.kinds.kind import Keys, Kind, Matcher, Pieces

#: Words that some senders write before a token, and others leave out.
PREFIXES = ("Bearer ", "Token ", "Basic ")


class TokenMatcher:
    __slots__ = ("_tokens",)

    def __init__(self, tokens: list[tuple[str, bytes]]) -> None:
        self._tokens = tokens

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        for secret_id, token in self._tokens:
            for signature in signatures:
                if compare_digest(token, signature):
                    return secret_id
        return None


def make_token_matcher(algorithm: Algorithm, keys: Keys) -> Matcher:
    return TokenMatcher(keys)


def show_token(algorithm: Algorithm, key: Any, message: Pieces) -> bytes:
    token: bytes = key
    return token


TOKEN = Kind(
    name="token",
    key_forms=SHARED_FORMS,
    read_key=key_bytes,
    make_matcher=make_token_matcher,
    sign=show_token,
    bearer=True,
    other_prefixes=PREFIXES,
)
