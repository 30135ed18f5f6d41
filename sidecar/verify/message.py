"""The signed message: a scheme's template, filled from a delivery.

Everything that does not depend on the delivery is prepared when the configuration is loaded. The pieces of the body are
never joined or copied if the template just contains the body.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.document import find_value, read_document, sorted_form
from sidecar.verify.kinds.hash import SECRET_PLACE
from sidecar.verify.scheme import Scheme
from sidecar.verify.template import BODY, TIMESTAMP, HeaderValue, JsonValue, Part, Piece

_SPLIT_URL: Final = re.compile(rb"([a-z]+)://([^/?]*)(.*)", re.DOTALL)


class PublicURL:
    """The URL that senders call: `public_url` and the target of a request.

    The path of `public_url` is one that a proxy before us removes: it is put before the target, unless the target starts
    with it. A `public_url` with a query is the whole URL.
    """

    __slots__ = ("_path", "_whole", "authority", "origin")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.origin = f"{parts.scheme}://{parts.netloc}".encode()
        self.authority = parts.netloc.encode()
        self._path = parts.path.rstrip("/").encode()
        self._whole = url.encode() if parts.query else b""

    def of(self, target: bytes) -> bytes:
        """The URL that a sender called for `target`."""
        if self._whole:
            return self._whole
        path = target.partition(b"?")[0]
        if path == self._path or path.startswith(self._path + b"/"):
            return self.origin + target
        return self.origin + self._path + target

    def variants(self, target: bytes, scheme: Scheme) -> Sequence[bytes]:
        """The URLs that may have been signed for `target`."""
        urls = [self.of(target)]
        if target[:2] in (b"/", b"/?") and not self._whole:
            # A sender that was given `https://host` signs that, and calls `/`.
            urls.append(self.of(b"") + target[1:])
        if scheme.any_port:
            urls = [variant for url in urls for variant in self.ports(url)]
        if scheme.url_unescaped and b"%" in urls[0]:
            urls += [unescape(url, scheme.url_unescaped) for url in urls]
        return urls

    @staticmethod
    def ports(url: bytes) -> list[bytes]:
        """`url` without its port, and with it or the default port of its scheme."""
        scheme, authority, tail = _SPLIT_URL.fullmatch(url).groups()  # type: ignore[union-attr]  # made by `of`
        host, colon, port = authority.rpartition(b":")
        if not colon or not port.isdigit():
            host, port = authority, b"443" if scheme == b"https" else b"80"
        return [b"%b://%b%b" % (scheme, where, tail) for where in (host, host + b":" + port)]


def most_variants(scheme: Scheme) -> int:
    """The largest number of URLs that `PublicURL.variants` returns."""
    return 2 * (2 if scheme.any_port else 1) * (2 if scheme.url_unescaped else 1)


def unescape(url: bytes, characters: str) -> bytes:
    """`url` with the escapes of these ASCII characters decoded, and no others."""
    for character in characters.encode():
        escape = b"%%%02X" % character
        url = url.replace(escape, bytes([character])).replace(escape.lower(), bytes([character]))
    return url


#: Marks a document that was not read yet; None is a document.
_UNREAD: Final[Any] = object()


class Delivery:
    """The values that fill a template."""

    __slots__ = ("_document", "_form", "body", "form_field", "head", "timestamp", "url")

    def __init__(self, head: RequestHead, body: Sequence[bytes], timestamp: bytes, url: bytes, form_field: str) -> None:
        self.head = head
        self.body = body
        self.timestamp = timestamp
        self.url = url  #: empty without a public URL
        self.form_field = form_field
        self._document: Any = _UNREAD
        self._form: bytes | None = None

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


Writer = Callable[[Delivery], Sequence[bytes]]


def make_writers(scheme: Scheme, public_url: PublicURL | None) -> list[Writer]:
    """A function for each part of the template."""
    return [_writer(part, public_url) for part in scheme.parts]


def plain_parts(scheme: Scheme) -> tuple[bytes | Piece, ...]:
    """The template's parts if it has only body, timestamp and literal text, as most do; else empty."""
    plain = tuple(part for part in scheme.parts if isinstance(part, bytes) or part in (BODY, TIMESTAMP))
    return plain if len(plain) == len(scheme.parts) else ()


