"""Signing as a provider does: the counterpart of the verifier, for `sign`, `send`, the delivery test and tests.

For a public-key scheme the secret is the private key: in PEM, or for Ed25519 also its 32 bytes in the scheme's form.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from sidecar.http1.head import make_head
from sidecar.outcomes import Rejected
from sidecar.secret import Secret
from sidecar.verify.algorithms import hash_pieces
from sidecar.verify.body_hash import decompress, write_body_hash
from sidecar.verify.document import find_items, find_value, parse_json
from sidecar.verify.encoding import encode
from sidecar.verify.form import URLENCODED, content_type, media_type, read_fields
from sidecar.verify.keys import key_id, read_signing_key
from sidecar.verify.message import Message, PublicURL, compose, find_parameters, make_messages, query_values
from sidecar.verify.places import Delivery
from sidecar.verify.scheme import KEY_ID, Alternative, Scheme, Unit
from sidecar.verify.template import FormValue, HeaderValue, JsonValue, ListedHeaders, QueryValue, walk
from sidecar.verify.timestamp import format_timestamp

#: The key id of our signatures with a private key; a UUID, because some senders' are.
SIGNING_KEY_ID = "00000000-0000-4000-8000-000000000000"


class SigningError(ValueError):
    """A delivery that this scheme can't sign; the message names the remedy."""


class Signed(NamedTuple):
    """A signed delivery. URL and body are as given, unless the scheme writes into them."""

    url: str
    headers: list[tuple[str, str]]  #: to add to the given ones
    body: bytes


