"""Variants that may have been signed instead of the delivery: the body with another end, the same JSON by another library,
another form of the URL. Each value for `diagnose.py` to try comes with a short description of the difference.
"""

import hashlib
import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from sidecar.diagnosis.effort import Check, Effort
from sidecar.http1.head import RequestHead, make_head
from sidecar.verify.message import PublicURL
from sidecar.verify.scheme import Scheme
from sidecar.verify.template import URL_PIECES, Piece

#: The difference in words, and the value.
Variant = tuple[str, bytes]


def other_ends(body: bytes) -> Iterator[Variant]:
    """With one newline more or less, or without the whitespace around it."""
    if body.endswith(b"\n"):
        yield "without the newline at its end", body.removesuffix(b"\n").removesuffix(b"\r")
    yield "with a newline at its end", body + b"\n"
    yield "with CR LF at its end", body + b"\r\n"
    if (stripped := body.strip()) not in (body, b""):
        yield "without the spaces and newlines around it", stripped


def other_line_endings(body: bytes) -> Iterator[Variant]:
    """With LF for CR LF, or CR LF for LF."""
    if b"\n" in body:
        lines = body.replace(b"\r\n", b"\n")
        yield "with LF for CR LF", lines
        yield "with CR LF for LF", lines.replace(b"\n", b"\r\n")


def other_bom(body: bytes) -> Iterator[Variant]:
    """Without the byte order mark at the start, or with one."""
    if body.startswith(BOM_UTF8):
        yield "without the byte order mark at its start", body.removeprefix(BOM_UTF8)
    elif body:
        yield "with a byte order mark at its start", BOM_UTF8 + body


def lost_gzip(head: RequestHead, body: bytes) -> bool:
    """Whether Content-Encoding says gzip and the body isn't (RFC 1952, 2.3.1). Deflate and Brotli have no such mark.

    The compressed bytes can't be recreated: they depend on the sender's library and its settings.
    """
    sent = head.values(b"content-encoding")
    outermost = sent[-1].rpartition(b",")[2].strip().lower() if sent else b""
    return outermost in (b"gzip", b"x-gzip") and body != b"" and not body.startswith(b"\x1f\x8b")


#: Layouts of JSON: the name, and the arguments of `json.dumps`.
_LAYOUTS: dict[str, dict[str, Any]] = {
    "compact": {"separators": (",", ":")},
    "with spaces after commas and colons": {"separators": (", ", ": ")},
    "indented by 2": {"indent": 2},
    "indented by 4": {"indent": 4},
    "indented by a tab": {"indent": "\t"},
}


def other_json(body: bytes, effort: Effort, check: Check) -> Iterator[Variant]:
    """The same JSON as other libraries write it, with and without a final newline, each form once.

    Nothing if the body is not JSON, or more than `effort` allows; its escapes are changed even if it can't be parsed.
    """
    seen = {_digest(body)}
    for because, text in chain(_digits_in_other_case(body, effort), _json_forms(body, effort, check)):
        for form in (text, text + b"\n"):
            digest = _digest(form)
            if digest not in seen:
                seen.add(digest)
                yield because, form


def _digits_in_other_case(body: bytes, effort: Effort) -> Iterator[Variant]:
    if len(body) <= effort.document and b"\\u" in body:
        yield "with the digits of its \\u escapes in upper case", _change_digits(body, bytes.upper)
        yield "with the digits of its \\u escapes in lower case", _change_digits(body, bytes.lower)


def _change_digits(text: bytes, change: Callable[[bytes], bytes]) -> bytes:
    r"""With the four digits of each `\u` escape changed. Four times as fast as a regular expression with a function."""
    if b"\\u" not in text or b"\0" in text:  # a NUL is not JSON
        return text
    # After an escaped backslash, a `u` is a letter.
    start, *escapes = text.replace(b"\\\\", b"\0").split(b"\\u")
    changed = [start, *[change(each[:4]) + each[4:] for each in escapes]]
    return b"\\u".join(changed).replace(b"\0", b"\\\\")


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


