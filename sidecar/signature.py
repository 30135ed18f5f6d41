"""sign() and verify(): the one place where secrets become MACs and MACs are compared.

Verification in two steps, so that what the head alone shows is refused before a byte of the body is read:

    read_claim   (1) the signature field stands there exactly once and is well-formed
                 (2) the timestamp stands there exactly once, is well-formed and within tolerance
    verify       (3) the message is put together by the scheme's template
                 (4) each secret's MAC of it is compared, in constant time, with what was sent

A `Verified` that exists was verified: only `verify()` makes one. What is forwarded without one is listed in `routes.Waived`.
"""

import hashlib
import hmac
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sidecar.outcomes import Reason, Rejected
from sidecar.request import RequestHead, make_head
from sidecar.scheme import (
    BODY,
    DIGEST_SIZES,
    TIMESTAMP,
    Encoding,
    HeaderValue,
    Scheme,
    Unit,
)
from sidecar.secret import Secret

#: From a finished MAC to its text, without padding.
_ENCODE: dict[Encoding, Callable[[hmac.HMAC], bytes]] = {
    Encoding.HEX: lambda mac: mac.hexdigest().encode(),
    Encoding.BASE64: lambda mac: b64encode(mac.digest()).rstrip(b"="),
    Encoding.BASE64URL: lambda mac: urlsafe_b64encode(mac.digest()).rstrip(b"="),
}
#: Enough digits for milliseconds until the year 33658; more is refused before it reaches int().
_TIMESTAMP = re.compile(rb"[0-9]{1,15}")


class Claim(NamedTuple):
    """What a well-formed head claims, not yet believed."""

    signature: bytes  #: the MAC as text, in the scheme's encoding, without prefix and padding
    timestamp: bytes  #: as sent; empty if the scheme has none
    age: float | None  #: seconds by our clock, negative if the sender's clock is ahead; None without a timestamp


class Verified(NamedTuple):
    """The proof that one of the route's secrets signed this delivery."""

    secret_id: str  #: which secret matched


class Verifier:
    """A scheme bound to its secrets, with everything that does not depend on the delivery worked out beforehand."""

    __slots__ = (
        "_delivery_id_header",
        "_encode",
        "_keys",
        "_pattern",
        "_prefix",
        "_signature_header",
        "_timestamp_header",
        "scheme",
        "secrets",
    )

    def __init__(self, scheme: Scheme, secrets: Sequence[Secret]) -> None:
        if not secrets:
            raise ValueError("a scheme without a secret verifies nothing")
        self.scheme = scheme
        self.secrets = tuple(secrets)
        # A keyed base that is copied per delivery: the key's two hash blocks are computed once.
        self._keys = [(secret.id, keyed_mac(scheme, secret)) for secret in secrets]
        self._encode = _ENCODE[scheme.signature.encoding]
        self._pattern = _signature_pattern(scheme)
        self._prefix = scheme.signature.prefix.encode()
        self._signature_header = scheme.signature.header.lower().encode()
        self._delivery_id_header = scheme.delivery_id.lower().encode() if scheme.delivery_id else b""
        self._timestamp_header = scheme.timestamp.header.lower().encode() if scheme.timestamp else b""

    def delivery_id(self, head: RequestHead) -> bytes:
        """The provider's id of this delivery, as sent, for the log; empty if there is none."""
        sent = head.values(self._delivery_id_header) if self._delivery_id_header else ()
        return sent[0] if sent else b""

    def read_claim(self, head: RequestHead, now: float) -> Claim:
        """Steps (1) and (2). `now` is unix time in seconds. Raises `Rejected`."""
        # (1): once and well-formed. A repeated field is malformed, never "the first one" or "the last one".
        sent = head.values(self._signature_header)
        if not sent or not sent[0]:
            raise Rejected(Reason.SIGNATURE_MISSING, f"no {self.scheme.signature.header} header")
        match = self._pattern.fullmatch(sent[0])
        if len(sent) > 1 or not match:
            raise Rejected(Reason.SIGNATURE_MALFORMED, self._describe_malformed(sent))
        # (2): the signed clock, in both directions.
        if self.scheme.timestamp is None:
            return Claim(match[1], b"", None)
        timestamp, age = self._read_timestamp(head, now)
        return Claim(match[1], timestamp, age)

    def verify(self, claim: Claim, head: RequestHead, body: Sequence[bytes]) -> Verified:
        """Steps (3) and (4) over the raw body, given in pieces. Raises `Rejected(signature_mismatch)`."""
        # (3): the pieces of the signed message; the body is never joined or copied.
        message = signed_message(self.scheme, claim.timestamp, head, body)
        # (4): each secret in turn. Who can make any of them match knows that secret, so the order tells nothing.
        for secret_id, key in self._keys:
            mac = key.copy()
            for piece in message:
                mac.update(piece)
            if hmac.compare_digest(self._encode(mac), claim.signature):
                return Verified(secret_id)
        raise Rejected(Reason.SIGNATURE_MISMATCH, f"no match with {len(self._keys)} secret(s)")

    def _read_timestamp(self, head: RequestHead, now: float) -> tuple[bytes, float]:
        clock = self.scheme.timestamp
        assert clock is not None
        sent = head.values(self._timestamp_header)
        if not sent or not sent[0]:
            raise Rejected(Reason.TIMESTAMP_MISSING, f"no {clock.header} header")
        if len(sent) > 1 or not _TIMESTAMP.fullmatch(sent[0]):
            raise Rejected(
                Reason.TIMESTAMP_MALFORMED, f"{clock.header} is not one whole number of unix time ({clock.unit})"
            )
        seconds = int(sent[0]) / (1000 if clock.unit is Unit.MILLISECONDS else 1)
        age = now - seconds
        if age > clock.tolerance:
            raise Rejected(Reason.TIMESTAMP_TOO_OLD, f"signed {age:.0f} s ago, tolerance is {clock.tolerance:g} s")
        if age < -clock.tolerance:
            raise Rejected(
                Reason.TIMESTAMP_IN_FUTURE, f"signed {-age:.0f} s in the future, tolerance is {clock.tolerance:g} s"
            )
        return sent[0], age

    def _describe_malformed(self, sent: Sequence[bytes]) -> str:
        """The form that was expected. Never what was sent: a log of signatures can be replayed."""
        field = self.scheme.signature
        if len(sent) > 1:
            return f"{len(sent)} {field.header} headers, expected one"
        if self._prefix and not sent[0].startswith(self._prefix):
            return f"{field.header} does not begin with {field.prefix!r}"
        return f"{field.header} is not {DIGEST_SIZES[field.algorithm]} bytes of {field.algorithm} written in {field.encoding}"