class ToSign(NamedTuple):
    """A delivery that has no signature yet."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    now: float  #: unix seconds
    delivery_id: str
    made_up: str  #: the value of required fields that are missing


def sign(
    scheme: Scheme, secret: Secret, *, body: bytes, now: float, headers: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """The headers that make `body` a valid delivery at `now`. Raises `SigningError` if headers are not enough."""
    signed = sign_delivery(scheme, secret, body=body, now=now, headers=headers)
    if signed.body != body or signed.url:
        raise SigningError("this scheme writes into the body or the URL; use sign_delivery")
    return signed.headers


def sign_delivery(
    scheme: Scheme,
    secret: Secret,
    *,
    body: bytes,
    now: float,
    method: str = "POST",
    url: str = "",
    headers: Sequence[tuple[str, str]] = (),
    delivery_id: str = "",
    forged: bool = False,
    public_url: str = "",
) -> Signed:
    """A valid delivery at `now` (unix seconds). Only schemes that sign the URL need `url`.

    With `forged` the signature is well-formed, but wrong. `public_url` is the route's, without the request's target; only
    Atlassian's hash of a request needs it.
    `headers` will be sent too; signed headers that are not among them get a made-up value. Raises `SigningError`, and
    `KeyFormError` for a secret that is not in the scheme's form.
    """
    _check_signable(scheme, url)
    made_up = hashlib.sha256(b"%r" % now + body).hexdigest()[:32]
    what = ToSign(method, url, headers, body, now, delivery_id or made_up, made_up)
    if scheme.signature.kind.claims or scheme.listed is not None:
        return _sign_whole(scheme, secret, what, public_url=public_url, forged=forged)
    if scheme.signature.in_target:
        url = with_token(scheme, secret, url, forged=forged)
    if scheme.when and scheme.reads_document:
        scheme = _begin_with_fitting(scheme, _object(body))
    clock = scheme.timestamp
    timestamp = format_timestamp(clock.unit, now) if clock is not None else ""
    added = _key_header(scheme, secret, headers)
    added += _added_headers(scheme, [*headers, *added], what.delivery_id, made_up)
    if clock is not None and clock.header:
        added.append((clock.header, timestamp))
    added += _listing(scheme, [*headers, *added])
    if scheme.signature.in_target:
        return Signed(url, added, body)
    document: Any = None
    if writes_document(scheme):
        document = _fill(scheme, _object(body), timestamp, made_up)
        body = _dump(document)
    elif scheme.reads_form:
        body = _fill_form(scheme, headers, body, timestamp, made_up)
    url = _fill_query(scheme, url, body, made_up)
    if scheme.body_hash is not None and scheme.body_hash.header:
        added.append((scheme.body_hash.header, write_body_hash(scheme.body_hash, [body])))
    known = PublicURL(url) if url else None
    target = url.partition("://")[2].partition("/")[2] if url else ""
    every = [(name.encode(), value.encode()) for name, value in [*headers, *added]]
    head = make_head(method, b"/" + target.encode(), every, None)
    delivery = Delivery(
        head,
        decompress(head, [body], len(body) * 1100) if scheme.decompressed else [body],
        timestamp.encode(),
        url.encode(),
        scheme.form_field,
    )
    messages = make_messages(scheme, known)
    field = scheme.signature
    if scheme.items:
        for item in find_items(document, scheme.items):
            message = _compose(scheme, messages, delivery.of_item(item))
            _put(item, field.field, _signature(scheme, secret, message, forged=forged))
        return Signed(url, added, _dump(document))
    signature = (
        _sign_detached(scheme, secret, messages, delivery, now=now, forged=forged)
        if field.kind.detached
        else _signature(scheme, secret, _compose(scheme, messages, delivery), forged=forged)
    )
    if field.field:
        _put(document, field.field, signature)
        return Signed(url, added, _dump(document))
    value = _list_item(scheme, secret, signature, timestamp)
    if field.form:
        return Signed(url, added, body + (b"&" if body else b"") + urlencode([(field.form, value)]).encode())
    return Signed(url, [(field.header.replace("{n}", "1"), value), *added], body)


def _compose(scheme: Scheme, messages: Sequence[Message], delivery: Delivery) -> Sequence[bytes]:
    """The first message that fits, as the provider would choose it. Raises `SigningError` if none does."""
    problem = "the delivery fits none of the messages that the scheme signs"
    for message in messages:
        try:
            if message.applies_to(delivery):
                pieces = compose(message.writers, delivery)
                prehash = scheme.signature.prehash
                return pieces if prehash is None else (hash_pieces(prehash, pieces),)
        except Rejected as rejected:
            problem = rejected.detail
    raise SigningError(f"this scheme can't sign that: {problem}")


def _check_signable(scheme: Scheme, url: str) -> None:
    if scheme.needs_url and not url:
        raise SigningError("this scheme signs the URL; give the URL that is called")
    if scheme.keys is not None and (scheme.keys.certificate is not None or scheme.keys.x5c is not None):
        raise SigningError("deliveries of this sender come with a certificate that only the sender has")


def with_token(scheme: Scheme, secret: Secret, url: str, *, forged: bool = False) -> str:
    """`url` with the token that the scheme wants in it, unless it already has one. Raises `SigningError` without a URL."""
    if not url:
        raise SigningError("this scheme has its token in the URL; give the URL that is called")
    kind, algorithm = scheme.signature.kind, scheme.signature.algorithm
    shown = scheme.signature.prefix.encode() + kind.sign(algorithm, read_signing_key(scheme, secret), [])
    token = quote(forge(shown, text=True) if forged else shown, safe="")
    path, mark, query = url.partition("?")
    if scheme.signature.query:
        if find_parameters(url.encode(), scheme.signature.query):
            return url
        return f"{path}?{query}{'&' if query else ''}{quote(scheme.signature.query, safe='')}={token}"
    if path.endswith(f"/{token}"):
        return url
    return f"{path}{'' if path.endswith('/') else '/'}{token}{mark}{query}"


def forge(signature: bytes, *, text: bool) -> bytes:
    """Another signature of the same form: with another last character in a text, or with one bit flipped."""
    last = signature[-1:]
    return signature[:-1] + ((b"1" if last == b"0" else b"0") if text else bytes([last[0] ^ 1]))


def _sign_whole(scheme: Scheme, secret: Secret, what: ToSign, *, public_url: str, forged: bool) -> Signed:
    """Tokens, and signatures that list what they cover. Imports what signs these, which no other scheme needs."""
    if scheme.listed is not None:
        from sidecar.verify.sign_listed import sign_listed  # noqa: PLC0415

        return Signed(what.url, sign_listed(scheme, secret, what, forged=forged), what.body)
    from sidecar.verify.sign_token import sign_with_token  # noqa: PLC0415

    base = public_url or "/".join(what.url.split("/", 3)[:3])
    value, body = sign_with_token(scheme, secret, what, base=base, forged=forged)
    return Signed(what.url, [(scheme.signature.header, value)] if value else [], body)


def _sign_detached(
    scheme: Scheme, secret: Secret, messages: Sequence[Message], delivery: Delivery, *, now: float, forged: bool
) -> str:
    """The detached token with its prefix. Imports what signs tokens, which no other scheme needs."""
    from sidecar.verify.sign_token import detached_head, sign_detached  # noqa: PLC0415

    delivery.jws_head = detached_head(scheme, now)
    message = _compose(scheme, messages, delivery)
    return scheme.signature.prefix + sign_detached(scheme, secret, delivery.jws_head, message, forged=forged)


def _key_header(scheme: Scheme, secret: Secret, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The header that names the key, if the scheme has one and it is missing."""
    name = scheme.signature.key_id
    if not name or any(each.lower() == name.lower() for each, _ in headers):
        return []
    named = SIGNING_KEY_ID if scheme.published else key_id(secret).decode()
    return [(name, named)] if named else []


