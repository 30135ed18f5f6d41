"""JSON documents in bodies, for schemes that sign a part of the body or have their signature in it.

Hostile text can raise nothing but `Rejected`: nesting, numbers and sizes are bounded, and NaN and duplicate keys, which two
parsers may read differently, are rejected.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from sidecar.http1.head import RequestHead
from sidecar.verify.form import content_type, malformed, media_type, read_fields

#: Largest body that is parsed before it is verified: anyone can make us spend that memory and time.
MAX_UNVERIFIED = 1024 * 1024
#: Most values, objects and lists of a document, counted by the bytes that begin them, those in strings included. Reading a
#: dense megabyte would take 100 ms.
MAX_VALUES = 50_000


def read_document(head: RequestHead, body: Sequence[bytes], form_field: str) -> Any:
    """The body's JSON, or that of its form field `form_field`. Raises `Rejected(signature_malformed)`."""
    text = b"".join(body)
    if form_field and media_type(content_type(head)) != b"application/json":
        name = form_field.encode()
        found = [value for field, value in read_fields(head, (text,)) if field == name]
        if len(found) != 1:
            raise malformed(f"the body's form has {len(found)} fields {form_field!r}; expected one")
        text = found[0]
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:
        raise malformed(f"the body's JSON has more than {MAX_VALUES} commas and brackets")
    try:
        return parse_json(text)
    except ValueError:
        raise malformed("the body is not one JSON document without duplicate keys") from None


def parse_json(text: bytes) -> Any:
    """One JSON document in UTF-8, strictly: no key twice in an object, no NaN. Raises `ValueError`."""
    try:
        return _STRICT.decode(text.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError
    return made


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(name)


#: Made once: to make a decoder costs as much as to read a small document.
_STRICT: Final = json.JSONDecoder(object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant)


def find_value(document: Any, path: str) -> str | None:
    """The string or integer at `path` (`a.b`), as text; None if it is absent."""
    if "[]" not in path:
        item = find_item(document, path)
        if item is None:
            return None
        if isinstance(item, str):
            return item or None
    found = find_values(document, path)
    return found[0] if found else None


def find_item(document: Any, path: str) -> Any:
    """Whatever is at `path` (`a.b`); None if it is absent."""
    if "." not in path:
        return document.get(path) if isinstance(document, dict) else None
    for step in path.split("."):
        document = document.get(step) if isinstance(document, dict) else None
    return document


def find_values(document: Any, path: str) -> list[str]:
    """All strings and integers at `path`, as text; `a[]` is each element of a list. Empty if any of them is absent."""
    found = find_items(document, path)
    texts = []
    for item in found:
        if isinstance(item, bool) or not isinstance(item, str | int) or item == "":
            return []
        try:
            texts.append(str(item))
        except ValueError:  # more digits than int() accepts
            return []
    return texts


def find_items(document: Any, path: str) -> list[Any]:
    """Everything at `path`; `a[]` is each element of a list. None for one that is absent."""
    found = [document]
    for step in path.split("."):
        key = step.removesuffix("[]")
        below = [item.get(key) if isinstance(item, dict) else None for item in found]
        if step.endswith("[]"):
            below = [element for item in below for element in (item if isinstance(item, list) else [None])]
        found = below
    return found
