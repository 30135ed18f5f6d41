"""The places of a template: where each is found in a delivery.

A place is absent, and has no value, if the delivery lacks it or has it empty. If it appears twice, sender and receiver may each
read another of the two values, so the delivery is malformed.
"""

import hashlib
import re
import zlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote_from_bytes

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.document import find_value, read_document
from sidecar.verify.form import Fields, join_fields, malformed, only_field, read_fields, read_query, sorted_form
from sidecar.verify.scheme import TimestampField
from sidecar.verify.template import (
    HEADER_NAME,
    FormJoined,
    FormValue,
    HeaderValue,
    JsonValue,
    ListedHeaders,
    ListedInHead,
    Part,
    Piece,
    QueryValue,
)

#: Names in a list of signed headers.
MAX_LISTED: Final = 64
#: Marks what was not read yet, because None is a document.
_UNREAD: Final[Any] = object()
_HEADER_NAME: Final = re.compile(HEADER_NAME.pattern.encode())


class Delivery:
    """The values that fill a template."""

    __slots__ = (
        "_document",
        "_fields",
        "_form",
        "_query",
        "_twice",
        "body",
        "form_field",
        "head",
        "jws_head",
        "timestamp",
        "url",
    )

    def __init__(self, head: RequestHead, body: Sequence[bytes], timestamp: bytes, url: bytes, form_field: str) -> None:
        self.head = head
        self.body = body
        self.timestamp = timestamp
        self.url = url  #: empty without a public URL
        self.form_field = form_field
        self.jws_head: Mapping[str, Any] = {}  #: of a detached token
        self._document: Any = _UNREAD
        self._form: bytes | None = None
        self._fields: Fields | None = None
        self._query: Fields | None = None
        self._twice: dict[int, set[str]] = {}  #: by object: its names that differ from another one in letter case only

    @property
    def document(self) -> Any:
        """The body's JSON, read once. Raises `Rejected`."""
        if self._document is _UNREAD:
            self._document = read_document(self.head, self.body, self.form_field)
        return self._document

    @property
    def sorted_form(self) -> bytes:
        """The body's form, sorted once. Raises `Rejected`."""
        if self._form is None:
            self._form = sorted_form(self.head, self.body)
        return self._form

    @property
    def fields(self) -> Fields:
        """The fields of the body's form, read once. Raises `Rejected`."""
        if self._fields is None:
            self._fields = read_fields(self.head, self.body)
        return self._fields

    @property
    def query(self) -> Fields:
        """The parameters of the query, read once. Raises `Rejected`."""
        if self._query is None:
            self._query = read_query(self.head.target)
        return self._query

    def has_other_spelling(self, path: str) -> bool:
        """Whether an object on the path (`a.b`) has the name twice, in different letter case.

        Go's decoder takes either, and the last one wins: anyone who replays a delivery could add an unsigned name.
        """
        found = self.document
        for name in path.split(".") if "." in path else (path,):
            if not isinstance(found, dict):
                return False
            twice = self._twice.get(id(found))
            if twice is None:
                twice = _twice(map(str.casefold, found))
                self._twice[id(found)] = twice
            if twice and name.casefold() in twice:
                return True
            found = found.get(name)
        return False

    def of_item(self, document: Any) -> "Delivery":
        """The same delivery, with one item of its document as the document."""
        item = Delivery(self.head, self.body, self.timestamp, self.url, self.form_field)
        item._document = document
        return item


def _twice(names: Iterable[str]) -> set[str]:
    names = list(names)
    if len(set(names)) == len(names):
        return set()
    seen: set[str] = set()
    twice: set[str] = set()
    for name in names:
        (twice if name in seen else seen).add(name)
    return twice


#: The value of a place; None if it is absent. Raises `Rejected` if it can't be read.
Reader = Callable[[Delivery], bytes | None]


