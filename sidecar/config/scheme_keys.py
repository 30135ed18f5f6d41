"""The keys of a scheme: a preset file, or a mapping under `verify:`."""

from dataclasses import replace
from typing import Any

from sidecar.config.fields.address import WebURL
from sidecar.config.fields.base import InvalidValueError, JSONSchema, ValueType, quote
from sidecar.config.fields.mapping import Items, Key, Section
from sidecar.config.fields.message import FieldName, SignedText
from sidecar.config.fields.number import Count, Duration, RejectionStatus, ResendStatus, Tolerance
from sidecar.config.fields.text import (
    Choice,
    Flag,
    HeaderName,
    HeaderValues,
    JsonPath,
    NonEmpty,
    OnlyTrue,
    Separator,
    SignatureHeader,
    Text,
)
from sidecar.config.handshakes import SchemeHandshake
from sidecar.config.key_source_keys import KEYS, Names
from sidecar.config.listed_keys import Components, SignatureTime, check_listed_field, make_listed
from sidecar.config.message_keys import MESSAGE_KEYS
from sidecar.config.preset_settings import Settings
from sidecar.config.scheme_checks import check_scheme
from sidecar.config.token_checks import NOT_FIELDS, check_token_field, default_key, make_token
from sidecar.config.token_keys import (
    ALGORITHM_BY,
    COVERS,
    DELIVERY_ID,
    WRAPPED,
    Algorithms,
    Claims,
    Expiry,
    HeadMembers,
    Skew,
)
from sidecar.outcomes import DEFAULT_REJECTION, RejectionResponse
from sidecar.secret import Secret
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.claim_rules import TokenRules
from sidecar.verify.encoding import Encoding
from sidecar.verify.keys import KeyForm, key_problem
from sidecar.verify.kinds import KINDS, Kind
from sidecar.verify.kinds.token import TOKEN
from sidecar.verify.scheme import (
    KEY_ID,
    Alternative,
    BodyHash,
    DeliveryFacts,
    Evidence,
    Scheme,
    Segment,
    SignatureField,
    SignatureList,
    TimestampField,
    Unit,
)
from sidecar.verify.template import ListedHeaders, TemplateError, parse_template


class SignatureKind(ValueType[Kind]):
    """The name of a registered kind."""

    title = "one of"

    def read(self, value: Any) -> Kind:
        kind = KINDS.get(value) if isinstance(value, str) else None
        if kind is None:
            raise InvalidValueError(f"{quote(value)} is not valid; use one of {', '.join(KINDS)}")
        return kind

    def write(self, value: Kind) -> str:
        return str(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "string", "enum": list(KINDS)}


def _make_signature(given: dict[str, Any]) -> SignatureField:
    signature = SignatureField(**given)
    return signature if signature.prefix else replace(signature, prefix=signature.kind.prefix)


def _check_signature(signature: SignatureField) -> None:
    for key in ("also", "list", "repeated"):
        if signature.field and getattr(signature, key):
            raise InvalidValueError("can't be used with `field`; remove one of the two", key)
    check_token_field(signature)
    check_listed_field(signature)
    for key in ("also", "repeated"):
        if signature.form and getattr(signature, key):
            raise InvalidValueError("can't be used with `form`; remove one of the two", key)
    place = next((name for name in ("query", "path") if getattr(signature, name)), "")
    for key in ("also", "list", "repeated", "key_id"):
        if place and getattr(signature, key):
            raise InvalidValueError(f"can't be used with `{place}`; remove one of the two", key)
    if signature.in_target and signature.kind is not TOKEN:
        raise InvalidValueError(f"can only be used with `kind: {TOKEN}`; add that, or use header or field", place)
    if signature.list is not None and KEY_ID in signature.list.tag and not signature.form:
        raise InvalidValueError(f"has {KEY_ID} in its tag, which needs `form`; remove it", "list")
    if signature.prehash is not None and (signature.kind.bearer or signature.kind.message_holds_secret):
        raise InvalidValueError(f"can't be used with `kind: {signature.kind}`; remove it", "prehash")
    if signature.list is not None and signature.kind.bearer:
        raise InvalidValueError(f"can't be used with `kind: {signature.kind}`; remove it", "list")


