"""Handshakes, as data: requests by which a provider checks that an endpoint is yours, and the responses to them.

A preset or a custom scheme lists its handshakes under `handshake:`

    - request: {method: GET, query: {hub.mode: subscribe}}   how to recognize it: by its head, or if signed by its JSON body
      challenge: {query: hub.challenge, pattern: "[0-9]{1,40}"}
      compare: {query: hub.verify_token}                      with the route's `verify_token`, in constant time
      computed: {hash: hmac-sha256, of: "{challenge}", encoding: base64}
      answer: {text: "{challenge}"}                           or json: {...}, headers: {...}, status: 204
      signed: true                                            responded to only after its signature was verified
      published_secret: test_Am3L1GuOIc                       signed with this, which anybody can know
      here: true                                              never left to the receiver
      confirm: {json: SubscribeURL, url: "https://..."}       the address to call, once the signature was verified

A response that is computed with the secret signs text that the sender chose. The challenge must therefore be limited to
characters that can't form a delivery's signed message: `pattern` is required there. The echoed text is short printable
ASCII, and never sniffed.
"""

import hashlib
import hmac
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from sidecar.http1.head import Header, RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.document import parse_json

#: The default pattern of a challenge: it allows every token, but no markup and no end of a header.
DEFAULT_PATTERN = "[A-Za-z0-9._~+/=-]{1,512}"
#: Required of every pattern: nothing that ends a header or a line.
_PRINTABLE = re.compile(r"[ -~]{1,1024}")
#: A handshake's body has a few hundred bytes; larger ones are deliveries.
MAX_BODY = 16 * 1024
#: The body of an unsigned handshake that may have one, as a pattern or as JSON; larger ones are deliveries.
MAX_PING = 256
MAX_UNSIGNED = 4096
_MAX_PARAMETERS = 64
_MAX_PARAMETER = 4096
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class Source(StrEnum):
    """The part of a request that a value is in."""

    QUERY = "query"
    HEADER = "header"
    JSON = "json"


class HandshakeMode(StrEnum):
    """Where all handshakes of a route are responded to; without one, see `Handshakes.responds_to`."""

    ANSWER = "answer"  # here: the receiver never sees them
    PASS = "pass"  # noqa: S105 - a word; by the receiver


class Hash(StrEnum):
    """How a response is computed."""

    HMAC_SHA1 = "hmac-sha1"
    HMAC_SHA256 = "hmac-sha256"
    SHA256 = "sha256"


class ResponseEncoding(StrEnum):
    """How a computed response is written."""

    HEX = "hex"
    BASE64 = "base64"


class KeyPart(StrEnum):
    """The part of the secret that keys a computed response."""

    WHOLE = "utf8"
    SHA1_AFTER_COLON = "sha1-after-colon"  # of `public:private`, the SHA-1 of the part after the colon (Braintree)


class Place(NamedTuple):
    """One value of a request: a query parameter, a header, or a field of the JSON body (`payload.plainToken`)."""

    source: Source
    name: str


class Confirmation(NamedTuple):
    """The address in a verified body that confirms a subscription when it is called."""

    json: str  #: its place
    url: str  #: a regular expression for all of it; its host is literal
    enabled: bool = False  #: otherwise the receiver confirms


