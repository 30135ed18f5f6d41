"""A scheme, as data: the message that a provider signs, the key, and the form of the signature.

Preset files and custom schemes under `verify:` have the same form; only `signature:` is required:

    signature: {header: X-Acme-Signature, algorithm: sha256, encoding: hex, prefix: "v1="}
    timestamp: {header: X-Acme-Timestamp, unit: s, tolerance: 5m}
    signed: "{timestamp}.{body}"
    key: utf8
    delivery_id: {header: X-Acme-Delivery}

Providers differ only in where the signature is, how the secret's text becomes a key, which timestamp counts, and which
pieces form the signed message. `docs/scheme-keys.md` explains every key.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from sidecar.outcomes import RejectionResponse
from sidecar.secret import SecretRef
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.claim_rules import KeyPlace, TokenRules
from sidecar.verify.components import CONTENT_DIGEST, Component, SignatureRules
from sidecar.verify.encoding import Encoding
from sidecar.verify.handshake import Shape
from sidecar.verify.keys import KeyForm
from sidecar.verify.kinds import Kind
from sidecar.verify.kinds.hmac import HMAC
from sidecar.verify.template import (
    BODY,
    BODY_PIECES,
    FORM_PIECES,
    HASH_PIECES,
    TIMESTAMP,
    URL_PIECES,
    FormJoined,
    FormValue,
    Group,
    HeaderValue,
    JsonValue,
    ListedHeaders,
    Part,
    Piece,
    QueryValue,
    expand,
    walk,
)


class Unit(StrEnum):
    """How a timestamp is written."""

    SECONDS = "s"  # whole unix time
    MILLISECONDS = "ms"
    ISO8601 = "iso8601"  # RFC 3339, up to nanoseconds; without a zone it is UTC
    HTTP_DATE = "http-date"  # RFC 9110, 5.6.7


class Segment(StrEnum):
    """A segment of a request's path."""

    LAST = "last"


class Evidence(StrEnum):
    """The basis of a preset, the strongest first."""

    PRINTED_VECTOR = "printed-vector"  # a signed delivery in the provider's documentation or examples, which verifies
    VENDOR_TEST = "vendor-test"  # the same in the tests of the provider or its SDK
    SDK_RUN = "sdk-run"  # the provider's own code signed or accepted a delivery when it was run, and that verifies
    SDK_SOURCE = "sdk-source"  # source code of the provider: an SDK, a sample, or the sender itself
    DOCUMENTATION = "documentation"
    DOCUMENTATION_COPY = "documentation-copy"  # the provider's text or code, but read as a copy elsewhere
    SECOND_HAND = "second-hand"  # the code or text of others, for all of the scheme or for a part that matters


#: The kinds of evidence in which the preset verifies a delivery that the provider made or accepted.
PROVEN = (Evidence.PRINTED_VECTOR, Evidence.VENDOR_TEST, Evidence.SDK_RUN)
#: In the tag of a list: the part of a secret before its colon.
KEY_ID = "{key_id}"


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
    first: bool = False  #: whether only the first signature counts


class AlgorithmChoice(NamedTuple):
    """The hash function, by a value of the body's JSON document that isn't secret: Amazon's SignatureVersion."""

    json: str
    values: tuple[tuple[str, Algorithm], ...]


