"""Checks of a scheme's keys against each other: those that can't be combined, and those that need another."""

import re
from typing import Any

from sidecar.config.fields.base import InvalidValueError
from sidecar.config.listed_keys import check_listed, check_listed_binding
from sidecar.config.token_checks import check_token, check_token_binding
from sidecar.verify.keys import KeyForm
from sidecar.verify.scheme import KEY_ID, Scheme
from sidecar.verify.template import (
    BODY,
    BODY_PIECES,
    FORM_PIECES,
    HASH_PIECES,
    TIMESTAMP,
    FormJoined,
    FormValue,
    HeaderValue,
    JsonValue,
    ListedHeaders,
    ListedInHead,
    Part,
    Piece,
    describe_template,
)


def check_scheme(scheme: Scheme, given: dict[str, Any]) -> None:
    """Raises `InvalidValueError` for keys that contradict each other. `given` are the keys that were written."""
    for name, pattern in scheme.match_json:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InvalidValueError(
                f"is not a valid regular expression; correct it: {error}", "match_json", name
            ) from None
        if JsonValue(name) not in scheme.places:
            raise InvalidValueError("is not in `signed`, so it could be anything; remove it", "match_json", name)
    check_token(scheme, given)
    if scheme.signature.kind.claims:
        check_token_binding(scheme, claims_to_bind=given.get("binds_body", True))
        _check_key(scheme)
        return
    if scheme.listed is not None:
        check_listed(scheme, given)
        check_listed_binding(scheme, claims_to_bind=given.get("binds_body", True))
        _check_key(scheme)
        return
    _check_items(scheme)
    _check_binding(scheme, given)
    for message in scheme.messages:
        _check_body_hash(scheme, message.parts)
        _check_clock(scheme, message.parts)
        _check_own_signature(scheme, message.parts)
        _check_secret(scheme, message.parts)
    _check_key(scheme)
    for place, _ in scheme.plain:
        if place not in scheme.places:
            raise InvalidValueError(
                f"has {describe_template((place,), {})}, which is not in `signed`; remove it", "plain"
            )


def _check_items(scheme: Scheme) -> None:
    if not scheme.items:
        return
    if not scheme.signature.field:
        raise InvalidValueError(
            "needs each item's signature; add `field` to `signature`, its place in an item", "items"
        )
    if scheme.timestamp is not None and scheme.timestamp.in_body:
        raise InvalidValueError("can't be in the body with `items`; remove it", "timestamp")
    if scheme.alternatives:
        raise InvalidValueError("can't have alternatives with `items`; use [[...]] for what may be absent", "signed")
    of_all = {part for part in scheme.places if part in BODY_PIECES or isinstance(part, FormValue | FormJoined)}
    if of_all or scheme.body_hash is not None:
        raise InvalidValueError(
            "can't contain the body or its form with `items`; use {json:PATH}, a place in an item", "signed"
        )


def _check_binding(scheme: Scheme, given: dict[str, Any]) -> None:
    kind, claims_to_bind = scheme.signature.kind, given.get("binds_body", True)
    if kind.bearer:
        if scheme.signed != "{body}":
            raise InvalidValueError(f"can't be used with `kind: {kind}`, which signs nothing; remove it", "signed")
        return
    if scheme.items and claims_to_bind:
        raise InvalidValueError("signs parts of each item, not the body; add `binds_body: false`", "items")
    if not scheme.binds_body and claims_to_bind:
        raise InvalidValueError(
            "must contain {body}, or the body would not be signed; use for example '{timestamp}.{body}', "
            "or `binds_body: false` if the provider really signs no part of the body",
            "signed",
        )
    if scheme.binds_body and not claims_to_bind:
        raise InvalidValueError("is false, but the body is part of the signed message; remove it", "binds_body")
    for key in ("any_port", "url_unescaped"):
        if getattr(scheme, key) and Piece.URL not in scheme.places:
            raise InvalidValueError("can't be used without {url} in `signed`; remove it", key)


