"""Every key of a route: its form and its meaning. The others are in keys.py."""

from collections.abc import Mapping
from typing import Any

from sidecar.config.fields.address import (
    AllowedSender,
    HostPattern,
    WebURL,
)
from sidecar.config.fields.base import InvalidValueError, JSONSchema, ValueType
from sidecar.config.fields.header import HEADERS
from sidecar.config.fields.mapping import Items, Key, OneOrMore, Section, ShortOrSection
from sidecar.config.fields.number import (
    Count,
    Duration,
    Size,
)
from sidecar.config.fields.reference import INLINE_SECRET, SecretReference
from sidecar.config.fields.text import (
    Choice,
    Fingerprint,
    Flag,
    HeaderName,
    Label,
    Method,
    NonEmpty,
    RoutePath,
    TenantFileName,
)
from sidecar.config.fields.upstream import UPSTREAM_OR_URL
from sidecar.config.handshakes import RouteHandshake
from sidecar.config.presets import SigningScheme, Verify
from sidecar.config.scheme_keys import REJECT_KEYS
from sidecar.config.settings import (
    RESEND,
    RejectSettings,
    ReplayBy,
    ReplaySettings,
    RouteLimits,
    RouteMode,
    RouteSettings,
    RouteTimeouts,
    SignSettings,
)
from sidecar.config.tenant_files import TenantFileSettings
from sidecar.replay.store import OnFailure
from sidecar.routing.client_certificate import ClientCertificate
from sidecar.routing.routes import Capture
from sidecar.secret import SecretRef
from sidecar.verify.verifier import MAX_SECRETS

REJECT = Section(RejectSettings, REJECT_KEYS)


class Rejection(ValueType[RejectSettings | str]):
    """The response to rejected deliveries: `resend`, or its status and body."""

    title = "resend or keys"

    def read(self, value: Any) -> RejectSettings | str:
        if value == RESEND:
            return RESEND
        if isinstance(value, Mapping):
            return REJECT.read(value)
        raise InvalidValueError("must be `resend`, or a mapping such as {status: 401}")

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "anyOf": [{"const": RESEND}, REJECT.json_schema()]}


TENANT_FILES = Section(
    TenantFileSettings,
    {
        "dir": Key(NonEmpty(), "the directory with a file for each tenant", ["/run/secrets/tenants"]),
        "name": Key(
            TenantFileName(),
            "the name of a tenant's file; NAME.previous beside it has the secret that is being replaced",
            ["{tenant}", "{tenant}.key"],
        ),
    },
)


class Secrets(ValueType[tuple[SecretRef, ...] | TenantFileSettings]):
    """A list of secrets, or the directory of those of tenants."""

    title = "secrets"
    listed = Items(SecretReference(), MAX_SECRETS)

    def read(self, value: Any) -> tuple[SecretRef, ...] | TenantFileSettings:
        if isinstance(value, Mapping) and ("dir" in value or "name" in value):
            return TENANT_FILES.read(value)
        if isinstance(value, str):
            raise InvalidValueError(INLINE_SECRET)
        return self.listed.read(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "anyOf": [self.listed.json_schema(), TENANT_FILES.json_schema()]}


CLIENT_CERTIFICATE = Section(
    None,
    {
        "header": Key(
            HeaderName(),
            "the header with the certificate: X-Forwarded-Client-Cert (Envoy), Client-Cert (RFC 9440), or one that holds "
            "the escaped PEM, such as nginx' X-SSL-Client-Cert",
            ["X-Forwarded-Client-Cert"],
            required=True,
        ),
        "subject": Key(
            NonEmpty(), "its whole subject, as the proxy or RFC 4514 writes it", ["CN=pix.example.com,O=Bank"]
        ),
        "san": Key(NonEmpty(), "one of its alternative names: a DNS name or a URI", ["pix.example.com"]),
        "issuer": Key(
            NonEmpty(),
            "its whole issuer, as RFC 4514 writes it; Envoy has it in the whole certificate only",
            ["CN=CA"],
        ),
        "fingerprint": Key(Fingerprint(), "its SHA-256, in hex", ["ab" * 32]),
    },
    make=lambda given: ClientCertificate(**given),
)
#: Requests of one route that may be held.
MAX_CAPTURES = 100
CAPTURE = Section(
    None,
    {
        "rejected": Key(
            Count(MAX_CAPTURES), "how many of the last rejected requests are held, by each process", [20], required=True
        ),
        "for": Key(Duration(), "how long each of them is held", ["1h"], required=True),
    },
    make=lambda given: Capture(given["rejected"], given["for"]),
)


REPLAY = Section(
    None,
    {
        "for": Key(Duration(), "how long an accepted delivery is remembered", ["72h"], required=True),
        "by": Key(
            Choice(ReplayBy),
            "what copies have in common: the signed message, or delivery_id, the provider's id, which a sender of a "
            "recording can change if it is not signed",
            default=ReplayBy.MESSAGE,
        ),
        "on_failure": Key(
            Choice(OnFailure),
            "only with authorize, and required there: what becomes of a delivery that was allowed and the receiver "
            "failed at, which nobody reports: lost (copies are rejected all the same) or allow_repeat (copies are "
            "rejected only while the receiver may be at work)",
        ),
    },
    make=lambda given: ReplaySettings(given["for"], given.get("by", ReplayBy.MESSAGE), given.get("on_failure")),
)


