"""Every key of a configuration file: its form and its meaning.

`sidecar check`, `sidecar schema` and docs/configuration.md all come from here. The defaults are those of the dataclasses.
"""

from sidecar.config.fields.address import (
    HostPattern,
    KeyMirrors,
    Listen,
    RangeSources,
    TrustedProxy,
    WebURL,
)
from sidecar.config.fields.base import JSONSchema
from sidecar.config.fields.mapping import Items, Key, Section
from sidecar.config.fields.number import (
    Count,
    Duration,
    Fraction,
    LogRate,
    RefreshInterval,
    RefusalRate,
    Size,
)
from sidecar.config.fields.reference import ReplayStore, SecretReference
from sidecar.config.fields.text import (
    Choice,
    Flag,
    HeaderName,
    NonEmpty,
    PathPrefix,
)
from sidecar.config.fields.upstream import UPSTREAM_OR_URL
from sidecar.config.route_keys import ROUTE
from sidecar.config.settings import (
    AccountSettings,
    AuthorizeSettings,
    FileSettings,
    KeysSettings,
    Limits,
    RangesSettings,
)
from sidecar.http1.upstream import Timeouts
from sidecar.routing.question import QuestionForm
from sidecar.telemetry.log import Level, LogFormat, LogSettings
from sidecar.telemetry.trace_context import TracingSettings

#: More processes than any machine has use for.
MAX_WORKERS = 64


AUTHORIZE = Section(
    AuthorizeSettings,
    {
        "listen": Key(Listen(), "the listener that gateways ask"),
        "path_prefix": Key(
            PathPrefix(),
            "the prefix that Envoy adds to the path of each question (path_prefix, Istio pathPrefix)",
            ["/authorize"],
        ),
        "form": Key(
            Choice(QuestionForm),
            "the form of a question: envoy (the delivery itself), forward-auth (X-Forwarded-Method and -Uri of a "
            "trusted proxy), or any (either form)",
        ),
    },
)

LIMITS = Section(
    Limits,
    {
        "body": Key(Size(), "the largest allowed body; larger ones are rejected with 413"),
        "buffer": Key(Size(), "the memory for all bodies together; further deliveries get 503 with Retry-After"),
        "connections": Key(Count(), "the number of open connections from senders; beyond it the slowest one is closed"),
        "header_timeout": Key(Duration(), "the time limit for the complete request head; then 408"),
        "body_timeout": Key(Duration(), "the time limit for the complete body; then 408"),
        "refusals": Key(
            RefusalRate(),
            "how many rejected deliveries a route allows per client address; further ones get 429 before anything is "
            "read; default: off",
            ["60/m"],
        ),
    },
)

TIMEOUTS = Section(
    Timeouts,
    {
        "connect": Key(Duration(), "the time limit for connecting to the receiver, including retries; then 502"),
        "response": Key(Duration(), "the time limit until the receiver's response begins; then 504"),
        "total": Key(
            Duration(),
            "the time limit until the receiver's response is complete; then 504, or the connection is closed",
        ),
        "idle": Key(
            Duration(),
            "how long an idle connection to the receiver is kept open; set it shorter than the receiver's idle timeout",
        ),
        "keep_alive": Key(
            Duration(),
            "how long an idle connection from a sender is kept open, at least; set it longer than the idle timeout "
            "of the load balancer in front, which is 10 minutes on Google Cloud",
        ),
    },
)

LOG = Section(
    LogSettings,
    {
        "level": Key(Choice(Level), "the lowest level to log"),
        "accepted": Key(Flag(), "false: accepted deliveries are not logged"),
        "rejected": Key(
            LogRate(), "how many rejections are logged for each route and reason; off: all of them", ["off"]
        ),
        "format": Key(Choice(LogFormat), "the format of log lines: json, or text for reading by people"),
    },
)

TRACING = Section(
    TracingSettings,
    {
        "endpoint": Key(
            WebURL(), "the URL of the collector (OTLP over HTTP); /v1/traces is appended", ["http://127.0.0.1:4318"]
        ),
        "sample": Key(Fraction(), "the fraction of deliveries to trace"),
    },
)

ACCOUNT = Section(
    AccountSettings,
    {
        "id": Key(NonEmpty(), "the id of the account", ["622056dce007dc805c741751"]),
        "api_key": Key(SecretReference(), "the key that the caller must send; it also signs the test delivery"),
        "webhook_url": Key(
            WebURL(), "the URL to which the test delivery is sent", ["http://127.0.0.1:8080/webhooks/begini"]
        ),
    },
)

DELIVERY_TEST = Section(
    None,
    {"accounts": Key(Items(ACCOUNT), "the accounts that may request test deliveries", required=True)},
    make=lambda given: given["accounts"],
)