class Wrapping(NamedTuple):
    """A JSON object in base64 around the signature: the members for signature and key id, and others with fixed values."""

    signature: str
    id: str
    members: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureField:
    """Where the signature is and how it is written."""

    header: str = ""  #: ends in `{n}` if any of the copies numbered 1, 2, ... may match
    also: tuple[str, ...] = ()  #: further headers that may match
    repeated: bool = False  #: whether the header may appear several times; each copy may match
    field: str = ""  #: instead of a header: its place in the body's JSON document
    form: str = ""  #: instead of a header: its field in the body's form
    query: str = ""  #: instead of a header: the query parameter that is the token
    path: Segment | None = None  #: instead of a header: the segment of the path that is the token
    kind: Kind = HMAC
    algorithm: Algorithm = Algorithm.SHA256
    encoding: Encoding = Encoding.HEX
    prefix: str = ""
    list: SignatureList | None = None
    prehash: Algorithm | None = None  #: the hash of the message is signed, as if it were the message
    key_id: str = ""  #: the header that names the key: a published one, or of a secret `ID:KEY`
    body: bool = False  #: of a token: it is the whole body
    each: str = ""  #: of tokens: the place of their list in the body's JSON document
    most: int = 16  #: tokens of that list
    algorithms: tuple[str, ...] = ()  #: of a token or a listed signature: the closed list
    components: tuple[Component, ...] = ()  #: of a listed signature: what it must cover
    label: str = ""  #: of a listed signature: the one that counts
    tag: str = ""  #: of a listed signature: the tag of the one that counts
    algorithm_by: AlgorithmChoice | None = None  #: in place of `algorithm`
    wrapped: Wrapping | None = None

    @property
    def in_body(self) -> bool:
        """Whether it is in the body, and not in the head."""
        return bool(self.field or self.form or self.each or self.body)

    @property
    def in_target(self) -> bool:
        """Whether it is in the request's target, and so in every URL and path that is shown."""
        return bool(self.query) or self.path is not None

    @property
    def names_key(self) -> bool:
        """Whether the delivery says which key it was signed with."""
        return bool(self.key_id) or (self.list is not None and KEY_ID in self.list.tag)

    @property
    def place(self) -> str:
        """For people."""
        if self.form:
            return f"form field {self.form}"
        if self.query:
            return f"query parameter {self.query}"
        if self.path is not None:
            return f"the {self.path} segment of the path"
        if self.body:
            return "the body"
        return f"body field {self.field or self.each}" if self.field or self.each else self.header


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampField:
    """The signed time: in a header, an item of the signature's list, or a field of the body's JSON document or form."""

    header: str = ""
    tag: str = ""  #: the item of the signature's list that starts with this
    first: bool = False  #: the first item of the signature's list
    field: str = ""
    form: str = ""
    claim: str = ""  #: a claim of the token
    head: str = ""  #: a member of the head of a detached token
    parameter: str = ""  #: a parameter of a listed signature
    unit: Unit = Unit.SECONDS
    tolerance: float | None = 300.0  #: seconds, applied in both directions; None: any age is accepted
    future: float | None = None  #: seconds that it may be ahead of our clock; None: the tolerance

    @property
    def in_body(self) -> bool:
        """Whether it is in the body, and not in the head."""
        return bool(self.field or self.form)

    @property
    def place(self) -> str:
        """For people."""
        if self.form:
            return f"form field {self.form}"
        if self.claim or self.head:
            return f"claim {self.claim}" if self.claim else f"{self.head} in the signature's head"
        if self.parameter:
            return f"the signature's {self.parameter}"
        if self.field:
            return f"body field {self.field}"
        return self.header or (f"{self.tag} in the signature" if self.tag else "the first item of the signature")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFacts:
    """A provider's behavior after a failed delivery."""

    retries: str = ""  #: how often and for how long it sends again
    timeout: float | None = None  #: seconds without a response after which it gives up; None: not known
    resends: bool = True  #: False: it never sends again after an error response
    resend_status: int | None = (
        None  #: the status after which it sends again; None: any failure will do, as far as known
    )
    source: str = ""


class HashForm(StrEnum):
    """How a header holds hashes of the body."""

    PLAIN = "plain"  # one hash
    CONTENT_DIGEST = "content-digest"  # RFC 9530: `sha-256=:base64:`, several separated by commas
    DIGEST = "digest"  # RFC 3230: `SHA-256=base64`, several separated by commas


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyHash:
    """A hash of the body that the delivery carries in a signed place: in the query or in a header."""

    query: str = ""
    header: str = ""
    form: HashForm = HashForm.PLAIN
    algorithm: Algorithm = Algorithm.SHA256  #: of `plain`; the others name their own
    encoding: Encoding = Encoding.HEX
    prefix: str = ""

    @property
    def place(self) -> str:
        """For people."""
        return f"query parameter {self.query}" if self.query else self.header