class Condition(NamedTuple):
    """A value that must be present; None: any value."""

    place: Place
    value: str | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """A hash over the template `of`: {challenge}, {token} (the route's verify_token), {url}."""

    hash: Hash
    of: str = "{challenge}"
    encoding: ResponseEncoding = ResponseEncoding.HEX
    key: KeyPart = KeyPart.WHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A handshake, as data. `text` and the values of `json` and `headers` may hold {challenge}, {computed}, {before_colon}."""

    method: str = ""  #: empty: any
    conditions: tuple[Condition, ...] = ()
    without: tuple[str, ...] = ()  #: fields that the JSON body must not have, if events look alike
    absent: tuple[str, ...] = ()  #: headers that must not be there
    body: str = ""  #: a regular expression for the whole body of an unsigned handshake without a challenge
    challenge: Place | None = None
    pattern: str = DEFAULT_PATTERN
    compare: Place | None = None
    computed: Computed | None = None
    signed: bool = False
    published_secret: str = ""  #: signs it instead of the route's secrets; it is published, so a request proves nothing
    here: bool = False  #: never left to the receiver
    confirm: Confirmation | None = None
    status: int = 200
    text: str = ""
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def reads_unsigned(self) -> bool:
        """Whether it is recognized by the body of an unverified request."""
        places = [condition.place for condition in self.conditions] + ([self.challenge] if self.challenge else [])
        return not self.signed and (bool(self.body) or any(place.source is Source.JSON for place in places))

    @property
    def words(self) -> list[bytes]:
        """Words that the body must contain to meet the JSON conditions, as senders write them."""
        return [
            (value if isinstance(value, str) else place.name.rpartition(".")[2]).encode()
            for place, value in self.conditions
            if place.source is Source.JSON
        ]

    @property
    def needs_token(self) -> bool:
        """Whether the route needs a `verify_token`."""
        return self.compare is not None or (self.computed is not None and "{token}" in self.computed.of)

    @property
    def needs_url(self) -> bool:
        """Whether the public URL must be known."""
        return self.computed is not None and "{url}" in self.computed.of


#: Whether a request, with its body in pieces, is signed, at this unix time.
Verify = Callable[[RequestHead, Sequence[bytes], "float | None"], bool]


def responds_to(shape: Shape, mode: HandshakeMode | None) -> bool:
    """Whether the response is made here, and not by the receiver.

    It always is for one that must never reach the receiver, because it proves nothing but has a body.
    By default it also is for unsigned handshakes, so that nothing unverified reaches the receiver, and for those that need the
    secret. Other signed handshakes are verified deliveries, and the receiver responds to them as it did before.
    """
    if shape.here or shape.published_secret or shape.reads_unsigned:
        return True
    if mode is None:
        return not shape.signed or shape.computed is not None or shape.confirm is not None
    return mode is HandshakeMode.ANSWER


class HandshakeResponse(NamedTuple):
    """The response to the provider."""

    status: int
    headers: list[Header]
    body: bytes


class Handshakes:
    """A route's handshakes, and the secrets that the responses need."""

    __slots__ = ("_oracles", "_published", "_secrets", "_token", "_url", "mode", "signed", "unsigned")

    def __init__(
        self,
        shapes: Sequence[Shape],
        mode: HandshakeMode | None,
        *,
        secret: Secret | None = None,
        secrets: Sequence[Secret | None] = (),
        published: Sequence[tuple[Shape, Verify]] = (),
        token: Secret | None,
        url: str = "",
        signs_body_alone: bool = False,
    ) -> None:
        """`secret` keys computed responses, or each of `secrets` those of the shape at the same place. `token` is compared,
        `url` is the URL that the provider calls, without a query.

        Each of `published` verifies a shape by its published secret.

        With `signs_body_alone`, deliveries are signed in the way that responses are computed: then a body that could be a
        challenge is rejected. A shape that lacks the token or the URL it needs is left out, so its requests are rejected.
        """
        self.mode = mode
        able = [
            shape
            for shape in shapes
            if not self.responds_to(shape) or ((token or not shape.needs_token) and (url or not shape.needs_url))
        ]
        self.signed = tuple(shape for shape in able if shape.signed and not shape.published_secret)
        self.unsigned = tuple(shape for shape in able if not shape.signed)
        self._published = tuple(published)
        self._oracles = [
            re.compile(shape.pattern.encode())
            for shape in able
            if signs_body_alone and shape.computed is not None and shape.computed.hash is not Hash.SHA256
        ]
        keys: Sequence[Secret | None] = secrets or [secret] * len(shapes)
        self._secrets = list(zip(shapes, keys, strict=True))
        self._token = token
        self._url = url

    def responds_to(self, shape: Shape) -> bool:
        """Whether the response is made here, and not by the receiver."""
        return responds_to(shape, self.mode)

    def find_unsigned(self, head: RequestHead) -> Shape | None:
        """The unsigned handshake that a request is, by its head; None if it is a delivery.

        One that the receiver responds to is forwarded unverified. So it may have no body, and its challenge must be one.
        """
        for shape in self.unsigned:
            if (
                _matches(shape, head, None, but=Source.JSON if shape.reads_unsigned else None)
                and (self.responds_to(shape) or _may_pass(shape, head))
                and (not shape.reads_unsigned or _may_have_body(shape, head))
            ):
                return shape
        return None

    @property
    def has_published(self) -> bool:
        """Whether a delivery that no secret of the route matches may be a handshake."""
        return bool(self._published)

    def find_published(self, head: RequestHead, pieces: Sequence[bytes], now: float | None) -> Shape | None:
        """The handshake that a request is if the route's secrets didn't sign it; None if it is a forged delivery."""
        if sum(map(len, pieces)) > MAX_BODY:
            return None
        body = b"".join(pieces)
        for shape, verify in self._published:
            meant = _matches(shape, head, None, but=Source.JSON) and all(word in body for word in shape.words)
            if meant and verify(head, pieces, now) and _matches(shape, head, _parse_body(body)):
                return shape
        return None

    def find_signed(self, head: RequestHead, pieces: Sequence[bytes]) -> Shape | None:
        """The signed handshake that a verified request is; None if it is a delivery. The body comes in pieces.

        Raises `Rejected` for a body that a response to a handshake may have signed: its signature proves nothing.
        """
        if not (self.signed or self._oracles) or sum(map(len, pieces)) > MAX_BODY:
            return None
        body = b"".join(pieces)
        if any(pattern.fullmatch(body) for pattern in self._oracles):
            raise Rejected(
                Reason.SIGNATURE_MISMATCH, "the body could be a handshake's challenge, which anyone can get signed"
            )
        document: Any = None
        parsed = False
        for shape in self.signed:
            # Parsing JSON costs more than verifying it: only bodies that contain the words are parsed.
            if _matches(shape, head, None, but=Source.JSON) and all(word in body for word in shape.words):
                if not parsed:
                    document, parsed = _parse_body(body), True
                if _matches(shape, head, document):
                    return shape
        return None

    def respond(self, shape: Shape, head: RequestHead, pieces: Sequence[bytes] = ()) -> HandshakeResponse:
        """Raises `Rejected`: token_mismatch, or malformed_request for a challenge that its pattern doesn't allow."""
        document = _parse_body(b"".join(pieces)) if shape.signed or shape.reads_unsigned else None
        if shape.reads_unsigned and not _has_body(shape, head, pieces, document):
            raise Rejected(Reason.SIGNATURE_MISSING, "it has no signature, and its body is not that of the handshake")
        if shape.compare is not None:
            assert self._token is not None  # __init__ left the shape out otherwise
            sent = _find_value(shape.compare, head, document)
            if not isinstance(sent, str) or not self._token.matches(sent.encode()):
                raise Rejected(Reason.TOKEN_MISMATCH, "the handshake's token is not the route's verify_token")
        values: dict[str, str] = {}
        if shape.challenge is not None:
            challenge = _find_value(shape.challenge, head, document)
            if not isinstance(challenge, str) or not _is_challenge(shape, challenge):
                raise Rejected(Reason.MALFORMED_REQUEST, f"the handshake's challenge does not match {shape.pattern}")
            values["challenge"] = challenge
        if shape.computed is not None:
            values |= self._compute(shape.computed, self._secret_of(shape), values)
        return _write_response(shape, values)

    def address(self, shape: Shape, head: RequestHead, pieces: Sequence[bytes]) -> str:
        """The address to call to confirm a verified handshake, or nothing. Raises `Rejected` for one that isn't allowed."""
        if shape.confirm is None:
            return ""
        found = _find_value(Place(Source.JSON, shape.confirm.json), head, _parse_body(b"".join(pieces)))
        if (
            not isinstance(found, str)
            or len(found) > _MAX_PARAMETER
            or not re.fullmatch(shape.confirm.url, found, re.ASCII)
        ):
            raise Rejected(
                Reason.MALFORMED_REQUEST, "the address that confirms the handshake is not one of the provider's"
            )
        return found

    def _secret_of(self, wanted: Shape) -> Secret | None:
        return next(secret for shape, secret in self._secrets if shape is wanted)

    def _compute(self, computed: Computed, keyed: Secret | None, values: Mapping[str, str]) -> dict[str, str]:
        secret = keyed.reveal() if keyed is not None else b""
        token = self._token.reveal().decode("utf-8", "surrogateescape") if self._token is not None else ""
        message = _fill(computed.of, {**values, "token": token, "url": self._url}).encode("utf-8", "surrogateescape")
        before, _, after = secret.partition(b":")
        key = hashlib.sha1(after).digest() if computed.key is KeyPart.SHA1_AFTER_COLON else secret  # noqa: S324 - theirs
        if computed.hash is Hash.SHA256:
            digest = hashlib.sha256(message).digest()
        else:
            digest = hmac.digest(key, message, computed.hash.removeprefix("hmac-"))
        text = digest.hex() if computed.encoding is ResponseEncoding.HEX else b64encode(digest).decode()
        public = before.decode("ascii", "replace") if computed.key is KeyPart.SHA1_AFTER_COLON else ""
        return {"computed": text, "before_colon": public}