LIST = Section(
    SignatureList,
    {
        "separator": Key(Separator(), "the characters that separate items; each of them ends an item", [","]),
        "tag": Key(Text(), "the prefix of a signature, such as 'v1='; any item with this prefix may match", ["v1="]),
        "versions": Key(
            Items(NonEmpty()),
            "instead of tag: the prefixes of the scheme's versions, newest first; only the newest one present counts",
            [["v2=", "v1="]],
        ),
        "blanks": Key(Flag(), "whether spaces around an item are removed"),
        "first": Key(Flag(), "true: only the first signature counts"),
    },
    one_of=("tag", "versions"),
    example="{separator: ',', tag: 'v1='}",
)

SIGNATURE = Section(
    SignatureField,
    {
        "header": Key(
            SignatureHeader(),
            "the header with the signature; X-Sig-{n} for X-Sig-1, X-Sig-2 and so on",
            ["X-Acme-Signature"],
        ),
        "also": Key(
            Items(HeaderName()),
            "additional headers that may match, for example while a secret is being replaced",
            [["X-Acme-Signature-2"]],
        ),
        "repeated": Key(Flag(), "true: the header may appear several times, and any of them may match"),
        "field": Key(
            JsonPath(),
            "instead of header: the place in the body's JSON, such as signature.signature",
            ["signature.signature"],
        ),
        "form": Key(FieldName(), "instead of header: the form field in the body", ["signature"]),
        "query": Key(
            NonEmpty(), "instead of header: the query parameter with the token; requires `kind: token`", ["token"]
        ),
        "path": Key(
            Choice(Segment),
            "instead of header: the path segment with the token; requires `kind: token` and a route path that ends "
            "in /*",
            ["last"],
        ),
        "kind": Key(SignatureKind(), "how the sender proves that it knows the secret"),
        "algorithm": Key(Choice(Algorithm), "the hash function"),
        "encoding": Key(Choice(Encoding), "how the signature is encoded"),
        "prefix": Key(Text(), "the text before the signature, such as 'sha256='; default: none", ["sha256="]),
        "list": Key(LIST, "how a header with several items is split"),
        "prehash": Key(
            Choice(Algorithm),
            "the hash function, if the provider signs a hash of the message instead of the message",
            ["sha256"],
            default=None,
        ),
        "key_id": Key(
            HeaderName(),
            "the header that names the key: a published key, or a secret of the form ID:KEY; a secret without an ID "
            "fits every name",
            ["X-Acme-Key-Id"],
        ),
        "body": Key(OnlyTrue(), "instead of header: true if the body is the token; for `kind: jwt`", [True]),
        "each": Key(
            JsonPath(),
            "instead of header: the list of tokens in the body's JSON; for `kind: jwt`",
            ["validationTokens"],
        ),
        "most": Key(Count(16), "for each: the largest number of tokens in the list"),
        "algorithm_by": Key(ALGORITHM_BY, "instead of algorithm: a value in the body's JSON that selects it"),
        "wrapped": Key(WRAPPED, "the header is a JSON object in base64, with the signature and the key id"),
        "algorithms": Key(
            Algorithms(),
            "the permitted algorithms, for `kind: jwt`, `jws`, `rfc9421` and `cavage`",
            [["RS256"]],
        ),
        "components": Key(
            Components(),
            "components that the signature must cover, for `kind: rfc9421` and `cavage`; with ? only if the request "
            "has them",
            [["@method", "@authority", "@path", "content-digest"]],
        ),
        "label": Key(
            NonEmpty(),
            "the label of the signature to verify, for `kind: rfc9421`; default: the only signature",
            ["sig1"],
        ),
        "tag": Key(NonEmpty(), "the tag of the signature to verify, for `kind: rfc9421`", ["acme-webhook"]),
    },
    one_of=("header", "field", "form", "query", "path", "body", "each"),
    example="{header: X-Signature}",
    make=_make_signature,
    check=_check_signature,
)

