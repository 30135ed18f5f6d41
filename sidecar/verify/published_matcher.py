"""Checks signatures with keys that the provider publishes, for the kinds whose message is composed: RSA, ECDSA, Ed25519.

The delivery may name the key: by an id in a header, by an id beside the signature, or by the URL of a certificate. It is looked
up only once a message that the scheme signs was composed, so a delivery that isn't of this scheme makes nobody fetch a key.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from cryptography import x509

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.certificates import CertificateError, check_chain, check_name, key_of, read_certificates, validity
from sidecar.verify.claim_rules import CertificatePlace
from sidecar.verify.document import find_value
from sidecar.verify.key_finder import MAX_PARSED, KeyFinder
from sidecar.verify.kinds.kind import Matcher, Pieces
from sidecar.verify.places import Delivery
from sidecar.verify.published import PUBLISHED, Document, KeyNeeded, KeySource, PublishedKeys
from sidecar.verify.scheme import Scheme
from sidecar.verify.wrapped import unwrap

#: Seconds for which the last good certificate counts while it can't be fetched again.
KEEP_CERTIFICATES: Final = 7 * 86400.0
#: Characters of a certificate's URL.
MAX_URL: Final = 512
#: The requirement for a key, by the kind of signature: the name of a JWS algorithm of that kind and curve.
_FITS: Final = {"ed25519": "EdDSA", "ecdsa-p256-sha256": "ES256", "rsa-pkcs1": "RS256", "rsa-pss": "PS256"}


class Trusted(NamedTuple):
    """The key of a certificate that is the sender's, and when the certificate is valid (unix seconds)."""

    key: Any
    begin: float
    end: float


class Parsed(NamedTuple):
    """A document, and the result of checking it: everything that does not depend on a delivery."""

    source: KeySource
    document: Document
    trusted: Trusted | CertificateError


class CertificateFinder:
    """The certificates of one `certificate:` section."""

    def __init__(self, place: CertificatePlace, name: str, published: PublishedKeys | None, keep: float | None) -> None:
        self.place = place
        self._name = name
        self._published = published
        self._keep = KEEP_CERTIFICATES if keep is None else keep
        self._url = re.compile(place.url, re.ASCII)
        self._roots = read_certificates(place.roots.encode()) if place.roots else []
        self._intermediates = read_certificates(place.intermediates.encode()) if place.intermediates else []
        self._parsed: OrderedDict[str, Parsed] = OrderedDict()

    def source(self, delivery: Delivery) -> KeySource:
        """The document that a delivery names. Raises `Rejected` unless its URL is one that the scheme allows."""
        place = self.place
        if place.header:
            values = delivery.head.values(place.header.lower().encode())
            if len(values) != 1:
                raise Rejected(Reason.SIGNATURE_MALFORMED, f"{len(values)} {place.header} headers; expected one")
            url = values[0].decode("latin-1")
        else:
            url = find_value(delivery.document, place.json) or ""
        known = self._parsed.get(url)
        if known is not None:
            return known.source
        if len(url) > MAX_URL or not self._url.fullmatch(url):
            raise Rejected(Reason.KEY_UNKNOWN, "the URL of the certificate is not one of the provider's")
        return KeySource(url, self._name, self._keep, listed=False, form="certificate")

    def find(self, source: KeySource, now: float | None) -> Any:
        """The public key of the certificate. Raises `Rejected`, `KeyNeeded`."""
        document = self._published.get(source) if self._published is not None else None
        if document is None:
            raise KeyNeeded(source, Reason.KEY_UNAVAILABLE, "the certificate hasn't been fetched")
        if not document.content:
            raise KeyNeeded(source, Reason.KEY_UNKNOWN, "the provider knows no such certificate", document)
        cached = self._parsed.get(source.url)
        if cached is None or cached.document is not document:
            try:
                trusted: Trusted | CertificateError = self._trust(document.content)
            except CertificateError as error:
                trusted = error
            cached = self._parsed[source.url] = Parsed(source, document, trusted)
            while len(self._parsed) > MAX_PARSED:
                self._parsed.popitem(last=False)
        trusted = cached.trusted
        if isinstance(trusted, CertificateError):
            raise Rejected(Reason.KEY_UNKNOWN, str(trusted))
        if now is not None and not trusted.begin <= now <= trusted.end:
            raise Rejected(Reason.KEY_UNKNOWN, "the certificate has expired, or is not valid yet")
        return trusted.key

    def _trust(self, content: bytes) -> Trusted:
        """Checks everything but the date, which is compared for each delivery. Raises `CertificateError`."""
        try:
            leaf, *served = read_certificates(content)
        except ValueError:
            raise CertificateError("what the provider serves is not a certificate") from None
        check_name(leaf, self.place.names)
        chain = [leaf]
        if self._roots:
            chain = check_chain(leaf, [*served, *self._intermediates], self._roots, None)
        return Trusted(key_of(leaf), *_window(chain))

    def used(self, source: KeySource) -> None:
        """Notes that a certificate verified a delivery, so that the store keeps it."""
        if self._published is not None:
            self._published.used(source)