def _matches(shape: Shape, head: RequestHead, document: Any, *, but: Source | None = None) -> bool:
    """Whether a request is this handshake; conditions on `but` are skipped."""
    if shape.method and head.method != shape.method:
        return False
    if any(head.values(name.lower().encode()) for name in shape.absent):
        return False
    conditions = shape.conditions if shape.challenge is None else (*shape.conditions, Condition(shape.challenge, None))
    for place, wanted in conditions:
        if place.source is but:
            continue
        found = _find_value(place, head, document)
        if found is None or (wanted is not None and (found != wanted or isinstance(found, bool))):
            return False
    return not (isinstance(document, dict) and any(name in document for name in shape.without))


def _may_have_body(shape: Shape, head: RequestHead) -> bool:
    """Whether an unsigned request has a body that may be a handshake's, by its length."""
    return 0 < (head.content_length or 0) <= (MAX_PING if shape.body else MAX_UNSIGNED)


def _has_body(shape: Shape, head: RequestHead, pieces: Sequence[bytes], document: Any) -> bool:
    """Whether an unsigned request has the body of the handshake."""
    if shape.body:
        return re.fullmatch(shape.body, b"".join(pieces).decode("latin-1")) is not None
    return document is not None and _matches(shape, head, document)


def _is_challenge(shape: Shape, text: str) -> bool:
    return bool(_PRINTABLE.fullmatch(text) and re.fullmatch(shape.pattern, text))


