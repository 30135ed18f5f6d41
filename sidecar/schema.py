"""The configuration's shape: every key, its kind, what it is about. `sidecar schema` and `sidecar check` come from here."""

import difflib
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, validates_schema

from sidecar.fields import (
    Choice,
    Cidr,
    Count,
    Duration,
    Flag,
    HeaderName,
    Items,
    JSONSchema,
    Label,
    Listen,
    Method,
    NonEmpty,
    RoutePath,
    SecretReference,
    Section,
    Size,
    Status,
    Text,
    TrustedProxy,
    UpstreamURL,
    Value,
    WebURL,
    json_schema_of,
    shown,
)
from sidecar.routes import DEFAULT_REFUSAL
from sidecar.scheme import (
    Algorithm,
    Encoding,
    Scheme,
    SignatureField,
    TemplateError,
    TimestampField,
    Unit,
    parse_template,
)
from sidecar.yaml_source import read_yaml


class Mode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    JSON = "json"
    TEXT = "text"


class Keys(Schema):
    """A mapping of known keys; an unknown one is an error that names what was probably meant."""

    error_messages: dict[str, str] = {"type": "must be a mapping (key: value)"}  # noqa: RUF012 - marshmallow's own form
    #: Keys of the public contract that this version does not have yet.
    later: ClassVar[frozenset[str]] = frozenset()

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

    def _unknown(self, key: str, known: list[str]) -> str:
        if key in self.later:
            return "is not available in this version; remove it"
        close = difflib.get_close_matches(key, known, n=1)
        return (
            f"unknown key; did you mean '{close[0]}'?" if close else f"unknown key; known keys are {', '.join(known)}"
        )


class SignatureKeys(Keys):
    header = HeaderName(required=True, metadata={"about": "the header that holds the signature"})
    algorithm = Choice(
        Algorithm, load_default=Algorithm.SHA256, metadata={"about": "hash function of the HMAC; default sha256"}
    )
    encoding = Choice(Encoding, load_default=Encoding.HEX, metadata={"about": "how the MAC is written; default hex"})
    prefix = Text(load_default="", metadata={"about": "what stands before the MAC, for example 'sha256='"})


class TimestampKeys(Keys):
    header = HeaderName(required=True, metadata={"about": "the header that holds the signed time"})
    unit = Choice(Unit, load_default=Unit.SECONDS, metadata={"about": "unix seconds or milliseconds; default s"})
    tolerance = Duration(
        load_default=300.0, metadata={"about": "how far it may be from our clock, either way; default 5m"}
    )


class DeliveryIdKeys(Keys):
    header = HeaderName(
        required=True, metadata={"about": "the header that holds the provider's id of the delivery; logged"}
    )


class SchemeKeys(Keys):
    """A preset file, or a mapping under `verify:`."""

    title = NonEmpty(metadata={"about": "the provider's name, for people"})
    docs = WebURL(metadata={"about": "the provider's page that describes the scheme"})
    evidence = NonEmpty(metadata={"about": "what the description rests on"})
    notes = NonEmpty(metadata={"about": "what a user should know, above all what is not protected"})
    signature = Section(SignatureKeys, required=True)
    timestamp = Section(TimestampKeys)
    signed = NonEmpty(
        load_default="{body}",
        metadata={"about": "the signed message; {body}, {timestamp}, {header:NAME} and literal text"},
    )
    delivery_id = Section(DeliveryIdKeys)

    @validates_schema
    def check_template(self, data: dict[str, Any], **kwargs: Any) -> None:
        try:
            parse_template(data["signed"])
        except TemplateError as error:
            raise ValidationError(str(error), "signed") from None
        signed, clock = "{timestamp}" in data["signed"], "timestamp" in data
        if signed and not clock:
            raise ValidationError(
                "signs {timestamp}, but there is no timestamp: section that says where it stands", "signed"
            )
        if clock and not signed:
            raise ValidationError(
                "is not part of what is signed, so anybody could renew it; put {timestamp} into signed:, or remove the section",
                "timestamp",
            )


def scheme_from(data: Mapping[str, Any], name: str = "") -> Scheme:
    """A `Scheme` from what `SchemeKeys().load` returned."""
    return Scheme(
        signature=SignatureField(**data["signature"]),
        timestamp=TimestampField(**data["timestamp"]) if "timestamp" in data else None,
        signed=data["signed"],
        parts=parse_template(data["signed"]),
        delivery_id=data["delivery_id"]["header"] if "delivery_id" in data else None,
        name=name,
        **{key: data[key] for key in ("title", "docs", "evidence", "notes") if key in data},
    )


@cache
def preset_names() -> tuple[str, ...]:
    """Names of the presets in the package, sorted."""
    files = resources.files("sidecar.presets").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


@cache
def load_preset(name: str) -> Scheme:
    """The preset `name`, read like a user's own scheme. Raises `KeyError` for an unknown name."""
    if name not in preset_names():
        raise KeyError(name)
    source = read_yaml(resources.files("sidecar.presets").joinpath(f"{name}.yaml").read_bytes(), f"presets/{name}.yaml")
    if source.problems:
        raise ValueError(str(source.problems[0]))
    return scheme_from(SchemeKeys().load(source.value), name)


class Verify(Value):
    """A preset's name, `none`, or a scheme of one's own. Read to a `Scheme`, or to None for `none`."""

    def read(self, value: Any) -> Scheme | None:
        if isinstance(value, Mapping):
            return scheme_from(SchemeKeys().load(value))
        if value == "none":
            return None
        if not isinstance(value, str):
            raise ValidationError("must be a preset's name, a scheme, or none")
        try:
            return load_preset(value)
        except KeyError:
            close = difflib.get_close_matches(value, preset_names(), n=1)
            hint = (
                f"did you mean '{close[0]}'?"
                if close
                else f"there are {', '.join(preset_names())}; or write the scheme out: signature: {{header: ...}}"
            )
            raise ValidationError(f"{shown(value)} is not a preset; {hint}") from None

    def json_schema(self) -> JSONSchema:
        return {"anyOf": [{"enum": ["none", *preset_names()]}, json_schema_of(SchemeKeys())]}


