"""The verifier: a scheme with a route's secrets. It decides whether a delivery is genuine.

It works in two steps, so that the body of a delivery need not be read if its head is reason enough to reject it:

    read_claim   (1) the signature is present and well-formed
                 (2) every header that is signed, or must have a value, appears once
                 (3) the timestamp appears once, is well-formed and within tolerance
    verify       (4) the parts in the body: a signature, the hash of the body in the URL
                 (5) the message is composed from the scheme's template
                 (6) the matcher checks the signatures with each key, in constant time
                 (7) a timestamp in the body, which is now known to be genuine

Only `match` and `verify` make a `Verified`, so one that exists was verified. Everything that is forwarded without one is
listed in `routing.access.Waived`.

Diagnosis uses the verifier too: `read_claim(head, now=None)` ignores the clock, and `dataclasses.replace` makes a scheme that
differs in one option. The counterpart is `sign.py`.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.claim import Claim, SignatureReader
from sidecar.verify.components import Coverage
from sidecar.verify.composed import Composer, KeyedReader, Match
from sidecar.verify.keys import read_keys
from sidecar.verify.kinds.kind import MATCHES_NOTHING, Matcher
from sidecar.verify.message import PublicURL, compose_plain, plain_parts
from sidecar.verify.places import Delivery, clock_text, signed_header
from sidecar.verify.published import PUBLISHED, KeySource, PublishedKeys
from sidecar.verify.scheme import Scheme, TimestampField
from sidecar.verify.template import BODY, HeaderValue
from sidecar.verify.timestamp import age_of, describe_malformed

#: Secrets of one route: current, previous, and some more. This limits the cost of a forged delivery.
MAX_SECRETS: Final = 10
#: Schemes on one route (`composite.py`), limited for the same reason.
MAX_SCHEMES: Final = 4
#: Pieces of a delivery id between the separators of the signed message.
MAX_ID_PIECES: Final = 8
#: The largest decompressed body where no route says one, in bytes.
DEFAULT_LIMIT: Final = 5 * 1024 * 1024


class Verified(NamedTuple):
    """Proof that this delivery was signed with one of the route's secrets."""

    secret_id: str  #: the secret that matched
    age: float | None = None  #: of a timestamp in the body, in seconds; the claim has the age of any other
    url: bytes = b""  #: the URL that was signed; empty if none was
    message: int = 0  #: the one of the scheme's messages that was signed
    member: int = 0  #: which of several combined schemes decided (`composite.py`)
    also: tuple[str, ...] = ()  #: the secrets of further schemes that had to match, and did


class ReplayKeys(NamedTuple):
    """The fingerprints of a verified delivery: each of them may identify a copy."""

    own: bytes
    items: Sequence[bytes] = ()  #: of its items, which count instead, each once and sorted
    also: Sequence[bytes] = ()  #: by other schemes of the route, which accept it too


