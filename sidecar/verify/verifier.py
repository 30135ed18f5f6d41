"""The verifier: a scheme with a route's secrets. It decides whether a delivery is genuine.

It works in two steps, so that a delivery that can be rejected by its head costs no reading of its body:

    read_claim   (1) the signature is present and well-formed
                 (2) every header that is signed, or must have a value, appears once
                 (3) the timestamp appears once, is well-formed and within tolerance
    verify       (4) the parts in the body: a signature, the hash of the body in the URL
                 (5) the message is composed from the scheme's template
                 (6) the matcher checks the signatures with each key, in constant time
                 (7) a timestamp in the body, which is genuine by now

Only `match` and `verify` make a `Verified`, so one that exists was verified. Everything that is forwarded without one is
listed in `routing.access.Waived`.

Diagnosis uses the verifier too: `read_claim(head, now=None)` ignores the clock, and `dataclasses.replace` makes a scheme that
differs in one option. The counterpart is `sign.py`.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.claim import Claim, SignatureReader
from sidecar.verify.document import MAX_UNVERIFIED, find_value
from sidecar.verify.keys import read_keys
from sidecar.verify.kinds.kind import MATCHES_NOTHING, Matcher
from sidecar.verify.message import (
    Delivery,
    PublicURL,
    body_sha256_hex,
    compose,
    compose_plain,
    make_writers,
    most_variants,
    plain_parts,
    query_values,
    signed_header,
)
from sidecar.verify.scheme import Scheme, TimestampField
from sidecar.verify.template import BODY, HeaderValue, JsonValue, Piece
from sidecar.verify.timestamp import age_of, describe_malformed

#: Secrets of one route: current, previous, and some more. Limits the cost of a forged delivery.
MAX_SECRETS: Final = 10
#: Pieces of a delivery id between the separators of the signed message.
MAX_ID_PIECES: Final = 8


class Verified(NamedTuple):
    """Proof that this delivery was signed with one of the route's secrets."""

    secret_id: str  #: the secret that matched
    age: float | None = None  #: of a timestamp in the body, in seconds; the claim has the age of any other
    url: bytes = b""  #: the URL that was signed; empty if none was


