"""The configuration's shape: every key, its kind, what it is about. `sidecar schema` and `sidecar check` come from here."""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, TypeVar

from marshmallow import EXCLUDE, Schema, ValidationError, validates_schema

from sidecar import SHIPPED
from sidecar.fields import (
    AnswerStatus,
    Choice,
    Count,
    Duration,
    Flag,
    HeaderName,
    HeaderValues,
    Items,
    JsonPath,
    JSONSchema,
    Label,
    Listen,
    Method,
    NonEmpty,
    OneOrMore,
    OnlyTrue,
    Pattern,
    RangeSources,
    RateOf,
    Refresh,
    ReplayStore,
    RoutePath,
    Scalars,
    SecretReference,
    Section,
    Sender,
    Separator,
    Share,
    SignatureHeader,
    Size,
    Status,
    Text,
    Tolerance,
    TrustedProxy,
    UpstreamURL,
    Value,
    WebURL,
    json_schema_of,
    shown,
)
from sidecar.routing.routes import DEFAULT_REFUSAL
from sidecar.telemetry.log import Level, LogFormat
from sidecar.verify.handshake import (
    DEFAULT_PATTERN,
    AnswerEncoding,
    Computed,
    Condition,
    Hash,
    KeyPart,
    Place,
    Shape,
    Source,
)
from sidecar.verify.handshake import Mode as HandshakeMode
from sidecar.verify.scheme import (
    BEARER_KINDS,
    BODY_PIECES,
    PUBLIC_KEY_KINDS,
    TIMESTAMP,
    Algorithm,
    Encoding,
    JsonValue,
    KeyForm,
    Kind,
    Piece,
    Scheme,
    SignatureField,
    SignatureList,
    TemplateError,
    TimestampField,
    Unit,
    parse_template,
)
from sidecar.yaml_source import read_yaml


class Mode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"


class Keys(Schema):
    """A mapping of known keys; an unknown one is an error that names what was probably meant."""

    error_messages: dict[str, str] = {"type": "must be a mapping (key: value)"}  # noqa: RUF012 - marshmallow's own form
    #: Keys of the public contract that this version does not have yet.
    later: ClassVar[frozenset[str]] = frozenset()
    #: Keys of which exactly one must be there, and an example; for sections where there is no default.
    one_of: ClassVar[tuple[str, ...]] = ()
    example: ClassVar[str] = ""

    class Meta:
        unknown = EXCLUDE  # so that the hook below reports them, with a suggestion

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def refuse_unknown_keys(self, data: Any, original: Any, **kwargs: Any) -> None:
        if not isinstance(original, Mapping):
            return
        known = [item.data_key or name for name, item in self.fields.items()]
        problems = {key: [self._unknown(key, known)] for key in original if key not in known}
        if problems:
            raise ValidationError(problems)

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def refuse_another_number(self, data: Any, original: Any, **kwargs: Any) -> None:
        if self.one_of and isinstance(original, Mapping) and sum(key in original for key in self.one_of) != 1:
            *some, last = self.one_of
            raise ValidationError(f"needs exactly one of {', '.join(some)} and {last}; for example {self.example}")

    def _unknown(self, key: str, known: list[str]) -> str:
        if key in self.later:
            return "is not available in this version; remove it"
        close = alike(key, known)
        return (
            f"unknown key; did you mean '{close[0]}'?" if close else f"unknown key; known keys are {', '.join(known)}"
        )


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
    kind = Choice(Kind, load_default=Kind.HMAC, metadata={"about": "what proves the sender"})
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
        if data.get("kind") in BEARER_KINDS and "list" in data:
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


