"""Makes the tokens that a sender would: for `sign`, `send`, and tests. The counterpart of `token_verifier.py`."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.http1.head import make_head
from sidecar.secret import Secret
from sidecar.verify.claim_rules import ClaimPlace, ClaimRule, ClaimSet, JsonPlace, RuleValue
from sidecar.verify.document import find_item, parse_json
from sidecar.verify.jose import PublishedKey, sign_token
from sidecar.verify.keys import KeyFormError, read_signing_key
from sidecar.verify.places import Delivery
from sidecar.verify.scheme import Scheme, Unit
from sidecar.verify.sign import SIGNING_KEY_ID, ToSign, forge
from sidecar.verify.timestamp import format_timestamp
from sidecar.verify.token import encode_base64url
from sidecar.verify.token_claims import ABSENT, find_claim, resolve_value

#: Seconds for which a token that we sign is valid.
LIFETIME: Final = 300


def sign_with_token(
    scheme: Scheme, secret: Secret, what: ToSign, *, base: str = "", forged: bool = False
) -> tuple[str, bytes]:
    """The signature field's value with its prefix, and the body, which may hold it instead.

    `base` is the public URL without the request's target. With `forged` the signature is well-formed, but
    wrong. Raises `KeyFormError` for a secret that can't sign.
    """
    assert scheme.token is not None
    chosen = scheme.token.claims[0] if scheme.token.claims else ClaimSet()
    delivery, made_up = _delivery_to_sign(scheme, what), what.made_up
    document = _fill_body(scheme, chosen, delivery, made_up)
    if document is not None:
        delivery = Delivery(delivery.head, [_dump(document)], b"", delivery.url, scheme.form_field)
    payload = _claims(scheme, chosen, delivery, what.now, made_up, base.encode())
    if scheme.token.covers_json:
        _put(payload, scheme.token.covers_claim, _covered(scheme, delivery))
    algorithm = scheme.signature.algorithms[0]
    head = {"alg": algorithm, "typ": "JWT"}
    if not algorithm.startswith("HS"):
        head["kid"] = SIGNING_KEY_ID
    signed = b"%b.%b" % (encode_base64url(_dump(head)), encode_base64url(_dump(payload)))
    signature = _sign(scheme, secret, algorithm, signed, forged=forged)
    token = b"%b.%b" % (signed, encode_base64url(signature))
    field = scheme.signature
    if field.body:
        return "", token
    if field.field or field.each:
        document = document if isinstance(document, dict) else {}
        _put(document, field.field or field.each, token.decode() if field.field else [token.decode()])
        return "", _dump(document)
    return field.prefix + token.decode(), b"".join(delivery.body)


def _sign(scheme: Scheme, secret: Secret, algorithm: str, signed: bytes, *, forged: bool) -> bytes:
    signature = sign_token(algorithm, _signing_key(scheme, secret, algorithm), signed)
    return forge(signature, text=False) if forged else signature


def _signing_key(scheme: Scheme, secret: Secret, algorithm: str) -> Any:
    """Raises `KeyFormError`."""
    key = read_signing_key(scheme, secret)
    if not isinstance(key, bytes) and not PublishedKey(key.public_key()).fits(algorithm):
        raise KeyFormError(f"is not a private key for {algorithm}; give one of its kind and curve, in PEM")
    return key


def detached_head(scheme: Scheme, now: float) -> dict[str, Any]:
    """The head of a detached token that is signed at `now` (unix seconds)."""
    assert scheme.token is not None
    head: dict[str, Any] = {"alg": scheme.signature.algorithms[0]}
    if not head["alg"].startswith("HS"):
        head["kid"] = SIGNING_KEY_ID
    head |= dict(scheme.token.head) | ({"crit": ["b64"]} if "b64" in dict(scheme.token.head) else {})
    head |= {name: ",".join(listed) for name, listed in scheme.token.head_lists}
    clock = scheme.timestamp
    if clock is not None and clock.head:
        numeric = {Unit.SECONDS: int(now), Unit.MILLISECONDS: int(now * 1000)}
        head[clock.head] = numeric.get(clock.unit) or format_timestamp(clock.unit, now)
    return head


def sign_detached(
    scheme: Scheme, secret: Secret, head: Mapping[str, Any], message: Sequence[bytes], *, forged: bool
) -> str:
    """A detached token over a message in pieces; with `forged` a wrong signature of the same form. Raises `KeyFormError`."""
    first = encode_base64url(_dump(head))
    text = b"".join(message)
    signed = b"%b.%b" % (first, text if "b64" in head else encode_base64url(text))
    signature = _sign(scheme, secret, head["alg"], signed, forged=forged)
    return f"{first.decode()}..{encode_base64url(signature).decode()}"


def _fill_body(scheme: Scheme, chosen: ClaimSet, delivery: Delivery, made_up: str) -> dict[str, Any] | None:
    """The body's JSON object with the values that rules read; None if no rule reads any and the token isn't put there."""
    assert scheme.token is not None
    places = [value.path for value in scheme.token.values if isinstance(value, JsonPlace)]
    place = scheme.keys
    places += [value.path for _, value in (place.fits if place is not None else ()) if isinstance(value, JsonPlace)]
    field = scheme.signature
    if not (places or field.field or field.each or scheme.token.covers_json):
        return None
    try:
        document = parse_json(b"".join(delivery.body))
    except ValueError:
        document = {}
    document = document if isinstance(document, dict) else {}
    for path in places:
        if not isinstance(find_item(document, path), str | int):
            _put(document, path, made_up)
    if scheme.token.covers_json:
        listed, _, member = scheme.token.covers_json.partition("[].")
        document[listed] = [{member: _literal(chosen, scheme.token.covers_claim) or made_up}]
    return document


def _literal(chosen: ClaimSet, path: str) -> Any:
    """The value that a rule requires of a claim, if it is the same for every delivery."""
    for rule in chosen.rules:
        if rule.path == path and rule.any_of:
            return rule.any_of[0]
    return None


def _covered(scheme: Scheme, delivery: Delivery) -> Any:
    assert scheme.token is not None
    listed, _, member = scheme.token.covers_json.partition("[].")
    return delivery.document[listed][0][member]


def _claims(  # noqa: PLR0917 - each is of another kind
    scheme: Scheme, chosen: ClaimSet, delivery: Delivery, now: float, made_up: str, base: bytes
) -> dict[str, Any]:
    payload: dict[str, Any] = {"iat": int(now), "nbf": int(now), "exp": int(now) + LIFETIME}
    clock = scheme.timestamp
    if clock is not None and clock.claim:
        _put(payload, clock.claim, int(now * 1000) if clock.unit is Unit.MILLISECONDS else int(now))
    if scheme.delivery_claim:
        _put(payload, scheme.delivery_claim, made_up)
    for rule in (*chosen.when, *chosen.rules):
        if rule.there is False:
            payload.pop(rule.path, None)
        elif not (rule.there is True and find_claim(payload, rule.path) is not ABSENT):
            _put(payload, rule.path, _value(rule, payload, delivery, made_up, base))
    return payload


def _value(rule: ClaimRule, payload: dict[str, Any], delivery: Delivery, made_up: str, base: bytes) -> Any:
    def resolve(value: RuleValue) -> Any:
        return None if isinstance(value, ClaimPlace) else resolve_value(value, payload, delivery, base)

    if rule.holds:
        return [resolve(rule.holds[0])]
    if rule.any_of:
        return resolve(rule.any_of[0])
    if rule.pattern and not re.fullmatch(rule.pattern, made_up):
        return ""
    return made_up


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    """Sets `a.b`. Other values on the path are replaced."""
    steps = [path] if "/" in path or ":" in path else path.split(".")
    for step in steps[:-1]:
        if not isinstance(document.get(step), dict):
            document[step] = {}
        document = document[step]
    document[steps[-1]] = value


def _dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _delivery_to_sign(scheme: Scheme, what: ToSign) -> Delivery:
    """The source of the claims."""
    target = "/" + what.url.partition("://")[2].partition("/")[2] if what.url else "/"
    fields = [(name.encode(), value.encode()) for name, value in what.headers]
    head = make_head(what.method, target.encode(), fields, None)
    return Delivery(head, [what.body], b"", what.url.encode(), scheme.form_field)
