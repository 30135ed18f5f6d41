"""The keys of a scheme: a preset file, or a mapping under `verify:`."""

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, validates_schema

from sidecar.config.fields.address import WebURL
from sidecar.config.fields.mapping import Items, Keys, Section
from sidecar.config.fields.number import AnswerStatus, Tolerance
from sidecar.config.fields.text import (
    Choice,
    Flag,
    HeaderName,
    HeaderValues,
    JsonPath,
    JSONSchema,
    Method,
    NonEmpty,
    OnlyTrue,
    Pattern,
    Scalars,
    Separator,
    SignatureHeader,
    Text,
    Value,
    shown,
)
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.encoding import Encoding
from sidecar.verify.handshake import (
    DEFAULT_PATTERN,
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
from sidecar.verify.kinds.hmac import HMAC
from sidecar.verify.scheme import Scheme, SignatureField, SignatureList, TimestampField, Unit
from sidecar.verify.template import BODY_PIECES, TIMESTAMP, JsonValue, Piece, TemplateError, parse_template


class ListKeys(Keys):
    one_of = ("tag", "versions")
    example = "{separator: ',', tag: 'v1='}"

    separator = Separator(
        required=True, metadata={"about": "what ends an item; any one of these characters", "examples": [","]}
    )
    tag = Text(
        metadata={"about": "what a signature begins with, for example 'v1='; any may match", "examples": ["v1="]}
    )
    versions = Items(
        NonEmpty(),
        metadata={
            "about": "instead of tag: the scheme's versions, newest first; only the newest that stands there counts",
            "examples": [["v2=", "v1="]],
        },
    )
    blanks = Flag(load_default=True, metadata={"about": "whether blanks around an item are taken off"})


class SignatureKind(Value):
    """The name of a registered kind."""

    def read(self, value: Any) -> Kind:
        kind = KINDS.get(value) if isinstance(value, str) else None
        if kind is None:
            raise ValidationError(f"{shown(value)} is not one of {', '.join(KINDS)}")
        return kind

    def json_schema(self) -> JSONSchema:
        return {"title": "one of", "type": "string", "enum": list(KINDS)}

    def write(self, value: Any) -> str:
        return str(value)


class SignatureKeys(Keys):
    one_of = ("header", "field")
    example = "{header: X-Signature}"

    header = SignatureHeader(
        metadata={
            "about": "the header that holds the signature; X-Sig-{n} for X-Sig-1, X-Sig-2, ...",
            "examples": ["X-Acme-Signature"],
        }
    )
    also = Items(
        HeaderName(),
        metadata={
            "about": "further headers that may match, as while a secret is changed",
            "examples": [["X-Acme-Signature-2"]],
        },
    )
    repeated = Flag(
        load_default=False, metadata={"about": "true: the header may stand there several times, each may match"}
    )
    field = JsonPath(
        metadata={
            "about": "instead of header: where in the body's JSON, for example signature.signature",
            "examples": ["signature.signature"],
        }
    )
    kind = SignatureKind(load_default=HMAC, metadata={"about": "what proves the sender"})
    algorithm = Choice(
        Algorithm, load_default=Algorithm.SHA256, metadata={"about": "hash function of the HMAC or hash"}
    )
    encoding = Choice(Encoding, load_default=Encoding.HEX, metadata={"about": "how the signature is written"})
    prefix = Text(
        load_default="",
        metadata={"about": "what stands before the signature, for example 'sha256='", "examples": ["sha256="]},
    )
    list = Section(ListKeys, metadata={"about": "where the header holds several items"})

    @validates_schema
    def check_place(self, data: dict[str, Any], **kwargs: Any) -> None:
        for key in ("also", "list", "repeated"):
            if "field" in data and data.get(key):
                raise ValidationError("is for a signature in a header; remove it, or field:", key)
        if "list" in data and "kind" in data and data["kind"].bearer:
            raise ValidationError("is for signatures; a token stands alone", "list")


class TimestampKeys(Keys):
    one_of = ("header", "tag", "first", "field")
    example = "{header: X-Timestamp}"

    header = HeaderName(metadata={"about": "the header that holds the signed time", "examples": ["X-Acme-Timestamp"]})
    tag = NonEmpty(
        metadata={
            "about": "instead: what its item of the signature's list begins with, for example 't='",
            "examples": ["t="],
        }
    )
    first = OnlyTrue(
        metadata={"about": "instead: true if it is the first item of the signature's list", "examples": [True]}
    )
    field = JsonPath(
        metadata={
            "about": "instead: where in the body's JSON, for example webhookTimestamp",
            "examples": ["webhookTimestamp"],
        }
    )
    unit = Choice(
        Unit,
        load_default=Unit.SECONDS,
        metadata={"about": "how the time is written: s or ms of unix time, iso8601, http-date"},
    )
    tolerance = Tolerance(
        load_default=300.0,
        metadata={"about": "how far it may be from our clock, either way; none: not compared"},
    )


class DeliveryIdKeys(Keys):
    header = HeaderName(
        required=True,
        metadata={
            "about": "the header that holds the provider's id of the delivery; logged",
            "examples": ["X-Acme-Delivery"],
        },
    )


class IpRangesKeys(Keys):
    docs = WebURL(
        required=True,
        metadata={
            "about": "where the provider publishes the addresses it sends from",
            "examples": ["https://acme.example/ips"],
        },
    )


class PlaceKeys(Keys):
    """One value of a request."""

    one_of = ("query", "header", "json")
    example = "{query: challenge}"

    query = NonEmpty(metadata={"about": "the query parameter", "examples": ["challenge"]})
    header = HeaderName(metadata={"about": "the header", "examples": ["X-Hook-Secret"]})
    json = JsonPath(metadata={"about": "where in the body's JSON; for signed handshakes", "examples": ["challenge"]})


class ChallengeKeys(PlaceKeys):
    pattern = Pattern(
        metadata={
            "about": "a regular expression for all of it; default: 1 to 512 of letters, digits and ._~+/=-",
            "examples": ["[A-Za-z0-9]{1,64}"],
        }
    )


class HandshakeRequestKeys(Keys):
    method = Method(metadata={"about": "the request's method; default: any", "examples": ["GET"]})
    query = Scalars(
        metadata={"about": "query parameters that must have this value", "examples": [{"mode": "subscribe"}]}
    )
    header = HeaderValues(metadata={"about": "headers that must have this value", "examples": [{"X-Event": "ping"}]})
    json = Scalars(
        metadata={
            "about": "fields of the body's JSON that must have this value; for signed handshakes",
            "examples": [{"type": "url_verification"}],
        }
    )
    without = Items(
        NonEmpty(),
        metadata={
            "about": "fields that the body's JSON must not have, where events look alike",
            "examples": [["event"]],
        },
    )


class ComputedKeys(Keys):
    hash = Choice(Hash, required=True, metadata={"about": "HMACs are keyed with the route's first secret"})
    of = NonEmpty(
        load_default="{challenge}",
        metadata={"about": "what is hashed, made of {challenge}, {token} (verify_token) and {url}"},
    )
    encoding = Choice(
        ResponseEncoding, load_default=ResponseEncoding.HEX, metadata={"about": "how the answer is written"}
    )
    key = Choice(KeyPart, load_default=KeyPart.WHOLE, metadata={"about": "which bytes of the secret are the key"})


class HandshakeAnswerKeys(Keys):
    status = AnswerStatus(load_default=200, metadata={"about": "the answer's status"})
    text = NonEmpty(metadata={"about": "sent as text/plain, for example '{challenge}'", "examples": ["{challenge}"]})
    json = Scalars(
        metadata={
            "about": "sent as application/json, for example {challenge: '{challenge}'}",
            "examples": [{"challenge": "{challenge}"}],
        }
    )
    headers = HeaderValues(
        metadata={
            "about": "sent as headers, for example {X-Hook-Secret: '{challenge}'}",
            "examples": [{"X-Hook-Secret": "{challenge}"}],
        }
    )

    @validates_schema
    def check_one_body(self, data: dict[str, Any], **kwargs: Any) -> None:
        if "text" in data and "json" in data:
            raise ValidationError("stands beside text; an answer has one body, so remove one of them", "json")


class HandshakeKeys(Keys):
    """What a provider asks once, and the answer."""

    request = Section(HandshakeRequestKeys, metadata={"about": "what marks it, besides its challenge"})
    challenge = Section(ChallengeKeys, metadata={"about": "what is to be sent back"})
    compare = Section(PlaceKeys, metadata={"about": "what must be the route's verify_token"})
    computed = Section(ComputedKeys, metadata={"about": "an answer made with a secret, {computed} in answer"})
    signed = Flag(load_default=False, metadata={"about": "true: its signature is verified first, like a delivery's"})
    answer = Section(HandshakeAnswerKeys, required=True, metadata={"about": "what is answered"})

    @validates_schema
    def check_handshake(self, data: dict[str, Any], **kwargs: Any) -> None:
        request, challenge = data.get("request", {}), data.get("challenge", {})
        for key, section in (("request", request), ("challenge", challenge), ("compare", data.get("compare", {}))):
            if "json" in section and not data["signed"]:
                raise ValidationError(
                    "looks into the body, which is read of verified requests only; add signed: true", key
                )
        if not data["signed"] and not challenge and request.get("method") not in ("GET", "HEAD"):
            raise ValidationError("would take deliveries too; name a challenge, or method: GET or HEAD", "request")
        if "computed" in data and "pattern" not in challenge:
            raise ValidationError(
                "signs what its sender chose; give the challenge a pattern that no delivery's signed message can have",
                "challenge",
            )


class SchemeKeys(Keys):
    """A preset file, or a mapping under `verify:`."""

    title = NonEmpty(metadata={"about": "the provider's name, for people", "examples": ["Acme"]})
    docs = WebURL(
        metadata={
            "about": "the provider's page that describes the scheme",
            "examples": ["https://acme.example/webhooks"],
        }
    )
    evidence = NonEmpty(metadata={"about": "what the description rests on", "examples": ["the documentation page"]})
    notes = NonEmpty(
        metadata={
            "about": "what a user should know, above all what is not protected",
            "examples": ["There is no signed timestamp."],
        }
    )
    signature = Section(
        SignatureKeys, required=True, metadata={"about": "where the signature stands and how it is made"}
    )
    timestamp = Section(TimestampKeys, metadata={"about": "the signed time; default: the scheme has none"})
    signed = NonEmpty(
        load_default="{body}",
        metadata={
            "about": "the signed message: places like {body}, {timestamp}, {url}, {header:NAME}, and literal text"
        },
    )
    binds_body = Flag(load_default=True, metadata={"about": "false where the provider signs no part of the body"})
    key = Choice(
        KeyForm,
        metadata={
            "about": "how the secret's text becomes the key; default: utf8, and pem for a public key",
            "examples": ["hex"],
        },
    )
    require = HeaderValues(
        metadata={
            "about": "headers that must have this value, besides the signature",
            "examples": [{"X-Acme-Version": "1"}],
        }
    )
    body_hash = NonEmpty(
        metadata={"about": "the query parameter that must be the body's SHA-256 in hex", "examples": ["bodySHA256"]}
    )
    form_field = NonEmpty(
        metadata={"about": "the form field that holds the JSON, where the body is a form", "examples": ["json"]}
    )
    any_port = Flag(load_default=False, metadata={"about": "true: the URL may be signed with or without its port"})
    url_unescaped = NonEmpty(
        metadata={"about": "characters that may stand unescaped in the signed URL", "examples": [":,@"]}
    )
    delivery_id = Section(DeliveryIdKeys, metadata={"about": "the provider's id of a delivery"})
    ip_ranges = Section(IpRangesKeys, metadata={"about": "for people: where the provider publishes its addresses"})
    handshake = Items(Section(HandshakeKeys), metadata={"about": "what the provider asks once, and the answer"})

    @validates_schema
    def check_whole(self, data: dict[str, Any], **kwargs: Any) -> None:
        kind = data["signature"]["kind"]
        try:
            parts = parse_template(data["signed"], data.get("delivery_id", {}).get("header"))
        except TemplateError as error:
            raise ValidationError(str(error), "signed") from None
        self._check_binding(data, kind, parts)
        self._check_clock(data, kind, parts)
        if Piece.SECRET in parts and not kind.message_holds_secret:
            raise ValidationError(f"holds {{secret}}, which {kind} keys with, not signs; remove it", "signed")
        if Piece.SECRET not in parts and kind.message_holds_secret:
            raise ValidationError(
                "must hold {secret}, or anybody could make the hash; for example '{secret}{body}'", "signed"
            )
        if data.get("key", kind.key_forms[0]) not in kind.key_forms:
            *forms, last = kind.key_forms
            use = f"{', '.join(forms)} or {last}" if forms else last
            raise ValidationError(f"{data['key']} can't be used with signature.kind {kind}; use {use}", "key")

    def _check_binding(self, data: dict[str, Any], kind: Kind, parts: tuple[Any, ...]) -> None:
        if kind.bearer:
            if "signed" in data and data["signed"] != "{body}":
                raise ValidationError(
                    f"has no meaning with signature.kind {kind}, which signs nothing; remove it", "signed"
                )
            return
        bound = BODY_PIECES & set(parts) or "body_hash" in data
        if not bound and data["binds_body"]:
            raise ValidationError(
                "must contain {body}, or the body would not be signed; for example '{timestamp}.{body}'; "
                "if the provider really signs no part of it, say so with binds_body: false",
                "signed",
            )
        if bound and not data["binds_body"]:
            raise ValidationError("is false, but the body is part of what is signed; remove it", "binds_body")
        for key in ("any_port", "url_unescaped"):
            if data.get(key) and Piece.URL not in parts:
                raise ValidationError("is for schemes that sign {url}; remove it", key)
        if "body_hash" in data and Piece.URL not in parts:
            raise ValidationError("stands in the URL, which is not signed; put {url} into signed:", "body_hash")

    def _check_clock(self, data: dict[str, Any], kind: Kind, parts: tuple[Any, ...]) -> None:
        clock = data.get("timestamp")
        if TIMESTAMP in parts and (clock is None or "field" in clock):
            raise ValidationError(
                "signs {timestamp}, but there is no timestamp: section that says where it stands", "signed"
            )
        if clock is None:
            return
        in_body = "field" in clock
        bound = Piece.BODY in parts or JsonValue(clock["field"]) in parts if in_body else TIMESTAMP in parts
        if not bound or kind.bearer:
            place = f"{{body}} or {{json:{clock['field']}}}" if in_body else "{timestamp}"
            raise ValidationError(
                f"is not part of what is signed, so anybody could renew it; put {place} into signed:, or remove the section",
                "timestamp",
            )
        if ("tag" in clock or "first" in clock) and "list" not in data["signature"]:
            raise ValidationError(
                "is an item of a list, but the signature has no list: section that says what ends one", "timestamp"
            )


def scheme_from(data: Mapping[str, Any], name: str = "") -> Scheme:
    """A `Scheme` from what `SchemeKeys().load` returned."""
    signature = dict(data["signature"])
    if "list" in signature:
        signature["list"] = SignatureList(**_tuples(signature["list"]))
    kind: Kind = signature["kind"]
    signature["prefix"] = signature["prefix"] or kind.prefix
    delivery_id = data["delivery_id"]["header"] if "delivery_id" in data else None
    plain = ("title", "docs", "evidence", "notes", "body_hash", "form_field", "any_port", "url_unescaped")
    return Scheme(
        signature=SignatureField(**_tuples(signature)),
        timestamp=TimestampField(**data["timestamp"]) if "timestamp" in data else None,
        signed=data["signed"],
        parts=parse_template(data["signed"], delivery_id),
        key=data.get("key", kind.key_forms[0]),
        require=tuple(data.get("require", {}).items()),
        delivery_id=delivery_id,
        name=name,
        handshake=tuple(_shape(item) for item in data.get("handshake", ())),
        ip_ranges=data["ip_ranges"]["docs"] if "ip_ranges" in data else "",
        **{key: data[key] for key in plain if key in data},
    )


def _shape(data: Mapping[str, Any]) -> Shape:
    """A handshake from what `HandshakeKeys().load` returned."""
    request, answer = data.get("request", {}), data["answer"]
    conditions = [
        Condition(Place(source, name), value) for source in Source for name, value in request.get(source, {}).items()
    ]
    return Shape(
        method=request.get("method", ""),
        conditions=tuple(conditions),
        without=tuple(request.get("without", ())),
        challenge=_place(data.get("challenge", {})),
        pattern=data.get("challenge", {}).get("pattern", DEFAULT_PATTERN),
        compare=_place(data.get("compare", {})),
        computed=Computed(**data["computed"]) if "computed" in data else None,
        signed=data["signed"],
        **answer,
    )


def _place(data: Mapping[str, Any]) -> Place | None:
    return next((Place(source, data[source]) for source in Source if source in data), None)


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
