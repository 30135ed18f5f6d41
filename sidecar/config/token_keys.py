"""The keys of a scheme for tokens: `claims:` and what else they need, and how they become rules."""

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.config.fields.base import InvalidValueError, JSONSchema, ValueType, quote, read_each
from sidecar.config.fields.mapping import Items, Key, OneOrMore, Section, read_present
from sidecar.config.fields.number import Duration
from sidecar.config.fields.text import HeaderName, JsonPath, NonEmpty, OnlyTrue, RegularExpression
from sidecar.config.key_source_keys import KEYS, Names, read_value
from sidecar.config.listed_keys import LISTED_ALGORITHMS
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.claim_rules import (
    ClaimRule,
    ClaimSet,
    Literal,
    TokenRules,
)
from sidecar.verify.scheme import AlgorithmChoice, Wrapping

#: Every algorithm of a JWS that can be verified (RFC 7518, 3.1; RFC 8037; RFC 9864).
ALGORITHMS = (
    *(f"{kind}{bits}" for kind in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)),
    "EdDSA",
    "Ed25519",
)


class SignatureAlgorithm(ValueType[str]):
    """The name of an algorithm of a JWS, or of HTTP Message Signatures."""

    title = "one of"

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or value not in (*ALGORITHMS, *LISTED_ALGORITHMS):
            raise InvalidValueError(
                f"{quote(value)} is not valid; use one of {', '.join(ALGORITHMS)} (jwt), {', '.join(LISTED_ALGORITHMS)}"
            )
        return value

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "string", "enum": [*ALGORITHMS, *LISTED_ALGORITHMS]}


class Algorithms(OneOrMore[str]):
    """One algorithm, or a list of them."""

    title = "algorithms"

    def __init__(self) -> None:
        super().__init__(SignatureAlgorithm())

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | super().json_schema()


class Scalar(ValueType[Literal]):
    """Text, a number, true or false."""

    title = "text, number, true or false"

    def read(self, value: Any) -> Literal:
        if isinstance(value, str | bool | int) or (isinstance(value, float) and abs(value) < 1e300):
            return value
        raise InvalidValueError("must be text, a number, true or false")

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": ["string", "number", "boolean"]}


#: A condition on a claim, for more than a fixed value.
CONDITION: Section[dict[str, Any]] = Section(
    None,
    {
        "there": Key(OnlyTrue(), "true: the claim is present, whatever it is", [True]),
        "absent": Key(OnlyTrue(), "true: the claim is absent", [True]),
        "pattern": Key(RegularExpression(), "a regular expression for the whole text", ["acme-.*"]),
        "holds": Key(OneOrMore(Scalar()), "the claim is a list that holds one of these", ["admin"]),
        "is": Key(OneOrMore(Scalar()), "one of these, if there is a body", ["{body_sha256_hex}"]),
    },
    one_of=("there", "absent", "pattern", "holds", "is"),
    example="{there: true}",
)