def make_reader(part: Part) -> Reader:
    """How a place is read. Literal text and groups are not places."""
    if isinstance(part, HeaderValue):
        header = part.name
        return lambda delivery: _read_header(delivery.head, header)
    if isinstance(part, JsonValue):
        path = part.path
        return lambda delivery: _read_json(delivery, path)
    if isinstance(part, QueryValue):
        name, lower = part.name.encode(), part.lower
        return lambda delivery: _read_query(delivery, name, lower)
    if isinstance(part, FormValue):
        field = part.name.encode()
        return lambda delivery: only_field(delivery.fields, field, "form field")
    if isinstance(part, FormJoined):
        without = frozenset(name.encode() for name in part.without)
        return lambda delivery: _join_form(delivery, without)
    if isinstance(part, ListedHeaders):
        listing, must = part.name, part.must
        return lambda delivery: listed_headers(delivery.head, listing, must)
    if isinstance(part, ListedInHead):
        member = part.member
        return lambda delivery: _listed_in_head(delivery, member)
    return PIECES[part]  # type: ignore[index]  # the rest isn't a place


def describe_absent(part: Part) -> Rejected:
    """The rejection of a delivery without a place that must be there."""
    if isinstance(part, HeaderValue):
        return malformed(f"signed header {part.name.decode()} appears 0 times; expected exactly one")
    if isinstance(part, JsonValue):
        return Rejected(Reason.SIGNATURE_MISSING, f"the body's JSON has no string or integer at {part.path}")
    if isinstance(part, QueryValue):
        return Rejected(Reason.SIGNATURE_MISSING, f"the query has no parameter {part.name}, or an empty one")
    if isinstance(part, FormValue):
        return Rejected(Reason.SIGNATURE_MISSING, f"the body's form has no field {part.name}, or an empty one")
    if isinstance(part, ListedHeaders):
        return Rejected(Reason.SIGNATURE_MISSING, f"no {part.name.decode()} header")
    return malformed("the query or the body's form is empty")


def _read_header(head: RequestHead, name: bytes) -> bytes | None:
    values = head.values(name)
    if len(values) > 1:
        raise malformed(f"signed header {name.decode()} appears {len(values)} times; expected exactly one")
    return values[0] if values else None


def _read_json(delivery: Delivery, path: str) -> bytes | None:
    text = find_value(delivery.document, path)
    if text is not None and delivery.has_other_spelling(path):
        raise malformed(f"the body's JSON has a name of {path} in another letter case as well")
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _read_query(delivery: Delivery, name: bytes, lower: bool) -> bytes | None:
    value = only_field(delivery.query, name, "query parameter")
    return value.lower() if value is not None and lower else value


def clock_text(clock: TimestampField, delivery: Delivery) -> bytes | None:
    """The timestamp in a body; None if it is absent. Raises `Rejected`."""
    if clock.form:
        return only_field(delivery.fields, clock.form.encode(), "form field")
    return _read_json(delivery, clock.field)


def _join_form(delivery: Delivery, without: frozenset[bytes]) -> bytes:
    names = [name for name, _ in delivery.fields]
    if len(set(names)) < len(names):
        raise malformed("the body's form has a field twice")
    return join_fields(delivery.fields, without)


def listed_headers(head: RequestHead, listing: bytes, must: Sequence[bytes] = ()) -> bytes | None:
    """`name:value` of each header that the list names, sorted by name and joined by `;`.

    The list must name itself and `must`, or a sender could leave them out. Raises `Rejected`.
    """
    text = _read_header(head, listing)
    if not text:
        return None
    names = [name.lower() for name in text.split(b",", MAX_LISTED)]
    if len(names) > MAX_LISTED or len(set(names)) < len(names) or not all(map(_HEADER_NAME.fullmatch, names)):
        raise malformed(f"{listing.decode()} is not a list of up to {MAX_LISTED} header names, each once")
    missing = [name.decode() for name in (listing, *must) if name not in names]
    if missing:
        raise malformed(f"{listing.decode()} does not name {', '.join(missing)}, which would not be signed")
    return b";".join([b"%b:%b" % (name, signed_header(head, name)) for name in sorted(names)])