def _check_body_hash(scheme: Scheme, parts: tuple[Part, ...]) -> None:
    rule = scheme.body_hash
    if rule is None:
        return
    if rule.query and Piece.URL not in parts:
        raise InvalidValueError("is part of the URL, which is not signed; add {url} to `signed`", "body_hash")
    listed = any(isinstance(part, ListedHeaders) for part in parts)
    if rule.header and not listed and HeaderValue(rule.header.lower().encode()) not in parts:
        raise InvalidValueError(
            f"is in a header that is not signed; add {{header:{rule.header}}} to `signed`", "body_hash"
        )


def _check_clock(scheme: Scheme, parts: tuple[Part, ...]) -> None:
    clock = scheme.timestamp
    if TIMESTAMP in parts and (clock is None or clock.in_body):
        raise InvalidValueError("contains {timestamp}; add a `timestamp` section with its header or tag", "signed")
    if clock is None or clock.head:
        return
    if clock.field:
        bound = _binds_document(scheme, parts) or JsonValue(clock.field) in parts
        place = f"{{body}} or {{json:{clock.field}}}"
    elif clock.form:
        bound = _binds_field(scheme, parts, clock.form)
        place = f"{{body}} or {{form:{clock.form}}}"
    else:
        listed = bool(clock.header) and any(isinstance(part, ListedHeaders) for part in parts)
        bound = TIMESTAMP in parts or listed or clock.header.lower() in _listed_in_head(scheme, parts)
        place = "{timestamp}"
    if not bound or scheme.signature.kind.bearer:
        raise InvalidValueError(
            f"is not signed, so anyone could change it; add {place} to `signed`, or remove the section", "timestamp"
        )
    if (clock.tag or clock.first) and (scheme.signature.list is None or scheme.signature.in_body):
        raise InvalidValueError("is an item of a list; add a `list` section to `signature`", "timestamp")


def _listed_in_head(scheme: Scheme, parts: tuple[Part, ...]) -> set[str]:
    """The headers, in lower case, that are signed because the head of the signature must list them."""
    members = {part.member for part in parts if isinstance(part, ListedInHead)}
    lists = scheme.token.head_lists if scheme.token is not None else ()
    return {name.lower() for member, names in lists if member in members for name in names}


def _binds_document(scheme: Scheme, parts: tuple[Part, ...]) -> bool:
    return BODY in parts or scheme.body_hash is not None or not HASH_PIECES.isdisjoint(parts)


def _binds_field(scheme: Scheme, parts: tuple[Part, ...], name: str) -> bool:
    joined = any(isinstance(part, FormJoined) and name not in part.without for part in parts)
    whole = _binds_document(scheme, parts) or not FORM_PIECES.isdisjoint(parts)
    return whole or joined or FormValue(name) in parts


def _check_own_signature(scheme: Scheme, parts: tuple[Part, ...]) -> None:
    form, kind = scheme.signature.form, scheme.signature.kind
    if form and not kind.bearer and _binds_field(scheme, parts, form):
        raise InvalidValueError(
            f"contains the form field of the signature itself; use {{form_joined:{form}}} or {{form:NAME}}", "signed"
        )


def _check_secret(scheme: Scheme, parts: tuple[Part, ...]) -> None:
    kind = scheme.signature.kind
    if Piece.SECRET in parts and not kind.message_holds_secret:
        raise InvalidValueError(f"can't contain {{secret}} with `kind: {kind}`; remove it", "signed")
    if Piece.SECRET not in parts and kind.message_holds_secret:
        raise InvalidValueError(
            "must contain {secret}, or anyone could make the hash; use for example '{secret}{body}'", "signed"
        )


def _check_key(scheme: Scheme) -> None:
    kind, listed = scheme.signature.kind, scheme.signature.list
    if scheme.key not in kind.key_forms:
        *forms, last = kind.key_forms
        use = f"{', '.join(forms)} or {last}" if forms else last
        raise InvalidValueError(f"{scheme.key} can't be used with `kind: {kind}`; use {use}", "key")
    forms_with_id = (KeyForm.AFTER_COLON, KeyForm.SHA1_AFTER_COLON)
    if listed is not None and KEY_ID in listed.tag and scheme.key not in forms_with_id:
        raise InvalidValueError(f"must be {' or '.join(forms_with_id)}, because a tag has {KEY_ID}", "key")
