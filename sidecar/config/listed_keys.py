"""The keys of a scheme whose deliveries list their signed parts: `components:` and related keys, as rules."""

from dataclasses import replace
from enum import StrEnum
from typing import Any

from sidecar.config.fields.base import Grammar, InvalidValueError, JSONSchema, ValueType, quote, read_each
from sidecar.config.fields.mapping import read_present
from sidecar.verify.components import (
    COMPONENT,
    DRAFT_ALGORITHMS,
    HTTP_ALGORITHMS,
    REQUEST_TARGET,
    Component,
    ComponentError,
    SignatureRules,
    parse_component,
)
from sidecar.verify.scheme import Scheme, SignatureField, TimestampField

#: Every algorithm of the kinds `rfc9421` and `cavage`.
LISTED_ALGORITHMS = tuple(dict.fromkeys([*HTTP_ALGORITHMS, *DRAFT_ALGORITHMS]))
#: Keys of `signature:` that only these kinds have.
_OWN = ("components", "label", "tag")
_FOREIGN = (
    "algorithm", "encoding", "also", "list", "repeated", "prehash", "key_id", "body", "each", "algorithm_by", "wrapped",
    "field", "form", "query", "path",
)  # fmt: skip


class SignatureTime(StrEnum):
    """The time of a signature that lists what it covers."""

    CREATED = "created"


class OneComponent(ValueType[Component]):
    """A part of a request, as in `@method` or `content-digest`."""

    title = "component"

    def read(self, value: Any) -> Component:
        if not isinstance(value, str):
            raise InvalidValueError("must be text")
        try:
            return parse_component(value)
        except ComponentError as error:
            raise InvalidValueError(f"{quote(value)} {error}") from None

    def write(self, value: Component) -> str:
        return f"{value}{'?' if value.if_present else ''}"

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | Grammar(COMPONENT).json_schema()


class Components(ValueType[tuple[Component, ...]]):
    """Components, each once. An empty list is valid, but must be written: such a signature may cover nothing."""

    title = "list of components"

    def read(self, value: Any) -> tuple[Component, ...]:
        if isinstance(value, str):
            return (OneComponent().read(value),)
        if not isinstance(value, list):
            raise InvalidValueError("must be a list: ['@method', '@authority', '@path', content-digest]")
        made = tuple(read_each(enumerate(value), lambda _, each: read_present(OneComponent(), each)))
        if len({each.identity for each in made}) < len(made):
            raise InvalidValueError("has a component twice; remove one of them")
        return made

    def json_schema(self) -> JSONSchema:
        one = OneComponent().json_schema()
        return {"title": self.title, "anyOf": [one, {"type": "array", "items": one}]}


def check_listed_field(signature: SignatureField) -> None:
    """Checks which keys of `signature:` go with a listed signature. Raises `InvalidValueError`."""
    if not signature.kind.listed:
        for key in _OWN:
            if getattr(signature, key):
                raise InvalidValueError("can only be used with `kind: rfc9421` or `kind: cavage`; remove it", key)
        return
    plain = SignatureField()
    for key in _FOREIGN:
        if getattr(signature, key) != getattr(plain, key):
            raise InvalidValueError(f"can't be used with `kind: {signature.kind}`; remove it", key)
    if signature.kind.name == "cavage":
        for key in ("label", "tag"):
            if getattr(signature, key):
                raise InvalidValueError("can only be used with `kind: rfc9421`; remove it", key)
    elif signature.prefix:
        raise InvalidValueError("can't be used with `kind: rfc9421`; remove it", "prefix")
    if not signature.algorithms:
        raise InvalidValueError("needs `algorithms`, the closed list of what a delivery may be signed with: [ed25519]")


