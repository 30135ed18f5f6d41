"""Verifies tokens: `kind: jwt`. `Verifier` calls this for such a scheme, once the head was checked.

    (a) the form: three parts, strict base64url and JSON, nothing twice, no `crit`
    (b) `alg` is one of the scheme's closed list
    (c) times: exp, nbf, iat, and the scheme's own clock
    (d) the key that the token names, among the provider's; or the route's secrets
    (e) the signature
    (f) the claims, those that bind the body and the URL included

It never reads the parts of a token's head that say where its key is (`jku`, `x5u`, `jwk`, and `x5c` without a pinned root).
"""

from collections.abc import Sequence
from typing import Any, Final

from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.chain_finder import ChainFinder
from sidecar.verify.claim_rules import ClaimSet, KeyPlace, TokenRules
from sidecar.verify.document import find_item, find_values
from sidecar.verify.jose import PublishedKey, digest, find_match, verify_digest
from sidecar.verify.key_finder import KeyFinder, agrees
from sidecar.verify.keys import read_keys
from sidecar.verify.message import PublicURL
from sidecar.verify.places import Delivery
from sidecar.verify.published import PUBLISHED, KeySource, PublishedKeys
from sidecar.verify.scheme import Scheme
from sidecar.verify.token import MAX_BODY_TOKEN, MAX_TOKEN, Token, TokenError, read_object, read_token
from sidecar.verify.token_claims import (
    age_of_claim,
    body_sha256,
    check_claims,
    check_head,
    check_times,
    choose,
    find_claim,
    fixed_claims,
    resolve_value,
)

_EVERY: Final = ClaimSet()
#: Genuine tokens that a route remembers, and the bytes of the longest one.
MAX_GENUINE: Final = 64
MAX_GENUINE_LENGTH: Final = 4096


class VerifiedToken:
    """A token whose signature and claims were verified."""

    __slots__ = ("age", "payload", "secret_id", "url")

    def __init__(self, secret_id: str, age: float | None, payload: dict[str, Any], url: bytes) -> None:
        """`url` is the one that was signed; empty if none was."""
        self.secret_id = secret_id
        self.age = age
        self.payload = payload
        self.url = url


class ReadToken:
    """A token that is well-formed, with its claims and an algorithm of the scheme's list."""

    __slots__ = ("algorithm", "payload", "token")

    def __init__(self, token: Token, payload: dict[str, Any], algorithm: str) -> None:
        self.token = token
        self.payload = payload
        self.algorithm = algorithm