def compose_plain(parts: tuple[bytes | Piece, ...], timestamp: bytes, body: Sequence[bytes]) -> Sequence[bytes]:
    """The same as `compose`, for `plain_parts`: without a function call for each part."""
    pieces: list[bytes] = []
    for part in parts:
        if part is BODY:
            pieces.extend(body)
        else:
            pieces.append(timestamp if part is TIMESTAMP else part)  # type: ignore[arg-type]  # the rest is text
    return pieces


def compose(writers: Sequence[Writer], delivery: Delivery) -> Sequence[bytes]:
    """The pieces of the signed message. Raises `Rejected` if the delivery lacks one."""
    pieces: list[bytes] = []
    for write in writers:
        pieces.extend(write(delivery))
    return pieces


def _writer(part: Part, public_url: PublicURL | None) -> Writer:
    if isinstance(part, bytes):
        literal = (part,)
        return lambda delivery: literal
    if isinstance(part, HeaderValue):
        name = part.name
        return lambda delivery: (signed_header(delivery.head, name),)
    if isinstance(part, JsonValue):
        path = part.path
        return lambda delivery: (_json_value(delivery, path),)
    if part is Piece.HOST and public_url is not None:
        authority = (public_url.authority,)
        return lambda delivery: authority
    return _PIECES[part]


def signed_header(head: RequestHead, name: bytes) -> bytes:
    """The value of a signed header (lower-case name). Raises `Rejected` if it is absent or repeated."""
    values = head.values(name)
    if len(values) != 1:
        raise Rejected(
            Reason.SIGNATURE_MALFORMED,
            f"signed header {name.decode()} appears {len(values)} times; expected exactly one",
        )
    return values[0]


def _json_value(delivery: Delivery, path: str) -> bytes:
    text = find_value(delivery.document, path)
    if text is None:
        raise Rejected(Reason.SIGNATURE_MISSING, f"the body's JSON has no string or integer at {path}")
    return text.encode("utf-8", "surrogatepass")


def _path_query(delivery: Delivery) -> bytes:
    if not delivery.url:
        return delivery.head.target
    return b"/" + delivery.url.partition(b"://")[2].partition(b"/")[2]


def _body_hash(algorithm: str, body: Sequence[bytes]) -> bytes:
    digest = hashlib.new(algorithm)
    for piece in body:
        digest.update(piece)
    return digest.digest()


_PIECES: Final[dict[Piece, Writer]] = {
    BODY: lambda delivery: delivery.body,
    Piece.TIMESTAMP: lambda delivery: (delivery.timestamp,),
    Piece.METHOD: lambda delivery: (delivery.head.method.encode(),),
    Piece.URL: lambda delivery: (delivery.url,),
    Piece.URL_WITHOUT_QUERY: lambda delivery: (delivery.url.partition(b"?")[0],),
    Piece.PATH_QUERY: lambda delivery: (_path_query(delivery),),
    Piece.HOST: lambda delivery: (signed_header(delivery.head, b"host"),),
    Piece.FORM_SORTED: lambda delivery: (delivery.sorted_form,),
    Piece.BODY_SHA256_B64: lambda delivery: (b64encode(_body_hash("sha256", delivery.body)),),
    Piece.BODY_SHA512_B64: lambda delivery: (b64encode(_body_hash("sha512", delivery.body)),),
    Piece.SECRET: lambda delivery: (SECRET_PLACE,),
}


def body_sha256_hex(body: Sequence[bytes]) -> bytes:
    """For `body_hash`."""
    return _body_hash("sha256", body).hex().encode()


def query_values(target: bytes, name: str) -> list[bytes]:
    """All values of the query parameter `name`, as they are in the target."""
    wanted = name.encode() + b"="
    query = target.partition(b"?")[2]
    return [item[len(wanted) :] for item in query.split(b"&") if item.startswith(wanted)]