class Verifier:
    """A scheme with its secrets, and everything prepared that does not depend on the delivery."""

    __slots__ = (
        "_body_clock",
        "_body_limit",
        "_clock",
        "_clock_header",
        "_composer",
        "_delivery_id_header",
        "_detached",
        "_id_bound",
        "_in_body",
        "_keyed",
        "_keys",
        "_listed",
        "_matcher",
        "_only_body",
        "_plain",
        "_published",
        "_reader",
        "_required",
        "_resolved",
        "_signed_headers",
        "decompresses",
        "hides_path",
        "key_names",
        "key_sources",
        "mismatch",
        "passes",
        "public_url",
        "reads_body",
        "scheme",
        "schemes",
        "secret_ids",
        "secrets",
        "tokens",
    )

    def __init__(  # noqa: PLR0915 - an attribute each
        self,
        scheme: Scheme,
        secrets: Sequence[Secret],
        public_url: str = "",
        *,
        resolved: bool = True,
        body_limit: int = DEFAULT_LIMIT,
        published: PublishedKeys | None = None,
        keys_name: str = "",
    ) -> None:
        """Raises `KeyFormError` for a secret that is not in the scheme's form.

        With `resolved=False` the secrets are not used, and nothing verifies. `body_limit` is that of the route, in bytes; a
        body is not decompressed beyond it. `published` has the documents of a scheme with published keys; without it every
        delivery of such a scheme raises `KeyNeeded`. `keys_name` is what metrics call those of a scheme that isn't a preset:
        the route's name.
        """
        if not secrets and not scheme.published:
            raise ValueError("a verifier needs at least one secret")
        if scheme.needs_url and not public_url:
            raise ValueError("a scheme that signs the URL needs the public URL")
        field = scheme.signature
        self.scheme = scheme
        #: Whether a segment of the path is the secret, so that the path must not be shown.
        self.hides_path = scheme.signature.path is not None
        self.schemes = 1  #: how many a route combines
        self.secrets = tuple(secrets)
        self._matcher: Matcher = MATCHES_NOTHING
        composed = not (field.kind.is_jws or field.kind.listed)
        keys = read_keys(scheme, self.secrets) if resolved and composed and not scheme.published else []
        if keys:
            self._matcher = field.kind.make_matcher(field.algorithm, keys)
        self._reader = SignatureReader(scheme)
        #: Each key by itself, where the delivery names the one that it was signed with.
        self._keyed: list[KeyedReader] = []
        if field.names_key:
            self._keyed = [KeyedReader(scheme, secret, key) for secret, key in zip(self.secrets, keys)]
        self.public_url = public_url
        #: The ids of `Verified.secret_id`: those of the secrets, or the one word for keys that the provider publishes.
        self.secret_ids = [PUBLISHED] if scheme.published else [secret.id for secret in self.secrets]
        #: The documents of keys to fetch at the start.
        self.key_sources: tuple[KeySource, ...] = ()
        #: The names of all its documents of keys, those that are fetched by id included.
        name = scheme.name or keys_name or "scheme"
        self.key_names: tuple[str, ...] = (name,) if scheme.published else ()
        url = PublicURL(public_url) if public_url and scheme.uses_url else None
        #: The verifier of tokens; None for every other kind.
        self.tokens: Any = None
        self._published = published
        self._body_limit = body_limit
        self._resolved = resolved
        if field.kind.claims:
            # Only now: it needs `cryptography`, which no route without published keys should load.
            from sidecar.verify.token_verifier import TokenVerifier  # noqa: PLC0415

            self.tokens = TokenVerifier(
                scheme, self.secrets, public_url, url, published, resolved=resolved, keys_name=name
            )
            self.key_sources = self.tokens.sources
        self._detached: Any = None
        if field.kind.detached:
            from sidecar.verify.detached import DetachedVerifier  # noqa: PLC0415 - as above

            self._detached = DetachedVerifier(scheme, self.secrets, published, resolved=resolved, keys_name=name)
            self.key_sources = self._detached.sources
        #: The verifier of signatures that list what they cover; None for every other kind.
        self._listed: Any = None
        if field.kind.listed:
            from sidecar.verify.listed_verifier import ListedVerifier  # noqa: PLC0415 - as above

            self._listed = ListedVerifier(scheme, self.secrets, url, published, resolved=resolved, keys_name=name)
            self.key_sources = self._listed.sources
        self._keys: Any = None
        if scheme.published and composed:
            from sidecar.verify.published_matcher import PublishedMatcher  # noqa: PLC0415 - as above

            self._keys = PublishedMatcher(scheme, self.secrets, published, name)
            self.key_sources = self._keys.sources
        self._composer = Composer(scheme, url, body_limit)
        #: How often a body is hashed at most: for each secret, each spelling of the URL, and each message.
        self.passes = 2 if field.kind.listed else max(len(self.secrets), 1) * self._composer.passes
        self._plain = plain_parts(scheme) if composed and not scheme.published else ()
        self._only_body = self._plain == (BODY,)
        clock = scheme.timestamp
        in_token = clock is not None and bool(clock.claim or clock.head)
        self._clock = clock if clock is not None and not clock.in_body and not in_token else None
        self._body_clock = clock if clock is not None and clock.in_body else None
        self._in_body = field.in_body
        #: Whether it parses the body, and does not only hash it.
        self.reads_body = scheme.reads_document or scheme.reads_form or field.body or self._body_clock is not None
        #: Whether it decompresses a body that has a Content-Encoding.
        self.decompresses = scheme.decompressed
        self._required = [(name.lower().encode(), value.encode(), name) for name, value in scheme.require]
        # With alternatives, a header may be in only one of them.
        parts = () if scheme.when or scheme.alternatives else scheme.parts
        self._signed_headers = [part.name for part in parts if isinstance(part, HeaderValue)]
        self._clock_header = clock.header.lower().encode() if clock is not None else b""
        self._delivery_id_header = scheme.delivery_id.lower().encode() if scheme.delivery_id else b""
        self._id_bound = scheme.id_bound
        #: The rejection of a delivery that no secret matches; to be returned, never raised.
        self.mismatch = Rejected(
            Reason.TOKEN_MISMATCH if field.kind.bearer else Reason.SIGNATURE_MISMATCH,
            f"no match with {len(self.secrets)} secret{'' if len(self.secrets) == 1 else 's'}",
        )

    # -- methods that differ if several schemes are combined: composite.py --

    def members(self) -> "tuple[Verifier, ...]":
        """The verifiers of the schemes that a route combines; only this one unless it combines several."""
        return (self,)

    def headers(self) -> frozenset[bytes]:
        """The headers that verification reads, as `Scheme.headers`."""
        return frozenset(self.scheme.headers)

    def attempted(self, head: RequestHead, body: Sequence[bytes], now: float | None) -> "Verifier":
        """The verifier whose rejection counts, for a delivery that was rejected."""
        return self

    def proven_by(self, verified: Verified, claim: Claim, head: RequestHead) -> "tuple[Verifier, Claim]":
        """The verifier whose scheme decided that a delivery is genuine, and its claim."""
        return self, claim

    def replay_keys(
        self, verified: Verified, claim: Claim, head: RequestHead, body: Sequence[bytes], *, scope: str
    ) -> ReplayKeys:
        """For `replay:`, of a verified delivery."""
        own, *items = self.fingerprints(claim, head, body, scope=scope, url=verified.url, message=verified.message)
        return ReplayKeys(own, items)

    def with_others(self, secrets: Sequence[Secret], public_url: str) -> "Verifier":
        """The same scheme with these secrets and this URL in place of its own, if given. Raises `KeyFormError`."""
        return self.with_scheme(self.scheme, secrets=secrets or None, public_url=public_url)

    # -- one scheme --

    def delivery_id(self, head: RequestHead) -> bytes:
        """The provider's id of this delivery, as sent, for the log; empty if there is none."""
        sent = head.values(self._delivery_id_header) if self._delivery_id_header else ()
        return sent[0] if sent else b""

    def signed_fields(self, head: RequestHead) -> list[tuple[bytes, bytes]]:
        """Lower-case names and values of the other header fields that the signature covers."""
        return [(name, value) for name in self._signed_headers for value in head.values(name)]

    def unsigned(self, head: RequestHead) -> Rejected | None:
        """The rejection of a delivery that obviously has no signature. None proves nothing: `read_claim` checks again, fully."""
        return None if self._in_body else self._reader.unsigned(head)

    def read_claim(self, head: RequestHead, now: float | None) -> Claim:
        """Steps (1) to (3). `now` is unix time in seconds; with None any age is accepted. Raises `Rejected`."""
        # (1)
        signatures: Sequence[bytes] = ()
        stamps: Sequence[bytes] = ()
        if self._listed is not None:
            signatures, stamps = self._listed.reader.read_head(head)
        elif not self._in_body:
            signatures, stamps = self._reader.read_head(head)
        # (2)
        for name, value, spelled in self._required:
            if head.values(name) != (value,):
                raise Rejected(Reason.SIGNATURE_MALFORMED, f"{spelled} is not {value.decode()!r}")
        for name in self._signed_headers:
            signed_header(head, name)
        # (3)
        if self._listed is not None:
            self._listed.check_expiry(signatures, now)
        clock = self._clock
        age: float | None = self._detached.check(signatures[0], now) if self._detached is not None else None
        if clock is None:
            return Claim(signatures, b"", age, now)
        if self._clock_header:
            stamps = head.values(self._clock_header)
        if not stamps or not stamps[0]:
            named = clock.parameter or clock.place
            what = f"no {clock.header} header" if clock.header else f"{self.scheme.signature.header} has no {named}"
            raise Rejected(Reason.TIMESTAMP_MISSING, what)
        # A header appears once. Copies in a list of groups must agree: there is one signed time.
        if len(stamps) > 1 and (self._clock_header or len(set(stamps)) > 1):
            raise Rejected(Reason.TIMESTAMP_MALFORMED, describe_malformed(clock))
        return Claim(signatures, stamps[0], age_of(clock, stamps[0], now), now)

    def verify(self, claim: Claim, head: RequestHead, body: Sequence[bytes]) -> Verified:
        """Steps (4) to (7) over the raw body, given in pieces. Raises `Rejected`."""
        verified = self.match(claim, head, body)
        if verified is None:
            raise Rejected(self.mismatch.reason, self.mismatch.detail)
        return verified

    def match(
        self, claim: Claim, head: RequestHead, body: Sequence[bytes], matcher: Matcher | None = None
    ) -> Verified | None:
        """Like `verify`, but returns None if no secret matches; that is the rejection `mismatch`.

        With `matcher`, its keys count, and not those of `secrets`: the delivery is a tenant's.
        """
        if matcher is None:
            matcher = self._matcher
        if not self._plain:
            return self._match_composed(claim, head, body, matcher)
        message = body if self._only_body else compose_plain(self._plain, claim.timestamp, body)
        secret_id = matcher.match(claim.signatures, message)
        if secret_id is None:
            return None
        # (7)
        if self._body_clock is None:
            return Verified(secret_id)
        inputs = Delivery(head, body, b"", b"", self.scheme.form_field)
        return Verified(secret_id, self._age_in_body(self._body_clock, inputs, claim.now))

    def fingerprint(
        self, claim: Claim, head: RequestHead, body: Sequence[bytes], *, scope: str, url: bytes, message: int = 0
    ) -> bytes:
        """32 bytes that are the same for every copy of a verified delivery, whatever its signature; never a MAC.

        The SHA-256 of the delivery id if it is signed and where it ends is certain, otherwise of the signed message, with
        the `url` and the number `message` that were verified; for a bearer kind, of the body.

        Deliveries of different `scope` have different fingerprints.
        """
        digest = hashlib.sha256(scope.encode() + b"\0")
        pieces: Sequence[bytes]
        if self.tokens is not None:
            texts = self.token_texts(claim, Delivery(head, body, b"", b"", self.scheme.form_field))
            pieces = self.tokens.identity(texts, body, self.scheme.delivery_claim)
        elif self._id_bound is not None:
            pieces = (self.delivery_id(head),)
        elif self._listed is not None:
            pieces = [*self._listed.identity(claim), *(() if self.scheme.binds_body else (b"\0", *body))]
        elif self._only_body or self.scheme.signature.kind.bearer:
            pieces = body
        elif self._plain:
            pieces = compose_plain(self._plain, claim.timestamp, body)
        else:
            delivery = self._composer.read(claim, head, body, url)
            if self._detached is not None:
                delivery.jws_head = self._detached.read(claim.signatures[0]).head
            pieces = self._composer.message(delivery, message)
        for piece in pieces:
            digest.update(piece)
        return digest.digest()

    def fingerprints(
        self, claim: Claim, head: RequestHead, body: Sequence[bytes], *, scope: str, url: bytes, message: int = 0
    ) -> list[bytes]:
        """`fingerprint`, and after it those of the delivery's items, each once and sorted, if the scheme has items."""
        whole = self.fingerprint(claim, head, body, scope=scope, url=url, message=message)
        if not self.scheme.items:
            return [whole]
        composer = self._composer
        messages = composer.item_messages(composer.read(claim, head, body, url), message)
        return [whole, *sorted({hashlib.sha256(scope.encode() + b"\0" + each).digest() for each in messages})]

    def other_fingerprints(self, head: RequestHead, *, scope: str) -> list[bytes]:
        """The fingerprints that a verified delivery would have if its id ended at another separator. Raises `Rejected`.

        Anyone who replays a delivery may have added to the id what follows it in the signed message. Providers write no
        separators into their ids, so there are usually no such fingerprints.
        """
        bound = self._id_bound
        if bound is None or not bound.separator:
            return []
        delivery_id = self.delivery_id(head)
        if delivery_id.count(bound.separator) >= MAX_ID_PIECES:
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"the delivery id has more than {MAX_ID_PIECES} parts")
        pieces = delivery_id.split(bound.separator)
        cuts = range(1, len(pieces))
        texts = [bound.separator.join(pieces[:cut] if bound.first else pieces[cut:]) for cut in cuts]
        return [hashlib.sha256(scope.encode() + b"\0" + text).digest() for text in texts]

    def _match_composed(
        self, claim: Claim, head: RequestHead, body: Sequence[bytes], matcher: Matcher
    ) -> Verified | None:
        """Steps (4) to (7) for schemes that need more than body and timestamp."""
        composer = self._composer
        # (4)
        delivery = composer.read(claim, head, body)
        if self.tokens is not None:
            token = self.tokens.match(self.token_texts(claim, delivery), delivery, claim.now)
            return None if token is None else Verified(token.secret_id, token.age, token.url)
        if self._listed is not None:
            secret_id = self._listed.match(claim, head, body, claim.now)
            return None if secret_id is None else Verified(secret_id)
        composer.check(delivery)
        # (5), (6)
        if self._keys is not None:
            matcher = self._keys.for_delivery(delivery, claim.now)
        elif self._detached is not None:
            matcher = self._detached.for_delivery(claim.signatures, delivery, claim.now)
        keyed = bool(self._keyed)
        match = self._match_keyed(claim, delivery) if keyed else composer.match(claim, delivery, self._reader, matcher)
        if match is None:
            return None
        # (7)
        clock = self._body_clock
        age = self._age_in_body(clock, delivery, claim.now) if clock is not None else None
        return Verified(match.secret_id, age, match.url, match.message)

    def _match_keyed(self, claim: Claim, delivery: Delivery) -> Match | None:
        unreadable: Rejected | None = None
        named = False
        for key in self._keyed:
            if not key.is_named(delivery.head):
                continue
            try:
                match = self._composer.match(claim, delivery, key.reader, key.matcher)
            except Rejected as rejected:  # no signature of this key; perhaps one of another
                unreadable = rejected
                continue
            if match is not None:
                return match
            named = True
        if unreadable is not None and not named:
            raise unreadable
        return None

    def with_scheme(
        self, scheme: Scheme, *, secrets: Sequence[Secret] | None = None, public_url: str = ""
    ) -> "Verifier":
        """A verifier of `scheme` that is like this one otherwise, unless something else is given. Raises `KeyFormError`."""
        return Verifier(
            scheme,
            self.secrets if secrets is None else secrets,
            public_url or self.public_url,
            resolved=self._resolved or secrets is not None,
            body_limit=self._body_limit,
            published=self._published,
            keys_name=self.key_names[0] if self.key_names else "",
        )

    def describe_listed(self, head: RequestHead) -> Coverage | None:
        """The parts that a signature claims to cover, unverified; None if it can't be read, or for another kind."""
        if self._listed is None:
            return None
        try:
            described: Coverage = self._listed.reader.describe(head)
        except Rejected:
            return None
        return described

    def token_texts(self, claim: Claim, delivery: Delivery) -> Sequence[bytes]:
        """The tokens of a delivery, of a scheme with tokens. Raises `Rejected`."""
        if not self.scheme.signature.in_body:
            return claim.signatures
        texts: Sequence[bytes] = self.tokens.read_body(delivery)
        return texts

    def _age_in_body(self, clock: TimestampField, delivery: Delivery, now: float | None) -> float | None:
        try:
            text = clock_text(clock, delivery)
        except Rejected as unreadable:
            raise Rejected(Reason.TIMESTAMP_MALFORMED, unreadable.detail) from None
        if not text:
            where = f"form has no field {clock.form}" if clock.form else f"JSON has no {clock.field}"
            raise Rejected(Reason.TIMESTAMP_MISSING, f"the body's {where}")
        return age_of(clock, text, now)
