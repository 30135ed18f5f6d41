"""The head of one request as it stood on the wire, and the rules it must keep before anything trusts it.

`check_head` refuses what two HTTP parsers could read in two ways (RFC 9112, sections 3.2, 6.1, 6.3 and 11.2):
the sidecar and the receiver must see the same request, or a verified one could carry another inside.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sidecar.outcomes import Reason, Rejected

Header = tuple[bytes, bytes]

#: Origin-form only (RFC 9112, 3.2.1), visible ASCII without `#`: a fragment is never sent by a client.
_TARGET = re.compile(rb"/[!\"$-~]*")
#: uri-host [":" port] (RFC 9110, 7.2); no userinfo. An empty value is legal.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]{0,5})?")
#: Names that WSGI- and CGI-style receivers fold into the framing fields: `Content_Length` becomes CONTENT_LENGTH.
_FRAMING_ALIASES = frozenset({b"content_length", b"transfer_encoding", b"content-length_", b"content_length_"})
_WATCHED = frozenset({b"host", b"content-length", b"transfer-encoding"})


class RequestHead(NamedTuple):
    """One request's head. Header names are lower-cased, values without surrounding blanks, both in wire order."""

    method: str
    target: bytes  #: path and query exactly as sent
    path: bytes  #: the target up to the first `?`
    headers: Sequence[Header]
    peer: str | None  #: address of the direct connection; None on a unix socket

    def values(self, name: bytes) -> list[bytes]:
        """Every value of the field `name` (lower case), in order."""
        return [value for key, value in self.headers if key == name]


def check_head(*, method: bytes, target: bytes, version: str, headers: Sequence[Header]) -> Rejected | None:
    """What is wrong with a parsed head, or None. Pure; the caller answers 400."""
    if version not in ("1.1", "1.0"):
        return _malformed(f"HTTP version {version[:8]!r} is not 1.0 or 1.1")
    if method == b"CONNECT":
        return _malformed("CONNECT is never tunnelled")
    if not _TARGET.fullmatch(target):
        return _malformed("the request target is not a path of visible ASCII characters without '#'")
    hosts = lengths = codings = 0
    for name, value in headers:
        if name in _WATCHED:
            if name == b"host":
                hosts += 1
                if not _HOST.fullmatch(value):
                    return _malformed("the Host field is not a host and port")
            elif name == b"content-length":
                lengths += 1
                if not value.isdigit() or len(value) > 18:
                    return _malformed("Content-Length is not a plain number")
            else:
                codings += 1
                if value.lower() != b"chunked":
                    return _malformed("Transfer-Encoding is not exactly 'chunked'")
        elif b"_" in name and name.strip(b"_").replace(b"-", b"_") in _FRAMING_ALIASES:
            return _malformed("a header with underscores imitates a framing field")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return _malformed("exactly one Host field is required")
    if lengths + codings > 1:
        return _malformed("more than one framing field (Content-Length, Transfer-Encoding)")
    if codings and version == "1.0":
        return _malformed("Transfer-Encoding in an HTTP/1.0 request")
    return None


def content_length(headers: Sequence[Header]) -> int | None:
    """The announced body size in bytes; None where there is no Content-Length. For heads that passed `check_head`."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return None


def _malformed(detail: str) -> Rejected:
    return Rejected(Reason.MALFORMED_REQUEST, detail)
