"""The keys of a scheme for tokens and published keys: `claims:`, `keys:`, `settings:`, and how they become rules."""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from sidecar.config.fields.address import URL_PATTERN
from sidecar.config.fields.base import InvalidValueError, JSONSchema, NamedValues, ValueType, quote, read_each
from sidecar.config.fields.mapping import Items, Key, OneOrMore, Section, read_present
from sidecar.config.fields.number import Count, Duration
from sidecar.config.fields.text import Choice, HeaderName, JsonPath, NonEmpty, OnlyTrue, RegularExpression
from sidecar.config.listed_keys import LISTED_ALGORITHMS
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.claim_rules import (
    CertificatePlace,
    ClaimPlace,
    ClaimRule,
    ClaimSet,
    ComputedPlace,
    JsonPlace,
    KeyPlace,
    Literal,
    RuleValue,
    TokenRules,
)
from sidecar.verify.scheme import AlgorithmChoice, Wrapping
from sidecar.verify.template import JSON_PATH

#: Every algorithm of a JWS that can be verified (RFC 7518, 3.1; RFC 8037; RFC 9864).
ALGORITHMS = (
    *(f"{kind}{bits}" for kind in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)),
    "EdDSA",
    "Ed25519",
)
#: A URL of keys: https, a host in lower case that is written out, no user, port, query or fragment. {id} only in its path.
_KEY_URL = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9._~%@{}/-]*)?")
_PLACE = re.compile(r"\{([^{}]*)\}")


class KeyForm(StrEnum):
    """How one key is written."""

    JWK = "jwk"
    PEM = "pem"


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


class Names(NamedValues[str]):
    """Names, with a text for each."""

    title = "names and texts"
    expected = "names to texts; for example {type: order}"

    def read_one(self, name: str, value: Any) -> str:
        return read_present(NonEmpty(), value)

    def json_schema(self) -> JSONSchema:
        return super().json_schema() | {"additionalProperties": NonEmpty().json_schema()}


#: What a member of a head must be, where that is more than a value.
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


def read_value(value: Literal) -> RuleValue:
    """A literal, or the place that it names. Raises `InvalidValueError`."""
    if not isinstance(value, str) or not ("{" in value or "}" in value):
        return value
    place = _PLACE.fullmatch(value)
    name = place[1] if place is not None else ""
    if name in list(ComputedPlace):
        return ComputedPlace(name)
    kind, _, path = name.partition(":")
    if kind in ("json", "claim") and JSON_PATH.fullmatch(path) and "[]" not in path:
        return JsonPlace(path) if kind == "json" else ClaimPlace(path)
    known = ", ".join(f"{{{each}}}" for each in ComputedPlace)
    raise InvalidValueError(
        f"{quote(value)} is not a place; the whole text can be one of {known}, {{json:PATH}} and {{claim:NAME}}"
    )


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


# -- keys: --


def _check_key_url(url: str, key: str, *, has_id: bool = False) -> None:
    if not _KEY_URL.fullmatch(url.replace("{id}", "id") if has_id else url) or "{" in url.replace("{id}", ""):
        raise InvalidValueError(
            f"{quote(url)} is not a plain https URL; write its host out, in lower case, without port, query or fragment",
            key,
        )


def _check_certificates(place: CertificatePlace) -> None:
    from sidecar.verify.certificates import read_certificates  # noqa: PLC0415 - few schemes have some

    for key in ("roots", "intermediates"):
        text = getattr(place, key)
        try:
            if text:
                read_certificates(text.encode())
        except ValueError:
            raise InvalidValueError(
                "holds no certificate in PEM; it begins with -----BEGIN CERTIFICATE-----", key
            ) from None


def _make_certificate(given: dict[str, Any]) -> CertificatePlace:
    place = _PLACE.fullmatch(given["of"]) if "of" in given else None
    kind, _, name = (place[1] if place is not None else "").partition(":")
    if kind not in ("header", "json"):
        raise InvalidValueError("must be {header:NAME} or {json:PATH}, which names the certificate's URL", "of")
    pattern = given["url"]
    if not URL_PATTERN.fullmatch(pattern):
        raise InvalidValueError(
            "must begin with https:// and a literal host; for example https://api\\.acme\\.example/", "url"
        )
    return CertificatePlace(
        header=name if kind == "header" else "",
        json=name if kind == "json" else "",
        url=pattern,
        names=given.get("names", ()),
        roots=given.get("roots", ""),
        intermediates=given.get("intermediates", ""),
    )


def _make_keys(given: dict[str, Any]) -> KeyPlace:
    for key in ("jwks", "x509", "discovery"):
        if key in given:
            _check_key_url(given[key], key)
    if "each" in given:
        _check_key_url(given["each"], "each", has_id=True)
        if "id" not in given:
            raise InvalidValueError("needs `id`, a pattern for the whole key id, which a sender chooses", "each")
        if "{id}" not in given["each"] and "{id}" not in str(given.get("post")):
            raise InvalidValueError("must contain {id}, or `post` must", "each")
    for section in (given.get("certificate"), given.get("x5c")):
        if section is not None:
            _check_certificates(section)
    made = dict(given)
    made["post"] = tuple(given.get("post", {}).items())
    made["fits"] = tuple((name, read_value(value)) for name, value in given.get("fits", {}).items())
    return KeyPlace(**made)


