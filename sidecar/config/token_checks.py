"""Checks of the keys of a scheme with a token against each other."""

from typing import Any

from sidecar.config.fields.base import InvalidValueError
from sidecar.config.token_keys import ALGORITHMS, make_token_rules
from sidecar.verify.keys import KeyForm
from sidecar.verify.scheme import Scheme, SignatureField
from sidecar.verify.template import ListedInHead

#: Keys that are not fields of `Scheme`: other fields hold their values.
NOT_FIELDS = frozenset({"binds_body", "claims", "expiry", "skew", "covers", "head"})


def default_key(signature: SignatureField) -> KeyForm:
    chooses = signature.kind.is_jws or signature.kind.listed
    public = chooses and not signature.algorithms[0].lower().startswith(("hs", "hmac"))
    return KeyForm.PEM if public else signature.kind.key_forms[0]


def make_token(given: dict[str, Any]) -> dict[str, Any]:
    signature: SignatureField = given["signature"]
    if not signature.kind.is_jws:
        return {}
    try:
        return {"token": make_token_rules(given, signature.algorithms)}
    except InvalidValueError as error:
        raise InvalidValueError(error.below("claims")) from None


def check_token(scheme: Scheme, given: dict[str, Any]) -> None:
    """Checks which keys can be used with a token of the scheme's kind. Raises `InvalidValueError`."""
    kind, clock = scheme.signature.kind, scheme.timestamp
    if kind.claims and clock is not None and not clock.claim:
        raise InvalidValueError("is not part of the token; use `claim`", "timestamp")
    if not kind.claims:
        _check_without_claims(scheme, given)
    if not kind.detached:
        _check_not_detached(scheme, given)
    if kind.is_jws:
        _check_keys(scheme)
    elif scheme.keys is not None and scheme.keys.configured and not kind.listed:
        raise InvalidValueError(
            "can only be used with tokens, which name their key; use `key_id` of `signature`", "keys", "configured"
        )
    elif "head" in given:
        raise InvalidValueError("can only be used with `kind: jws` or `kind: jwt`; remove it", "head")


def _check_without_claims(scheme: Scheme, given: dict[str, Any]) -> None:
    listed = scheme.signature.kind.listed
    for key in ("claims", "covers") if listed else ("claims", "expiry", "skew", "covers"):
        if key in given:
            raise InvalidValueError("can only be used with `kind: jwt`; remove it", key)
    if scheme.timestamp is not None and scheme.timestamp.parameter and not listed:
        raise InvalidValueError("is a parameter, which only `kind: rfc9421` has; use `header`", "timestamp")
    if scheme.delivery_claim:
        raise InvalidValueError("is a claim, which only `kind: jwt` has; use `header`", "delivery_id")
    if scheme.timestamp is not None and scheme.timestamp.claim:
        raise InvalidValueError("is a claim, which only `kind: jwt` has; use `header`", "timestamp")


def _check_not_detached(scheme: Scheme, given: dict[str, Any]) -> None:
    if scheme.timestamp is not None and scheme.timestamp.head:
        raise InvalidValueError("is in the head, which only `kind: jws` has; use `header`", "timestamp")
    if any(isinstance(part, ListedInHead) for part in scheme.places):
        raise InvalidValueError("has {listed:MEMBER}, which only `kind: jws` has; remove it", "signed")
    if "b64" in given.get("head", {}):
        raise InvalidValueError("can only be used with `kind: jws`; remove it", "head", "b64")


def _check_keys(scheme: Scheme) -> None:
    shared = scheme.signature.algorithms[0].startswith("HS")
    if shared and (scheme.keys is not None or _has_choice_of_keys(scheme)):
        raise InvalidValueError("can't be used with HS algorithms, whose key is a secret; remove it", "keys")
    if shared is (scheme.key is KeyForm.PEM):
        why = "HS algorithms have no public key" if shared else "only HS algorithms have a shared secret"
        raise InvalidValueError(f"{scheme.key} can't be used, because {why}; remove it", "key")


def _has_choice_of_keys(scheme: Scheme) -> bool:
    return scheme.token is not None and any(each.keys is not None for each in scheme.token.claims)


def check_token_binding(scheme: Scheme, *, claims_to_bind: bool) -> None:
    if scheme.signed != "{body}":
        raise InvalidValueError("can't be used with `kind: jwt`, whose claims are signed; remove it", "signed")
    if not scheme.binds_body and claims_to_bind:
        raise InvalidValueError(
            "must hold a claim with the hash of the body, or the body would not be signed: {sha256: '{body_sha256_hex}'}; "
            "or add `binds_body: false` if the provider really signs no part of the body",
            "claims",
        )
    if scheme.binds_body and not claims_to_bind:
        raise InvalidValueError("is false, but the token binds the body; remove it", "binds_body")


def check_token_field(signature: SignatureField) -> None:
    """Checks which keys of `signature:` go with a token. Raises `InvalidValueError`."""
    if signature.kind.is_jws:
        for key in ("algorithm", "encoding", "also", "list", "repeated", "prehash", "key_id"):
            if getattr(signature, key) != getattr(SignatureField(), key):
                raise InvalidValueError(f"can't be used with `kind: {signature.kind}`; remove it", key)
        place = next((key for key in ("field", "form", "body", "each") if getattr(signature, key)), "")
        if signature.kind.detached and place:
            raise InvalidValueError(f"can't be used with `kind: {signature.kind}`; use `header`", place)
        if not signature.algorithms:
            raise InvalidValueError("needs `algorithms`, the signature algorithms to accept; for example [RS256]")
    else:
        for key in ("body", "each", "algorithms") if not signature.kind.listed else ("body", "each"):
            if getattr(signature, key):
                raise InvalidValueError("can only be used with `kind: jwt`; remove it", key)
    _check_algorithms(signature)


def _check_algorithms(signature: SignatureField) -> None:
    """Checks that all algorithms belong to the kind, and that their keys are of one sort."""
    known = signature.kind.algorithms or ALGORITHMS
    for name in signature.algorithms:
        if name not in known:
            raise InvalidValueError(
                f"{name} can't be used with `kind: {signature.kind}`; use {', '.join(known)}", "algorithms"
            )
    shared = [name.lower().startswith(("hs", "hmac")) for name in signature.algorithms]
    if any(shared) and not all(shared):
        raise InvalidValueError(
            "mix HMAC, whose key is a secret, with algorithms of public keys: a public key could be used as a secret; "
            "use one kind",
            "algorithms",
        )
