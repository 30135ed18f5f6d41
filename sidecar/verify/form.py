"""Forms in bodies, urlencoded (WHATWG URL, 5.1) and multipart (RFC 7578), and the parameters of a query.

Hostile text can raise nothing but `Rejected`. The number of fields and the sizes of names are bounded, each step is linear, and
what two parsers may read differently is rejected: a part without a name, a preamble, a part in another encoding.
"""

import re
from binascii import a2b_qp
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected

#: Most fields of a form. Frameworks have the same limit: Django's DATA_UPLOAD_MAX_NUMBER_FIELDS, PHP's max_input_vars.
MAX_FIELDS: Final = 1000
#: Longest head of one part, bytes.
MAX_PART_HEAD: Final = 1024
URLENCODED: Final = b"application/x-www-form-urlencoded"
MULTIPART: Final = b"multipart/form-data"
#: Longer text is unescaped in slices: each slice is one step of the interpreter, and no other thread runs meanwhile.
_SLICE = 16 * 1024

_PLUS_IS_SPACE = bytes.maketrans(b"+", b" ")
_PHP = bytes.maketrans(b" .[", b"___")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BOUNDARY = re.compile(rb';[ \t]*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_DISPOSITION = re.compile(
    rb'form-data[ \t]*((?:;[ \t]*[a-z*-]{1,20}=(?:"(?:[^"\\]|\\.)*"|[^\s;"]+)[ \t]*)*)', re.IGNORECASE
)
_PARAMETERS = re.compile(rb';[ \t]*([a-z*-]{1,20})=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)

Fields = list[tuple[bytes, bytes]]


def content_type(head: RequestHead) -> bytes:
    """The media type with its parameters; empty if there is none. Raises `Rejected` if there are several."""
    sent = head.values(b"content-type")
    if len(sent) > 1:
        raise malformed(f"{len(sent)} Content-Type headers; expected one")
    return sent[0] if sent else b""


def media_type(text: bytes) -> bytes:
    """`application/json; charset=utf-8` → `application/json`, in lower case."""
    return text.partition(b";")[0].strip().lower()


def read_fields(head: RequestHead, body: Sequence[bytes]) -> Fields:
    """Names and values, decoded, in order; files of a multipart form are left out. Raises `Rejected(signature_malformed)`."""
    text = b"".join(body)
    if not text:
        return []
    sent = content_type(head)
    kind = media_type(sent)
    if kind == URLENCODED:
        return read_pairs(text)
    if kind == MULTIPART:
        return _read_multipart(text, sent)
    raise malformed("the body is not a form (application/x-www-form-urlencoded or multipart/form-data)")


def sorted_form(head: RequestHead, body: Sequence[bytes], *, duplicates: bool = False) -> bytes:
    """A form's pairs of name and value, sorted, without separators, and each pair once unless `duplicates` count.

    Raises `Rejected(signature_malformed)`.
    """
    text = b"".join(body)
    if not text:
        return b""
    if media_type(content_type(head)) != URLENCODED:
        raise malformed("the body is not a form (application/x-www-form-urlencoded)")
    pairs = read_pairs(text)
    return b"".join([name + value for name, value in sorted(pairs if duplicates else set(pairs))])


def join_fields(fields: Fields, without: Collection[bytes] = ()) -> bytes:
    """`name=value` of each field, sorted and joined by `&`."""
    return b"&".join([b"%b=%b" % field for field in sorted(fields) if field[0] not in without])


def only_field(fields: Fields, name: bytes, what: str) -> bytes | None:
    """The value of the field `name`; None if there is none.

    Raises `Rejected` if it appears twice, or together with a name that PHP and others read as the same: they put `_` for a space,
    a dot or a bracket, and the last one wins. A replayed delivery could have it added, and the receiver would read it unsigned.
    """
    found: list[bytes] = []
    read_as = _read_as(name)
    for field, value in fields:
        if field == name:
            found.append(value)
        elif len(field) >= len(name) and _read_as(field) == read_as:
            raise malformed(f"{what} {name.decode()} appears in another spelling as well")
    if len(found) > 1:
        raise malformed(f"{what} {name.decode()} appears {len(found)} times; expected exactly one")
    return found[0] if found else None


def _read_as(name: bytes) -> bytes:
    """The variable that PHP makes of a field's name (php_register_variable_ex)."""
    name = name.lstrip(b" ").partition(b"\0")[0]
    before, bracket, rest = name[1:].partition(b"[")
    if bracket and b"]" in rest:  # an element of an array
        name = name[:1] + before
    return name.translate(_PHP)


def read_query(target: bytes) -> Fields:
    """The decoded parameters of a target's query, in order. Raises `Rejected(signature_malformed)`."""
    return read_pairs(target.partition(b"?")[2], "the query")


def read_pairs(text: bytes, what: str = "the body's form") -> Fields:
    """The decoded pairs of urlencoded text. Raises `Rejected(signature_malformed)`."""
    items = text.split(b"&", MAX_FIELDS)
    if len(items) > MAX_FIELDS:
        raise malformed(f"{what} has more than {MAX_FIELDS} fields")
    pairs = []
    for item in items:
        if item:
            name, _, value = item.partition(b"=")
            pairs.append((_unescape(name, what), _unescape(value, what)))
    return pairs


def _unescape(text: bytes, what: str) -> bytes:
    """A name or value of a form (WHATWG URL, 5.1): `+` is a space, `%` an escape.

    The decoder of quoted-printable does it: its escapes differ only in the `=`. `urllib` makes an object for each escape, which
    takes a second and 100 MB for a body of 5 MiB that anyone can send.
    """
    if len(text) > _SLICE:
        return b"".join([_unescape(piece, what) for piece in _slices(text)])
    text = text.translate(_PLUS_IS_SPACE)
    if b"%" not in text:
        return text
    if _BROKEN_ESCAPE.search(text):
        raise malformed(f"{what} has a '%' without two hex digits after it")
    return a2b_qp(text.replace(b"=", b"=3D").replace(b"%", b"="))


def _slices(text: bytes) -> Iterator[bytes]:
    """Cut where no escape is."""
    at = 0
    while at < len(text):
        end = at + _SLICE
        if end < len(text):
            escape = text.rfind(b"%", end - 2, end)
            if escape >= 0:
                end = escape
        yield text[at:end]
        at = end


def _read_multipart(text: bytes, sent: bytes) -> Fields:
    """RFC 7578, 4.1: parts between lines of `--` and the boundary, the last of which ends in `--`."""
    boundaries = _BOUNDARY.findall(sent)
    if len(boundaries) != 1:
        raise malformed("the multipart form's Content-Type has no boundary of at most 70 characters, or several")
    opening = b"--" + (boundaries[0][0] or boundaries[0][1])
    delimiter = b"\r\n" + opening
    if not text.startswith(opening):
        raise malformed("the multipart form does not begin with its boundary")
    fields: Fields = []
    at = len(opening)
    for _ in range(MAX_FIELDS + 1):
        if text.startswith(b"--", at):
            if text[at + 2 : at + 5] not in (b"", b"\r\n"):
                raise malformed("the multipart form has more after its end")
            return fields
        if not text.startswith(b"\r\n", at):
            raise malformed("the multipart form has a boundary that does not end its line")
        end = text.find(delimiter, at)
        if end < 0:
            raise malformed("the multipart form does not end with its boundary")
        # The empty line is searched for in a part's first bytes only.
        gap = text.find(b"\r\n\r\n", at, min(end + 4, at + 2 + MAX_PART_HEAD))
        if gap < 0 or gap + 4 > end:
            raise malformed(f"a part of the multipart form has no head of at most {MAX_PART_HEAD} bytes, or no body")
        name = _part_name(text[at + 2 : gap])
        if name is not None:
            fields.append((name, text[gap + 4 : end]))
        at = end + len(delimiter)
    raise malformed(f"the body's form has more than {MAX_FIELDS} fields")


def _part_name(head: bytes) -> bytes | None:
    """The name of a part's field; None for a file."""
    disposition = None
    encoded = False
    for line in head.split(b"\r\n"):
        field, colon, value = line.partition(b":")
        field = field.lower()
        if field == b"content-disposition" and disposition is None:
            disposition = _DISPOSITION.fullmatch(value.strip(b" \t"))
        elif not colon or field == b"content-disposition" or field != field.strip():
            disposition = None
            break
        encoded = encoded or field == b"content-transfer-encoding"
    if disposition is None:
        raise malformed("a part of the multipart form does not have one Content-Disposition: form-data")
    names: dict[bytes, bytes] = {}
    for name, quoted, plain in _PARAMETERS.findall(disposition[1]):
        if name.lower() in names:
            raise malformed("a part of the multipart form has a parameter twice")
        names[name.lower()] = quoted or plain
    if b"name" not in names or b"name*" in names:
        raise malformed("a part of the multipart form has no name")
    if b"filename" in names or b"filename*" in names:
        return None
    if b"\\" in names[b"name"]:
        raise malformed("a name in the multipart form has a backslash")
    if encoded:
        raise malformed("a field of the multipart form has a Content-Transfer-Encoding")
    return names[b"name"]


def malformed(detail: str) -> Rejected:
    return Rejected(Reason.SIGNATURE_MALFORMED, detail)
