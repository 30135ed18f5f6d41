"""What several keys of a scheme with a token say together."""

from typing import Any

from sidecar.config.fields.base import InvalidValueError
from sidecar.config.token_keys import make_token_rules
from sidecar.verify.keys import KeyForm
from sidecar.verify.scheme import Scheme, SignatureField

#: Keys that are not fields of `Scheme`: what they say becomes another one's.
NOT_FIELDS = frozenset({"binds_body", "claims", "expiry", "skew", "covers"})


def default_key(signature: SignatureField) -> KeyForm:
    public = signature.kind.claims and not signature.algorithms[0].startswith("HS")
    return KeyForm.PEM if public else signature.kind.key_forms[0]


def make_token(given: dict[str, Any]) -> dict[str, Any]:
    signature: SignatureField = given["signature"]
    if not signature.kind.claims:
        return {}
    try:
        return {"token": make_token_rules(given, signature.algorithms)}
    except InvalidValueError as error:
        raise InvalidValueError(error.below("claims")) from None


def check_token(scheme: Scheme, given: dict[str, Any]) -> None:
    signature = scheme.signature
    if not signature.kind.claims:
        for key in ("claims", "expiry", "skew", "covers"):
            if key in given:
                raise InvalidValueError("can only be used with `kind: jwt`; remove it", key)
        if scheme.delivery_claim:
            raise InvalidValueError("is a claim, which only `kind: jwt` has; use `header`", "delivery_id")
        if scheme.timestamp is not None and scheme.timestamp.claim:
            raise InvalidValueError("is a claim, which only `kind: jwt` has; use `header`", "timestamp")
        return
    if scheme.timestamp is not None and not scheme.timestamp.claim:
        raise InvalidValueError("is not part of the token; use `claim`", "timestamp")
    shared = [name.startswith("HS") for name in signature.algorithms]
    if any(shared) and not all(shared):
        raise InvalidValueError(
            "mix HS, whose key is a secret, with algorithms of public keys: a public key could be taken for a secret; "
            "use one kind",
            "signature",
            "algorithms",
        )
    if any(shared) and (scheme.keys is not None or _has_choice_of_keys(scheme)):
        raise InvalidValueError("can't be used with HS algorithms, whose key is a secret; remove it", "keys")


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
    """Keys of `signature:` that go with a token, and those that don't. Raises `InvalidValueError`."""
    if signature.kind.claims:
        for key in ("algorithm", "encoding", "also", "list", "repeated"):
            if getattr(signature, key) != getattr(SignatureField(), key):
                raise InvalidValueError("can't be used with `kind: jwt`; remove it", key)
        if not signature.algorithms:
            raise InvalidValueError("needs `algorithms`, the closed list of what a token may be signed with: [RS256]")
    else:
        for key in ("body", "each", "algorithms"):
            if getattr(signature, key):
                raise InvalidValueError("can only be used with `kind: jwt`; remove it", key)