class RejectKeys(Keys):
    status = Status(load_default=DEFAULT_REFUSAL.status, metadata={"about": "default 403"})
    body = Text(load_default=DEFAULT_REFUSAL.body.decode(), metadata={"about": "sent as application/json"})


class RouteLimitsKeys(Keys):
    body = Size(metadata={"about": "largest body of this route; default: the common limits.body"})


class RouteKeys(Keys):
    later = frozenset({"replay", "sign", "handshake", "replay_fail_open", "ip_ranges"})

    name = Label(metadata={"about": "metric and log label; default: made from the path"})
    path = RoutePath(required=True, metadata={"about": "exact, as sent; a final /* takes everything below"})
    verify = Verify(metadata={"about": "a preset by name, a scheme, or none (then allow is required)"})
    secrets = Items(SecretReference(), metadata={"about": "any may match; the id says which one did"})
    allow = Items(Cidr(), metadata={"about": "networks that may send; default: anyone with a valid signature"})
    methods = Items(Method(), metadata={"about": "default POST"})
    mode = Choice(
        Mode,
        load_default=Mode.ENFORCE,
        metadata={"about": "shadow forwards all the same and counts what would have been refused"},
    )
    open = Flag(
        load_default=False, metadata={"about": "true passes everything unverified, for the receiver's own probes"}
    )
    upstream = UpstreamURL(metadata={"about": "this route's receiver; default: the common upstream"})
    limits = Section(RouteLimitsKeys)
    reject = Section(RejectKeys, metadata={"about": "the one answer to every refusal by verification or allowlist"})


class LimitsKeys(Keys):
    later = frozenset({"refusals"})

    body = Size(load_default=5 * 1024**2, metadata={"about": "per delivery; default 5MiB"})
    buffer = Size(
        load_default=64 * 1024**2, metadata={"about": "all bodies held at once; more is answered 503; default 64MiB"}
    )
    connections = Count(load_default=1000, metadata={"about": "open connections of senders; default 1000"})
    header_timeout = Duration(load_default=10.0, metadata={"about": "for the whole request head; default 10s"})
    body_timeout = Duration(load_default=30.0, metadata={"about": "for the whole body; default 30s"})


class TimeoutsKeys(Keys):
    connect = Duration(
        load_default=5.0, metadata={"about": "until the receiver takes a connection, retries included; default 5s"}
    )
    response = Duration(load_default=30.0, metadata={"about": "until its answer begins; default 30s"})
    total = Duration(load_default=60.0, metadata={"about": "until its answer has ended; default 60s"})
    idle = Duration(load_default=1.0, metadata={"about": "how long an unused connection is kept; default 1s"})


class LogKeys(Keys):
    level = Choice(Level, load_default=Level.INFO, metadata={"about": "default info"})
    accepted = Flag(load_default=True, metadata={"about": "false leaves out the lines of accepted deliveries"})
    format = Choice(LogFormat, load_default=LogFormat.JSON, metadata={"about": "json, or text for people"})


class AccountKeys(Keys):
    id = NonEmpty(required=True, metadata={"about": "the account's id"})
    api_key = SecretReference(
        required=True, metadata={"about": "signs the test delivery, and is what the caller must know"}
    )
    webhook_url = WebURL(metadata={"about": "where the test delivery is sent"})


class DeliveryTestKeys(Keys):
    accounts = Items(Section(AccountKeys), required=True)


class WorkersCount(Count):
    schema: ClassVar[JSONSchema] = {"const": 1}

    def read(self, value: Any) -> int:
        if super().read(value) != 1:
            raise ValidationError("only 1 worker is available in this version; run more replicas")
        return 1


class ReplayStore(Value):
    schema: ClassVar[JSONSchema] = {"const": "memory"}

    def read(self, value: Any) -> str:
        if value != "memory":
            raise ValidationError(f"{shown(value)} is not available in this version; only memory is")
        return "memory"


class ConfigKeys(Keys):
    later = frozenset({"proxy_protocol", "admin_token"})

    listen = Listen(
        load_default=Listen().read("0.0.0.0:8080"),
        metadata={"about": "data listener: deliveries arrive here; default 0.0.0.0:8080"},
    )
    admin = Listen(
        load_default=Listen().read("0.0.0.0:9090"),
        metadata={"about": "admin listener: probes, metrics, delivery test; default 0.0.0.0:9090"},
    )
    upstream = UpstreamURL(metadata={"about": "your receiver: http, https or unix:/path"})
    public_url = WebURL(metadata={"about": "what senders call; only URL-signing schemes need it"})
    trusted_proxies = Items(
        TrustedProxy(),
        metadata={"about": "whose X-Forwarded-For is believed; 'unix:' for a proxy on our socket; default: nobody's"},
    )
    limits = Section(LimitsKeys)
    timeouts = Section(TimeoutsKeys, metadata={"about": "towards the upstream"})
    drain = Duration(load_default=20.0, metadata={"about": "on SIGTERM: time to finish what is in flight; default 20s"})
    log = Section(LogKeys)
    replay_store = ReplayStore()
    workers = WorkersCount()
    routes = Items(Section(RouteKeys), required=True)
    delivery_test = Section(DeliveryTestKeys)


def json_schema() -> JSONSchema:
    """JSON Schema of a configuration file, for editors and CI."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Webhook Sidecar configuration",
    } | json_schema_of(ConfigKeys())
