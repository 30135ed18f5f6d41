"""The configuration's shape: every key, its kind, what it is about. `sidecar schema` and `sidecar check` come from here."""

from enum import StrEnum
from typing import Any, ClassVar

from marshmallow import ValidationError

from sidecar.config.fields.address import Listen, RangeSources, Sender, TrustedProxy, UpstreamURL, WebURL
from sidecar.config.fields.mapping import Items, Keys, OneOrMore, Section, json_schema_of
from sidecar.config.fields.number import Count, Duration, RateOf, Refresh, Share, Size, Status
from sidecar.config.fields.reference import ReplayStore, SecretReference
from sidecar.config.fields.text import Choice, Flag, HeaderName, JSONSchema, Label, Method, NonEmpty, RoutePath, Text
from sidecar.config.presets import Verify
from sidecar.routing.routes import DEFAULT_REJECTION
from sidecar.telemetry.log import Level, LogFormat
from sidecar.verify.handshake import HandshakeMode


class RouteMode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"


class RejectKeys(Keys):
    status = Status(load_default=DEFAULT_REJECTION.status, metadata={"about": "status of the refusal"})
    body = Text(
        load_default=DEFAULT_REJECTION.body.decode(),
        metadata={"about": "body of the refusal, sent as application/json"},
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
        RouteMode,
        load_default=RouteMode.ENFORCE,
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
