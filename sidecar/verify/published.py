"""Keys that providers publish: what a scheme may ask for, and what a store of them promises.

Nothing here does I/O. A verifier asks a `PublishedKeys` for documents that were fetched before. If a key is missing, it raises
`KeyNeeded`; the delivery may then wait a short time for `PublishedKeys.refresh`, and verify once more.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

from sidecar.outcomes import Reason
from sidecar.verify.document import parse_json

#: The id of a key that the provider publishes, in logs and metrics. The ids themselves are the provider's, and not a closed list.
PUBLISHED: Final = "published"


class ClientName(NamedTuple):
    """An application at a provider's token endpoint. Only the process that fetches documents has its secret."""

    token_url: str
    scope: str  #: empty: the endpoint's own
    id: str


@dataclass(frozen=True, slots=True)
class KeySource:
    """One document of keys: an https URL whose host the scheme or the operator fixed, never a sender."""

    url: str
    #: Of the scheme, for metrics and pages: a preset's or a route's name. Closed, unlike the URL, whose end may hold a key's id.
    name: str
    keep: float = 86400.0  #: seconds for which the last good document counts while it can't be fetched again
    listed: bool = True  #: False: a document for one key id or certificate, fetched when a delivery names it
    id: str = ""  #: the key's id that the URL or the POST names; empty for a listed document
    post: bytes = field(default=b"", repr=False)  #: the body of a POST that asks for it; empty: GET
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  #: sent with it
    roots: str = ""  #: the certificate authorities of the TLS connection; empty: the system's
    form: str = "jwks"  #: what the document is: `jwks`, `x509`, `discovery`, `jwk`, `pem` or `certificate`
    hosts: tuple[str, ...] = ()  #: of a discovery document: further hosts that its `jwks_uri` may have
    client: ClientName | None = None  #: whose access token is sent with it

    def __hash__(self) -> int:
        """Hashes only the fields that differ between the documents of a scheme, because each delivery looks one up."""
        return hash((self.url, self.id))


class Document(NamedTuple):
    """A document that a key server sent with status 200."""

    content: bytes
    fetched: float  #: unix seconds
    content_type: str = ""


#: A URL that every parser reads alike: a host in lower case without user, port, query or fragment.
_PLAIN_URL = re.compile(r"https://([a-z0-9-]+(?:\.[a-z0-9-]+)+)(/[A-Za-z0-9._~%/-]*)?")


def linked_source(source: KeySource, document: Document) -> KeySource | None:
    """The document of keys that a discovery document names (OpenID Connect Discovery 1.0, 3: `jwks_uri`).

    None if it names none whose host is the document's own or one of `hosts`.
    """
    try:
        metadata = parse_json(document.content)
    except ValueError:
        return None
    uri = metadata.get("jwks_uri") if isinstance(metadata, dict) else None
    named = _PLAIN_URL.fullmatch(uri) if isinstance(uri, str) and len(uri) <= 1024 else None
    own = source.url.partition("://")[2].partition("/")[0]
    if named is None or named[1] not in (own, *source.hosts):
        return None
    return replace(source, url=named[0], form="jwks", hosts=())


class PublishedKeys(Protocol):
    """The documents that were fetched."""

    def get(self, source: KeySource) -> Document | None:
        """The last good document; None if there is none, or if it is older than `keep`. Never waits."""

    def used(self, source: KeySource) -> None:
        """Notes that the document of one key (not a listed one) has verified a delivery. Never waits; any thread may call it."""

    async def refresh(self, source: KeySource) -> bool:
        """Asks for a newer document, at most once an interval, and waits for a short, bounded time.

        Returns whether there is a newer one than before. Never raises.
        """


class KeyNeeded(Exception):
    """No document that was fetched has the key that this delivery names.

    `reason` is `key_unknown` if there is a document without that key, `key_unavailable` if there is none. `seen`: that document.
    """

    def __init__(self, source: KeySource, reason: Reason, detail: str = "", seen: Document | None = None) -> None:
        super().__init__(detail)
        self.source = source
        self.reason = reason
        self.detail = detail
        self.seen = seen