class Claim(ValueType[Any]):
    """A value, a list of values of which one must be equal, or a condition."""

    title = "value, list or condition"

    def read(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return CONDITION.read(value)
        return OneOrMore(Scalar()).read(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "anyOf": [CONDITION.json_schema(), *OneOrMore(Scalar()).json_schema()["anyOf"]]}


class Claims(ValueType[Any]):
    """Claims and the required value of each; or a list of such mappings, of which the first whose `when` holds counts."""

    title = "claims"

    def read(self, value: Any) -> tuple[dict[str, Any], ...]:
        if isinstance(value, list):
            if len(value) < 2:
                raise InvalidValueError("must be a mapping, or a list of at least two to choose from by `when`")
            return tuple(read_each(enumerate(value), lambda _, each: self._read_set(each, self._read_one)))
        return (self._read_set(value, lambda _, each: read_present(Claim(), each)),)

    def _read_set(self, value: Any, read: Callable[[str, Any], Any]) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not value:
            raise InvalidValueError("must be a mapping of claims to values; for example {iss: 'https://acme.example'}")
        return dict(zip(value, read_each(value.items(), read), strict=True))

    def _read_one(self, name: str, value: Any) -> Any:
        if name == "keys":
            return KEYS.read(value)
        if name != "when":
            return read_present(Claim(), value)
        if not isinstance(value, Mapping) or not value:
            raise InvalidValueError("must be a mapping of claims to values; for example {iss: 'https://acme.example'}")
        return dict(zip(value, read_each(value.items(), lambda _, each: read_present(Claim(), each)), strict=True))

    def json_schema(self) -> JSONSchema:
        one: JSONSchema = {"type": "object", "minProperties": 1, "additionalProperties": Claim().json_schema()}
        choice = one | {
            "patternProperties": {
                "^when$": one | {"description": "the claims by which this choice is made"},
                "^keys$": KEYS.json_schema() | {"description": "where the keys of this choice are published"},
            },
        }
        return {"title": self.title, "anyOf": [one, {"type": "array", "minItems": 2, "items": choice}]}


#: A condition on a member of a head, for more than a fixed value.
LISTING: Section[tuple[str, ...]] = Section(
    None,
    {
        "lists": Key(
            Items(HeaderName()),
            "names that the text must list, separated by commas",
            [["X-Acme-Timestamp"]],
            required=True,
        )
    },
    make=lambda given: given["lists"],
)


class HeadMembers(ValueType[Mapping[str, Any]]):
    """Members of a token's head, with the value of each, or with names that it must list."""

    title = "members and values"

    def read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not value:
            raise InvalidValueError("must be a mapping of members to values; for example {tl_version: '2'}")
        return dict(zip(value, read_each(value.items(), self._read_one), strict=True))

    def _read_one(self, name: str, value: Any) -> Any:
        if name in ("alg", "crit"):
            raise InvalidValueError("is checked by the kind of signature; remove it")
        if name == "b64" and value is not False:
            raise InvalidValueError("can only be false; remove it, if the message is signed in base64url")
        return LISTING.read(value) if isinstance(value, Mapping) else read_present(Scalar(), value)

    def json_schema(self) -> JSONSchema:
        member = {"anyOf": [Scalar().json_schema(), LISTING.json_schema()]}
        names = {"not": {"enum": ["alg", "crit"]}}
        return {
            "title": self.title,
            "type": "object",
            "minProperties": 1,
            "propertyNames": names,
            "patternProperties": {"^b64$": {"const": False, "description": "the message is signed as it is"}},
            "additionalProperties": member,
        }


def make_rules(given: Mapping[str, Any]) -> tuple[ClaimRule, ...]:
    """Rules for claims. Raises `InvalidValueError`."""
    return tuple(read_each(given.items(), _make_rule))


def _make_rule(name: str, value: Any) -> ClaimRule:
    if not isinstance(value, dict):
        return ClaimRule(path=name, any_of=tuple(map(read_value, value)))
    if "there" in value or "absent" in value:
        return ClaimRule(path=name, there="there" in value)
    if "pattern" in value:
        return ClaimRule(path=name, pattern=value["pattern"])
    if "holds" in value:
        return ClaimRule(path=name, holds=tuple(map(read_value, value["holds"])))
    return ClaimRule(path=name, any_of=tuple(map(read_value, value["is"])), with_body=True)


def _make_set(given: dict[str, Any], *, is_choice: bool) -> ClaimSet:
    if not is_choice:
        return ClaimSet(rules=make_rules(given))
    rules = {name: value for name, value in given.items() if name not in ("when", "keys")}
    return ClaimSet(when=make_rules(given.get("when", {})), rules=make_rules(rules), keys=given.get("keys"))


def make_token_rules(given: Mapping[str, Any], algorithms: tuple[str, ...]) -> TokenRules:
    """The rules of a scheme with a token. Raises `InvalidValueError`."""
    claims: tuple[dict[str, Any], ...] = given.get("claims", ())
    sets = tuple(_make_set(each, is_choice=len(claims) > 1) for each in claims)
    same = {"skew": given["skew"]} if "skew" in given else {}
    covers = given.get("covers", {})
    head = given.get("head", {})
    return TokenRules(
        algorithms=algorithms,
        claims=sets,
        expiry=given.get("expiry") == "required",
        covers_json=covers.get("json", ""),
        covers_claim=covers.get("claim", ""),
        head=tuple((name, value) for name, value in head.items() if not isinstance(value, tuple)),
        head_lists=tuple((name, value) for name, value in head.items() if isinstance(value, tuple)),
        **same,
    )


class Expiry(ValueType[str]):
    """The word `required`."""

    title = "required"

    def read(self, value: Any) -> str:
        if value != "required":
            raise InvalidValueError(f"{quote(value)} is not valid; use required, or remove the key")
        return "required"

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "const": "required"}


class Skew(ValueType[float]):
    """A duration; `none` allows no skew at all."""

    title = "duration or none"

    def read(self, value: Any) -> float:
        return 0.0 if value == "none" else Duration().read(value)

    def write(self, value: float) -> Any:
        return "none" if not value else Duration().write(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "anyOf": [{"const": "none"}, Duration().json_schema()]}


def _make_choice(given: dict[str, Any]) -> AlgorithmChoice:
    for name, word in given["values"].items():
        if word not in list(Algorithm):
            raise InvalidValueError(f"{quote(word)} is not valid; use one of {', '.join(Algorithm)}", "values", name)
    return AlgorithmChoice(given["json"], tuple((name, Algorithm(word)) for name, word in given["values"].items()))


ALGORITHM_BY: Section[AlgorithmChoice] = Section(
    None,
    {
        "json": Key(JsonPath(), "the place in the body's JSON", ["SignatureVersion"], required=True),
        "values": Key(Names(), "the hash function for each value", [{"2": "sha256", "1": "sha1"}], required=True),
    },
    make=_make_choice,
)


WRAPPED: Section[Wrapping] = Section(
    None,
    {
        "signature": Key(NonEmpty(), "the member with the signature", ["signature"], required=True),
        "id": Key(NonEmpty(), "the member with the key id", ["kid"], required=True),
        "members": Key(Names(), "members that must have this value", [{"alg": "ecdsa"}]),
    },
    make=lambda given: Wrapping(given["signature"], given["id"], tuple(given.get("members", {}).items())),
)

COVERS: Section[dict[str, Any]] = Section(
    None,
    {
        "json": Key(JsonPath(), "the place in the body's JSON", ["value[].tenantId"], required=True),
        "claim": Key(NonEmpty(), "the claim of one of the tokens that each value must equal", ["tid"], required=True),
    },
)

DELIVERY_ID: Section[dict[str, str]] = Section(
    None,
    {
        "header": Key(
            HeaderName(), "the header with the provider's id of the delivery, which is logged", ["X-Acme-Delivery"]
        ),
        "claim": Key(NonEmpty(), "instead of header: the claim of the token with the id", ["jti"]),
    },
    one_of=("header", "claim"),
    example="{header: X-Acme-Delivery}",
)