#: The values of a place that meet a condition: one of these; empty: any value; None: the place must be absent.
Expected = frozenset[bytes] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One of the messages that a provider may sign."""

    parts: tuple[Part, ...]
    when: tuple[tuple[Part, Expected], ...] = ()  #: all must hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value that a route must set beside `preset:`, because only the operator knows it."""

    name: str
    about: str  #: what it is, and where it is found at the provider
    example: str | int | tuple[str | int, ...] | SecretRef
    signed: bool = False  #: whether it is part of the signed message
    lines: bool = False  #: whether it is text of several lines
    form: str = ""  #: `duration`, `secret`, or `list`, which may be empty; otherwise like its example
    many: bool = False  #: whether it may be a list, of which any may match
    optional: bool = False
    advised: bool = False  #: whether a route without it gets a warning
    default: str | int | tuple[str | int, ...] | None = None
    pattern: str = ""  #: a regular expression that the whole text matches


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A provider's signature scheme. `title`, `docs`, `evidence`, `source` and `notes` are for people."""

    signature: SignatureField
    timestamp: TimestampField | None = None
    signed: str = "{body}"  #: as written, for people
    parts: tuple[Part, ...] = field(default=(BODY,))
    when: tuple[tuple[Part, Expected], ...] = ()  #: the conditions of `parts`, if there are alternatives
    alternatives: tuple[Alternative, ...] = ()  #: to `parts`; any may be what was signed
    plain: tuple[tuple[Part, str], ...] = ()  #: places, and a pattern for the whole value of each
    items: str = ""  #: the list in the body's JSON document to each item of which the scheme is applied
    decompressed: bool = False  #: whether the body is signed as it is without its Content-Encoding
    binds_form: bool = False  #: whether the signed form fields are the whole event
    key: KeyForm = KeyForm.UTF8
    require: tuple[tuple[str, str], ...] = ()  #: headers that must have this value
    require_form: tuple[tuple[str, str | None], ...] = ()  #: form fields that must have this value; None: any
    require_json: tuple[tuple[str, str | None], ...] = ()  #: the same for values of the body's JSON document
    body_hash: BodyHash | None = None
    form_field: str = ""  #: the form field that holds the JSON document, if the body is a form
    any_port: bool = False  #: whether the URL is tried with and without its scheme's default port
    url_unescaped: str = ""  #: characters that may be unescaped in the signed URL
    delivery_id: str | None = None
    delivery_claim: str = ""  #: instead: the claim of the token that is the delivery's id
    token: TokenRules | None = None  #: the rules for a token, and how it is signed
    listed: SignatureRules | None = None  #: the requirements for a signature that lists what it covers
    match_json: tuple[tuple[str, str], ...] = ()  #: values of the body's JSON document, and a pattern for each
    keys: KeyPlace | None = None  #: where the provider publishes its keys; None: the route's secrets
    settings: tuple[Setting, ...] = ()  #: of a preset: what a route must add
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
    def messages(self) -> tuple[Alternative, ...]:
        """Every message that may have been signed."""
        return (Alternative(parts=self.parts, when=self.when), *self.alternatives)

    @property
    def places(self) -> set[Part]:
        """Every part of every message, and of its conditions."""
        found: set[Part] = set()
        for message in self.messages:
            found.update(walk(message.parts), (place for place, _ in message.when))
        return found

    @property
    def is_direct(self) -> bool:
        """Whether there is one message, over the body as it was sent, and nothing is read from the body."""
        field = self.signature
        indirect = field.in_body or field.prehash or field.names_key or self.body_hash or self.when
        return not (indirect or self.alternatives or self.decompressed or self.require_form or self.require_json)

    @property
    def binds_body(self) -> bool:
        """Whether the signature covers the body."""
        if self.token is not None and self.signature.kind.claims:
            return self.signature.body or bool(self.signature.field) or self.token.binds_body
        if self.listed is not None:
            hashed = self.body_hash is not None and self.body_hash.header.lower() in self.listed.fields
            return hashed or (self.listed.covers_digest and self.signature.kind.name == "rfc9421")
        if self.signature.kind.bearer or self.items:
            return False
        return self.body_hash is not None or all(self._binds(message.parts) for message in self.messages)

    def _binds(self, parts: tuple[Part, ...]) -> bool:
        for part in parts:
            if part in BODY_PIECES or isinstance(part, FormJoined) or (self.binds_form and isinstance(part, FormValue)):
                return True
            # An absent form counts as an empty one, if nothing beside it can be absent as well.
            if isinstance(part, Group):
                places = [each for each in part.parts if not isinstance(each, bytes)]
                if len(places) == 1 and places[0] in FORM_PIECES:
                    return True
        return False

    @property
    def published(self) -> bool:
        """Whether the provider publishes the keys, so that a route needs no secrets."""
        places = [self.keys, *(each.keys for each in self.token.claims)] if self.token is not None else [self.keys]
        return any(place is not None and not place.configured for place in places)

    @property
    def names_secret(self) -> bool:
        """Whether a delivery's key id is the id of one of the route's secrets."""
        return self.listed is not None and self.keys is not None and self.keys.configured

    @property
    def shares_secret(self) -> bool:
        """Whether sender and route share a secret, which also signs."""
        if self.signature.algorithms:
            return self.signature.algorithms[0].lower().startswith(("hs", "hmac"))
        return not self.published and self.signature.kind.read_private_key is None

    @property
    def headers(self) -> list[bytes]:
        """The headers that verification reads, in lower case; one that ends in `{n}` has numbered copies."""
        field = self.signature
        named = [field.header, *field.also, field.key_id, *(header for header, _ in self.require)]
        named += [self.timestamp.header if self.timestamp else "", self.delivery_id or ""]
        named += [self.body_hash.header if self.body_hash else ""]
        if self.listed is not None:
            named += [f"{field.header}-Input", CONTENT_DIGEST] if field.kind.name == "rfc9421" else []
            named += [name for name in self.listed.fields if name not in map(str.lower, named)]
        signed = [part.name for part in self.places if isinstance(part, HeaderValue | ListedHeaders)]
        return [*(name.lower().encode() for name in named if name), *sorted(signed)]

    @property
    def needs_url(self) -> bool:
        """Whether the public URL must be known."""
        if self.token is not None and self.token.needs_url:
            return True
        if self.listed is not None:
            return self.listed.needs_url
        return not URL_PIECES.isdisjoint(self.places)

    @property
    def uses_url(self) -> bool:
        """Whether the message depends on the public URL, if it is known."""
        return self.needs_url or self.listed is not None or not _OF_URL.isdisjoint(self.places)

    @property
    def reads_document(self) -> bool:
        """Whether it needs the body's JSON document before anything is verified."""
        in_document = any(isinstance(part, JsonValue) for part in self.places)
        in_token = self.token is not None and (bool(self.signature.each) or self.token.reads_document)
        in_keys = self.keys is not None and self.keys.certificate is not None and bool(self.keys.certificate.json)
        by_document = self.signature.field or self.signature.algorithm_by or self.require_json or self.match_json
        return bool(by_document or self.items) or in_document or in_token or in_keys

    @property
    def reads_form(self) -> bool:
        """Whether it needs the form in the body."""
        clock = self.timestamp
        of_form = any(isinstance(part, FormValue | FormJoined) or part in FORM_PIECES for part in self.places)
        return bool(self.signature.form or self.require_form or (clock and clock.form)) or of_form

    @property
    def signs_id(self) -> bool:
        """Whether the delivery id is part of the signed message."""
        if self.listed is not None:
            return self.delivery_id is not None and self.delivery_id.lower() in self.listed.fields
        return self.delivery_id is not None and HeaderValue(self.delivery_id.lower().encode()) in self.places

    @property
    def id_bound(self) -> "IdBound | None":
        """Where the delivery id ends in the signed message; None if it isn't signed, or if that is uncertain.

        If an id is next to another variable part, bytes can be moved between them without changing the signature. So literal
        text must be beside the id, with nothing on one side of it whose length a sender can choose. This must hold for every
        message that may have been signed.
        """
        if self.delivery_id is None or not self.signs_id or self.items:
            return None
        if self.listed is not None:
            return IdBound(b"", first=True)  # a line of its own
        place = HeaderValue(self.delivery_id.lower().encode())
        bounds = {_bound_of(place, parts) for message in self.messages for parts in expand(message.parts)}
        return bounds.pop()[0] if len(bounds) == 1 else None

    @property
    def adjacent(self) -> tuple[Part, Part] | None:
        """The first two parts of a message without text between them, so that bytes can be moved from one to the other."""
        for message in self.messages:
            for parts in expand(message.parts):
                for left, right in pairwise(parts):
                    free = [part for part in (left, right) if not (isinstance(part, bytes) or _has_fixed_size(part))]
                    if len(free) == 2 and TIMESTAMP not in free and any(map(_is_beside_body, free)):
                        return left, right
        return None