TIMESTAMP_SECTION = Section(
    TimestampField,
    {
        "header": Key(HeaderName(), "the header with the signed time", ["X-Acme-Timestamp"]),
        "tag": Key(
            NonEmpty(),
            "instead of header: the prefix of the time in the signature's list, such as 't='",
            ["t="],
        ),
        "first": Key(
            OnlyTrue(), "instead of header: true if the time is the first item of the signature's list", [True]
        ),
        "field": Key(
            JsonPath(),
            "instead of header: the place in the body's JSON, such as webhookTimestamp",
            ["webhookTimestamp"],
        ),
        "form": Key(FieldName(), "instead of header: the form field in the body", ["timestamp"]),
        "claim": Key(NonEmpty(), "instead of header: the claim of the token; for `kind: jwt`", ["iat"]),
        "head": Key(NonEmpty(), "instead of header: the member of the signature's head; for `kind: jws`", ["ts"]),
        "parameter": Key(
            Choice(SignatureTime),
            "instead of header: the creation time of the signature; for `kind: rfc9421`",
            ["created"],
            default=None,
        ),
        "unit": Key(Choice(Unit), "the format of the time: unix time in s or ms, iso8601, or http-date"),
        "tolerance": Key(
            Tolerance(), "how far it may differ from the sidecar's clock, either way; none: it is not compared"
        ),
        "future": Key(Duration(), "how far it may be ahead of the sidecar's clock; default: the tolerance", ["5m"]),
    },
    one_of=("header", "tag", "first", "field", "form", "claim", "head", "parameter"),
    example="{header: X-Timestamp}",
)

#: The provider's behavior after a failed delivery.
DELIVERY = Section(
    DeliveryFacts,
    {
        "retries": Key(
            NonEmpty(), "how often the provider retries a failed delivery, as documentation", ["3 times: 5, 20, 60 min"]
        ),
        "timeout": Key(Duration(), "how long the provider waits for a response; default: not known", ["10s"]),
        "resends": Key(Flag(), "false: the provider never retries automatically after an error response"),
        "resend_status": Key(
            ResendStatus(),
            "the status for `reject: resend`, after which the provider retries; default: that of reject, otherwise 503",
            [503],
        ),
        "source": Key(
            NonEmpty(), "the source of these facts, as documentation", ["docs.acme.example/webhooks/retries"]
        ),
    },
)

#: Keys of a response to rejected deliveries.
REJECT_KEYS = {
    "status": Key(RejectionStatus(), "the status of the response", default=DEFAULT_REJECTION.status),
    "body": Key(
        Text(),
        "the body of the response, sent as application/json; empty: no body",
        default=DEFAULT_REJECTION.body.decode(),
    ),
}


def _make_rejection(given: dict[str, Any]) -> RejectionResponse:
    body = {"body": given["body"].encode()} if "body" in given else {}
    return DEFAULT_REJECTION._replace(**given | body)


def _make_scheme(given: dict[str, Any]) -> Scheme:
    signed: tuple[SignedText, ...] = given.get("signed", (SignedText("{body}"),))
    messages = tuple(_make_message(given, index, each) for index, each in enumerate(signed))
    identity: dict[str, str] = given.get("delivery_id", {})
    made = {"key": default_key(given["signature"])} | given
    made |= {
        "signed": " or ".join(each.text for each in signed),
        "parts": messages[0].parts,
        "when": messages[0].when,
        "alternatives": messages[1:],
        "require": tuple(given.get("require", {}).items()),
        "require_form": tuple(given.get("require_form", {}).items()),
        "require_json": tuple(given.get("require_json", {}).items()),
        "plain": tuple(given.get("plain", {}).items()),
        "match_json": tuple(given.get("match_json", {}).items()),
        "binds_form": given.get("binds_body", False),
        "delivery_id": identity.get("header"),
        "delivery_claim": identity.get("claim", ""),
    }
    shapes = [shape for each in given.get("handshake", ()) for shape in each]
    made["handshake"] = tuple(shape for shape in shapes if shape.confirm is None or shape.confirm.enabled)
    made |= make_token(given) | make_listed(given)
    scheme = Scheme(**{key: value for key, value in made.items() if key not in NOT_FIELDS})
    check_scheme(scheme, given)
    _check_handshakes(scheme)
    return scheme


def _check_handshakes(scheme: Scheme) -> None:
    for index, shape in enumerate(scheme.handshake):
        if (
            shape.reads_unsigned
            and not shape.body
            and scheme.signature.header.lower() not in map(str.lower, shape.absent)
        ):
            raise InvalidValueError(
                f"would treat deliveries as handshakes; add the header of the signature ({scheme.signature.place}) to `absent`",
                "handshake",
                index,
                "request",
            )
        if shape.published_secret and (
            problem := key_problem(scheme, Secret("published", shape.published_secret.encode()))
        ):
            raise InvalidValueError(f"has a published secret that {problem}", "handshake", index)


