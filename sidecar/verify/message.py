"""The signed message: a scheme's template, filled from a delivery.

Everything that does not depend on the delivery is prepared when the configuration is loaded. The pieces of the body are
not joined or copied if the template contains the body as it is. `places.py` says where each place is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from sidecar.outcomes import Reason, Rejected
from sidecar.verify.kinds.hash import SECRET_PLACE
from sidecar.verify.places import Delivery, Reader, describe_absent, make_reader, signed_header
from sidecar.verify.scheme import Expected, Scheme
from sidecar.verify.template import (
    BODY,
    TIMESTAMP,
    FormValue,
    Group,
    HeaderValue,
    JsonValue,
    ListedHeaders,
    Part,
    Piece,
    QueryValue,
    describe_template,
)

_SPLIT_URL: Final = re.compile(rb"([a-z]+)://([^/?]*)(.*)", re.DOTALL)


class PublicURL:
    """The URL that senders call: `public_url` and the target of a request.

    The path of `public_url` is one that a proxy before us removes, so it is put back in front of the target, unless the target
    starts with it. A `public_url` with a query is the whole URL.
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


Writer = Callable[[Delivery], Sequence[bytes]]


class Message(NamedTuple):
    """One of the messages that a scheme may sign, ready to be filled."""

    conditions: Sequence[tuple[Reader, Expected]]  #: all must hold, or this message was not signed
    writers: Sequence[Writer]

    def applies_to(self, delivery: Delivery) -> bool:
        """Whether its conditions hold. Raises `Rejected` for a place that can't be read."""
        for read, expected in self.conditions:
            value = read(delivery) or None
            if expected is None:
                if value is not None:
                    return False
            elif value is None or (expected and value not in expected):
                return False
        return True


def make_messages(scheme: Scheme, public_url: PublicURL | None) -> list[Message]:
    """The messages of a scheme, in its order."""
    plain = {part: re.compile(pattern.encode()) for part, pattern in scheme.plain}
    return [
        Message(
            [(make_reader(part), expected) for part, expected in each.when],
            [_writer(part, public_url, plain) for part in each.parts],
        )
        for each in scheme.messages
    ]


def plain_parts(scheme: Scheme) -> tuple[bytes | Piece, ...]:
    """The template's parts if it has only body, timestamp and literal text, as most do; otherwise empty."""
    plain = tuple(part for part in scheme.parts if isinstance(part, bytes) or part in (BODY, TIMESTAMP))
    return plain if len(plain) == len(scheme.parts) and scheme.is_direct else ()


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


def _writer(part: Part, public_url: PublicURL | None, plain: Mapping[Part, re.Pattern[bytes]]) -> Writer:
    if isinstance(part, bytes):
        literal = (part,)
        return lambda delivery: literal
    if isinstance(part, Group):
        within = [_group_part(each, plain) for each in part.parts]
        return lambda delivery: _write_group(within, delivery)
    if part is BODY:
        return lambda delivery: delivery.body
    if part is Piece.SECRET:
        secret = (SECRET_PLACE,)
        return lambda delivery: secret
    if part is Piece.HOST and public_url is not None:
        authority = (public_url.authority,)
        return lambda delivery: authority
    if isinstance(part, HeaderValue) and part not in plain:  # by far the most common of the rest
        name = part.name
        return lambda delivery: (signed_header(delivery.head, name),)
    read = _checked(make_reader(part), part, plain)
    if isinstance(part, HeaderValue | JsonValue | QueryValue | FormValue | ListedHeaders):
        absent = describe_absent(part)
        may_be_empty = isinstance(part, HeaderValue)
        return lambda delivery: (_required(read(delivery), absent, may_be_empty),)
    return lambda delivery: (read(delivery) or b"",)


def _required(value: bytes | None, absent: Rejected, may_be_empty: bool) -> bytes:
    if value is None or not (value or may_be_empty):
        raise Rejected(absent.reason, absent.detail)
    return value


def _checked(read: Reader, part: Part, plain: Mapping[Part, re.Pattern[bytes]]) -> Reader:
    """A reader that rejects a value with other characters than the scheme allows there."""
    pattern = plain.get(part)
    if pattern is None:
        return read
    fits = pattern.fullmatch
    what = describe_template((part,), {})

    def checked(delivery: Delivery) -> bytes | None:
        value = read(delivery)
        if value and not fits(value):
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"{what} has characters that the scheme does not allow there")
        return value

    return checked


def _group_part(part: Part, plain: Mapping[Part, re.Pattern[bytes]]) -> Reader:
    if isinstance(part, bytes):
        literal = part
        return lambda delivery: literal
    return _checked(make_reader(part), part, plain)


def _write_group(readers: Sequence[Reader], delivery: Delivery) -> Sequence[bytes]:
    pieces = []
    for read in readers:
        value = read(delivery)
        if not value:
            return ()
        pieces.append(value)
    return pieces


def query_values(target: bytes, name: str) -> list[bytes]:
    """All values of the query parameter `name`, as they are in the target."""
    wanted = name.encode() + b"="
    query = target.partition(b"?")[2]
    return [item[len(wanted) :] for item in query.split(b"&") if item.startswith(wanted)]


def find_parameters(target: bytes, name: str) -> list[bytes]:
    """All values of the query parameter `name`, whatever escapes it and they are written with.

    Only escapes are decoded: a `+` in a token that was registered as part of a URL is a `+`. In the name it is a space, as
    receivers read it, so that no spelling of the name hides a second token.
    """
    wanted = name.encode()
    found = []
    for item in target.partition(b"?")[2].split(b"&"):
        spelled, _, value = item.partition(b"=")
        if len(spelled) <= 3 * len(wanted) and unquote_to_bytes(spelled.replace(b"+", b" ")) == wanted:
            found.append(unquote_to_bytes(value))
    return found