IP_RANGES = Section(
    RangesSettings,
    {
        "refresh": Key(
            RefreshInterval(),
            "how often the lists for preset:NAME in allow are fetched, at least 1m; default: never",
            ["24h"],
        ),
        "sources": Key(
            RangeSources(),
            "mirrors of the lists, by name: {github: https://...}",
            [{"github": "https://mirror.example/meta"}],
        ),
    },
)

KEYS = Section(
    KeysSettings,
    {
        "mirrors": Key(
            KeyMirrors(),
            "mirrors of documents, by the original URL; a URL that ends with / covers everything below it",
            [{"https://www.googleapis.com/oauth2/v3/certs": "https://mirror.example/google"}],
        ),
        "ca": Key(
            NonEmpty(),
            "a file of certificate authorities (PEM) to trust in addition to the system's when keys are fetched",
            ["/etc/ssl/internal-ca.pem"],
        ),
    },
)

CONFIG = Section(
    FileSettings,
    {
        "listen": Key(Listen(), "the data listener, where deliveries arrive"),
        "admin": Key(
            Listen(),
            "the admin listener: probes, metrics, status page, delivery test; never expose it to the internet",
        ),
        "authorize": Key(
            AUTHORIZE,
            "the listener for gateways that ask for a decision (Envoy ext_authz over HTTP, Traefik forwardAuth); it "
            "uses the same routes and never forwards; default: off",
        ),
        "admin_hosts": Key(
            Items(HostPattern()),
            "additional host names for the status page; IP addresses, names without a dot, and cluster names (*.svc, "
            "*.cluster.local) are always accepted",
            [["admin.example.com", "*.internal.example"]],
        ),
        "admin_token": Key(
            SecretReference(),
            "the token that is required to reload, or to run a delivery test from the status page; without it the "
            "admin listener is read-only, unless it listens on loopback or a unix socket",
            [{"env": "SIDECAR_ADMIN_TOKEN"}],
        ),
        "upstream": Key(
            UPSTREAM_OR_URL,
            "your receiver: a URL (http, https or unix:/path), or a mapping with connection settings",
            ["http://127.0.0.1:3000", "unix:/run/app.sock"],
        ),
        "public_url": Key(
            WebURL(),
            "the URL that senders use, without the path; only needed for schemes that sign the URL",
            ["https://hooks.example.com"],
        ),
        "trusted_proxies": Key(
            Items(TrustedProxy()),
            "the proxies whose X-Forwarded-For is trusted; 'unix:' is a proxy that connects to the unix socket; "
            "default: none",
            [["10.0.0.0/8", "unix:"]],
        ),
        "client_ip_header": Key(
            HeaderName(),
            "the header in which trusted proxies send the client's address: X-Forwarded-For, Forwarded (RFC 7239), "
            "or a header with a single address, such as X-Real-IP or CF-Connecting-IP",
        ),
        "proxy_protocol": Key(
            Flag(),
            "true: every connection from a trusted proxy must begin with a PROXY protocol header (version 1 or 2), "
            "whose address replaces that of the connection",
        ),
        "ip_ranges": Key(IP_RANGES, "the networks that providers publish (preset:NAME in allow)"),
        "keys": Key(KEYS, "how published keys are fetched; default: directly from the providers"),
        "limits": Key(LIMITS, "limits for senders"),
        "timeouts": Key(TIMEOUTS, "time limits for the receiver (the upstream), and keep_alive for senders"),
        "drain": Key(Duration(), "the time after SIGTERM for finishing deliveries in flight"),
        "log": Key(LOG, "one line for each delivery, on standard output"),
        "tracing": Key(TRACING, "spans for an OpenTelemetry collector; requires the extra otel; default: off"),
        "replay_store": Key(
            ReplayStore(),
            "where replay: stores deliveries: memory, or a Redis or Valkey server shared by all processes",
            [
                "redis://127.0.0.1:6379/0",
                {"url": "rediss://redis.example:6379/0", "password": {"env": "REDIS_PASSWORD"}},
            ],
        ),
        "replay_fail_open": Key(
            Flag(), "true: deliveries are forwarded without the replay check while the store is unavailable"
        ),
        "workers": Key(Count(MAX_WORKERS), "the number of processes that serve deliveries; use one per core"),
        "routes": Key(
            Items(ROUTE),
            "the accepted paths, and how their senders are verified; any other path gets 404",
            required=True,
        ),
        "delivery_test": Key(DELIVERY_TEST, "the endpoint POST /v1/webhooks-management/test on the admin listener"),
    },
)


def json_schema() -> JSONSchema:
    """JSON Schema of a configuration file, for editors and CI."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Webhook Sidecar configuration",
    } | CONFIG.json_schema()
