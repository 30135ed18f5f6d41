"""Signing as a provider does: the counterpart of the verifier, for `sign`, `send`, the delivery test and tests.

For a public-key scheme the secret is the private key: in PEM, or for Ed25519 also its 32 bytes in the scheme's form.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sidecar.http1.head import make_head
from sidecar.secret import Secret
from sidecar.verify.document import parse_json
from sidecar.verify.encoding import encode
from sidecar.verify.keys import read_signing_key
from sidecar.verify.message import Delivery, PublicURL, body_sha256_hex, compose, make_writers, query_values
from sidecar.verify.scheme import Scheme, Unit
from sidecar.verify.template import HeaderValue, JsonValue
from sidecar.verify.timestamp import format_timestamp


class SigningError(ValueError):
    """A delivery that this scheme can't sign; the message names the remedy."""


class Signed(NamedTuple):
    """A signed delivery. URL and body are as given, unless the scheme writes into them."""

    url: str
    headers: list[tuple[str, str]]  #: to add to the given ones
    body: bytes


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
) -> Signed:
    """A valid delivery at `now` (unix seconds). Only schemes that sign the URL need `url`.

    `headers` will be sent too; signed headers that are not among them get a made-up value. Raises `SigningError`, and
    `KeyFormError` for a secret that is not in the scheme's form.
    """
    if scheme.needs_url and not url:
        raise SigningError("this scheme signs the URL; give the URL that is called")
    if scheme.body_hash:
        url = _with_body_hash(url, scheme.body_hash, body)
    made_up = hashlib.sha256(b"%r" % now + body).hexdigest()[:32]
    added = _added_headers(scheme, headers, delivery_id or made_up, made_up)
    timestamp = format_timestamp(scheme.timestamp.unit, now) if scheme.timestamp is not None else ""
    if scheme.timestamp is not None and scheme.timestamp.header:
        added.append((scheme.timestamp.header, timestamp))
    document: Any = None
    if _writes_document(scheme):
        document = _fill(scheme, _object(body), timestamp, made_up)
        body = _dump(document)
    known = PublicURL(url) if url else None
    target = url.partition("://")[2].partition("/")[2] if url else ""
    every = [(name.encode(), value.encode()) for name, value in [*headers, *added]]
    head = make_head(method, b"/" + target.encode(), every, None)
    delivery = Delivery(head, [body], timestamp.encode(), url.encode(), scheme.form_field)
    signature = _signature(scheme, secret, compose(make_writers(scheme, known), delivery))
    if scheme.signature.field:
        _put(document, scheme.signature.field, signature)
        return Signed(url, added, _dump(document))
    return Signed(
        url, [(scheme.signature.header.replace("{n}", "1"), _header(scheme, signature, timestamp)), *added], body
    )


def _signature(scheme: Scheme, secret: Secret, message: Sequence[bytes]) -> str:
    """The signature as text, with its prefix."""
    field = scheme.signature
    signature = field.kind.sign(field.algorithm, read_signing_key(scheme, secret), message)
    return field.prefix + (signature.decode() if field.kind.bearer else encode(field.encoding, signature))


def _header(scheme: Scheme, signature: str, timestamp: str) -> str:
    """The value of the signature's header: with the scheme's list and the timestamp in it, if it has them."""
    listed, clock = scheme.signature.list, scheme.timestamp
    if listed is None:
        return signature
    item = (listed.versions[0] if listed.versions else listed.tag).replace("*", "key") + signature
    if clock is not None and (clock.tag or clock.first):
        return f"{clock.tag}{timestamp}{listed.separator[-1]}{item}"
    return item


def _added_headers(
    scheme: Scheme, headers: Sequence[tuple[str, str]], delivery_id: str, made_up: str
) -> list[tuple[str, str]]:
    given = {name.lower() for name, _ in headers}
    added = [(name, value) for name, value in scheme.require if name.lower() not in given]
    if scheme.delivery_id and scheme.delivery_id.lower() not in given:
        added.append((scheme.delivery_id, delivery_id))
    given |= {name.lower() for name, _ in added}
    for part in scheme.parts:
        if isinstance(part, HeaderValue) and (name := part.name.decode()) not in given:
            added.append((name, made_up))
            given.add(name)
    return added


def _with_body_hash(url: str, parameter: str, body: bytes) -> str:
    if query_values(url.encode(), parameter):
        return url
    glue = "&" if "?" in url else "?"
    return f"{url}{glue}{parameter}={body_sha256_hex([body]).decode()}"


# -- schemes that write into the body's JSON, or sign a part of it --


def _writes_document(scheme: Scheme) -> bool:
    clock = scheme.timestamp
    in_parts = any(isinstance(part, JsonValue) for part in scheme.parts)
    return bool(scheme.signature.field) or in_parts or (clock is not None and bool(clock.field))


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = parse_json(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise SigningError("this scheme needs a body that is one JSON object; give one")
    return document


def _fill(scheme: Scheme, document: dict[str, Any], timestamp: str, made_up: str) -> dict[str, Any]:
    clock = scheme.timestamp
    if clock is not None and clock.field:
        numeric = clock.unit in (Unit.SECONDS, Unit.MILLISECONDS) and not scheme.signature.field
        _put(document, clock.field, int(timestamp) if numeric else timestamp)
    for part in scheme.parts:
        if isinstance(part, JsonValue) and not (clock is not None and part.path == clock.field):
            _put(document, part.path, made_up, keep=True)
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
