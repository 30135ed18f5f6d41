"""Finds the key that verifies a delivery: from the place that a scheme names for its keys to the keys themselves.

Nothing that a sender writes can name a document, except by an id or a certificate's URL that matches the scheme's whole
pattern, on the host that the scheme fixes.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.claim_rules import KeyPlace
from sidecar.verify.jose import PublishedKey
from sidecar.verify.key_documents import read_keys
from sidecar.verify.published import ClientName, Document, KeyNeeded, KeySource, PublishedKeys, linked_source

#: Parsed documents that a route keeps.
MAX_PARSED: Final = 32
#: Keys that are tried for a delivery that names none.
MAX_TRIED: Final = 8

_DAY: Final = 86400.0


class KeyFinder:
    """The keys of one `keys:` section."""

    def __init__(
        self, place: KeyPlace, name: str, published: PublishedKeys | None, *, secrets: Sequence[Secret] = ()
    ) -> None:
        """`name` is that of the scheme, for metrics. `secrets` are the credentials that a request for a key needs."""
        self.place = place
        self._name = name
        self._published = published
        self._secret = secrets[0].reveal().decode("utf-8", "replace") if secrets and place.post else ""
        self._parsed: OrderedDict[tuple[str, str], tuple[Document, list[PublishedKey]]] = OrderedDict()
        self._id = re.compile(place.id) if place.id else None
        self._client = (
            ClientName(place.oauth.token_url, place.oauth.scope, place.oauth.client_id)
            if place.oauth is not None
            else None
        )
        self._listed = self._make_listed()

    @property
    def sources(self) -> tuple[KeySource, ...]:
        """The documents to fetch at the start."""
        return (self._listed,) if self._listed is not None else ()

    def _make_listed(self) -> KeySource | None:
        place = self.place
        form = "jwks" if place.jwks else "x509" if place.x509 else "discovery"
        url = place.jwks or place.x509 or place.discovery
        keep = _DAY if place.keep is None else place.keep
        return KeySource(url, self._name, keep, form=form, hosts=place.hosts) if url else None

    def verified(self, key_id: Any) -> None:
        """Notes that the key with this id verified a delivery, so that the store keeps it."""
        if self._listed is None and self._published is not None:
            self._published.used(self._source_of_id(key_id))

    def find(self, key_id: Any, algorithm: str, now: float | None) -> list[PublishedKey]:
        """The keys that may verify a token or signature. Raises `Rejected`, `KeyNeeded`.

        `key_id` is what the sender wrote, of any type. `now` is unix time in seconds, for keys in certificates.
        """
        if key_id is None and self.place.without_id:
            key_id = ""
        elif not isinstance(key_id, str) or not key_id or len(key_id) > 1024:
            raise Rejected(Reason.SIGNATURE_MALFORMED, "its key id (kid) is absent or not text")
        source = self._source_for(key_id)
        document = self._get(source)
        keys = self._read(source, document)
        found = [key for key in keys if not key_id or not source.listed or key.id == key_id]
        if not found:
            raise KeyNeeded(source, Reason.KEY_UNKNOWN, "the key that it names is not among the provider's", document)
        fitting = [key for key in found if key.fits(algorithm) and key.is_valid(now)]
        if not fitting:
            raise Rejected(Reason.KEY_UNKNOWN, f"the key that it names is not one for {algorithm}, or has expired")
        return fitting[:MAX_TRIED]

    def _source_for(self, key_id: str) -> KeySource:
        if self._listed is None:
            return self._source_of_id(key_id)
        if self._listed.form != "discovery":
            return self._listed
        document = self._get(self._listed)
        linked = linked_source(self._listed, document)
        if linked is None:
            detail = "the provider's OpenID configuration names no keys"
            raise KeyNeeded(self._listed, Reason.KEY_UNAVAILABLE, detail, document)
        return linked

    def _source_of_id(self, key_id: str) -> KeySource:
        place = self.place
        if self._id is None or not self._id.fullmatch(key_id):
            raise Rejected(Reason.KEY_UNKNOWN, "its key id (kid) is not in the provider's form")
        post = {name: value.replace("{id}", key_id).replace("{secret}", self._secret) for name, value in place.post}
        return KeySource(
            place.each.replace("{id}", key_id),
            self._name,
            _DAY if place.keep is None else place.keep,
            listed=False,
            id=key_id,
            post=json.dumps(post).encode() if post else b"",
            headers=(("Content-Type", "application/json"),) if post else (),
            form=place.form,
            client=self._client,
        )

    def _get(self, source: KeySource) -> Document:
        document = self._published.get(source) if self._published is not None else None
        if document is None:
            raise KeyNeeded(source, Reason.KEY_UNAVAILABLE, "the provider's keys haven't been fetched")
        if not document.content:
            raise KeyNeeded(source, Reason.KEY_UNKNOWN, "the provider knows no such key", document)
        return document

    def _read(self, source: KeySource, document: Document) -> list[PublishedKey]:
        """The keys of a document, parsed once."""
        name = (source.url, source.id)
        cached = self._parsed.get(name)
        if cached is not None and cached[0] is document:
            return cached[1]
        try:
            keys = read_keys(source.form, document.content, self.place.at, self.place.dead)
        except ValueError:
            reason = Reason.KEY_UNAVAILABLE if source.listed else Reason.KEY_UNKNOWN
            raise KeyNeeded(source, reason, "the provider's document holds no usable key", document) from None
        self._parsed[name] = (document, keys)
        while len(self._parsed) > MAX_PARSED:
            self._parsed.popitem(last=False)
        return keys


def agrees(key: PublishedKey, member: str, value: str) -> bool:
    """Whether a member of the key's JWK is `value`, or a list that holds it.

    Microsoft writes `{tenantid}` for any tenant (issuer of a key in the documents of `common`).
    """
    members: Mapping[str, Any] = key.members or {}
    found = members.get(member)
    if isinstance(found, list):
        return value in found
    if not isinstance(found, str):
        return False
    if "{tenantid}" in found:
        return re.fullmatch(re.escape(found).replace(r"\{tenantid\}", "[0-9a-fA-F-]{36}"), value) is not None
    return found == value