def _json_forms(body: bytes, effort: Effort, check: Check) -> Iterator[Variant]:
    if len(body) > effort.document or not body.lstrip().startswith((b"{", b"[")):
        return
    # Without other characters there is nothing to escape.
    escaping = [("", False), (", escaped to ASCII", True)][: 1 if body.isascii() and b"\\u" not in body else 2]
    try:
        document = json.loads(body)
        check()
        if not _is_flat(document, effort.depth):
            return
        for layout, arguments in _LAYOUTS.items():
            if "indent" in arguments and len(body) > effort.indented:
                continue  # json does it in Python, at ten times the cost
            for order, sort in (("", False), (", keys sorted", True)):
                for escapes, ascii_only in escaping:
                    encoder = json.JSONEncoder(ensure_ascii=ascii_only, sort_keys=sort, **arguments)
                    write = _write_indented if "indent" in arguments else _write
                    text = write(encoder, document, effort.output, check)
                    if len(text) > effort.output:
                        continue
                    encoded = text.encode("utf-8", "surrogatepass")
                    because = f"with its JSON rewritten: {layout}{order}{escapes}"
                    yield because, encoded
                    if layout == "compact":
                        yield because + ", slashes escaped (PHP)", encoded.replace(b"/", b"\\/")
                        yield because + ", <, > and & escaped (Go)", (html := _escape_html(encoded))
                        if not sort:  # libraries for .NET write \u00E9, most others \u00e9
                            upper = because + ", the digits of \\u escapes in upper case"
                            yield upper, _change_digits(encoded, bytes.upper)
                            yield upper + ", <, > and & escaped", _change_digits(html, bytes.upper)
    except (ValueError, RecursionError):
        return


def _is_flat(document: Any, depth: int) -> bool:
    """Whether no value is nested deeper than `depth`: `json` calls one more function for each level."""
    level = [document]
    for _ in range(depth):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return True
    return False


def _write(encoder: json.JSONEncoder, document: Any, most: int, check: Check) -> str:
    """The document as text, in one step: at most a few times as long as the input."""
    text = encoder.encode(document)
    check()
    return text


def _write_indented(encoder: json.JSONEncoder, document: Any, most: int, check: Check) -> str:
    """The document as text, or the start of it if it is longer than `most`."""
    written, size = [], 0
    for count, piece in enumerate(encoder.iterencode(document)):
        written.append(piece)
        size += len(piece)
        if size > most:
            break
        if count % _PIECES_A_CHECK == 0:
            check()
    return "".join(written)


#: About a tenth of a millisecond.
_PIECES_A_CHECK = 128


def _escape_html(text: bytes) -> bytes:
    return text.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")


def other_urls(
    scheme: Scheme, head: RequestHead, public_url: str, hosts: int
) -> Iterator[tuple[str, Scheme, str, bytes]]:
    """For schemes that sign the URL: the change in words, the scheme, the origin and the target.

    Of the values of Host and X-Forwarded-Host, `hosts` are tried.
    """
    if not (scheme.needs_url or scheme.listed is not None):
        return
    ours = PublicURL(public_url).of(head.target)
    origin, target = _split(ours)
    kind, _, authority = origin.partition("://")
    host = authority.rpartition(":")[0] if re.search(r":[0-9]+$", authority) else authority
    authorities = {authority: "", host: "without the port"}
    for port in (443, 80):
        authorities[f"{host}:{port}"] = f"with the port {port}"
    for name, what in ((b"host", "Host"), (b"x-forwarded-host", "X-Forwarded-Host")):
        for value in head.values(name)[:hosts]:
            authorities.setdefault(value.decode("latin-1"), f"with the host that {what} names")
    authorities[authority] = ""
    other = "https" if kind == "http" else "http"
    kinds = {kind: "", other: f"with {other} instead of {kind}"}
    for changed_target, what_target in _targets(target, head.target).items():
        for changed_kind, what_kind in kinds.items():
            for changed_host, what_host in authorities.items():
                what = ", ".join(filter(None, (what_kind, what_host, what_target)))
                if what and "/" not in changed_host:
                    yield what, scheme, f"{changed_kind}://{changed_host}", changed_target
    for piece, what in (
        (Piece.PATH_QUERY, "with path and query alone"),
        (Piece.URL_WITHOUT_QUERY, "without the query"),
    ):
        parts = tuple(piece if part in URL_PIECES else part for part in scheme.parts)
        yield what, replace(scheme, parts=parts), origin, target


def _split(url: bytes) -> tuple[str, bytes]:
    """Origin and target."""
    kind, _, rest = url.partition(b"://")
    authority, _, tail = rest.partition(b"/")
    return f"{kind.decode()}://{authority.decode('latin-1')}", b"/" + tail


def _targets(target: bytes, received: bytes) -> dict[bytes, str]:
    path, mark, query = target.partition(b"?")
    shorter = path.endswith(b"/") and len(path) > 1
    other, end = (path[:-1], "without the final slash") if shorter else (path + b"/", "with a final slash")
    named = {
        target: "",
        received: "with the path as it arrived here",
        path: "without the query",
        other + mark + query: f"{end} of the path",
        other: f"without the query, {end} of the path",
    }
    return named | {target: ""}


def with_target(head: RequestHead, target: bytes) -> RequestHead:
    return head if target == head.target else make_head(head.method, target, head.headers, head.peer)