def make_listed(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Scheme` for a scheme of these kinds; none for another one."""
    signature: SignatureField = given["signature"]
    if not signature.kind.listed:
        return {}
    same = {"skew": given["skew"]} if "skew" in given else {}
    rules = SignatureRules(
        required=signature.components,
        algorithms=signature.algorithms,
        label=signature.label,
        tag=signature.tag,
        expiry=given.get("expiry") == "required",
        **same,
    )
    made: dict[str, Any] = {"listed": rules}
    clock: TimestampField | None = given.get("timestamp")
    if clock is not None and clock.parameter and clock.future is None:
        made["timestamp"] = replace(clock, future=rules.skew)
    return made


def check_listed(scheme: Scheme, given: dict[str, Any]) -> None:
    """Raises `InvalidValueError` for keys that contradict each other. `given` are the keys that were written."""
    rules, kind, clock = scheme.listed, scheme.signature.kind, scheme.timestamp
    assert rules is not None
    if scheme.signed != "{body}" or "signed" in given:
        raise InvalidValueError(
            f"can't be used with `kind: {kind}`, whose deliveries list what is signed; remove it", "signed"
        )
    for key in ("claims", "covers", "items", "plain", "match_json", "require_form", "require_json", "decompressed"):
        if key in given:
            raise InvalidValueError(f"can't be used with `kind: {kind}`; remove it", key)
    _check_components(scheme, rules)
    if clock is not None and not (clock.parameter or clock.header):
        raise InvalidValueError("is not part of the signature; use `parameter: created`, or `header`", "timestamp")
    if clock is not None and clock.parameter and kind.name == "cavage":
        raise InvalidValueError("can only be used with `kind: rfc9421`; use `header`", "timestamp", "parameter")
    if clock is not None and clock.header and clock.header.lower() not in rules.fields:
        raise InvalidValueError(
            f"is in a header that need not be signed; add {clock.header.lower()} to `components`", "timestamp"
        )
    if scheme.body_hash is not None and kind.name == "rfc9421":
        raise InvalidValueError("can't be used with `kind: rfc9421`; add content-digest to `components`", "body_hash")
    if scheme.body_hash is not None and scheme.body_hash.header.lower() not in rules.fields:
        raise InvalidValueError(
            "is in a place that need not be signed; use a header that is in `components`", "body_hash"
        )
    if rules.is_shared and scheme.keys is not None and not scheme.keys.configured:
        raise InvalidValueError("can't be used with hmac-sha256, whose key is a secret; remove it", "keys")
    if scheme.keys is not None and not (
        scheme.keys.configured or scheme.keys.jwks or scheme.keys.x509 or scheme.keys.discovery
    ):
        raise InvalidValueError(f"can't be used with `kind: {kind}`; use jwks, x509, discovery or configured", "keys")


def _check_components(scheme: Scheme, rules: SignatureRules) -> None:
    draft = scheme.signature.kind.name == "cavage"
    for index, each in enumerate(rules.required):
        if draft and (each.parameters or each.name.startswith("@")):
            raise InvalidValueError(
                f"{quote(str(each))} is not of the draft; use {REQUEST_TARGET} or the name of a field",
                "signature", "components", index,
            )  # fmt: skip
        if not draft and each.name == REQUEST_TARGET:
            raise InvalidValueError(
                "is of the draft; use @method and @request-target", "signature", "components", index
            )


def check_listed_binding(scheme: Scheme, *, claims_to_bind: bool) -> None:
    """Checks that the required components bind the body, as the scheme says. Raises `InvalidValueError`."""
    if not scheme.binds_body and claims_to_bind:
        hashed = "content-digest" if scheme.signature.kind.name == "rfc9421" else "digest, with a section `body_hash`"
        raise InvalidValueError(
            f"must hold {hashed}, or the body would not be signed; "
            "or add `binds_body: false` if the provider really signs no part of the body",
            "signature",
            "components",
        )
    if scheme.binds_body and not claims_to_bind:
        raise InvalidValueError("is false, but the signature covers the body's hash; remove it", "binds_body")