def _make_message(given: dict[str, Any], index: int, signed: SignedText) -> Alternative:
    clock: TimestampField | None = given.get("timestamp")
    try:
        parts = parse_template(signed.text, given.get("delivery_id", {}).get("header"))
    except TemplateError as error:
        raise InvalidValueError(str(error), "signed") from None
    body_hash: BodyHash | None = given.get("body_hash")
    in_head = [each.header for each in (clock, body_hash) if each is not None and each.header]
    must = tuple(name.lower().encode() for name in in_head)
    listed = tuple(replace(part, must=must) if isinstance(part, ListedHeaders) else part for part in parts)
    return Alternative(parts=listed, when=signed.when)


def _only(name: str, kind: ValueType[str], about: str, example: str) -> Section[str]:
    """A section with one key, which is required; it is read as that key's value."""
    return Section(None, {name: Key(kind, about, [example], required=True)}, make=lambda given: given[name])


#: A preset file, or a mapping under `verify:`.
SCHEME = Section(
    Scheme,
    {
        "title": Key(NonEmpty(), "the provider's name, as documentation", ["Acme"]),
        "aliases": Key(
            Items(NonEmpty()),
            "other names under which people search for the provider; `verify:` rejects them, and its error names the "
            "preset",
            [["acme-pay"]],
        ),
        "docs": Key(WebURL(), "the provider's page about the scheme", ["https://acme.example/webhooks"]),
        "evidence": Key(
            NonEmpty(),
            f"the basis of the description, as documentation; in presets one of {', '.join(Evidence)}",
            ["documentation"],
        ),
        "source": Key(
            NonEmpty(),
            "the location of the evidence: a repository and path, or a page; separate several by '; '",
            ["docs.acme.example/webhooks"],
        ),
        "notes": Key(
            NonEmpty(),
            "notes for users, above all about what is not protected",
            ["There is no signed timestamp."],
        ),
        "signature": Key(SIGNATURE, "the place of the signature, and how it is computed"),
        "timestamp": Key(TIMESTAMP_SECTION, "the signed time; default: no timestamp"),
        **MESSAGE_KEYS,
        "key": Key(
            Choice(KeyForm),
            "how the secret's text is converted to the key; default: utf8, and pem for a public key",
            ["hex"],
            default=None,
        ),
        "require": Key(
            HeaderValues(),
            "headers that must have this value, in addition to the signature",
            [{"X-Acme-Version": "1"}],
        ),
        "delivery_id": Key(DELIVERY_ID, "the provider's id of a delivery"),
        "match_json": Key(
            Names(),
            "JSON values in `signed`, each with a regular expression that must match the whole value",
            [{"account.url": "https://api\\.acme\\.example/.+"}],
        ),
        "keys": Key(KEYS, "where the provider publishes its keys; default: the route's secrets"),
        "claims": Key(Claims(), "the required claims of a token and their values", [{"iss": "https://acme.example"}]),
        "head": Key(
            HeadMembers(),
            "members that the head of a token must have, and the value or the list entries of each",
            [{"tl_version": "2"}],
        ),
        "expiry": Key(
            Expiry(),
            "required: a token must have exp, a signature expires; otherwise they are checked only if present",
            ["required"],
        ),
        "skew": Key(
            Skew(),
            "how far the clocks may differ, for exp, nbf and iat, and for expires",
            default=TokenRules().skew,
        ),
        "covers": Key(COVERS, "values in the body, each of which must equal a claim of one of the tokens"),
        "settings": Key(
            Settings(),
            "in a preset: the values that a route must set, used in the preset as {setting:NAME}",
            [{"audience": {"about": "the audience, in the console under Webhooks", "example": "acme"}}],
        ),
        "ip_ranges": Key(
            _only(
                "docs",
                WebURL(),
                "the page on which the provider publishes the addresses from which it sends",
                "https://acme.example/ips",
            ),
            "where the provider publishes its addresses, as documentation",
        ),
        "handshake": Key(Items(SchemeHandshake()), "one-time requests of the provider, and the response to each"),
        "delivery": Key(DELIVERY, "how the provider handles failed deliveries"),
        "reject": Key(
            Section(None, REJECT_KEYS, make=_make_rejection),
            "the response to a wrong signature that the provider requires; `reject` on the route overrides it",
        ),
    },
    make=_make_scheme,
)