def _make_route(given: dict[str, Any]) -> RouteSettings:
    secrets = given.pop("secrets", ())
    if isinstance(secrets, TenantFileSettings):
        return RouteSettings(**given, tenant_files=secrets)
    return RouteSettings(**given, secrets=secrets)


ROUTE = Section(
    RouteSettings,
    {
        "name": Key(Label(), "the route's name in metrics and logs; default: made from the path", ["acme"]),
        "path": Key(
            RoutePath(),
            "the exact path as sent; a final /* matches everything below it, and {tenant} one segment, the tenant's name",
            ["/webhooks/acme", "/internal/*", "/hooks/{tenant}"],
            required=True,
        ),
        "hosts": Key(
            Items(HostPattern()),
            "the hosts that the route is for, as in the request's Host header; *.example.com is every name below "
            "example.com; default: any host",
            [["hooks.example.com", "*.hooks.example.com"]],
        ),
        "verify": Key(
            Verify(),
            "the name of a preset, a scheme, preset: NAME with changes, several of these under any_of or all_of, or none "
            "(which requires allow)",
            ["github", "none", {"any_of": ["gitlab", "gitlab-signing-token"]}],
        ),
        "secrets": Key(
            Secrets(),
            "the secrets, of which any may match; logs and metrics show the id of the one that did; at most ten; "
            "or, for a route with tenants, the directory that has a file for each",
            [
                [
                    {"id": "current", "env": "ACME_SECRET"},
                    {"id": "previous", "file": "/run/secrets/previous", "optional": True},
                ]
            ],
        ),
        "tenant": Key(
            HeaderName(),
            "the header in which a request names its tenant; default: the path has {tenant} for one of its segments",
            ["X-Account-Id"],
        ),
        "allow": Key(
            Items(AllowedSender()),
            "the networks that may send; preset:NAME is the list that a provider publishes; "
            "default: anyone with a valid signature",
            [["203.0.113.0/24", "2001:db8::/32", "preset:github"]],
        ),
        "methods": Key(
            Items(Method()),
            "the methods that the route accepts; default: POST, and on an open route GET, HEAD and POST",
            [["POST"]],
        ),
        "mode": Key(
            Choice(RouteMode),
            "shadow forwards every delivery and counts those that enforce would have rejected",
        ),
        "open": Key(
            Flag(), "true forwards everything without verification; meant for the receiver's own health checks"
        ),
        "upstream": Key(
            UPSTREAM_OR_URL,
            "the receiver of this route: its URL, or a mapping that says how it is connected to; "
            "default: the common upstream",
            ["http://127.0.0.1:3001"],
        ),
        "timeouts": Key(
            Section(
                RouteTimeouts,
                {
                    "connect": Key(Duration(), "default: the common timeouts.connect", ["9s"]),
                    "response": Key(Duration(), "default: the common timeouts.response", ["9s"]),
                    "total": Key(Duration(), "default: the common timeouts.total", ["10s"]),
                },
            ),
            "time limits for the receiver of this route",
        ),
        "public_url": Key(
            WebURL(),
            "the URL that senders of this route use; default: the common public_url",
            ["https://acme.example.com"],
        ),
        "limits": Key(
            Section(
                RouteLimits,
                {"body": Key(Size(), "the largest body on this route; default: the common limits.body", ["1MiB"])},
            ),
            "limits of this route",
        ),
        "headers": Key(HEADERS, "what changes about the headers on their way to the receiver"),
        "sign": Key(
            Section(
                SignSettings,
                {
                    "secret": Key(
                        OneOrMore(SecretReference()),
                        "the secret that the receiver verifies with; for Standard Webhooks base64, with or without whsec_ "
                        "before it; each secret of a list adds a signature",
                    ),
                    "scheme": Key(
                        SigningScheme(),
                        "the scheme that the receiver knows: a preset, or a scheme in the form of verify, that a shared secret "
                        "can sign; the sender's headers of that scheme are removed; default: standard-webhooks",
                        ["github"],
                    ),
                },
            ),
            "signs forwarded deliveries for the receiver, in one scheme for all providers",
        ),
        "replay": Key(
            ShortOrSection("duration or keys", Duration(), REPLAY, ReplaySettings),
            "for how long a delivery that the receiver accepted is not forwarded again; default: off",
            ["10m", {"for": "10m", "on_failure": "lost"}],
        ),
        "replay_fail_open": Key(
            Flag(),
            "true forwards deliveries unchecked while the replay store is unavailable; "
            "default: the common replay_fail_open",
        ),
        "capture": Key(
            CAPTURE,
            "holds the last rejected requests in memory, bodies included, for sidecar explain; needs admin_token; default: off",
        ),
        "client_certificate": Key(
            CLIENT_CERTIFICATE,
            "what the sender's client certificate must be, besides the signature; a trusted proxy passes it on",
        ),
        "handshake": Key(
            RouteHandshake(),
            "who responds to the provider's handshakes: answer (the sidecar) or pass (the receiver); "
            "default: the sidecar if a handshake is unsigned or needs the secret, else the receiver. Or a list of "
            "handshakes that the sidecar answers besides those of the scheme",
            ["answer", "pass", ["cloudevents"]],
        ),
        "verify_token": Key(SecretReference(), "the token that a handshake must present"),
        "reject": Key(
            Rejection(),
            "the response to every delivery that verification or the allowlist rejects; resend: one after which the "
            "provider sends again; default: the preset's, else 403",
            [RESEND, {"status": 401}],
        ),
    },
    make=_make_route,
)
