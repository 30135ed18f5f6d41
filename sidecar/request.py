"""The head of one request as it stood on the wire, and the rules it must keep before anything trusts it.

`check_head` refuses what two HTTP parsers could read in two ways (RFC 9112, sections 3.2, 6.1, 6.3 and 11.2):
the sidecar and the receiver must see the same request, or a verified one could carry another inside.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from sidecar.outcomes import Reason, Rejected

#: Name and value.
Header = tuple[bytes, bytes]

#: Origin-form only (RFC 9112, 3.2.1), visible ASCII without `#`: a fragment is never sent by a client.
_TARGET = re.compile(rb"/[!\"$-~]*")
#: uri-host [":" port] (RFC 9110, 7.2); no userinfo. An empty value is legal.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]{0,5})?")
#: Names that WSGI- and CGI-style receivers fold into the framing fields: `Content_Length` becomes CONTENT_LENGTH.
_FRAMING_ALIASES = frozenset({b"content_length", b"transfer_encoding"})


class RequestHead:
    """One request's head. Values are without surrounding blanks, everything is in wire order."""

    __slots__ = ("fields", "headers", "method", "path", "peer", "target")

    def __init__(
        self, method: str, target: bytes, names: Sequence[bytes], values: Iterable[bytes], peer: str | None
    ) -> None:
        values = list(map(bytes.rstrip, values))  # the parser takes blanks off the front only
        self.method = method
        self.target = target  #: path and query exactly as sent
        self.path = target.partition(b"?")[0]  #: the target up to the first `?`
        self.headers: Sequence[Header] = list(zip(names, values))  #: names as spelled by the sender
        self.fields = _by_name(names, values)  #: all values by lower-case name
        self.peer = peer  #: address of the direct connection; None on a unix socket

    def values(self, name: bytes) -> tuple[bytes, ...]:
        """Every value of the field `name` (lower case), in order."""
        return self.fields.get(name, ())

    @property
    def content_length(self) -> int | None:
        """The announced body size in bytes; None where there is no Content-Length. For heads that passed `check_head`."""
        lengths = self.fields.get(b"content-length")
        return int(lengths[0]) if lengths else None


def make_head(method: str, target: bytes, headers: Iterable[Header], peer: str | None) -> RequestHead:
    """A head from pairs of names and values."""
    pairs = list(headers)
    names, values = [name for name, _ in pairs], [value for _, value in pairs]
    return RequestHead(method, target, names, values, peer)


def _by_name(names: Sequence[bytes], values: Sequence[bytes]) -> dict[bytes, tuple[bytes, ...]]:
    lower = list(map(bytes.lower, names))
    fields: dict[bytes, tuple[bytes, ...]] = dict(zip(lower, zip(values)))
    if len(fields) < len(lower):  # a name came twice
        fields = {}
        for name, value in zip(lower, values, strict=True):
            fields[name] = (*fields.get(name, ()), value)
    return fields


def check_head(
    *, method: bytes, target: bytes, version: str, fields: Mapping[bytes, Sequence[bytes]]
) -> Rejected | None:
    """What is wrong with a parsed head, or None. Pure; the caller answers 400."""
    if version not in ("1.1", "1.0"):
        return _malformed(f"HTTP version {version[:8]!r} is not 1.0 or 1.1")
    if method == b"CONNECT":
        return _malformed("CONNECT is never tunnelled")
    if not _TARGET.fullmatch(target):
        return _malformed("the request target is not a path of visible ASCII characters without '#'")
    hosts = fields.get(b"host", ())
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return _malformed("exactly one Host field is required")
    if hosts and not _is_host(hosts[0]):
        return _malformed("the Host field is not a host and port")
    lengths = fields.get(b"content-length", ())
    codings = fields.get(b"transfer-encoding", ())
    if len(lengths) + len(codings) > 1:
        return _malformed("more than one framing field (Content-Length, Transfer-Encoding)")
    if lengths and (not lengths[0].isdigit() or len(lengths[0]) > 18):
        return _malformed("Content-Length is not a plain number")
    if codings and codings[0].lower() != b"chunked":
        return _malformed("Transfer-Encoding is not exactly 'chunked'")
    if codings and version == "1.0":
        return _malformed("Transfer-Encoding in an HTTP/1.0 request")
    if b"_" in b"".join(fields):
        for name in fields:
            if b"_" in name and name.strip(b"_").replace(b"-", b"_") in _FRAMING_ALIASES:
                return _malformed("a header with underscores imitates a framing field")
    return None


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _malformed(detail: str) -> Rejected:
    return Rejected(Reason.MALFORMED_REQUEST, detail)
