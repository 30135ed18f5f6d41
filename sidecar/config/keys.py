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
        "listen": Key(Listen(), "where gateways ask"),
        "path_prefix": Key(
            PathPrefix(),
            "what Envoy puts before the path of each question (path_prefix, Istio pathPrefix)",
            ["/authorize"],
        ),
        "form": Key(
            Choice(QuestionForm),
            "what a question is like: envoy (the delivery itself), forward-auth (X-Forwarded-Method and -Uri of a trusted "
            "proxy), or any of both",
        ),
    },
)

LIMITS = Section(
    Limits,
    {
        "body": Key(Size(), "the largest body of a delivery; a larger one is rejected with 413"),
        "buffer": Key(
            Size(), "the most that all bodies together may take; further deliveries get 503 with Retry-After"
        ),
        "connections": Key(Count(), "the most open connections of senders; at the limit the slowest one is closed"),
        "header_timeout": Key(Duration(), "the time for the whole request head; then 408"),
        "body_timeout": Key(Duration(), "the time for the whole body; then 408"),
        "refusals": Key(
            RefusalRate(),
            "how many deliveries from one client address a route rejects; further ones get 429 before anything is read; "
            "default: off",
            ["60/m"],
        ),
    },
)

TIMEOUTS = Section(
    Timeouts,
    {
        "connect": Key(Duration(), "the time until the receiver accepts a connection, retries included; then 502"),
        "response": Key(Duration(), "the time until the receiver's response begins; then 504"),
        "total": Key(
            Duration(), "the time until the receiver's response has ended; then 504, or the connection is closed"
        ),
        "idle": Key(
            Duration(), "how long an unused connection is kept; it should be shorter than the receiver's own limit"
        ),
        "keep_alive": Key(
            Duration(),
            "how long an unused connection of a sender is kept, at least; it should be longer than the limit of the load "
            "balancer in front, which is 10 minutes on Google Cloud",
        ),
    },
)

LOG = Section(
    LogSettings,
    {
        "level": Key(Choice(Level), "the lowest level that is logged"),
        "accepted": Key(Flag(), "false leaves out accepted deliveries"),
        "rejected": Key(
            LogRate(), "how many rejections of one route with one reason are logged; off logs all", ["off"]
        ),
        "format": Key(Choice(LogFormat), "json for machines, text for people"),
    },
)

TRACING = Section(
    TracingSettings,
    {
        "endpoint": Key(WebURL(), "the collector, OTLP over HTTP; /v1/traces is appended", ["http://127.0.0.1:4318"]),
        "sample": Key(Fraction(), "the fraction of deliveries that is traced"),
    },
)

ACCOUNT = Section(
    AccountSettings,
    {
        "id": Key(NonEmpty(), "the account's id", ["622056dce007dc805c741751"]),
        "api_key": Key(SecretReference(), "the key that the caller must present; it also signs the test delivery"),
        "webhook_url": Key(WebURL(), "where the test delivery is sent", ["http://127.0.0.1:8080/webhooks/begini"]),
    },
)

DELIVERY_TEST = Section(
    None,
    {"accounts": Key(Items(ACCOUNT), "the accounts that may request a test delivery", required=True)},
    make=lambda given: given["accounts"],
)

IP_RANGES = Section(
    RangesSettings,
    {
        "refresh": Key(
            RefreshInterval(),
            "how often the lists of preset:NAME in allow are fetched, at least 1m; default: never",
            ["24h"],
        ),
        "sources": Key(
            RangeSources(),
            "mirrors to fetch lists from, by name: {github: https://...}",
            [{"github": "https://mirror.example/meta"}],
        ),
    },
)

KEYS = Section(
    KeysSettings,
    {
        "mirrors": Key(
            KeyMirrors(),
            "where to fetch documents instead, by their URL; a URL that ends with / covers everything below it",
            [{"https://www.googleapis.com/oauth2/v3/certs": "https://mirror.example/google"}],
        ),
        "ca": Key(
            NonEmpty(),
            "a file of certificate authorities (PEM) to trust besides the system's when keys are fetched",
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
            "a listener that judges by the same routes and never forwards, for gateways that ask: Envoy ext_authz over "
            "HTTP, Traefik forwardAuth; default: off",
        ),
        "admin_hosts": Key(
            Items(HostPattern()),
            "further host names of the status page; addresses, names without a dot, and names of the cluster (*.svc, "
            "*.cluster.local) are always accepted",
            [["admin.example.com", "*.internal.example"]],
        ),
        "admin_token": Key(
            SecretReference(),
            "the token that a caller must present to reload or to run a delivery test from the status page; without one "
            "the admin listener is read-only, unless it listens on loopback or a unix socket",
            [{"env": "SIDECAR_ADMIN_TOKEN"}],
        ),
        "upstream": Key(
            UPSTREAM_OR_URL,
            "your receiver: its URL (http, https or unix:/path), or a mapping that says how it is connected to",
            ["http://127.0.0.1:3000", "unix:/run/app.sock"],
        ),
        "public_url": Key(
            WebURL(),
            "the URL that senders use, without the path; only schemes that sign the URL need it",
            ["https://hooks.example.com"],
        ),
        "trusted_proxies": Key(
            Items(TrustedProxy()),
            "the proxies whose X-Forwarded-For is trusted; 'unix:' is a proxy on our socket; default: none",
            [["10.0.0.0/8", "unix:"]],
        ),
        "client_ip_header": Key(
            HeaderName(),
            "the one header in which trusted proxies name the client: X-Forwarded-For, Forwarded (RFC 7239), or one "
            "that holds a single address, such as X-Real-IP or CF-Connecting-IP",
        ),
        "proxy_protocol": Key(
            Flag(),
            "true: every connection of a trusted proxy must begin with a PROXY protocol header (version 1 or 2), "
            "and the address in it replaces the connection's",
        ),
        "ip_ranges": Key(IP_RANGES, "the networks that providers publish (preset:NAME in allow)"),
        "keys": Key(KEYS, "how the keys that providers publish are fetched; default: from the providers"),
        "limits": Key(LIMITS, "limits for senders"),
        "timeouts": Key(TIMEOUTS, "time limits for the receiver (the upstream), and keep_alive for senders"),
        "drain": Key(Duration(), "on SIGTERM, the time to finish deliveries in flight"),
        "log": Key(LOG, "one line for each delivery, on standard output"),
        "tracing": Key(TRACING, "spans for an OpenTelemetry collector; needs the extra otel, and is off by default"),
        "replay_store": Key(
            ReplayStore(),
            "where replay: remembers deliveries: memory, or a Redis or Valkey shared by all processes",
            [
                "redis://127.0.0.1:6379/0",
                {"url": "rediss://redis.example:6379/0", "password": {"env": "REDIS_PASSWORD"}},
            ],
        ),
        "replay_fail_open": Key(Flag(), "true forwards deliveries unchecked while the replay store is unavailable"),
        "workers": Key(Count(MAX_WORKERS), "the processes that serve deliveries; one for each core to be used"),
        "routes": Key(
            Items(ROUTE),
            "which paths are accepted, and how their senders are verified; any other path gets 404",
            required=True,
        ),
        "delivery_test": Key(DELIVERY_TEST, "POST /v1/webhooks-management/test on the admin listener"),
    },
)


def json_schema() -> JSONSchema:
    """JSON Schema of a configuration file, for editors and CI."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Webhook Sidecar configuration",
    } | CONFIG.json_schema()