class TokenVerifier:
    """A scheme's rules for tokens, with the keys."""

    def __init__(
        self,
        scheme: Scheme,
        secrets: Sequence[Secret],
        public_url: str,
        url: PublicURL | None,
        published: PublishedKeys | None,
        *,
        resolved: bool = True,
        keys_name: str = "scheme",
    ) -> None:
        """Raises `KeyFormError` for a secret that is not in the scheme's form."""
        assert scheme.token is not None
        self._scheme = scheme
        self._rules: TokenRules = scheme.token
        self._sets = self._rules.claims or (_EVERY,)
        self._clock = scheme.timestamp if scheme.timestamp is not None and scheme.timestamp.claim else None
        self._url = url if scheme.needs_url else None
        self._base = public_url.encode()
        self._most = MAX_BODY_TOKEN if scheme.signature.body or scheme.signature.field else MAX_TOKEN
        self._fixed = {id(each): fixed_claims(each.rules) for each in self._sets}
        self._finders: dict[int, KeyFinder] = {}
        self._chains: dict[int, ChainFinder] = {}
        for place in {id(each): each for each in [scheme.keys, *(each.keys for each in self._sets)] if each}.values():
            if place.x5c is not None:
                self._chains[id(place)] = ChainFinder(place.x5c)
            elif not place.configured:
                self._finders[id(place)] = KeyFinder(place, keys_name, published, secrets=secrets)
        configured = scheme.keys is None or scheme.keys.configured
        self._secrets = read_keys(scheme, secrets) if resolved and configured else []
        #: Signed text and signature of genuine tokens, and the key that each was verified with. Senders use a token for up to an
        #: hour, and the verdict on these bytes with this very key can't change. Everything else about it is checked again.
        self._genuine: dict[tuple[bytes, bytes], Any] = {}
        self.sources: tuple[KeySource, ...] = tuple(
            dict.fromkeys(source for finder in self._finders.values() for source in finder.sources)
        )

    def match(self, texts: Sequence[bytes], delivery: Delivery, now: float | None) -> VerifiedToken | None:
        """The one token, or the last of several, all of which must verify; None if a signature doesn't match.

        Raises `Rejected`, `KeyNeeded`.
        """
        verified: VerifiedToken | None = None
        covered: set[str] = set()
        for text in texts:
            verified = self._match(text, delivery, now)
            if verified is None:
                return None
            claim = find_claim(verified.payload, self._rules.covers_claim) if self._rules.covers_claim else None
            if isinstance(claim, str):
                covered.add(claim)
        if self._rules.covers_json:
            named = find_values(delivery.document, self._rules.covers_json)
            if not named or not covered.issuperset(named):
                raise Rejected(
                    Reason.CLAIM_MISMATCH,
                    f"no token's {self._rules.covers_claim} is that of every {self._rules.covers_json} of the body",
                )
        return verified

    def read_body(self, delivery: Delivery) -> Sequence[bytes]:
        """The tokens of a body. Raises `Rejected`."""
        field = self._scheme.signature
        if field.body:
            if sum(map(len, delivery.body)) > MAX_BODY_TOKEN:
                raise Rejected(
                    Reason.SIGNATURE_MALFORMED, f"the body is longer than {MAX_BODY_TOKEN} bytes, too long for a token"
                )
            text = b"".join(delivery.body)
            if not text:
                raise Rejected(Reason.SIGNATURE_MISSING, "the body is empty; expected a token")
            return (text,)
        found = find_item(delivery.document, field.each or field.field)
        if field.field:
            found = None if found is None else [found]
        if found is None:
            raise Rejected(Reason.SIGNATURE_MISSING, f"the body's JSON has no {field.each or field.field}")
        if not isinstance(found, list) or not found or len(found) > field.most:
            raise Rejected(
                Reason.SIGNATURE_MALFORMED, f"the body's {field.each} is not a list of 1 to {field.most} tokens"
            )
        if not all(isinstance(each, str) and each.isascii() for each in found):
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"the body's {field.each or field.field} is not a token")
        return [each.encode() for each in found]

    def read(self, text: bytes) -> ReadToken:
        """(a) and (b). Raises `Rejected`."""
        try:
            token = read_token(text, most=self._most)
            payload = read_object(token.payload, "payload")
        except TokenError as error:
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"the token is {error}") from None
        algorithm = check_head(token.head, self._rules)
        if "crit" in token.head or "b64" in token.head:
            raise Rejected(
                Reason.SIGNATURE_MALFORMED, "the token's head has crit or b64, which nothing here understands"
            )
        return ReadToken(token, payload, algorithm)

    def _match(self, text: bytes, delivery: Delivery, now: float | None) -> VerifiedToken | None:
        read = self.read(text)
        payload = read.payload
        # (c)
        check_times(payload, self._rules, now)
        age = age_of_claim(self._clock, payload, now) if self._clock is not None else None
        # (d), (e)
        chosen = choose(payload, self._sets)
        secret_id = self._verify(read, chosen, delivery, now)
        if secret_id is None:
            return None
        # (f)
        urls: Sequence[bytes] = (b"",)
        if self._url is not None:
            urls = self._url.variants(delivery.head.target, self._scheme)
        for index, delivery.url in enumerate(urls):
            try:
                self._check_claims(payload, chosen, delivery)
            except Rejected:
                if index + 1 == len(urls):
                    raise
                continue
            break
        return VerifiedToken(secret_id, age, payload, delivery.url)

    def _check_claims(self, payload: dict[str, Any], chosen: ClaimSet, delivery: Delivery) -> None:
        """Every rule holds. Raises `Rejected`."""
        fixed, others = self._fixed[id(chosen)]
        for name, value in fixed:
            found = payload.get(name)
            if found != value or type(found) is not type(value):  # 1 is not true
                others = chosen.rules  # says which one, or that it is an `aud` with several
                break
        if others:
            check_claims(payload, others, delivery, self._base)

    def _verify(self, read: ReadToken, chosen: ClaimSet, delivery: Delivery, now: float | None) -> str | None:
        token, payload, algorithm = read.token, read.payload, read.algorithm
        place = chosen.keys or self._scheme.keys
        if place is not None and place.x5c is not None:
            key = self._chains[id(place)].find(token.head.get("x5c"), self._signed_at(payload, now))
            return find_match(algorithm, [(PUBLISHED, key)], token.signature, [token.signed])
        if place is None or place.configured:
            keys = (
                self._secrets if place is None else [each for each in self._secrets if each[0] == token.head.get("kid")]
            )
            return find_match(algorithm, keys, token.signature, [token.signed])
        digested = b""
        known = self._genuine.get((token.signed, token.signature))
        for key in self._published(place, token, algorithm, now):  # each fits the algorithm
            for member, value in place.fits:
                expected = resolve_value(value, payload, delivery)
                if not isinstance(expected, str) or not agrees(key, member, expected):
                    raise Rejected(Reason.CLAIM_MISMATCH, f"the key that the token names is for another {member}")
            if known is not key.key:
                digested = digested or digest(algorithm, [token.signed])
                if not verify_digest(algorithm, key.key, token.signature, digested):
                    continue
                self._remember(token, key.key)
            self._finders[id(place)].verified(token.head.get("kid"))
            return PUBLISHED
        return None

    def _remember(self, token: Token, key: Any) -> None:
        """Forgets all when there are too many: in one step, because threads verify as well."""
        if len(token.signed) <= MAX_GENUINE_LENGTH:
            if len(self._genuine) >= MAX_GENUINE:
                self._genuine = {}
            self._genuine[token.signed, token.signature] = key

    def _signed_at(self, payload: dict[str, Any], now: float | None) -> float | None:
        """When the token says that it was signed: its certificates must be valid then. `now` if it doesn't say."""
        age = age_of_claim(self._clock, payload, now) if self._clock is not None else None
        return now if age is None or now is None else now - age

    def _published(self, place: KeyPlace, token: Token, algorithm: str, now: float | None) -> list[PublishedKey]:
        return self._finders[id(place)].find(token.head.get("kid"), algorithm, now)

    def identity(self, texts: Sequence[bytes], body: Sequence[bytes], claim: str) -> list[bytes]:
        """The facts that two copies of a verified delivery have in common, never a signature.

        The claim that is the delivery's id, or the signed part of each token; with the body where no claim binds it, because
        a sender may use one token for several deliveries.
        """
        signed = [text.rpartition(b".")[0] for text in texts]
        if claim and len(texts) == 1:
            found = find_claim(self.read(texts[0]).payload, claim)
            if isinstance(found, str) and found:
                return [claim.encode(), b"\0", found.encode("utf-8", "surrogatepass")]
        return signed if self._scheme.binds_body else [*signed, b"\0", body_sha256(body)]
