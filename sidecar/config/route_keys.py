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
        "dir": Key(NonEmpty(), "the directory that contains a file for each tenant", ["/run/secrets/tenants"]),
        "name": Key(
            TenantFileName(),
            "the name of a tenant's file; NAME.previous in the same directory has the secret that is being replaced",
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
            "the header with the certificate: X-Forwarded-Client-Cert (Envoy), Client-Cert (RFC 9440), or one with "
            "the escaped PEM, such as X-SSL-Client-Cert from nginx",
            ["X-Forwarded-Client-Cert"],
            required=True,
        ),
        "subject": Key(
            NonEmpty(),
            "the complete subject, in the proxy's notation or that of RFC 4514",
            ["CN=pix.example.com,O=Bank"],
        ),
        "san": Key(NonEmpty(), "one of the alternative names: a DNS name or a URI", ["pix.example.com"]),
        "issuer": Key(
            NonEmpty(),
            "the complete issuer in the notation of RFC 4514; Envoy sends it only with the whole certificate",
            ["CN=CA"],
        ),
        "fingerprint": Key(Fingerprint(), "the SHA-256 of the certificate, in hex", ["ab" * 32]),
    },
    make=lambda given: ClientCertificate(**given),
)
#: Requests of one route that may be held.
MAX_CAPTURES = 100
CAPTURE = Section(
    None,
    {
        "rejected": Key(Count(MAX_CAPTURES), "how many rejected requests each process keeps", [20], required=True),
        "for": Key(Duration(), "how long each request is kept", ["1h"], required=True),
    },
    make=lambda given: Capture(given["rejected"], given["for"]),
)


REPLAY = Section(
    None,
    {
        "for": Key(Duration(), "how long an accepted delivery is remembered", ["72h"], required=True),
        "by": Key(
            Choice(ReplayBy),
            "how copies are recognized: by the signed message, or by delivery_id, the provider's id, which an "
            "attacker with a recording can change if it is not signed",
            default=ReplayBy.MESSAGE,
        ),
        "on_failure": Key(
            Choice(OnFailure),
            "only for authorize, and required there: how to treat copies of an allowed delivery, because the sidecar "
            "can't see whether the receiver failed: lost (copies are always rejected) or allow_repeat (copies are "
            "rejected only while the receiver may still be working)",
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
        "name": Key(Label(), "the route's name in metrics and logs; default: derived from the path", ["acme"]),
        "path": Key(
            RoutePath(),
            "the exact path as sent; a final /* matches everything below it; {tenant} matches one segment, the "
            "tenant's name",
            ["/webhooks/acme", "/internal/*", "/hooks/{tenant}"],
            required=True,
        ),
        "hosts": Key(
            Items(HostPattern()),
            "the hosts that the route serves, as in the Host header; *.example.com matches every name below "
            "example.com; default: any host",
            [["hooks.example.com", "*.hooks.example.com"]],
        ),
        "verify": Key(
            Verify(),
            "a preset's name, a scheme, preset: NAME with changes, several of these under any_of or all_of, or none "
            "(which requires allow)",
            ["github", "none", {"any_of": ["gitlab", "gitlab-signing-token"]}],
        ),
        "secrets": Key(
            Secrets(),
            "up to ten secrets, any of which may match; logs and metrics show the id of the matching one; or, for a "
            "route with tenants, the directory with a file for each tenant",
            [
                [
                    {"id": "current", "env": "ACME_SECRET"},
                    {"id": "previous", "file": "/run/secrets/previous", "optional": True},
                ]
            ],
        ),
        "tenant": Key(
            HeaderName(),
            "the header that names the tenant; default: the path has the segment {tenant}",
            ["X-Account-Id"],
        ),
        "allow": Key(
            Items(AllowedSender()),
            "the networks that may send; preset:NAME is the list that a provider publishes; default: any address "
            "with a valid signature",
            [["203.0.113.0/24", "2001:db8::/32", "preset:github"]],
        ),
        "methods": Key(
            Items(Method()),
            "the accepted methods; default: POST, and on an open route GET, HEAD and POST",
            [["POST"]],
        ),
        "mode": Key(
            Choice(RouteMode),
            "shadow: every delivery is forwarded, and those that enforce would have rejected are counted",
        ),
        "open": Key(
            Flag(), "true: everything is forwarded without verification; meant for the receiver's health checks"
        ),
        "upstream": Key(
            UPSTREAM_OR_URL,
            "the receiver of this route: a URL, or a mapping with connection settings; default: the common upstream",
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
            "the URL that senders use for this route; default: the common public_url",
            ["https://acme.example.com"],
        ),
        "limits": Key(
            Section(
                RouteLimits,
                {"body": Key(Size(), "the largest body on this route; default: the common limits.body", ["1MiB"])},
            ),
            "limits for this route",
        ),
        "headers": Key(HEADERS, "changes to the headers on the way to the receiver"),
        "sign": Key(
            Section(
                SignSettings,
                {
                    "secret": Key(
                        OneOrMore(SecretReference()),
                        "the secret with which the receiver verifies; for Standard Webhooks in base64, with or without the "
                        "prefix whsec_; each secret of a list adds a signature",
                    ),
                    "scheme": Key(
                        SigningScheme(),
                        "the scheme that the receiver verifies: a preset, or a scheme as under verify, with a shared secret; the "
                        "sender's headers of this scheme are removed; default: standard-webhooks",
                        ["github"],
                    ),
                },
            ),
            "signs forwarded deliveries for the receiver, with one scheme for all providers",
        ),
        "replay": Key(
            ShortOrSection("duration or keys", Duration(), REPLAY, ReplaySettings),
            "how long a delivery that the receiver accepted is not forwarded again; default: off",
            ["10m", {"for": "10m", "on_failure": "lost"}],
        ),
        "replay_fail_open": Key(
            Flag(),
            "true: deliveries are forwarded without the replay check while the store is unavailable; default: the "
            "common replay_fail_open",
        ),
        "capture": Key(
            CAPTURE,
            "keeps the latest rejected requests in memory, including bodies, for sidecar explain; requires "
            "admin_token; default: off",
        ),
        "client_certificate": Key(
            CLIENT_CERTIFICATE,
            "requirements for the sender's client certificate, in addition to the signature; a trusted proxy passes "
            "it on",
        ),
        "handshake": Key(
            RouteHandshake(),
            "which side responds to the provider's handshakes: answer (the sidecar) or pass (the receiver); default: "
            "the sidecar if a handshake is unsigned or needs the secret, otherwise the receiver. Or a list of "
            "handshakes to which the sidecar responds in addition to those of the scheme",
            ["answer", "pass", ["cloudevents"]],
        ),
        "verify_token": Key(SecretReference(), "the token that a handshake must contain"),
        "reject": Key(
            Rejection(),
            "the response to every delivery that verification or the allowlist rejects; resend: a response after "
            "which the provider retries; default: the preset's, otherwise 403",
            [RESEND, {"status": 401}],
        ),
    },
    make=_make_route,
)