_PUBLIC_KEY_FORMS = (KeyForm.PEM, KeyForm.HEX, KeyForm.BASE64)


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
    encoding = Choice(AnswerEncoding, load_default=AnswerEncoding.HEX, metadata={"about": "how the answer is written"})
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
    key = Choice(KeyForm, load_default=KeyForm.UTF8, metadata={"about": "how the secret's text becomes the key"})
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
        if Piece.SECRET in parts and kind is not Kind.HASH:
            raise ValidationError(f"holds {{secret}}, which {kind} keys with, not signs; remove it", "signed")
        if Piece.SECRET not in parts and kind is Kind.HASH:
            raise ValidationError(
                "must hold {secret}, or anybody could make the hash; for example '{secret}{body}'", "signed"
            )
        if (data["key"] is KeyForm.PEM) and kind not in PUBLIC_KEY_KINDS:
            raise ValidationError(
                f"pem is a public key, which {kind} has none of; name the kind, for example rsa-pkcs1", "key"
            )
        forms = _PUBLIC_KEY_FORMS if kind is Kind.ED25519 else (KeyForm.PEM,)
        if kind in PUBLIC_KEY_KINDS and data["key"] not in forms:
            raise ValidationError(
                f"{data['key']} is no form of a public key for {kind}; use {' or '.join(forms)}", "key"
            )

    def _check_binding(self, data: dict[str, Any], kind: Kind, parts: tuple[Any, ...]) -> None:
        if kind in BEARER_KINDS:
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
        if not bound or kind in BEARER_KINDS:
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
    if signature["kind"] is Kind.BASIC:
        signature["prefix"] = signature["prefix"] or "Basic "
    delivery_id = data["delivery_id"]["header"] if "delivery_id" in data else None
    plain = ("title", "docs", "evidence", "notes", "key", "body_hash", "form_field", "any_port", "url_unescaped")
    return Scheme(
        signature=SignatureField(**_tuples(signature)),
        timestamp=TimestampField(**data["timestamp"]) if "timestamp" in data else None,
        signed=data["signed"],
        parts=parse_template(data["signed"], delivery_id),
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


def alike(word: str, known: Iterable[str]) -> list[str]:
    """The one of `known` that was probably meant, if there is one."""
    import difflib  # noqa: PLC0415 - memory that a right configuration does without

    return difflib.get_close_matches(word, list(known), n=1)


@cache
def preset_names() -> tuple[str, ...]:
    """Names of the presets in the package, sorted."""
    return tuple(sorted(file.stem for file in (SHIPPED / "presets").glob("*.yaml")))


@cache
def load_preset(name: str) -> Scheme:
    """The preset `name`, read like a user's own scheme. Raises `KeyError` for an unknown name."""
    return scheme_from(SchemeKeys().load(_preset_values(name)), name)


def _preset_values(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise KeyError(name)
    source = read_yaml((SHIPPED / "presets" / f"{name}.yaml").read_bytes(), f"presets/{name}.yaml")
    if source.problems:
        raise ValueError(str(source.problems[0]))
    values: dict[str, Any] = source.value
    return values


#: Where a signature or a timestamp stands: a scheme that changes the place of a preset's replaces all of it.
_PLACES = ("header", "field", "tag", "first")


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, section by section."""
    if any(key in changes for key in _PLACES):
        base = {key: value for key, value in base.items() if key not in _PLACES}
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        nested = key in ("signature", "timestamp") and isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(below, value) if nested and below is not None else value
    return merged


Loaded = TypeVar("Loaded")


class Verify(Value):
    """A preset's name, `none`, a scheme of one's own, or `preset: NAME` and what differs from it.

    Read to a `Scheme`, or to None for `none`.
    """

    def read(self, value: Any) -> Scheme | None:
        if isinstance(value, Mapping) and "preset" in value:
            changes = {key: item for key, item in value.items() if key != "preset"}
            name = value["preset"]
            return scheme_from(SchemeKeys().load(_merged(self._named(name, _preset_values), changes)), name)
        if isinstance(value, Mapping):
            return scheme_from(SchemeKeys().load(value))
        if value == "none":
            return None
        return self._named(value, load_preset)

    def _named(self, value: Any, load: Callable[[str], Loaded]) -> Loaded:
        if not isinstance(value, str):
            raise ValidationError("must be a preset's name, a scheme, or none")
        try:
            return load(value)
        except KeyError:
            close = alike(value, preset_names())
            hint = (
                f"did you mean '{close[0]}'?"
                if close
                else "`sidecar presets` lists them; or write the scheme out: signature: {header: ...}"
            )
            raise ValidationError(f"{shown(value)} is not a preset; {hint}") from None

    def json_schema(self) -> JSONSchema:
        scheme = json_schema_of(SchemeKeys())
        preset = {
            "preset": {
                "title": "preset",
                "enum": list(preset_names()),
                "description": "a preset that the other keys differ from; then none of them is required",
                "examples": ["stripe"],
            }
        }
        changes = {key: {k: v for k, v in value.items() if k != "oneOf"} for key, value in scheme["properties"].items()}
        changed = scheme | {"properties": preset | changes, "required": ["preset"]}
        return {"title": "preset, scheme or none", "anyOf": [{"enum": ["none", *preset_names()]}, scheme, changed]}


class RejectKeys(Keys):
    status = Status(load_default=DEFAULT_REFUSAL.status, metadata={"about": "status of the refusal"})
    body = Text(
        load_default=DEFAULT_REFUSAL.body.decode(), metadata={"about": "body of the refusal, sent as application/json"}
    )


class RouteLimitsKeys(Keys):
    body = Size(metadata={"about": "largest body of this route; default: the common limits.body", "examples": ["1MiB"]})


class SignKeys(Keys):
    secret = OneOrMore(
        SecretReference(),
        required=True,
        metadata={
            "about": "whsec_ and base64, or base64 alone: what the receiver verifies with; of several, each signs"
        },
    )


class RouteKeys(Keys):
    name = Label(metadata={"about": "metric and log label; default: made from the path", "examples": ["acme"]})
    path = RoutePath(
        required=True,
        metadata={
            "about": "exact, as sent; a final /* takes everything below",
            "examples": ["/webhooks/acme", "/internal/*"],
        },
    )
    verify = Verify(
        metadata={
            "about": "a preset by name, a scheme, preset: NAME and what differs from it, or none (then allow is required)",
            "examples": ["github", "none"],
        }
    )
    secrets = Items(
        SecretReference(),
        metadata={
            "about": "any may match; the id says which one did; ten at most",
            "examples": [
                [
                    {"id": "current", "env": "ACME_SECRET"},
                    {"id": "previous", "file": "/run/secrets/previous", "optional": True},
                ]
            ],
        },
    )
    allow = Items(
        Sender(),
        metadata={
            "about": "networks that may send, and preset:NAME for those that a provider publishes; "
            "default: anyone with a valid signature",
            "examples": [["203.0.113.0/24", "2001:db8::/32", "preset:github"]],
        },
    )
    methods = Items(
        Method(),
        metadata={
            "about": "methods that the route takes; default POST, on an open route GET, HEAD and POST",
            "examples": [["POST"]],
        },
    )
    mode = Choice(
        Mode,
        load_default=Mode.ENFORCE,
        metadata={"about": "shadow forwards all the same and counts what would have been refused"},
    )
    open = Flag(
        load_default=False, metadata={"about": "true passes everything unverified, for the receiver's own probes"}
    )
    upstream = UpstreamURL(
        metadata={"about": "this route's receiver; default: the common upstream", "examples": ["http://127.0.0.1:3001"]}
    )
    public_url = WebURL(
        metadata={
            "about": "what senders of this route call; default: the common public_url",
            "examples": ["https://acme.example.com"],
        }
    )
    limits = Section(RouteLimitsKeys, metadata={"about": "limits of this route"})
    sign = Section(
        SignKeys,
        metadata={
            "about": "signs what is forwarded for the receiver, as Standard Webhooks (webhook-id, -timestamp, -signature)"
        },
    )
    replay = Duration(
        metadata={
            "about": "a delivery that the receiver took is not forwarded again within this time; default: off",
            "examples": ["10m"],
        }
    )
    replay_fail_open = Flag(
        metadata={
            "about": "true: forwarded unchecked while the replay store can't be asked; default: as above all routes"
        }
    )
    handshake = Choice(
        HandshakeMode,
        metadata={
            "about": "who answers the provider's handshakes: answer (the sidecar), or pass (the receiver); "
            "default: the sidecar those that are unsigned or need the secret, the receiver the others"
        },
    )
    verify_token = SecretReference(metadata={"about": "what a handshake's token is compared with"})
    reject = Section(RejectKeys, metadata={"about": "the one answer to every refusal by verification or allowlist"})


class LimitsKeys(Keys):
    body = Size(load_default=5 * 1024**2, metadata={"about": "largest body of a delivery; larger is answered 413"})
    buffer = Size(
        load_default=64 * 1024**2,
        metadata={"about": "all bodies held at once, over all connections; more is answered 503 with Retry-After"},
    )
    connections = Count(
        load_default=1000, metadata={"about": "open connections of senders; at the limit the slowest makes room"}
    )
    header_timeout = Duration(
        load_default=10.0, metadata={"about": "for the whole request head; later is answered 408"}
    )
    body_timeout = Duration(load_default=30.0, metadata={"about": "for the whole body; later is answered 408"})
    refusals = RateOf(
        metadata={
            "about": "how often a route may refuse one client address; beyond it 429 before anything is read; default: off",
            "examples": ["60/m"],
        }
    )


class TimeoutsKeys(Keys):
    connect = Duration(
        load_default=5.0, metadata={"about": "until the receiver takes a connection, retries included; then 502"}
    )
    response = Duration(load_default=30.0, metadata={"about": "until its answer begins; then 504"})
    total = Duration(
        load_default=60.0, metadata={"about": "until its answer has ended; then 504, or the connection is cut"}
    )
    idle = Duration(
        load_default=1.0,
        metadata={"about": "how long an unused connection is kept; shorter than the receiver keeps it"},
    )


class LogKeys(Keys):
    level = Choice(Level, load_default=Level.INFO, metadata={"about": "the least that is logged"})
    accepted = Flag(load_default=True, metadata={"about": "false leaves out the lines of accepted deliveries"})
    format = Choice(LogFormat, load_default=LogFormat.JSON, metadata={"about": "json for machines, text for people"})


class TracingKeys(Keys):
    endpoint = WebURL(
        required=True,
        metadata={
            "about": "the collector, OTLP over HTTP; /v1/traces is added",
            "examples": ["http://127.0.0.1:4318"],
        },
    )
    sample = Share(load_default=1.0, metadata={"about": "the share of deliveries that is traced"})


class AccountKeys(Keys):
    id = NonEmpty(required=True, metadata={"about": "the account's id", "examples": ["622056dce007dc805c741751"]})
    api_key = SecretReference(
        required=True, metadata={"about": "signs the test delivery, and is what the caller must know"}
    )
    webhook_url = WebURL(
        metadata={"about": "where the test delivery is sent", "examples": ["http://127.0.0.1:8080/webhooks/begini"]}
    )


class DeliveryTestKeys(Keys):
    accounts = Items(Section(AccountKeys), required=True, metadata={"about": "who may ask for a test delivery"})


class RangesKeys(Keys):
    refresh = Refresh(
        metadata={
            "about": "how often the lists behind preset: entries of allow are fetched, for example 24h; default: never",
            "examples": ["24h"],
        }
    )
    sources = RangeSources(
        metadata={
            "about": "a mirror to fetch a list from, by its name: {github: https://...}",
            "examples": [{"github": "https://mirror.example/meta"}],
        }
    )


class WorkersCount(Count):
    most: ClassVar[int] = 64
    schema: ClassVar[JSONSchema] = Count.schema | {"maximum": most}

    def read(self, value: Any) -> int:
        count = super().read(value)
        if count > self.most:
            raise ValidationError(f"{count} is more than {self.most}; one for each processor core is plenty")
        return count


class ConfigKeys(Keys):
    listen = Listen(
        load_default=Listen().read("0.0.0.0:8080"),
        metadata={"about": "data listener: deliveries arrive here"},
    )
    admin = Listen(
        load_default=Listen().read("0.0.0.0:9090"),
        metadata={
            "about": "admin listener: probes, metrics, status page, delivery test; never show it to the internet"
        },
    )
    admin_token = SecretReference(
        metadata={
            "about": "what a caller must know to reload or to run a delivery test at the status page; without one the admin "
            "listener only shows, unless it is on loopback or a unix socket",
            "examples": [{"env": "SIDECAR_ADMIN_TOKEN"}],
        }
    )
    upstream = UpstreamURL(
        metadata={
            "about": "your receiver: http, https or unix:/path",
            "examples": ["http://127.0.0.1:3000", "unix:/run/app.sock"],
        }
    )
    public_url = WebURL(
        metadata={
            "about": "what senders call, without the path; only schemes that sign the URL need it",
            "examples": ["https://hooks.example.com"],
        }
    )
    trusted_proxies = Items(
        TrustedProxy(),
        metadata={
            "about": "whose X-Forwarded-For is believed; 'unix:' for a proxy on our socket; default: nobody's",
            "examples": [["10.0.0.0/8", "unix:"]],
        },
    )
    client_ip_header = HeaderName(
        load_default="X-Forwarded-For",
        metadata={
            "about": "the one header in which trusted proxies name the client: X-Forwarded-For, Forwarded (RFC 7239), or one "
            "that holds a single address, such as X-Real-IP or CF-Connecting-IP"
        },
    )
    proxy_protocol = Flag(
        load_default=False,
        metadata={
            "about": "true: connections of trusted proxies begin with a PROXY protocol header (version 1 or 2), and must; "
            "its address stands for the connection's"
        },
    )
    ip_ranges = Section(RangesKeys, metadata={"about": "the providers' published networks (preset:NAME in allow)"})
    limits = Section(LimitsKeys, metadata={"about": "what senders may take at most"})
    timeouts = Section(TimeoutsKeys, metadata={"about": "for the receiver (the upstream)"})
    drain = Duration(load_default=20.0, metadata={"about": "on SIGTERM: time to finish what is in flight"})
    log = Section(LogKeys, metadata={"about": "one line for each delivery, on standard output"})
    tracing = Section(
        TracingKeys,
        metadata={"about": "spans for an OpenTelemetry collector; needs the extra otel, and is off by default"},
    )
    replay_store = ReplayStore(
        load_default=ReplayStore().read("memory"),
        metadata={
            "about": "where replay: remembers deliveries: memory, or a Redis or Valkey shared by all",
            "examples": [
                "redis://127.0.0.1:6379/0",
                {"url": "rediss://redis.example:6379/0", "password": {"env": "REDIS_PASSWORD"}},
            ],
        },
    )
    replay_fail_open = Flag(
        load_default=False,
        metadata={"about": "true: while the replay store can't be asked, deliveries are forwarded unchecked"},
    )
    workers = WorkersCount(
        load_default=1, metadata={"about": "processes that take deliveries; one for each core that it may use"}
    )
    routes = Items(
        Section(RouteKeys),
        required=True,
        metadata={"about": "what is taken, and who has to prove what; anything else is answered 404"},
    )
    delivery_test = Section(
        DeliveryTestKeys, metadata={"about": "POST /v1/webhooks-management/test on the admin listener"}
    )


def json_schema() -> JSONSchema:
    """JSON Schema of a configuration file, for editors and CI."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Webhook Sidecar configuration",
    } | json_schema_of(ConfigKeys())