class Verifier:
    """A scheme with its secrets, and everything prepared that does not depend on the delivery."""

    __slots__ = (
        "_body_clock",
        "_clock",
        "_clock_header",
        "_delivery_id_header",
        "_id_bound",
        "_matcher",
        "_only_body",
        "_plain",
        "_reader",
        "_reads_document",
        "_required",
        "_signed_headers",
        "_url",
        "_writers",
        "mismatch",
        "passes",
        "public_url",
        "reads_body",
        "scheme",
        "secrets",
    )

    def __init__(
        self, scheme: Scheme, secrets: Sequence[Secret], public_url: str = "", *, resolved: bool = True
    ) -> None:
        """Raises `KeyFormError` for a secret that is not in the scheme's form.

        With `resolved=False` the secrets are not used, and nothing verifies.
        """
        if not secrets:
            raise ValueError("a verifier needs at least one secret")
        if scheme.needs_url and not public_url:
            raise ValueError("a scheme that signs the URL needs the public URL")
        kind = scheme.signature.kind
        self.scheme = scheme
        self.secrets = tuple(secrets)
        self._matcher: Matcher = MATCHES_NOTHING
        if resolved:
            self._matcher = kind.make_matcher(scheme.signature.algorithm, read_keys(scheme, self.secrets))
        self._reader = SignatureReader(scheme)
        self.public_url = public_url
        self._url = PublicURL(public_url) if public_url and scheme.uses_url else None
        #: How often a body is hashed at most: for each secret and each spelling of the URL.
        self.passes = len(self.secrets) * (most_variants(scheme) if self._url is not None else 1)
        self._writers = make_writers(scheme, self._url)
        self._plain = () if scheme.signature.field or scheme.body_hash else plain_parts(scheme)
        self._only_body = self._plain == (BODY,)
        clock = scheme.timestamp
        self._clock = clock if clock is not None and not clock.field else None
        self._body_clock = clock if clock is not None and clock.field else None
        self._reads_document = bool(scheme.signature.field) or any(isinstance(part, JsonValue) for part in scheme.parts)
        #: Whether it parses the body, as JSON or as a form, and does not only hash it.
        self.reads_body = self._reads_document or Piece.FORM_SORTED in scheme.parts or self._body_clock is not None
        self._required = [(name.lower().encode(), value.encode(), name) for name, value in scheme.require]
        self._signed_headers = [part.name for part in scheme.parts if isinstance(part, HeaderValue)]
        self._clock_header = clock.header.lower().encode() if clock is not None else b""
        self._delivery_id_header = scheme.delivery_id.lower().encode() if scheme.delivery_id else b""
        self._id_bound = scheme.id_bound
        #: The rejection of a delivery that no secret matches; to be returned, never raised.
        self.mismatch = Rejected(
            Reason.TOKEN_MISMATCH if kind.bearer else Reason.SIGNATURE_MISMATCH,
            f"no match with {len(self.secrets)} secret(s)",
        )

    def delivery_id(self, head: RequestHead) -> bytes:
        """The provider's id of this delivery, as sent, for the log; empty if there is none."""
        sent = head.values(self._delivery_id_header) if self._delivery_id_header else ()
        return sent[0] if sent else b""

    def unsigned(self, head: RequestHead) -> Rejected | None:
        """The rejection of a delivery that obviously has no signature. None means nothing: `read_claim` checks again, fully."""
        return None if self.scheme.signature.field else self._reader.unsigned(head)

    def read_claim(self, head: RequestHead, now: float | None) -> Claim:
        """Steps (1) to (3). `now` is unix time in seconds; with None any age is accepted. Raises `Rejected`."""
        # (1)
        signatures: Sequence[bytes] = ()
        stamps: Sequence[bytes] = ()
        if not self.scheme.signature.field:
            signatures, stamps = self._reader.read_head(head)
        # (2)
        for name, value, spelled in self._required:
            if head.values(name) != (value,):
                raise Rejected(Reason.SIGNATURE_MALFORMED, f"{spelled} is not {value.decode()!r}")
        for name in self._signed_headers:
            signed_header(head, name)
        # (3)
        clock = self._clock
        if clock is None:
            return Claim(signatures, b"", None, now)
        if self._clock_header:
            stamps = head.values(self._clock_header)
        if not stamps or not stamps[0]:
            what = (
                f"no {clock.header} header" if clock.header else f"{self.scheme.signature.header} has no {clock.place}"
            )
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

    def match(self, claim: Claim, head: RequestHead, body: Sequence[bytes]) -> Verified | None:
        """Like `verify`, but returns None if no secret matches; that is the rejection `mismatch`."""
        if not self._plain:
            return self._match_composed(claim, head, body)
        message = body if self._only_body else compose_plain(self._plain, claim.timestamp, body)
        secret_id = self._matcher.match(claim.signatures, message)
        if secret_id is None:
            return None
        # (7)
        if self._body_clock is None:
            return Verified(secret_id)
        inputs = Delivery(head, body, b"", b"", self.scheme.form_field)
        return Verified(secret_id, self._age_in_body(self._body_clock, inputs, claim.now))

    def fingerprint(self, claim: Claim, head: RequestHead, body: Sequence[bytes], *, scope: str, url: bytes) -> bytes:
        """32 bytes that are the same for every copy of a verified delivery, whatever its signature; never a MAC.

        The SHA-256 of the delivery id if it is signed and where it ends is certain, else of the signed message, with the `url`
        that was verified; for a bearer kind, of the body. Deliveries of different `scope` have different fingerprints.
        """
        digest = hashlib.sha256(scope.encode() + b"\0")
        message: Sequence[bytes]
        if self._id_bound is not None:
            message = (self.delivery_id(head),)
        elif self._only_body or self.scheme.signature.kind.bearer:
            message = body
        elif self._plain:
            message = compose_plain(self._plain, claim.timestamp, body)
        else:
            message = compose(self._writers, Delivery(head, body, claim.timestamp, url, self.scheme.form_field))
        for piece in message:
            digest.update(piece)
        return digest.digest()

    def other_fingerprints(self, head: RequestHead, *, scope: str) -> list[bytes]:
        """The fingerprints that a verified delivery would have if its id ended at another separator. Raises `Rejected`.

        A sender of a recording may have added to the id what follows it in the signed message. Providers write no separators
        into their ids, so there are usually none.
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

    def _match_composed(self, claim: Claim, head: RequestHead, body: Sequence[bytes]) -> Verified | None:
        """Steps (4) to (7) for templates that need more than body and timestamp."""
        scheme = self.scheme
        delivery = Delivery(head, body, claim.timestamp, b"", scheme.form_field)
        # (4)
        if self._reads_document and sum(map(len, delivery.body)) > MAX_UNVERIFIED:
            raise Rejected(
                Reason.SIGNATURE_MALFORMED,
                f"the body is longer than {MAX_UNVERIFIED} bytes, too long for a signature inside it",
            )
        signatures = self._reader.read_body(delivery) if scheme.signature.field else claim.signatures
        if scheme.body_hash and query_values(head.target, scheme.body_hash) != [body_sha256_hex(delivery.body)]:
            raise Rejected(
                Reason.SIGNATURE_MISMATCH,
                f"query parameter {scheme.body_hash} is absent, repeated, or not the SHA-256 of the body",
            )

        # (5), (6)
        for delivery.url in (b"",) if self._url is None else self._url.variants(head.target, scheme):
            secret_id = self._matcher.match(signatures, compose(self._writers, delivery))
            if secret_id is not None:
                # (7)
                clock = self._body_clock
                age = self._age_in_body(clock, delivery, claim.now) if clock is not None else None
                return Verified(secret_id, age, delivery.url)
        return None

    def _age_in_body(self, clock: TimestampField, delivery: Delivery, now: float | None) -> float | None:
        try:
            text = find_value(delivery.document, clock.field)
        except Rejected as unreadable:
            raise Rejected(Reason.TIMESTAMP_MALFORMED, unreadable.detail) from None
        if text is None:
            raise Rejected(Reason.TIMESTAMP_MISSING, f"the body's JSON has no {clock.field}")
        return age_of(clock, text.encode("utf-8", "surrogatepass"), now)
