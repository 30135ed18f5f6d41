"""The keys of `keys:` in a scheme: where the verifying keys are published."""

import re
from enum import StrEnum
from typing import Any

from sidecar.config.fields.address import URL_PATTERN
from sidecar.config.fields.base import InvalidValueError, JSONSchema, NamedValues, quote
from sidecar.config.fields.mapping import Items, Key, Section, read_present
from sidecar.config.fields.number import Count, Duration
from sidecar.config.fields.reference import SecretReference
from sidecar.config.fields.text import Choice, JsonPath, NonEmpty, OnlyTrue, RegularExpression
from sidecar.verify.claim_rules import (
    CertificatePlace,
    ClaimPlace,
    ComputedPlace,
    JsonPlace,
    KeyPlace,
    Literal,
    OAuthPlace,
    RuleValue,
)
from sidecar.verify.template import JSON_PATH

#: A URL of keys: https, a host in lower case that is written out, no user, port, query or fragment. {id} only in its path.
_KEY_URL = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9._~%@{}/-]*)?")
_PLACE = re.compile(r"\{([^{}]*)\}")


class KeyForm(StrEnum):
    """How one key is written."""

    JWK = "jwk"
    PEM = "pem"


class Names(NamedValues[str]):
    """Names, with a text for each."""

    title = "names and texts"
    expected = "names to texts; for example {type: order}"

    def read_one(self, name: str, value: Any) -> str:
        return read_present(NonEmpty(), value)

    def json_schema(self) -> JSONSchema:
        return super().json_schema() | {"additionalProperties": NonEmpty().json_schema()}


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
    elif "oauth" in given:
        raise InvalidValueError("can only be used with `each`; remove it", "oauth")
    for section in (given.get("certificate"), given.get("x5c")):
        if section is not None:
            _check_certificates(section)
    made = dict(given)
    made["post"] = tuple(given.get("post", {}).items())
    made["fits"] = tuple((name, read_value(value)) for name, value in given.get("fits", {}).items())
    return KeyPlace(**made)


def _make_oauth(given: dict[str, Any]) -> OAuthPlace:
    _check_key_url(given["token_url"], "token_url")
    return OAuthPlace(**given)


CERTIFICATE: Section[CertificatePlace] = Section(
    None,
    {
        "of": Key(
            NonEmpty(),
            "the place of the URL: {header:NAME} or {json:PATH}",
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
            NonEmpty(), "root certificates (PEM); default: the TLS connection vouches", ["-----BEGIN CERTIFICATE-----"]
        ),
        "intermediates": Key(
            NonEmpty(),
            "intermediate certificates (PEM), if the provider doesn't serve them",
            ["-----BEGIN CERTIFICATE-----"],
        ),
    },
    make=_make_certificate,
)

X5C: Section[CertificatePlace] = Section(
    None,
    {
        "roots": Key(
            NonEmpty(),
            "root certificates (PEM), one of which ends the chain",
            ["-----BEGIN CERTIFICATE-----"],
            required=True,
        ),
        "length": Key(Count(10), "the number of certificates in the chain", [3]),
        "extensions": Key(
            Items(NonEmpty()), "object identifiers of extensions: the leaf's first, then its issuer's", [["1.2.840.1"]]
        ),
    },
    make=lambda given: CertificatePlace(**given),
)

OAUTH: Section[OAuthPlace] = Section(
    None,
    {
        "token_url": Key(
            NonEmpty(),
            "the provider's token endpoint (RFC 6749, 3.2)",
            ["https://acme.example/oauth2/token"],
            required=True,
        ),
        "scope": Key(
            NonEmpty(), "the scope to request; default: the endpoint's default", ["https://acme.example/scope/keys"]
        ),
        "client_id": Key(NonEmpty(), "the id of your application at the provider", ["acme-app-1"], required=True),
        "client_secret": Key(SecretReference(), "the secret of the application", required=True),
    },
    make=_make_oauth,
)

KEYS: Section[KeyPlace] = Section(
    None,
    {
        "jwks": Key(NonEmpty(), "the URL of a JSON Web Key Set", ["https://acme.example/.well-known/jwks.json"]),
        "x509": Key(
            NonEmpty(),
            "the URL of a JSON document with key ids and PEM certificates",
            ["https://acme.example/certificates.json"],
        ),
        "discovery": Key(
            NonEmpty(),
            "the URL of an OpenID configuration, whose jwks_uri is used",
            ["https://acme.example/.well-known/openid-configuration"],
        ),
        "each": Key(NonEmpty(), "the URL of a single key, with {id}", ["https://acme.example/keys/{id}"]),
        "certificate": Key(CERTIFICATE, "a certificate whose URL is in the delivery"),
        "x5c": Key(X5C, "a certificate chain in the token's head that ends in a pinned root"),
        "configured": Key(OnlyTrue(), "true: the route's secrets, whose ids are the key ids", [True]),
        "hosts": Key(
            Items(NonEmpty()), "for discovery: other hosts on which its jwks_uri may be", [["keys.acme.example"]]
        ),
        "id": Key(RegularExpression(), "for each: a regular expression for the whole key id", ["[0-9a-f-]{36}"]),
        "form": Key(Choice(KeyForm), "for each: the format of the key, jwk (JSON) or pem", ["pem"]),
        "at": Key(JsonPath(), "for each: the place of the key in a JSON document", ["key"]),
        "post": Key(
            Names(),
            "for each: the JSON that requests the key, with {id}, and {secret} for the route's first secret",
            [{"key_id": "{id}"}],
        ),
        "oauth": Key(OAUTH, "for each: the client credentials for an access token, if fetching the key requires one"),
        "dead": Key(NonEmpty(), "for each: the member that is null while the key is valid", ["retired"]),
        "without_id": Key(OnlyTrue(), "true: for deliveries without a key id, every key is tried", [True]),
        "fits": Key(Names(), "members of the key that must match the delivery", [{"issuer": "{claim:iss}"}]),
        "keep": Key(
            Duration(), "how long the last document remains valid while it can't be fetched; default: one day", ["24h"]
        ),
    },
    one_of=("jwks", "x509", "discovery", "each", "certificate", "x5c", "configured"),
    example="{jwks: 'https://acme.example/.well-known/jwks.json'}",
    make=_make_keys,
)