def _signature(scheme: Scheme, secret: Secret, message: Sequence[bytes], *, forged: bool) -> str:
    """The signature as text, with its prefix."""
    field = scheme.signature
    signature = field.kind.sign(field.algorithm, read_signing_key(scheme, secret), message)
    if forged:
        signature = forge(signature, text=field.kind.bearer)
    text = signature.decode() if field.kind.bearer else encode(field.encoding, signature)
    if field.wrapped is not None:
        members = {**dict(field.wrapped.members), field.wrapped.id: SIGNING_KEY_ID, field.wrapped.signature: text}
        text = b64encode(json.dumps(members).encode()).decode()
    return field.prefix + text


def _list_item(scheme: Scheme, secret: Secret, signature: str, timestamp: str) -> str:
    """The value of the signature's header or field: with the scheme's list and the timestamp in it, if it has them."""
    listed, clock = scheme.signature.list, scheme.timestamp
    if listed is None:
        return signature
    tag = (listed.versions[0] if listed.versions else listed.tag).replace("*", "key")
    item = tag.replace(KEY_ID, key_id(secret).decode()) + signature
    if clock is not None and (clock.tag or clock.first):
        return f"{clock.tag}{timestamp}{listed.separator[-1]}{item}"
    return item


def _added_headers(
    scheme: Scheme, headers: Sequence[tuple[str, str]], delivery_id: str, made_up: str
) -> list[tuple[str, str]]:
    hashed = scheme.body_hash.header.lower() if scheme.body_hash is not None else ""
    given = {name.lower() for name, _ in headers} | {hashed}
    added = [(name, value) for name, value in scheme.require if name.lower() not in given]
    if scheme.delivery_id and scheme.delivery_id.lower() not in given:
        added.append((scheme.delivery_id, delivery_id))
    given |= {name.lower() for name, _ in added}
    for part in walk(scheme.parts):
        if isinstance(part, HeaderValue) and (name := part.name.decode()) not in given:
            added.append((name, made_up))
            given.add(name)
    return added