def _may_pass(shape: Shape, head: RequestHead) -> bool:
    """Whether an unsigned handshake may reach the receiver."""
    if head.content_length or head.values(b"transfer-encoding"):
        return False
    if shape.challenge is None:
        return True
    challenge = _find_value(shape.challenge, head, None)
    return isinstance(challenge, str) and _is_challenge(shape, challenge)


def _find_value(place: Place, head: RequestHead, document: Any) -> str | int | None:
    """None if it is absent, repeated, or neither a string nor an integer."""
    if place.source is Source.HEADER:
        sent = head.values(place.name.lower().encode())
        return sent[0].decode("latin-1") if len(sent) == 1 else None
    if place.source is Source.QUERY:
        return _find_parameter(head.target.partition(b"?")[2], place.name)
    for step in place.name.split("."):
        if isinstance(document, list) and step.isdecimal():
            document = document[int(step)] if int(step) < len(document) else None
        elif isinstance(document, dict):
            document = document.get(step)
        else:
            return None
    return document if isinstance(document, str | int) else None


def _find_parameter(query: bytes, wanted: str) -> str | None:
    """The value of the only parameter of this name. Nothing else of the query is unescaped."""
    if not query or not query.isascii() or query.count(b"&") >= _MAX_PARAMETERS:
        return None
    found: str | None = None
    for item in query.decode().split("&"):
        name, _, value = item.partition("=")
        if len(name) <= 3 * len(wanted) and unquote_plus(name) == wanted:
            if found is not None or len(value) > _MAX_PARAMETER:
                return None
            found = value
    return None if found is None else unquote_plus(found)


def _parse_body(body: bytes) -> Any:
    """The body's JSON object or list; None if it is neither."""
    if len(body) > MAX_BODY or not body.lstrip().startswith((b"{", b"[")):
        return None
    try:
        return parse_json(body)
    except ValueError:
        return None


def _fill(template: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], ""), template)


def _write_response(shape: Shape, values: Mapping[str, str]) -> HandshakeResponse:
    headers = [(name.encode(), _fill(value, values).encode()) for name, value in shape.headers.items()]
    body = _fill(shape.text, values).encode()
    kind = b"text/plain; charset=utf-8"
    if shape.json is not None:
        body = json.dumps(
            {key: _fill(value, values) if isinstance(value, str) else value for key, value in shape.json.items()}
        ).encode()
        kind = b"application/json"
    if shape.status != 204:
        if body:
            headers += [(b"content-type", kind), (b"x-content-type-options", b"nosniff")]
        headers.append((b"content-length", b"%d" % len(body)))
    return HandshakeResponse(shape.status, headers, body)
