"""The keys of a scheme: a preset file, or a mapping under `verify:`."""

from dataclasses import replace
from typing import Any

from sidecar.config.fields.address import WebURL
from sidecar.config.fields.base import InvalidValueError, JSONSchema, ValueType, quote
from sidecar.config.fields.mapping import Items, Key, Section
from sidecar.config.fields.message import FieldName, SignedText
from sidecar.config.fields.number import Duration, RejectionStatus, ResendStatus, SuccessStatus, Tolerance
from sidecar.config.fields.text import (
    Choice,
    Flag,
    HeaderName,
    HeaderValues,
    JsonPath,
    Method,
    NonEmpty,
    OnlyTrue,
    RegularExpression,
    Scalars,
    Separator,
    SignatureHeader,
    Text,
)
from sidecar.config.message_keys import MESSAGE_KEYS
from sidecar.config.scheme_checks import check_scheme
from sidecar.outcomes import DEFAULT_REJECTION, RejectionResponse
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.encoding import Encoding
from sidecar.verify.handshake import (
    Computed,
    Condition,
    Hash,
    KeyPart,
    Place,
    ResponseEncoding,
    Shape,
    Source,
)
from sidecar.verify.keys import KeyForm
from sidecar.verify.kinds import KINDS, Kind
from sidecar.verify.scheme import (
    KEY_ID,
    Alternative,
    BodyHash,
    DeliveryFacts,
    Evidence,
    Scheme,
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
    for key in ("also", "repeated"):
        if signature.form and getattr(signature, key):
            raise InvalidValueError("can't be used with `form`; remove one of the two", key)
    if signature.list is not None and KEY_ID in signature.list.tag and not signature.form:
        raise InvalidValueError(f"has {KEY_ID} in its tag, which needs `form`; remove it", "list")
    if signature.prehash is not None and (signature.kind.bearer or signature.kind.message_holds_secret):
        raise InvalidValueError(f"can't be used with `kind: {signature.kind}`; remove it", "prehash")
    if signature.list is not None and signature.kind.bearer:
        raise InvalidValueError(f"can't be used with `kind: {signature.kind}`; remove it", "list")


LIST = Section(
    SignatureList,
    {
        "separator": Key(Separator(), "the characters that each end an item", [","]),
        "tag": Key(
            Text(), "the text that a signature begins with, for example 'v1='; any such item may match", ["v1="]
        ),
        "versions": Key(
            Items(NonEmpty()),
            "instead of tag: the tags of the scheme's versions, newest first; only the newest one that is present counts",
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
            "the header that holds the signature; X-Sig-{n} for X-Sig-1, X-Sig-2 and so on",
            ["X-Acme-Signature"],
        ),
        "also": Key(
            Items(HeaderName()),
            "further headers that may match, for example while a secret is replaced",
            [["X-Acme-Signature-2"]],
        ),
        "repeated": Key(Flag(), "true: the header may appear several times, and each one may match"),
        "field": Key(
            JsonPath(),
            "instead of header: the place in the body's JSON, for example signature.signature",
            ["signature.signature"],
        ),
        "form": Key(FieldName(), "instead of header: the field of the form in the body", ["signature"]),
        "kind": Key(SignatureKind(), "what proves that the sender knows the secret"),
        "algorithm": Key(Choice(Algorithm), "the hash function of the HMAC or hash"),
        "encoding": Key(Choice(Encoding), "how the signature is encoded"),
        "prefix": Key(Text(), "the text before the signature, for example 'sha256='; default: none", ["sha256="]),
        "list": Key(LIST, "how several items are held in the one header"),
        "prehash": Key(
            Choice(Algorithm),
            "the hash of the message is signed, not the message; default: the message itself",
            ["sha256"],
            default=None,
        ),
        "key_id": Key(
            HeaderName(),
            "the header that names the key, where a secret is ID:KEY; a secret without an ID fits every name",
            ["X-Acme-Key-Id"],
        ),
    },
    one_of=("header", "field", "form"),
    example="{header: X-Signature}",
    make=_make_signature,
    check=_check_signature,
)

TIMESTAMP_SECTION = Section(
    TimestampField,
    {
        "header": Key(HeaderName(), "the header that holds the signed time", ["X-Acme-Timestamp"]),
        "tag": Key(
            NonEmpty(),
            "instead of header: the text that its item in the signature's list begins with, for example 't='",
            ["t="],
        ),
        "first": Key(OnlyTrue(), "instead of header: true if it is the first item of the signature's list", [True]),
        "field": Key(
            JsonPath(),
            "instead of header: the place in the body's JSON, for example webhookTimestamp",
            ["webhookTimestamp"],
        ),
        "form": Key(FieldName(), "instead of header: the field of the form in the body", ["timestamp"]),
        "unit": Key(Choice(Unit), "how the time is written: unix time in s or ms, iso8601, or http-date"),
        "tolerance": Key(Tolerance(), "how far it may be from our clock in either direction; none: it is not compared"),
    },
    one_of=("header", "tag", "first", "field", "form"),
    example="{header: X-Timestamp}",
)

#: One value of a request.
_PLACE_KEYS = {
    "query": Key(NonEmpty(), "the query parameter", ["challenge"]),
    "header": Key(HeaderName(), "the header", ["X-Hook-Secret"]),
    "json": Key(JsonPath(), "the place in the body's JSON, for signed handshakes", ["challenge"]),
}


def _make_place(given: dict[str, Any]) -> Place:
    return next(Place(source, given[source]) for source in Source if source in given)


PLACE = Section(None, _PLACE_KEYS, one_of=tuple(_PLACE_KEYS), example="{query: challenge}", make=_make_place)

CHALLENGE: Section[dict[str, Any]] = Section(
    None,
    _PLACE_KEYS
    | {
        "pattern": Key(
            RegularExpression(),
            "a regular expression for the whole challenge; default: 1 to 512 letters, digits and ._~+/=-",
            ["[A-Za-z0-9]{1,64}"],
        )
    },
    one_of=tuple(_PLACE_KEYS),
    example="{query: challenge}",
)

HANDSHAKE_REQUEST: Section[dict[str, Any]] = Section(
    None,
    {
        "method": Key(Method(), "the request's method; default: any", ["GET"]),
        "query": Key(Scalars(), "query parameters and the value that each must have", [{"mode": "subscribe"}]),
        "header": Key(HeaderValues(), "headers and the value that each must have", [{"X-Event": "ping"}]),
        "json": Key(
            Scalars(),
            "fields of the body's JSON and the value that each must have, for signed handshakes",
            [{"type": "url_verification"}],
        ),
        "without": Key(
            Items(NonEmpty()),
            "fields that the body's JSON must not have, where events look like handshakes",
            [["event"]],
        ),
    },
)

COMPUTED = Section(
    Computed,
    {
        "hash": Key(Choice(Hash), "the hash; an HMAC is keyed with the route's first secret"),
        "of": Key(NonEmpty(), "the text that is hashed, made of {challenge}, {token} (verify_token) and {url}"),
        "encoding": Key(Choice(ResponseEncoding), "how the hash is encoded"),
        "key": Key(Choice(KeyPart), "which bytes of the secret are the key"),
    },
)


def _check_answer(answer: dict[str, Any]) -> None:
    if "text" in answer and "json" in answer:
        raise InvalidValueError(
            "can't be used with `text`, because a response has one body; remove one of the two", "json"
        )


HANDSHAKE_ANSWER: Section[dict[str, Any]] = Section(
    None,
    {
        "status": Key(SuccessStatus(), "the status of the response", default=Shape(method="").status),
        "text": Key(NonEmpty(), "sent as text/plain, for example '{challenge}'", ["{challenge}"]),
        "json": Key(
            Scalars(),
            "sent as application/json, for example {challenge: '{challenge}'}",
            [{"challenge": "{challenge}"}],
        ),
        "headers": Key(
            HeaderValues(),
            "sent as headers, for example {X-Hook-Secret: '{challenge}'}",
            [{"X-Hook-Secret": "{challenge}"}],
        ),
    },
    check=_check_answer,
)


def _make_shape(given: dict[str, Any]) -> Shape:
    request, challenge = given.get("request", {}), given.get("challenge", {})
    _check_handshake(given, request, challenge)
    conditions = [
        Condition(Place(source, name), value) for source in Source for name, value in request.get(source, {}).items()
    ]
    same: dict[str, Any] = {key: given[key] for key in ("compare", "computed", "signed") if key in given}
    if "pattern" in challenge:
        same["pattern"] = challenge["pattern"]
    return Shape(
        method=request.get("method", ""),
        conditions=tuple(conditions),
        without=request.get("without", ()),
        challenge=_make_place(challenge) if challenge else None,
        **same,
        **given["answer"],
    )


def _check_handshake(given: dict[str, Any], request: dict[str, Any], challenge: dict[str, Any]) -> None:
    compare: Place | None = given.get("compare")
    for key, reads_body in (
        ("request", "json" in request or "without" in request),
        ("challenge", "json" in challenge),
        ("compare", compare is not None and compare.source is Source.JSON),
    ):
        if reads_body and not given.get("signed"):
            raise InvalidValueError("needs the body, which is read of verified requests only; add `signed: true`", key)
    if not given.get("signed") and not challenge and request.get("method") not in ("GET", "HEAD"):
        raise InvalidValueError("would also match deliveries; add a challenge, or `method: GET` or HEAD", "request")
    if "computed" in given and "pattern" not in challenge:
        raise InvalidValueError(
            "would let the sender choose what is signed; add a `pattern` that no delivery's signed message can match",
            "challenge",
        )


#: What a provider asks once, and the response.
HANDSHAKE = Section(
    Shape,
    {
        "request": Key(HANDSHAKE_REQUEST, "how a handshake is recognized, besides its challenge"),
        "challenge": Key(CHALLENGE, "the value that is sent back"),
        "compare": Key(PLACE, "the value that must be the route's verify_token"),
        "computed": Key(COMPUTED, "a value made with a secret, {computed} in answer"),
        "signed": Key(Flag(), "true: its signature is verified first, like a delivery's"),
        "answer": Key(HANDSHAKE_ANSWER, "the response", required=True),
    },
    make=_make_shape,
)


#: What the provider does after a failed delivery.
DELIVERY = Section(
    DeliveryFacts,
    {
        "retries": Key(
            NonEmpty(), "how often the provider sends a failed delivery again, for people", ["3 times: 5, 20, 60 min"]
        ),
        "timeout": Key(Duration(), "how long the provider waits for a response; default: not known", ["10s"]),
        "resends": Key(Flag(), "false: the provider never sends again by itself after an error response"),
        "resend_status": Key(
            ResendStatus(),
            "the status of `reject: resend`, after which the provider sends again; default: that of reject, else 503",
            [503],
        ),
        "source": Key(NonEmpty(), "where these facts are from, for people", ["docs.acme.example/webhooks/retries"]),
    },
)

#: Keys of a response to rejected deliveries.
REJECT_KEYS = {
    "status": Key(RejectionStatus(), "the status of the response", default=DEFAULT_REJECTION.status),
    "body": Key(
        Text(),
        "the body of the response, sent as application/json; empty: none",
        default=DEFAULT_REJECTION.body.decode(),
    ),
}


def _make_rejection(given: dict[str, Any]) -> RejectionResponse:
    body = {"body": given["body"].encode()} if "body" in given else {}
    return DEFAULT_REJECTION._replace(**given | body)


def _make_scheme(given: dict[str, Any]) -> Scheme:
    signed: tuple[SignedText, ...] = given.get("signed", (SignedText("{body}"),))
    messages = tuple(_make_message(given, index, each) for index, each in enumerate(signed))
    made = {"key": given["signature"].kind.key_forms[0]} | given
    made |= {
        "signed": " or ".join(each.text for each in signed),
        "parts": messages[0].parts,
        "when": messages[0].when,
        "alternatives": messages[1:],
        "require": tuple(given.get("require", {}).items()),
        "require_form": tuple(given.get("require_form", {}).items()),
        "require_json": tuple(given.get("require_json", {}).items()),
        "plain": tuple(given.get("plain", {}).items()),
        "binds_form": given.get("binds_body", False),
    }
    scheme = Scheme(**{key: value for key, value in made.items() if key != "binds_body"})
    check_scheme(scheme, given)
    return scheme


def _make_message(given: dict[str, Any], index: int, signed: SignedText) -> Alternative:
    clock: TimestampField | None = given.get("timestamp")
    try:
        parts = parse_template(signed.text, given.get("delivery_id"))
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
        "title": Key(NonEmpty(), "the provider's name, for people", ["Acme"]),
        "aliases": Key(
            Items(NonEmpty()),
            "other names by which people look for the provider; `verify:` doesn't take them, but names the preset",
            [["acme-pay"]],
        ),
        "docs": Key(WebURL(), "the provider's page about the scheme", ["https://acme.example/webhooks"]),
        "evidence": Key(
            NonEmpty(),
            f"the basis of the description, for people; in presets one of {', '.join(Evidence)}",
            ["documentation"],
        ),
        "source": Key(
            NonEmpty(),
            "where the evidence is: a repository and path, or a page; several are separated by '; '",
            ["docs.acme.example/webhooks"],
        ),
        "notes": Key(
            NonEmpty(),
            "what a user should know, above all what is not protected",
            ["There is no signed timestamp."],
        ),
        "signature": Key(SIGNATURE, "where the signature is and how it is made"),
        "timestamp": Key(TIMESTAMP_SECTION, "the signed time; default: the scheme has none"),
        **MESSAGE_KEYS,
        "key": Key(
            Choice(KeyForm),
            "how the secret's text becomes the key; default: utf8, and pem for a public key",
            ["hex"],
            default=None,
        ),
        "require": Key(
            HeaderValues(),
            "headers that must have this value, besides the signature",
            [{"X-Acme-Version": "1"}],
        ),
        "delivery_id": Key(
            _only(
                "header",
                HeaderName(),
                "the header that holds the provider's id of the delivery; logged",
                "X-Acme-Delivery",
            ),
            "the provider's id of a delivery",
        ),
        "ip_ranges": Key(
            _only(
                "docs",
                WebURL(),
                "the page on which the provider publishes the addresses it sends from",
                "https://acme.example/ips",
            ),
            "for people: where the provider publishes its addresses",
        ),
        "handshake": Key(Items(HANDSHAKE), "what the provider asks once, and the response"),
        "delivery": Key(DELIVERY, "what the provider does after a failed delivery"),
        "reject": Key(
            Section(None, REJECT_KEYS, make=_make_rejection),
            "the response that the provider requires to a wrong signature; `reject` of the route replaces it",
        ),
    },
    make=_make_scheme,
)