def _listed_in_head(delivery: Delivery, member: str) -> bytes:
    """A line for each header that the member names, in its order and spelling. Raises `Rejected`."""
    listed = delivery.jws_head.get(member, "")
    if not isinstance(listed, str) or not listed.isascii():
        raise malformed(f"{member} in the signature's head is not a list of header names")
    names = listed.encode().split(b",", MAX_LISTED) if listed else []
    folded = [name.lower() for name in names]
    if len(names) > MAX_LISTED or len(set(folded)) < len(names) or not all(map(_HEADER_NAME.fullmatch, names)):
        raise malformed(f"{member} in the signature's head is not a list of up to {MAX_LISTED} header names, each once")
    return b"".join([b"%b: %b\n" % (name, signed_header(delivery.head, name.lower())) for name in names])


def signed_header(head: RequestHead, name: bytes) -> bytes:
    """The value of a signed header (lower-case name). Raises `Rejected` if it is absent or repeated."""
    values = head.values(name)
    if len(values) != 1:
        raise malformed(f"signed header {name.decode()} appears {len(values)} times; expected exactly one")
    return values[0]


def _path_query(delivery: Delivery) -> bytes:
    if not delivery.url:
        return delivery.head.target
    return b"/" + delivery.url.partition(b"://")[2].partition(b"/")[2]


def _path_query_other_slash(delivery: Delivery) -> bytes:
    path, mark, query = _path_query(delivery).partition(b"?")
    path = path[:-1] if path.endswith(b"/") else path + b"/"
    return path + mark + query


#: What JavaScript's encodeURI leaves as it is, besides letters and digits; encodeURIComponent escapes the second part too.
_COMPONENT: Final = "-_.!~*'()"
_URI: Final = _COMPONENT + ";/?:@&=+$,#"


def _path_query_escaped(delivery: Delivery) -> bytes:
    path, mark, query = _path_query(delivery).partition(b"?")
    if mark and query:
        path += b"?" + quote_from_bytes(query, _COMPONENT).encode()
    return quote_from_bytes(path, _URI).encode()


def body_hash(algorithm: str, body: Sequence[bytes]) -> bytes:
    """The digest of a body, given in pieces."""
    digest = hashlib.new(algorithm)
    for piece in body:
        digest.update(piece)
    return digest.digest()


def _hex(raw: bytes) -> bytes:
    return raw.hex().encode()


def _base64url(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def _crc32(body: Sequence[bytes]) -> bytes:
    crc = 0
    for piece in body:
        crc = zlib.crc32(piece, crc)
    return b"%d" % crc


#: Those of the body must be read from `Delivery.body`, whatever their number of pieces.
PIECES: Final[dict[Piece, Reader]] = {
    Piece.TIMESTAMP: lambda delivery: delivery.timestamp,
    Piece.METHOD: lambda delivery: delivery.head.method.encode(),
    Piece.URL: lambda delivery: delivery.url,
    Piece.URL_WITHOUT_QUERY: lambda delivery: delivery.url.partition(b"?")[0],
    Piece.PATH_QUERY: _path_query,
    Piece.PATH_QUERY_ESCAPED: _path_query_escaped,
    Piece.PATH_QUERY_OTHER_SLASH: _path_query_other_slash,
    Piece.QUERY_SORTED: lambda delivery: join_fields(delivery.query),
    Piece.HOST: lambda delivery: signed_header(delivery.head, b"host"),
    Piece.FORM_SORTED: lambda delivery: delivery.sorted_form,
    Piece.FORM_SORTED_ALL: lambda delivery: sorted_form(delivery.head, delivery.body, duplicates=True),
    Piece.BODY_SHA256_HEX: lambda delivery: _hex(body_hash("sha256", delivery.body)),
    Piece.BODY_SHA256_B64: lambda delivery: b64encode(body_hash("sha256", delivery.body)),
    Piece.BODY_SHA256_B64URL: lambda delivery: _base64url(body_hash("sha256", delivery.body)),
    Piece.BODY_SHA512_HEX: lambda delivery: _hex(body_hash("sha512", delivery.body)),
    Piece.BODY_SHA512_B64: lambda delivery: b64encode(body_hash("sha512", delivery.body)),
    Piece.BODY_SHA512_B64URL: lambda delivery: _base64url(body_hash("sha512", delivery.body)),
    Piece.BODY_SHA1_HEX: lambda delivery: _hex(body_hash("sha1", delivery.body)),
    Piece.BODY_CRC32: lambda delivery: _crc32(delivery.body),
}
