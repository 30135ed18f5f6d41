"""Verifies signatures that list what they cover: `kind: rfc9421` and `kind: cavage`. `Verifier` calls this for such a scheme.

    from the head   (a) one signature is chosen, and covers what the scheme requires; its algorithm is one of the closed list
                    (b) `expires`, and through `Verifier` the time at which it was made
    with the body   (c) the key that it names, among the route's secrets or the provider's keys
                    (d) the signature
                    (e) the hash of the body, if it is covered

The hash is computed last: a forgery costs no pass over its body.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.body_hash import check_body_hash
from sidecar.verify.claim import Claim
from sidecar.verify.components import DRAFT_ALGORITHMS, HTTP_ALGORITHMS, ListedSignature, SignatureRules
from sidecar.verify.jose import find_match
from sidecar.verify.key_finder import KeyFinder
from sidecar.verify.keys import read_keys
from sidecar.verify.message import PublicURL
from sidecar.verify.published import PUBLISHED, KeySource, PublishedKeys
from sidecar.verify.scheme import Scheme

#: The algorithms of both kinds, and the names that a JWS has for them. A name that both kinds have means the same in both.
JWS_NAMES: Final = HTTP_ALGORITHMS | DRAFT_ALGORITHMS


class ListedVerifier:
    """The rules of a scheme with such signatures, and its keys."""

    def __init__(
        self,
        scheme: Scheme,
        secrets: Sequence[Secret],
        url: PublicURL | None,
        published: PublishedKeys | None,
        *,
        resolved: bool = True,
        keys_name: str = "scheme",
    ) -> None:
        """Raises `KeyFormError` for a secret that is not in the scheme's form."""
        assert scheme.listed is not None
        self._scheme = scheme
        self._rules: SignatureRules = scheme.listed
        self.reader = make_reader(scheme, url)
        place = scheme.keys
        self._by_id = place is not None and place.configured
        self._finder = None if place is None or place.configured else KeyFinder(place, keys_name, published)
        self._secrets = read_keys(scheme, secrets) if resolved and self._finder is None else []
        self.sources: tuple[KeySource, ...] = self._finder.sources if self._finder is not None else ()

    def check_expiry(self, signed: ListedSignature, now: float | None) -> None:
        """(b). `now` is unix time in seconds; with None only the form is checked. Raises `Rejected`."""
        if not signed.expires:
            if self._rules.expiry:
                raise Rejected(Reason.TIMESTAMP_MISSING, "the signature has no expires")
            return
        if now is not None and now >= int(signed.expires) + self._rules.skew:
            ago = now - int(signed.expires)
            raise Rejected(Reason.TIMESTAMP_TOO_OLD, f"the signature expired {ago:.0f} s ago (expires)")

    def match(self, claim: Claim, head: RequestHead, body: Sequence[bytes], now: float | None) -> str | None:
        """The id of the secret that made the signature; None if none did. Raises `Rejected`, `KeyNeeded`."""
        signed = claim.signatures
        assert isinstance(signed, ListedSignature)
        secret_id = self._verify(signed, now)
        if secret_id is None:
            return None
        if self._scheme.body_hash is not None:
            check_body_hash(self._scheme.body_hash, head, body)
        if signed.digest:
            from sidecar.verify.http_signature import check_content_digest  # noqa: PLC0415 - the draft has no such field

            check_content_digest(head, body, signed.digest)
        return secret_id

    def identity(self, claim: Claim) -> Sequence[bytes]:
        """The facts that two copies of a verified delivery have in common, never a signature: its description of itself."""
        assert isinstance(claim.signatures, ListedSignature)
        return [claim.signatures.base]

    def _verify(self, signed: ListedSignature, now: float | None) -> str | None:
        names = [signed.algorithm.decode()] if signed.algorithm else self._rules.algorithms
        if self._finder is not None:
            return self._verify_published(self._finder, signed, names, now)
        keys = self._named(signed)
        return _match(names, lambda algorithm: keys, signed)

    def _named(self, signed: ListedSignature) -> Sequence[tuple[str, Any]]:
        """The route's keys that may have made the signature. Raises `Rejected` if it names one that the route lacks."""
        if not self._by_id:
            return self._secrets
        if not signed.key_id:
            raise Rejected(Reason.SIGNATURE_MALFORMED, "its key id (keyid) is absent")
        found = [each for each in self._secrets if each[0].encode() == signed.key_id]
        if not found and self._secrets:
            raise Rejected(Reason.KEY_UNKNOWN, "its key id (keyid) is not the id of one of the route's secrets")
        return found

    def _verify_published(
        self, finder: KeyFinder, signed: ListedSignature, names: Sequence[str], now: float | None
    ) -> str | None:
        key_id = signed.key_id.decode("latin-1") or None
        unfit: list[Rejected] = []

        def find(algorithm: str) -> Sequence[tuple[str, Any]]:
            try:
                return [(PUBLISHED, each.key) for each in finder.find(key_id, algorithm, now)]
            except Rejected as rejected:  # not a key for this algorithm; perhaps for the next one
                unfit.append(rejected)
                return []

        matched = _match(names, find, signed)
        if matched is not None:
            finder.verified(key_id or "")
        elif len(unfit) == len(names):
            raise unfit[0]
        return matched


def _match(
    names: Sequence[str], find: Callable[[str], Sequence[tuple[str, Any]]], signed: ListedSignature
) -> str | None:
    """The id of the key that made the signature with one of these algorithms; `find` has the keys for each (a JWS name)."""
    for name in names:
        algorithm = JWS_NAMES[name]
        matched = find_match(algorithm, find(algorithm), signed.signature, [signed.base])
        if matched is not None:
            return matched
    return None


def make_reader(scheme: Scheme, url: PublicURL | None) -> Any:
    """The reader of the scheme's signatures. Raises `ImportError` without the library that parses structured fields."""
    if scheme.signature.kind.name == "cavage":
        from sidecar.verify.draft_signature import DraftSignatureReader  # noqa: PLC0415

        return DraftSignatureReader(scheme, url)
    from sidecar.verify.http_signature import HttpSignatureReader  # noqa: PLC0415 - it needs http-sf

    return HttpSignatureReader(scheme, url)
