"""Verifies detached tokens: `kind: jws`. The message is composed as `signed:` says; the token has a head and a signature.

    (a) the form: two parts of strict base64url with `..` between, a head without a member twice
    (b) `alg` is one of the scheme's closed list, and every member of the head that the scheme names is as it says
    (c) no `crit`. Where `head:` has `b64: false`, the message is signed as it is, and `crit` must say so (RFC 7797)
    (d) the scheme's clock, if it is a member of the head
    (e) the key that the head names, among the provider's; or the route's secrets
    (f) the signature

(a) to (d) need only the head of the delivery. `jku`, `x5u`, `jwk` and `x5c` are never followed: a scheme can only require a
fixed value.
"""

from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.claim_rules import TokenRules
from sidecar.verify.jose import find_match
from sidecar.verify.key_finder import KeyFinder
from sidecar.verify.keys import read_keys
from sidecar.verify.kinds.kind import Pieces
from sidecar.verify.places import Delivery
from sidecar.verify.published import PUBLISHED, KeySource, PublishedKeys
from sidecar.verify.scheme import Scheme
from sidecar.verify.token import Token, TokenError, encode_base64url, read_token
from sidecar.verify.token_claims import age_of_claim, check_head

#: Bytes of a piece of the message that is encoded at once; a multiple of three.
_STEP: Final = 48 * 1024
#: Members of a head that change the meaning of the others.
_EXTENSIONS: Final = frozenset({"b64", "crit"})


class DetachedVerifier:
    """A scheme's rules for a detached token, with the keys."""

    def __init__(
        self,
        scheme: Scheme,
        secrets: Sequence[Secret],
        published: PublishedKeys | None,
        *,
        resolved: bool = True,
        keys_name: str = "scheme",
    ) -> None:
        """Raises `KeyFormError` for a secret that is not in the scheme's form."""
        assert scheme.token is not None
        self.rules: TokenRules = scheme.token
        #: Whether the message is in base64url where it is signed.
        self.encodes = dict(self.rules.head).get("b64") is not False
        self._clock = scheme.timestamp if scheme.timestamp is not None and scheme.timestamp.head else None
        place = scheme.keys
        configured = place is None or place.configured
        self.finder = None if place is None or configured else KeyFinder(place, keys_name, published, secrets=secrets)
        #: Whether the token's key id must be a secret's id.
        self.by_id = place is not None and configured
        self.secrets = read_keys(scheme, secrets) if resolved and configured else []
        self.sources: tuple[KeySource, ...] = self.finder.sources if self.finder is not None else ()

    def check(self, text: bytes, now: float | None) -> float | None:
        """(a) to (d): the age in seconds, if the head has a clock. `now` is in unix seconds. Raises `Rejected`."""
        head = self.read(text).head
        return age_of_claim(self._clock, head, now) if self._clock is not None else None

    def read(self, text: bytes) -> Token:
        """(a) to (c). Raises `Rejected`."""
        try:
            token = read_token(text, b"")
        except TokenError as error:
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"the signature is {error}") from None
        check_head(token.head, self.rules)
        if token.head.get("crit") != (None if self.encodes else ["b64"]) or (
            self.encodes and _EXTENSIONS & token.head.keys()
        ):
            wanted = "has crit or b64, which the scheme doesn't" if self.encodes else "lacks crit: [b64]"
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"the signature's head {wanted}")
        return token

    def for_delivery(self, texts: Pieces, delivery: Delivery, now: float | None) -> "DetachedMatcher":
        """A matcher of the one token, whose head fills the places of the message. Raises `Rejected`."""
        token = self.read(texts[0])
        delivery.jws_head = token.head
        return DetachedMatcher(self, token, now)


class DetachedMatcher:
    """A `Matcher` for one delivery: (e) and (f). It looks for the key when there is a message to check."""

    def __init__(self, owner: DetachedVerifier, token: Token, now: float | None) -> None:
        self._owner = owner
        self._token = token
        self._now = now

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        """The id of the key that signed `message`. Raises `Rejected`, `KeyNeeded`."""
        owner, token = self._owner, self._token
        algorithm, key_id = token.head["alg"], token.head.get("kid")
        signed = [token.signed, *(encode_pieces(message) if owner.encodes else message)]
        keys: Iterable[tuple[str, Any]] = owner.secrets
        if owner.finder is not None:
            keys = [(PUBLISHED, each.key) for each in owner.finder.find(key_id, algorithm, self._now)]
        elif owner.by_id:
            keys = [each for each in owner.secrets if each[0] == key_id]
        matched = find_match(algorithm, keys, token.signature, signed)
        if matched is not None and owner.finder is not None:
            owner.finder.verified(key_id)
        return matched


def encode_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The base64url of the joined pieces, in pieces."""
    rest = b""
    for piece in pieces:
        for at in range(0, len(piece), _STEP):
            text = rest + piece[at : at + _STEP]
            whole = len(text) - len(text) % 3
            yield urlsafe_b64encode(text[:whole])
            rest = text[whole:]
    yield encode_base64url(rest)