def _listing(scheme: Scheme, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The header that lists the signed headers: all that are sent, except those that a proxy may change."""
    names = sorted({name.lower() for name, _ in headers} - {"host", "content-length", "connection"})
    listings = [part.name.decode() for part in walk(scheme.parts) if isinstance(part, ListedHeaders)]
    return [(name, ",".join(sorted([*names, name]))) for name in listings if name not in names]


def _fill_query(scheme: Scheme, url: str, body: bytes, made_up: str) -> str:
    """The URL with the parameters that the scheme signs or that hold the body's hash."""
    wanted = {part.name: made_up for part in walk(scheme.parts) if isinstance(part, QueryValue)}
    if scheme.body_hash is not None and scheme.body_hash.query:
        wanted[scheme.body_hash.query] = write_body_hash(scheme.body_hash, [body])
    needed = any(isinstance(part, QueryValue) for part in scheme.parts) or scheme.body_hash is not None
    for name, value in wanted.items():
        if not url and not needed:
            break
        if not query_values(url.encode(), name):
            if not url:
                raise SigningError("this scheme signs a part of the URL's query; give the URL that is called")
            url = f"{url}{'&' if '?' in url else '?'}{name}={value}"
    return url


# -- schemes that write into the body's form --


def _fill_form(scheme: Scheme, headers: Sequence[tuple[str, str]], body: bytes, timestamp: str, made_up: str) -> bytes:
    """The urlencoded form with the fields that the scheme needs, without its signature."""
    head = make_head("POST", b"/", [(name.encode(), value.encode()) for name, value in headers], None)
    if body and media_type(content_type(head)) != URLENCODED:
        raise SigningError("this scheme needs a body that is a form (application/x-www-form-urlencoded); give one")
    try:
        names = [name.decode("latin-1") for name, _ in read_fields(head, [body])]
    except Rejected as rejected:
        raise SigningError(rejected.detail) from None
    if scheme.signature.form in names:
        raise SigningError(f"the body already has a field {scheme.signature.form}; remove it")
    wanted = {name: value or made_up for name, value in scheme.require_form}
    clock = scheme.timestamp
    if clock is not None and clock.form:
        wanted[clock.form] = timestamp
    for part in walk(scheme.parts):
        if isinstance(part, FormValue):
            pattern = dict(scheme.plain).get(part)
            fits = pattern is None or re.fullmatch(pattern, made_up)
            wanted.setdefault(part.name, made_up if fits else made_up * 4)  # some must be longer
    missing = urlencode([(name, value) for name, value in wanted.items() if name not in names]).encode()
    return b"&".join(filter(None, (body, missing)))


# -- schemes that write into the body's JSON, or sign a part of it --


def writes_document(scheme: Scheme) -> bool:
    """Whether signing rewrites the body's JSON."""
    clock = scheme.timestamp
    return scheme.reads_document or (clock is not None and bool(clock.field))


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = parse_json(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise SigningError("this scheme needs a body that is one JSON object; give one")
    return document


def _begin_with_fitting(scheme: Scheme, document: dict[str, Any]) -> Scheme:
    """The scheme, beginning with the message whose conditions the document meets; unchanged if it meets none."""

    def fits(message: Alternative) -> bool:
        for place, expected in message.when:
            found = find_value(document, place.path) if isinstance(place, JsonValue) else None
            value = None if found is None else found.encode()
            if (value is not None) if expected is None else (value is None or (expected and value not in expected)):
                return False
        return True

    first = next(filter(fits, scheme.messages), scheme.messages[0])
    others = tuple(message for message in scheme.messages if message is not first)
    return replace(scheme, parts=first.parts, when=first.when, alternatives=others)


def _fill(scheme: Scheme, document: dict[str, Any], timestamp: str, made_up: str) -> dict[str, Any]:
    clock = scheme.timestamp
    if clock is not None and clock.field:
        numeric = clock.unit in (Unit.SECONDS, Unit.MILLISECONDS) and not scheme.signature.field
        _put(document, clock.field, int(timestamp) if numeric else timestamp)
    for path, value in scheme.require_json:
        _put(document, path, value or made_up, keep=True)
    for place, expected in scheme.when:
        if isinstance(place, JsonValue) and expected is not None:
            _put(document, place.path, min(expected).decode() if expected else made_up, keep=True)
    above = f"{scheme.items}." if scheme.items else ""
    for part in walk(scheme.parts):
        if isinstance(part, JsonValue) and not (clock is not None and part.path == clock.field):
            _put(document, above + part.path, made_up, keep=True)
    return document


def _put(document: dict[str, Any], path: str, value: Any, *, keep: bool = False) -> None:
    """Sets `a.b` or, for each element of a list, `a[].b`. Other values on the path are replaced."""
    step, _, rest = path.partition(".")
    key = step.removesuffix("[]")
    if step.endswith("[]"):
        elements = document.get(key)
        if not isinstance(elements, list) or not elements or not all(isinstance(element, dict) for element in elements):
            elements = document[key] = [{}]
        for element in elements:
            _put(element, rest, value, keep=keep)
    elif rest:
        if not isinstance(document.get(key), dict):
            document[key] = {}
        _put(document[key], rest, value, keep=keep)
    elif not (keep and isinstance(document.get(key), str | int)):
        document[key] = value


def _dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