def _window(chain: Sequence[x509.Certificate]) -> tuple[float, float]:
    """When all of them are valid."""
    windows = [validity(each) for each in chain]
    return max(begin for begin, _ in windows), min(end for _, end in windows)


class PublishedMatcher:
    """A scheme's published keys, ready to check signatures."""

    def __init__(self, scheme: Scheme, secrets: Sequence[Secret], published: PublishedKeys | None, name: str) -> None:
        """`name` is that of the keys in metrics."""
        assert scheme.keys is not None
        place = scheme.keys
        self.scheme = scheme
        self.certificates = (
            CertificateFinder(place.certificate, name, published, place.keep) if place.certificate is not None else None
        )
        self.finder = KeyFinder(place, name, published, secrets=secrets)
        self.sources = self.finder.sources
        self._id_header = scheme.signature.key_id.lower().encode()
        #: By algorithm and key: they are made once, and hold the key, so that no other can have its id.
        self._matchers: dict[tuple[Algorithm, int], Matcher] = {}

    def matcher(self, algorithm: Algorithm, key: Any) -> Matcher:
        """The object that checks signatures of one key."""
        name = (algorithm, id(key))
        made = self._matchers.get(name)
        if made is None:
            made = self.scheme.signature.kind.make_matcher(algorithm, [(PUBLISHED, key)])
            if len(self._matchers) >= MAX_PARSED:
                self._matchers = {}  # one step, because threads verify as well
            self._matchers[name] = made
        return made

    def for_delivery(self, delivery: Delivery, now: float | None) -> "DeliveryMatcher":
        return DeliveryMatcher(self, delivery, now)

    def key_id(self, head: RequestHead) -> Any:
        """The delivery's statement about its key; None if the scheme has no place for that. Raises `Rejected`."""
        if self.scheme.signature.wrapped is not None:
            sent = head.values(self.scheme.signature.header.lower().encode())
            return unwrap(self.scheme.signature.wrapped, sent[0] if len(sent) == 1 else b"").key_id
        if not self._id_header:
            return None
        values = head.values(self._id_header)
        if len(values) != 1:
            name = self._id_header.decode()
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"{len(values)} {name} headers; expected one")
        return values[0].decode("latin-1")


class DeliveryMatcher:
    """A `Matcher` for one delivery: it finds the keys when there is a message to check."""

    def __init__(self, owner: PublishedMatcher, delivery: Delivery, now: float | None) -> None:
        self._owner = owner
        self._delivery = delivery
        self._now = now

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        owner, field = self._owner, self._owner.scheme.signature
        algorithm = self._algorithm()
        if owner.certificates is not None:
            source = owner.certificates.source(self._delivery)
            key = owner.certificates.find(source, self._now)
            matched = owner.matcher(algorithm, key).match(signatures, message)
            if matched is not None:
                owner.certificates.used(source)
            return matched
        key_id = owner.key_id(self._delivery.head)
        found = owner.finder.find(key_id, _FITS[field.kind.name], self._now)
        if len(found) == 1:
            matcher = owner.matcher(algorithm, found[0].key)
        else:
            matcher = field.kind.make_matcher(algorithm, [(PUBLISHED, each.key) for each in found])
        matched = matcher.match(signatures, message)
        if matched is not None:
            owner.finder.verified(key_id)
        return matched

    def _algorithm(self) -> Algorithm:
        """The scheme's, or the one that a signed place of the body chooses from the scheme's list. Raises `Rejected`."""
        field = self._owner.scheme.signature
        if field.algorithm_by is None:
            return field.algorithm
        value = find_value(self._delivery.document, field.algorithm_by.json)
        for name, algorithm in field.algorithm_by.values:
            if value == name:
                return algorithm
        raise Rejected(Reason.SIGNATURE_MALFORMED, f"the body's {field.algorithm_by.json} is not one of the scheme's")