def signed_message(scheme: Scheme, timestamp: bytes, head: RequestHead, body: Sequence[bytes]) -> Sequence[bytes]:
    """The pieces whose concatenation is signed. Raises `Rejected` if a signed header is absent or repeated."""
    if scheme.parts == (BODY,):
        return body
    pieces: list[bytes] = []
    for part in scheme.parts:
        if part is BODY:
            pieces.extend(body)
        elif part is TIMESTAMP:
            pieces.append(timestamp)
        elif isinstance(part, HeaderValue):
            values = head.values(part.name)
            if len(values) != 1:
                raise Rejected(
                    Reason.SIGNATURE_MALFORMED,
                    f"the signed header {part.name.decode()} stands there {len(values)} times",
                )
            pieces.append(values[0])
        elif isinstance(part, bytes):
            pieces.append(part)
    return pieces


def keyed_mac(scheme: Scheme, secret: Secret) -> hmac.HMAC:
    """HMAC (RFC 2104) keyed with the secret's raw bytes, nothing fed yet."""
    return hmac.new(secret.reveal(), digestmod=getattr(hashlib, scheme.signature.algorithm.value))


def sign(
    scheme: Scheme, secret: Secret, *, body: bytes, now: float, headers: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """The headers that make `body` a valid delivery at `now` (unix seconds); `headers` are those that a template may sign."""
    head = make_head("POST", b"/", [(name.encode(), value.encode()) for name, value in headers], None)
    signed: list[tuple[str, str]] = []
    timestamp = ""
    if scheme.timestamp is not None:
        timestamp = str(int(now * 1000 if scheme.timestamp.unit is Unit.MILLISECONDS else now))
        signed.append((scheme.timestamp.header, timestamp))
    mac = keyed_mac(scheme, secret)
    for piece in signed_message(scheme, timestamp.encode(), head, [body]):
        mac.update(piece)
    text = _ENCODE[scheme.signature.encoding](mac).decode()
    if scheme.signature.encoding is Encoding.BASE64:
        text += "=" * (-len(text) % 4)
    return [(scheme.signature.header, scheme.signature.prefix + text), *signed]


def _signature_pattern(scheme: Scheme) -> re.Pattern[bytes]:
    """Prefix, then exactly one digest in canonical form: right length, right alphabet, no stray bits; group 1 is the digest."""
    size = DIGEST_SIZES[scheme.signature.algorithm]
    prefix = re.escape(scheme.signature.prefix.encode())
    if scheme.signature.encoding is Encoding.HEX:
        return re.compile(prefix + rb"([0-9a-f]{%d})" % (2 * size))
    whole = -(-size * 4 // 3)
    padding = -whole % 4
    if scheme.signature.encoding is Encoding.BASE64:
        return re.compile(prefix + rb"([A-Za-z0-9+/]{%d})={%d}" % (whole, padding))
    return re.compile(prefix + rb"([A-Za-z0-9_-]{%d})(?:={%d})?" % (whole, padding))