def _is_beside_body(part: Part) -> bool:
    """Whether a sender can move its bytes into the part beside it: it is in the head, or is one of several fields."""
    return isinstance(part, HeaderValue | QueryValue)


def _bound_of(place: HeaderValue, parts: tuple[Part, ...]) -> "tuple[IdBound | None, tuple[Part, ...]]":
    """The bound in one message, and the parts on that side, which must be the same in every other message."""
    if parts.count(place) != 1:
        return None, ()
    at = parts.index(place)
    before, after = parts[:at], parts[at + 1 :]
    if not all(isinstance(part, bytes) for part in (*before[-1:], *after[:1])):
        return None, ()
    if all(map(_has_fixed_size, before)):
        return IdBound(after[0] if after and isinstance(after[0], bytes) else b"", first=True), before
    if all(map(_has_fixed_size, after)):
        return IdBound(before[-1] if before and isinstance(before[-1], bytes) else b"", first=False), after
    return None, ()


class IdBound(NamedTuple):
    """The end of the delivery id in the signed message."""

    separator: bytes  #: the text beside it; empty at the end of the message
    first: bool  #: whether the id ends at the first of several separators, or begins after the last


def _has_fixed_size(part: Part) -> bool:
    """Whether a sender can't choose how long it is."""
    return isinstance(part, bytes) or part in _FIXED_SIZE


_FIXED_SIZE = HASH_PIECES | {Piece.METHOD, Piece.HOST, Piece.SECRET}
_OF_URL = frozenset({Piece.PATH_QUERY, Piece.PATH_QUERY_ESCAPED, Piece.HOST})
