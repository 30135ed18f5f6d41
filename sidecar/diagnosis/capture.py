"""A captured request: raw HTTP/1.1 from a file, read with the parser and the rules of live traffic.

It is more lenient than live traffic in two ways: lines of the head may end with a bare LF, as editors and copied logs write them,
and without Content-Length the body is the rest of the file.
"""

import contextlib
import re
from typing import NamedTuple

import httptools

from sidecar.http1.head import Header, RequestHead, check_head, make_head
from sidecar.outcomes import Reason, Rejected

#: More than any route accepts.
MAX_CAPTURE = 64 * 1024 * 1024
_EXAMPLE = "POST /path HTTP/1.1"
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class UnusableCaptureError(Exception):
    """Bytes that are not an HTTP request; the message names the line and the remedy."""


class Capture(NamedTuple):
    """One captured request."""

    head: RequestHead
    body: bytes
    fault: Rejected | None  #: why live traffic would be rejected before any other check
    remarks: tuple[str, ...]  #: for people: what was read leniently


class _Events:
    """Callbacks of the parser."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[Header] = []
        self.head_complete = self.complete = self.trailers = False
        self.body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_complete:
            self.trailers = True
        else:
            self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


def read_capture(raw: bytes, *, peer: str | None, needs_host: bool = True) -> Capture:
    """Parses `raw`; `peer` is the address that the connection came from. Raises `UnusableCaptureError`.

    Without `needs_host` a capture without Host is accepted: enough to check its signature.
    """
    if len(raw) > MAX_CAPTURE:
        raise UnusableCaptureError(f"is larger than {MAX_CAPTURE} bytes; save one request only")
    raw = raw.lstrip(b"\r\n")
    if not raw:
        raise UnusableCaptureError("is empty; give a request line, headers, an empty line and the body")
    remarks: list[str] = []
    end = _END_OF_HEAD.search(raw)
    lines = (raw[: end.start()] if end else raw.rstrip(b"\r\n")).split(b"\n")
    rest = raw[end.end() :] if end else b""
    if not end:
        remarks.append("no empty line after the head; read as a request without a body")
    if any(not line.endswith(b"\r") for line in lines[:-1]):
        remarks.append("lines of the head end with a bare LF; read as CR LF")
    lines = [line.removesuffix(b"\r") for line in lines]
    _check_form(lines)
    events = _Events()
    parser = httptools.HttpRequestParser(events)
    fault = _parse_head(parser, lines)
    head = checked = make_head(parser.get_method().decode("ascii"), events.target, events.fields, peer)
    if not needs_host and b"host" not in head.fields:
        checked = make_head(head.method, head.target, [*events.fields, (b"Host", b"")], peer)
        remarks.append("no Host header; live traffic must have one")
    fault = fault or check_head(checked, version=parser.get_http_version())
    if fault is not None:
        return Capture(head, b"", fault, tuple(remarks))
    if head.values(b"transfer-encoding"):
        if parser.should_upgrade():  # ignored, as in live traffic; this parser has stopped
            events = _Events()
            parser = httptools.HttpRequestParser(events)
            parser.feed_data(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        body = _read_chunked(parser, events, rest)
        if events.trailers:
            fault = Rejected(Reason.MALFORMED_REQUEST, "trailer fields after the body")
    else:
        body = _read_sized(head, rest, lines, remarks)
    return Capture(head, body, fault, tuple(remarks))


def _check_form(lines: list[bytes]) -> None:
    """Rejects text that is obviously not a request line and header fields; the parser finds smaller mistakes."""
    first = lines[0]
    if first.startswith((b"HTTP/", b"{", b"[")):
        what = "a response" if first.startswith(b"HTTP/") else "a body without its head"
        raise UnusableCaptureError(f"line 1: is {what}; capture the request, which starts with a line like {_EXAMPLE}")
    if re.fullmatch(rb"\S+ \S+ HTTP/[23](\.0)?", first):
        raise UnusableCaptureError("line 1: says HTTP/2 or 3; write HTTP/1.1 instead, and a Host line for :authority")
    if not re.fullmatch(rb"[A-Za-z-]+ \S.* HTTP/[0-9]\.[0-9]", first):
        raise UnusableCaptureError(f"line 1: is not a request line; write method, target and version, like {_EXAMPLE}")
    for number, line in enumerate(lines[1:], start=2):
        if not re.match(rb"[^:]+:|[ \t]", line):
            raise UnusableCaptureError(
                f"line {number}: is not a header field; write Name: value, and an empty line before the body"
            )


def _parse_head(parser: "httptools.HttpRequestParser", lines: list[bytes]) -> Rejected | None:
    try:
        parser.feed_data(b"\r\n".join([*lines, b"", b""]))
    except httptools.HttpParserUpgrade:
        pass  # the head is whole
    except httptools.HttpParserError as error:
        return Rejected(Reason.MALFORMED_REQUEST, f"not HTTP/1.1: {str(error)[:80]}")
    return None


def _read_sized(head: RequestHead, rest: bytes, lines: list[bytes], remarks: list[str]) -> bytes:
    """Content-Length bytes, or everything."""
    size = head.content_length
    if size is None or size == len(rest):
        return rest
    if size > len(rest):
        at = next(number for number, line in enumerate(lines, 1) if line.lower().startswith(b"content-length"))
        raise UnusableCaptureError(
            f"line {at}: announces a body of {size} bytes, but {len(rest)} follow; capture it whole, or remove this "
            "line if the body is complete"
        )
    remarks.append(
        f"{len(rest) - size} byte(s) after the {size} that Content-Length announces were left out; "
        "save the capture without an editor's newline"
    )
    return rest[:size]


def _read_chunked(parser: "httptools.HttpRequestParser", events: _Events, rest: bytes) -> bytes:
    with contextlib.suppress(httptools.HttpParserError):  # bytes after the last chunk are ignored
        parser.feed_data(rest)
    if not events.complete:
        raise UnusableCaptureError(
            "the body does not consist of whole chunks, which Transfer-Encoding announces; capture it whole, or remove that line "
            "if the chunks were decoded by the capture"
        )
    return b"".join(events.body)