CERTIFICATE: Section[CertificatePlace] = Section(
    None,
    {
        "of": Key(
            NonEmpty(),
            "where the delivery names it: {header:NAME} or {json:PATH}",
            ["{json:SigningCertURL}"],
            required=True,
        ),
        "url": Key(
            RegularExpression(),
            "a regular expression for the whole URL",
            ["https://api\\.acme\\.example/[a-z]+"],
            required=True,
        ),
        "names": Key(Items(NonEmpty()), "the leaf's common name; * is one label", [["*.acme.example"]]),
        "roots": Key(
            NonEmpty(), "PEM of the roots; default: the TLS connection vouches for it", ["-----BEGIN CERTIFICATE-----"]
        ),
        "intermediates": Key(
            NonEmpty(),
            "PEM of certificates between leaf and root, in case the sender does not serve them",
            ["-----BEGIN CERTIFICATE-----"],
        ),
    },
    make=_make_certificate,
)

X5C: Section[CertificatePlace] = Section(
    None,
    {
        "roots": Key(
            NonEmpty(), "PEM of the roots that the chain must end in", ["-----BEGIN CERTIFICATE-----"], required=True
        ),
        "length": Key(Count(10), "how many certificates the chain has", [3]),
        "extensions": Key(
            Items(NonEmpty()), "object identifiers of extensions: the leaf's first, then its issuer's", [["1.2.840.1"]]
        ),
    },
    make=lambda given: CertificatePlace(**given),
)

KEYS: Section[KeyPlace] = Section(
    None,
    {
        "jwks": Key(NonEmpty(), "the URL of a JSON Web Key Set", ["https://acme.example/.well-known/jwks.json"]),
        "x509": Key(
            NonEmpty(),
            "the URL of a JSON document of key ids and PEM certificates",
            ["https://acme.example/certificates.json"],
        ),
        "discovery": Key(
            NonEmpty(),
            "the URL of an OpenID configuration, whose jwks_uri is used",
            ["https://acme.example/.well-known/openid-configuration"],
        ),
        "each": Key(NonEmpty(), "the URL of one key, with {id}", ["https://acme.example/keys/{id}"]),
        "certificate": Key(CERTIFICATE, "a certificate whose URL the delivery names"),
        "x5c": Key(X5C, "a chain of certificates in the token's head, which ends in a pinned root"),
        "configured": Key(OnlyTrue(), "true: the route's secrets, whose ids are the key ids", [True]),
        "hosts": Key(
            Items(NonEmpty()), "of discovery: further hosts that its jwks_uri may have", [["keys.acme.example"]]
        ),
        "id": Key(RegularExpression(), "of each: a regular expression for the whole key id", ["[0-9a-f-]{36}"]),
        "form": Key(Choice(KeyForm), "of each: how the key is written; jwk (JSON) or pem", ["pem"]),
        "at": Key(JsonPath(), "of each: the place of the key in a JSON document", ["key"]),
        "post": Key(
            Names(),
            "of each: the JSON that asks for the key, with {id}, and {secret}, the route's first one",
            [{"key_id": "{id}"}],
        ),
        "dead": Key(NonEmpty(), "of each: the member of the key that is null while it is valid", ["retired"]),
        "without_id": Key(OnlyTrue(), "true: deliveries without a key id are tried with every key", [True]),
        "fits": Key(Names(), "members of the key that must agree with the delivery", [{"issuer": "{claim:iss}"}]),
        "keep": Key(Duration(), "how long the last document counts while it can't be fetched; default: a day", ["24h"]),
    },
    one_of=("jwks", "x509", "discovery", "each", "certificate", "x5c", "configured"),
    example="{jwks: 'https://acme.example/.well-known/jwks.json'}",
    make=_make_keys,
)


def _make_choice(given: dict[str, Any]) -> AlgorithmChoice:
    for name, word in given["values"].items():
        if word not in list(Algorithm):
            raise InvalidValueError(f"{quote(word)} is not valid; use one of {', '.join(Algorithm)}", "values", name)
    return AlgorithmChoice(given["json"], tuple((name, Algorithm(word)) for name, word in given["values"].items()))


ALGORITHM_BY: Section[AlgorithmChoice] = Section(
    None,
    {
        "json": Key(JsonPath(), "the place in the body's JSON", ["SignatureVersion"], required=True),
        "values": Key(Names(), "hash functions by its value", [{"2": "sha256", "1": "sha1"}], required=True),
    },
    make=_make_choice,
)


WRAPPED: Section[Wrapping] = Section(
    None,
    {
        "signature": Key(NonEmpty(), "the member that holds the signature", ["signature"], required=True),
        "id": Key(NonEmpty(), "the member that holds the key's id", ["kid"], required=True),
        "members": Key(Names(), "members that must have this value", [{"alg": "ecdsa"}]),
    },
    make=lambda given: Wrapping(given["signature"], given["id"], tuple(given.get("members", {}).items())),
)

COVERS: Section[dict[str, Any]] = Section(
    None,
    {
        "json": Key(JsonPath(), "the place in the body's JSON", ["value[].tenantId"], required=True),
        "claim": Key(
            NonEmpty(), "the claim that each value there must be, of one of the tokens", ["tid"], required=True
        ),
    },
)

DELIVERY_ID: Section[dict[str, str]] = Section(
    None,
    {
        "header": Key(
            HeaderName(), "the header that holds the provider's id of the delivery; logged", ["X-Acme-Delivery"]
        ),
        "claim": Key(NonEmpty(), "instead: the claim of the token that is the delivery's id", ["jti"]),
    },
    one_of=("header", "claim"),
    example="{header: X-Acme-Delivery}",
)
