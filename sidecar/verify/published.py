"""Keys that providers publish: what a scheme may ask for, and what a store of them promises.

Nothing here does I/O. A verifier asks a `PublishedKeys` for documents that were fetched before. If a key is missing, it raises
`KeyNeeded`; the delivery may then wait a short time for `PublishedKeys.refresh`, and verify once more.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sidecar.outcomes import Reason


@dataclass(frozen=True, slots=True)
class KeySource:
    """One document of keys: an https URL whose host the scheme or the operator fixed, never a sender."""

    url: str
    #: Of the scheme, for metrics and pages: a preset's or a route's name. Closed, unlike the URL, whose end may hold a key's id.
    name: str
    keep: float = 86400.0  #: seconds for which the last good document counts while it can't be fetched again
    listed: bool = True  #: False: a document for one key id or certificate, fetched when a delivery names it
    post: bytes = b""  #: the body of a POST that asks for it; empty: GET
    headers: tuple[tuple[str, str], ...] = ()  #: sent with it
    roots: str = ""  #: the certificate authorities of the TLS connection; empty: the system's


class Document(NamedTuple):
    """What a key server sent with status 200."""

    content: bytes
    fetched: float  #: unix seconds
    content_type: str = ""


class PublishedKeys(Protocol):
    """The documents at hand."""

    def get(self, source: KeySource) -> Document | None:
        """The last good document; None if there is none, or if it is older than `keep`. Never waits."""

    async def refresh(self, source: KeySource) -> bool:
        """Asks for a newer document, at most once an interval, and waits for a short, bounded time.

        Returns whether there is a newer one than before. Never raises.
        """


class KeyNeeded(Exception):
    """No document at hand has the key that this delivery names.

    `reason` is `key_unknown` if a document is there without that key, `key_unavailable` if there is no document.
    """

    def __init__(self, source: KeySource, reason: Reason, detail: str = "") -> None:
        super().__init__(detail)
        self.source = source
        self.reason = reason
        self.detail = detail
