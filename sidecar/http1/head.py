"""The head of one request as it arrived, and the rules that it must satisfy before anything trusts it.

`check_head` rejects heads that two HTTP parsers could read in two ways (RFC 9112, sections 3.2, 6.1, 6.3 and 11.2).
The sidecar and the receiver must see the same request, or a verified one could carry another inside.
"""

import re
from collections.abc import Iterable, Sequence
from operator import methodcaller
from typing import Any, Final

from sidecar.outcomes import Reason, Rejected

#: Name and value.
Header = tuple[bytes, bytes]

#: Origin-form only (RFC 9112, 3.2.1), visible ASCII without `#`: a fragment is never sent by a client.
_TARGET: Final = re.compile(rb"/[!\"$-~]*")
#: uri-host [":" port] (RFC 9110, 7.2); no userinfo, and no comma, which some receivers read as a list. Empty is legal.
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(:[0-9]{0,5})?")
#: CGI- and WSGI-style receivers fold all characters other than letters and digits to one: `Content_Length` becomes
#: CONTENT_LENGTH, and PHP does so with `Content.Length` as well.
_FOLDED: Final = bytes(
    c if c in b"0123456789abcdefghijklmnopqrstuvwxyz" else ord("-") for c in bytes(range(256)).lower()
)
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
NO_HOST: Final = "exactly one Host field is required"
#: Fields that proxies add, in lower case: a sign that there is a proxy.
FORWARDING_HEADERS: Final[tuple[bytes, ...]] = (
    b"x-forwarded-for",
    b"forwarded",
    b"x-real-ip",
    b"cf-connecting-ip",
    b"true-client-ip",
)
_FORWARDING: Final = frozenset(FORWARDING_HEADERS)
_strip_end: Final = methodcaller("rstrip", b" \t")
#: Lists with more names, or with more bytes in all, are not kept for the next head; and the number of lists kept.
_KEPT_FIELDS: Final = 40
_KEPT_BYTES: Final = 1024
_KEPT_LISTS: Final = 256


class FieldNames:
    """Facts about the names of a head's fields, whatever their values.

    A provider sends the same names every time, so this is computed once for all heads that have them.
    """

    __slots__ = (
        "as_request",
        "as_response",
        "chunked",
        "fault",
        "folded",
        "forwarding",
        "irregular",
        "listed",
        "lower",
        "passed_host",
        "passed_target",
        "repeated",
        "sized",
    )

    def __init__(self, listed: tuple[bytes, ...]) -> None:
        self.as_request: Any = None  #: computed from them once, by delivery/upstream_head.py
        self.as_response: Any = None  #: computed from them once, by upstream.py
        #: Target and Host of the last head that passed `check_head`. Two, because tenants share a host and not a path.
        self.passed_target: bytes | None = None
        self.passed_host: bytes | None = None
        self.listed = listed  #: as spelled by the sender
        self.lower = tuple(map(bytes.lower, listed))
        self.repeated = len(set(self.lower)) < len(listed)
        self.folded = tuple(map(fold_name, listed))
        self.irregular = self.folded != self.lower  #: whether a name has characters besides letters, digits and `-`
        self.sized = b"content-length" in self.lower
        self.chunked = b"transfer-encoding" in self.lower
        self.forwarding = not _FORWARDING.isdisjoint(self.lower)  #: whether proxies add such names
        self.fault = self._fault()  #: the problem of a request that has these names; empty if there is none

    def _fault(self) -> str:
        if self.lower.count(b"host") > 1:
            return NO_HOST
        if self.lower.count(b"content-length") + self.lower.count(b"transfer-encoding") > 1:
            return "more than one framing field (Content-Length, Transfer-Encoding)"
        if self.irregular:
            for name, folded in zip(self.lower, self.folded):
                if name != folded and folded.strip(b"-") in _FRAMING:
                    return "a header's name imitates a framing field"
        return ""


