"""JSON documents and forms in bodies, for schemes that sign a part of the body or have their signature in it.

Hostile text can raise nothing but `Rejected`: nesting, numbers and sizes are bounded, and NaN and duplicate keys, which two
parsers may read differently, are rejected.
"""

import json
import re
from binascii import a2b_qp
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected

#: Largest body whose document is read before it is verified: anyone can make us spend that memory and time.
MAX_UNVERIFIED = 1024 * 1024
#: Most values, objects and lists of a document, counted by the bytes that begin them, those in strings included. Reading a
#: dense megabyte would take 100 ms.
MAX_VALUES = 50_000
#: Most fields of a form. Frameworks have the same limit: Django's DATA_UPLOAD_MAX_NUMBER_FIELDS, PHP's max_input_vars.
MAX_FIELDS = 1000
#: Longer text is unescaped in slices: each one is one step of the interpreter, which lets no other thread run meanwhile.
_SLICE = 16 * 1024

_PLUS_IS_SPACE = bytes.maketrans(b"+", b" ")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BOUNDARY = re.compile(rb';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'(?:^|\r\n)content-disposition:[^\r\n]*;\s*name=(?:"([^"\r\n]*)"|([^\s;"]+))', re.IGNORECASE)


def read_document(head: RequestHead, body: Sequence[bytes], form_field: str) -> Any:
    """The body's JSON, or that of its form field `form_field`. Raises `Rejected(signature_malformed)`."""
    text = b"".join(body)
    content_type = (head.values(b"content-type") or (b"",))[0]
    if form_field and not content_type.lower().startswith(b"application/json"):
        found = _form_values(text, content_type, form_field.encode())
        if len(found) != 1:
            raise _malformed(f"the body's form has {len(found)} fields {form_field!r}; expected one")
        text = found[0]
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:
        raise _malformed(f"the body's JSON has more than {MAX_VALUES} commas and brackets")
    try:
        return parse_json(text)
    except ValueError:
        raise _malformed("the body is not one JSON document without duplicate keys") from None


def parse_json(text: bytes) -> Any:
    """One JSON document in UTF-8, strictly: no key twice in an object, no NaN. Raises `ValueError`."""
    try:
        return json.loads(text.decode(), object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError
    return made


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(name)


def find_value(document: Any, path: str) -> str | None:
    """The string or integer at `path` (`a.b`), as text; None if it is absent."""
    found = find_values(document, path)
    return found[0] if found else None


def find_values(document: Any, path: str) -> list[str]:
    """All strings and integers at `path`, as text; `a[]` is each element of a list. Empty if any of them is absent."""
    found = [document]
    for step in path.split("."):
        key = step.removesuffix("[]")
        below = [item.get(key) if isinstance(item, dict) else None for item in found]
        if step.endswith("[]"):
            below = [element for item in below for element in (item if isinstance(item, list) else [None])]
        found = below
    texts = []
    for item in found:
        if isinstance(item, bool) or not isinstance(item, str | int) or item == "":
            return []
        try:
            texts.append(str(item))
        except ValueError:  # more digits than int() accepts
            return []
    return texts


def sorted_form(head: RequestHead, body: Sequence[bytes]) -> bytes:
    """A form's pairs of name and value, sorted, without duplicates or separators. Raises `Rejected(signature_malformed)`."""
    text = b"".join(body)
    if not text:
        return b""
    kind = (head.values(b"content-type") or (b"",))[0].partition(b";")[0].strip().lower()
    if kind != b"application/x-www-form-urlencoded":
        raise _malformed("the body is not a form (application/x-www-form-urlencoded)")
    return b"".join(name + value for name, value in sorted(set(_pairs(text))))


def _pairs(text: bytes) -> list[tuple[bytes, bytes]]:
    items = text.split(b"&", MAX_FIELDS)
    if len(items) > MAX_FIELDS:
        raise _malformed(f"the body's form has more than {MAX_FIELDS} fields")
    pairs = []
    for item in items:
        if item:
            name, _, value = item.partition(b"=")
            pairs.append((_unescape(name), _unescape(value)))
    return pairs


def _unescape(text: bytes) -> bytes:
    """A name or value of a form (WHATWG URL, 5.1): `+` is a space, `%` an escape.

    Escapes are decoded with the decoder of quoted-printable, whose own differ only in the `=`.

    `urllib` makes an object for each escape: a second and 100 MB for a body of 5 MiB that anyone can send.
    """
    if len(text) > _SLICE:
        return b"".join([_unescape(piece) for piece in _slices(text)])
    text = text.translate(_PLUS_IS_SPACE)
    if b"%" not in text:
        return text
    if _BROKEN_ESCAPE.search(text):
        raise _malformed("the body's form has a '%' without two hex digits after it")
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


def _form_values(text: bytes, content_type: bytes, name: bytes) -> list[bytes]:
    """Values of the field `name` of a form, urlencoded or multipart (RFC 7578)."""
    if content_type.lower().startswith(b"application/x-www-form-urlencoded"):
        return [value for field, value in _pairs(text) if field == name]
    boundary = _BOUNDARY.search(content_type)
    if boundary is None or not content_type.lower().startswith(b"multipart/form-data"):
        raise _malformed("the body is neither JSON nor a form")
    delimiter = b"\r\n--" + (boundary[1] or boundary[2])
    whole = b"\r\n" + text
    if whole.count(delimiter) > MAX_FIELDS:
        raise _malformed(f"the body's form has more than {MAX_FIELDS} fields")
    values = []
    for part in whole.split(delimiter)[1:]:
        header, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        field = _NAME.search(header[:1000])
        if field is not None and (field[1] or field[2]) == name:
            values.append(value)
    return values


def _malformed(detail: str) -> Rejected:
    return Rejected(Reason.SIGNATURE_MALFORMED, detail)
