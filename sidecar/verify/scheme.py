"""What a provider signs, with what, and how it writes the result: a scheme, as data.

Preset files and custom schemes under `verify:` have the same form; only `signature:` is required:

    signature: {header: X-Acme-Signature, algorithm: sha256, encoding: hex, prefix: "v1="}
    timestamp: {header: X-Acme-Timestamp, unit: s, tolerance: 5m}
    signed: "{timestamp}.{body}"
    key: utf8
    delivery_id: {header: X-Acme-Delivery}

Providers differ only in where the signature is, how the secret's text becomes a key, which timestamp counts, and which
pieces form the signed message. `docs/own-scheme.md` explains every key.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from sidecar.outcomes import RejectionResponse
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.encoding import Encoding
from sidecar.verify.handshake import Shape
from sidecar.verify.keys import KeyForm
from sidecar.verify.kinds import Kind
from sidecar.verify.kinds.hmac import HMAC
from sidecar.verify.template import BODY, BODY_PIECES, TIMESTAMP, URL_PIECES, HeaderValue, Part, Piece


class Unit(StrEnum):
    """How a timestamp is written."""

    SECONDS = "s"  # whole unix time
    MILLISECONDS = "ms"
    ISO8601 = "iso8601"  # RFC 3339, up to nanoseconds; without a zone it is UTC
    HTTP_DATE = "http-date"  # RFC 9110, 5.6.7


class Evidence(StrEnum):
    """The basis of a preset, the strongest first."""

    PRINTED_VECTOR = "printed-vector"  # a signed delivery in the provider's documentation or examples, which verifies
    VENDOR_TEST = "vendor-test"  # the same in the tests of the provider or its SDK
    SDK_RUN = "sdk-run"  # the provider's own code signed or accepted a delivery when it was run, and that verifies
    SDK_SOURCE = "sdk-source"  # source code of the provider: an SDK, a sample, or the sender itself
    DOCUMENTATION = "documentation"
    DOCUMENTATION_COPY = "documentation-copy"  # the provider's text or code, but read as a copy elsewhere
    SECOND_HAND = "second-hand"  # the code or text of others, for all of the scheme or for a part that decides


#: The evidence that is a delivery which the provider made or accepted, and which the preset verifies.
PROVEN = (Evidence.PRINTED_VECTOR, Evidence.VENDOR_TEST, Evidence.SDK_RUN)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureList:
    """A field that holds several items. Items that start with `tag` are signatures; others are ignored.

    `tag` lists *active secrets*: any may match. `versions` lists *scheme versions*, newest first: only the newest one
    present counts, so that a valid weak signature can't rescue an invalid strong one.
    """

    separator: str  #: any one of these characters ends an item
    tag: str = ""  #: `*` in it matches anything but a separator
    versions: tuple[str, ...] = ()
    blanks: bool = True  #: whether spaces around an item are removed


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureField:
    """Where the signature is and how it is written."""

    header: str = ""  #: ends in `{n}` if any of the copies numbered 1, 2, ... may match
    also: tuple[str, ...] = ()  #: further headers that may match
    repeated: bool = False  #: whether the header may appear several times; each copy may match
    field: str = ""  #: instead of a header: its place in the body's JSON document
    kind: Kind = HMAC
    algorithm: Algorithm = Algorithm.SHA256
    encoding: Encoding = Encoding.HEX
    prefix: str = ""
    list: SignatureList | None = None

    @property
    def place(self) -> str:
        """For people."""
        return f"body field {self.field}" if self.field else self.header


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampField:
    """The signed time: in a header, an item of the signature's list, or a field of the body's JSON document."""

    header: str = ""
    tag: str = ""  #: the item of the signature's list that starts with this
    first: bool = False  #: the first item of the signature's list
    field: str = ""
    unit: Unit = Unit.SECONDS
    tolerance: float | None = 300.0  #: seconds, applied in both directions; None: any age is accepted

    @property
    def place(self) -> str:
        """For people."""
        if self.field:
            return f"body field {self.field}"
        return self.header or (f"{self.tag} in the signature" if self.tag else "the first item of the signature")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFacts:
    """What a provider does after a failed delivery."""

    retries: str = ""  #: how often and for how long it sends again
    timeout: float | None = None  #: seconds without a response after which it gives up; None: not known
    resends: bool = True  #: False: it never sends again after an error response
    resend_status: int | None = (
        None  #: the status after which it sends again; None: any failure will do, as far as known
    )
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A provider's signature scheme. `title`, `docs`, `evidence`, `source` and `notes` are for people."""

    signature: SignatureField
    timestamp: TimestampField | None = None
    signed: str = "{body}"
    parts: tuple[Part, ...] = field(default=(BODY,))
    key: KeyForm = KeyForm.UTF8
    require: tuple[tuple[str, str], ...] = ()  #: headers that must have this value
    body_hash: str = ""  #: the query parameter that must be the body's SHA-256 in hex
    form_field: str = ""  #: the form field that holds the JSON document, if the body is a form
    any_port: bool = False  #: whether the URL is tried with and without its scheme's default port
    url_unescaped: str = ""  #: characters that may be unescaped in the signed URL
    delivery_id: str | None = None
    name: str = ""  #: the preset's name; empty for a scheme written in the configuration
    title: str = ""
    docs: str = ""
    evidence: str = ""  #: of a preset a value of `Evidence`
    source: str = ""  #: where the evidence is: repositories and paths, or pages
    notes: str = ""
    handshake: tuple[Shape, ...] = ()  #: the provider's handshakes
    delivery: DeliveryFacts = DeliveryFacts()
    reject: RejectionResponse | None = None  #: the response that the provider requires to a wrong signature
    ip_ranges: str = ""  #: the page on which the provider publishes the addresses it sends from
    aliases: tuple[str, ...] = ()  #: names that aren't presets, but lead to this one

    @property
    def summary(self) -> str:
        """One line for people: `HMAC-SHA256 in X-Signature`, and a warning if the body isn't signed."""
        field = self.signature
        how = f"{field.kind.summarize(field)} in {field.place}"
        return how if self.binds_body else f"{how}, BODY NOT SIGNED"

    @property
    def binds_body(self) -> bool:
        """Whether the signature covers the body."""
        return not self.signature.kind.bearer and (bool(self.body_hash) or not BODY_PIECES.isdisjoint(self.parts))

    @property
    def headers(self) -> list[bytes]:
        """The headers that verification reads, in lower case; one that ends in `{n}` has numbered copies."""
        field = self.signature
        named = [field.header, *field.also, *(header for header, _ in self.require)]
        named += [self.timestamp.header if self.timestamp else "", self.delivery_id or ""]
        signed = [part.name for part in self.parts if isinstance(part, HeaderValue)]
        return [*(name.lower().encode() for name in named if name), *signed]

    @property
    def needs_url(self) -> bool:
        """Whether the public URL must be known."""
        return not URL_PIECES.isdisjoint(self.parts)

    @property
    def uses_url(self) -> bool:
        """Whether the message depends on the public URL, if it is known."""
        return self.needs_url or Piece.PATH_QUERY in self.parts or Piece.HOST in self.parts

    @property
    def signs_id(self) -> bool:
        """Whether the delivery id is part of the signed message."""
        return self.delivery_id is not None and HeaderValue(self.delivery_id.lower().encode()) in self.parts

    @property
    def id_bound(self) -> "IdBound | None":
        """Where the delivery id ends in the signed message; None if it isn't signed, or if that is uncertain.

        An id next to another variable part could be given some of its bytes, with the same signature. So literal text must be
        beside it, and on one side of it nothing whose length a sender can choose.
        """
        if self.delivery_id is None or not self.signs_id:
            return None
        place = HeaderValue(self.delivery_id.lower().encode())
        at = self.parts.index(place)
        before, after = self.parts[:at], self.parts[at + 1 :]
        if place in after or not all(isinstance(part, bytes) for part in (*before[-1:], *after[:1])):
            return None
        if all(map(_has_fixed_size, before)):
            return IdBound(after[0] if after and isinstance(after[0], bytes) else b"", first=True)
        if all(map(_has_fixed_size, after)):
            return IdBound(before[-1] if isinstance(before[-1], bytes) else b"", first=False)
        return None

    @property
    def adjacent(self) -> tuple[Part, Part] | None:
        """The first two parts of the message without text between them, so that bytes can be moved from one to the other."""
        for left, right in pairwise(self.parts):
            free = [part for part in (left, right) if not (isinstance(part, bytes) or _has_fixed_size(part))]
            if len(free) == 2 and TIMESTAMP not in free and any(isinstance(part, HeaderValue) for part in free):
                return left, right
        return None


class IdBound(NamedTuple):
    """The end of the delivery id in the signed message."""

    separator: bytes  #: the text beside it; empty at the end of the message
    first: bool  #: whether the id ends at the first of several separators, or begins after the last


def _has_fixed_size(part: Part) -> bool:
    """Whether a sender can't choose how long it is."""
    return isinstance(part, bytes) or part in _FIXED_SIZE


_FIXED_SIZE = frozenset({Piece.METHOD, Piece.HOST, Piece.SECRET, Piece.BODY_SHA256_B64, Piece.BODY_SHA512_B64})