class RequestHead:
    """One request's head, in wire order. Values have no spaces or tabs around them."""

    __slots__ = ("field_values", "fields", "method", "names", "path", "peer", "target")

    def __init__(
        self, method: str, target: bytes, names: Iterable[bytes], values: Iterable[bytes], peer: str | None
    ) -> None:
        self.method = method
        self.target = target  #: path and query exactly as sent
        self.path = target.partition(b"?")[0]  #: the target up to the first `?`
        self.names = field_names(tuple(names))
        self.field_values = list(map(_strip_end, values))  # the parser strips the front only
        self.fields = _by_name(self.names, self.field_values)  #: all values by lower-case name
        self.peer = peer  #: address of the direct connection; None on a unix socket

    @property
    def headers(self) -> Iterable[Header]:
        """Names, as spelled by the sender, and values."""
        return zip(self.names.listed, self.field_values)

    def values(self, name: bytes) -> tuple[bytes, ...]:
        """Every value of the field `name` (lower case), in order."""
        return self.fields.get(name, ())

    @property
    def content_length(self) -> int | None:
        """The announced body size in bytes; None without Content-Length. For heads that passed `check_head`."""
        lengths = self.fields.get(b"content-length")
        return int(lengths[0]) if lengths else None


def make_head(method: str, target: bytes, headers: Iterable[Header], peer: str | None) -> RequestHead:
    """A head from pairs of names and values."""
    fields = list(headers)
    return RequestHead(method, target, [name for name, _ in fields], [value for _, value in fields], peer)


def field_lines(fields: Iterable[Header]) -> bytes:
    """Fields in the form that they have in a head, each with its end of line."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def fold_name(name: bytes) -> bytes:
    """The name in lower case, with `-` for every character that is not a letter or digit."""
    return name.translate(_FOLDED)


def field_names(listed: tuple[bytes, ...]) -> FieldNames:
    """The facts about these names. Only the newest short lists are kept, so that no sender can fill the memory."""
    names = _kept.get(listed)
    if names is None:
        names = FieldNames(listed)
        if len(listed) <= _KEPT_FIELDS and len(b"".join(listed)) <= _KEPT_BYTES:
            if len(_kept) >= _KEPT_LISTS:
                del _kept[next(iter(_kept))]
            _kept[listed] = names
    return names


_kept: Final[dict[tuple[bytes, ...], FieldNames]] = {}


def _by_name(names: FieldNames, values: Sequence[bytes]) -> dict[bytes, tuple[bytes, ...]]:
    if not names.repeated:
        return dict(zip(names.lower, zip(values)))
    lists: dict[bytes, list[bytes]] = {}
    for name, value in zip(names.lower, values, strict=True):
        lists.setdefault(name, []).append(value)
    return {name: tuple(listed) for name, listed in lists.items()}


def check_head(head: RequestHead, *, version: str) -> Rejected | None:  # noqa: PLR0912 - one straight line
    """Why a parsed head must be rejected, or None. Pure; the caller responds 400."""
    if version not in ("1.1", "1.0"):
        return _malformed(f"HTTP version {version[:8]!r} is not 1.0 or 1.1")
    if head.method == "CONNECT":
        return _malformed("CONNECT is never tunnelled")
    names, fields = head.names, head.fields
    if names.fault:
        return _malformed(names.fault)
    host = fields.get(b"host")
    if host is None and version == "1.1":
        return _malformed(NO_HOST)
    if names.passed_target != head.target:  # a provider sends the same one every time
        if not _TARGET.fullmatch(head.target):
            return _malformed("the request target is not a path of visible ASCII characters without '#'")
        names.passed_target = head.target if len(head.target) <= _KEPT_BYTES else None
    if host is not None and names.passed_host != host[0]:
        if not _HOST.fullmatch(host[0]):
            return _malformed("the Host field is not a host and port")
        names.passed_host = host[0] if len(host[0]) <= _KEPT_BYTES else None
    if names.sized:
        length = fields[b"content-length"][0]
        if not length.isdigit() or len(length) > 18:
            return _malformed("Content-Length is not a plain number")
    elif names.chunked:
        if fields[b"transfer-encoding"][0].lower() != b"chunked":
            return _malformed("Transfer-Encoding is not exactly 'chunked'")
        if version == "1.0":
            return _malformed("Transfer-Encoding in an HTTP/1.0 request")
    return None


def _malformed(detail: str) -> Rejected:
    return Rejected(Reason.MALFORMED_REQUEST, detail)
