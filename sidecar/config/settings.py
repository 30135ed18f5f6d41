"""The settings: as a file holds them (`FileSettings`, `RouteSettings`), and as the program runs by them (`Config`).

The defaults of all keys are here and in the dataclasses of the parts that use them (`Timeouts`, `LogSettings`, ...).
keys.py adds the form and the meaning of each key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from sidecar.config.combination import Combination
from sidecar.config.fields.header import HeadersSettings
from sidecar.config.fields.reference import PROCESS_MEMORY, ReplayStoreRef
from sidecar.config.fields.upstream import UpstreamFileSettings
from sidecar.config.handshakes import NamedHandshake
from sidecar.config.problems import Problem
from sidecar.config.tenant_files import TenantDirectory, TenantFileSettings
from sidecar.http1.sockets import ListenAddress
from sidecar.http1.upstream import Timeouts
from sidecar.replay.store import OnFailure, StoreAddress
from sidecar.routing.client_certificate import ClientCertificate
from sidecar.routing.client_ip import ClientHeader
from sidecar.routing.networks import IPNetwork, Networks
from sidecar.routing.question import QuestionForm
from sidecar.routing.refusal_limit import Rate
from sidecar.routing.routes import Capture, RouteTable
from sidecar.secret import Secret, SecretRef
from sidecar.telemetry.log import LogSettings
from sidecar.telemetry.trace_context import TracingSettings
from sidecar.verify.composite import weakest
from sidecar.verify.handshake import HandshakeMode, Shape
from sidecar.verify.published import ClientName, KeySource
from sidecar.verify.scheme import Scheme

DEFAULT_LISTEN = ListenAddress("::", 8080)
DEFAULT_ADMIN = ListenAddress("::", 9090)
DEFAULT_AUTHORIZE = ListenAddress("::", 8081)


class RouteMode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, durations in seconds."""

    body: int = 5 * 1024**2
    buffer: int = 64 * 1024**2
    connections: int = 1000
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    refusals: Rate | None = None


@dataclass(frozen=True, slots=True)
class AuthorizeSettings:
    """`authorize:`, the listener that gateways ask. `path_prefix` is empty or begins with a slash, and ends without one."""

    listen: ListenAddress = DEFAULT_AUTHORIZE
    path_prefix: str = ""
    form: QuestionForm = QuestionForm.ANY


@dataclass(frozen=True, slots=True)
class RangesSettings:
    """`refresh` in seconds, None for never; `sources` are mirrors, by preset."""

    refresh: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeysSettings:
    """Where the keys that providers publish are fetched. `mirrors` are URLs by URL."""

    mirrors: Mapping[str, str] = field(default_factory=dict)
    ca: str = ""  #: a file of certificate authorities


@dataclass(frozen=True, slots=True)
class RouteLimits:
    body: int | None = None


@dataclass(frozen=True, slots=True)
class RouteTimeouts:
    """`timeouts:` of a route, in seconds. None: as for all routes."""

    connect: float | None = None
    response: float | None = None
    total: float | None = None


#: The value of `reject:` for a response after which the provider sends again.
RESEND = "resend"


@dataclass(frozen=True, slots=True)
class RejectSettings:
    """`reject:` of a route. None means that the key is absent: the preset's or the common value applies."""

    status: int | None = None
    body: str | None = None


class ReplayBy(StrEnum):
    """How copies of a delivery are recognized."""

    MESSAGE = "message"  # what the provider signed
    DELIVERY_ID = "delivery_id"


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """`replay:` of a route."""

    seconds: float
    by: ReplayBy = ReplayBy.MESSAGE
    on_failure: OnFailure | None = None


@dataclass(frozen=True, slots=True)
class SignSettings:
    """`sign:` of a route."""

    secret: tuple[SecretRef, ...]
    scheme: Scheme | None = None  #: None: Standard Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """One entry of `routes:` as written. None and empty mean that the key is absent, or that its value is not valid."""

    name: str = ""
    path: str = ""
    hosts: tuple[str, ...] = ()
    verify: Scheme | Combination | str | None = None  #: the text `none` for a route without signatures
    secrets: tuple[SecretRef, ...] = ()
    tenant_files: TenantFileSettings | None = None  #: `secrets:` of a route with tenants
    tenant: str = ""  #: the header that names the tenant
    allow: tuple[IPNetwork | str, ...] = ()
    methods: tuple[str, ...] = ()
    mode: RouteMode = RouteMode.ENFORCE
    open: bool = False
    upstream: UpstreamFileSettings | None = None
    public_url: str = ""
    timeouts: RouteTimeouts = RouteTimeouts()
    limits: RouteLimits = RouteLimits()
    headers: HeadersSettings | None = None
    sign: SignSettings | None = None
    replay: ReplaySettings | None = None
    capture: Capture | None = None
    client_certificate: ClientCertificate | None = None
    replay_fail_open: bool | None = None
    handshake: HandshakeMode | tuple[NamedHandshake, ...] | None = None
    verify_token: SecretRef | None = None
    reject: RejectSettings | str | None = None  #: the text `resend` for a status after which the provider sends again

    @property
    def scheme(self) -> Scheme | None:
        """The scheme that verifies deliveries, of several the first, with the facts that hold for all; None if there is none."""
        if isinstance(self.verify, Combination):
            return self.verify.facts
        return self.verify if isinstance(self.verify, Scheme) else None

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """Every scheme, in the order of the file."""
        if isinstance(self.verify, Combination):
            return self.verify.schemes
        return (self.verify,) if isinstance(self.verify, Scheme) else ()

    @property
    def handshake_mode(self) -> HandshakeMode | None:
        """The mode of the schemes' handshakes; None if the file doesn't say."""
        return self.handshake if isinstance(self.handshake, HandshakeMode) else None

    @property
    def added_handshakes(self) -> tuple[Shape, ...]:
        """The handshakes that the route adds to those of its schemes."""
        named = self.handshake if isinstance(self.handshake, tuple) else ()
        return tuple(shape for each in named for shape in each.shapes)

    @property
    def weakest(self) -> Sequence[Scheme]:
        """The schemes that limit what the route proves."""
        return weakest(self.verify.combine, self.schemes) if isinstance(self.verify, Combination) else self.schemes


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """One entry of `delivery_test.accounts:`."""

    id: str
    api_key: SecretRef
    webhook_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings:
    """The settings that need nothing else to take effect: they are the same in the file and in the program."""

    listen: ListenAddress = DEFAULT_LISTEN
    admin: ListenAddress = DEFAULT_ADMIN
    authorize: AuthorizeSettings | None = None
    admin_hosts: tuple[str, ...] = ()
    proxy_protocol: bool = False
    ip_ranges: RangesSettings = RangesSettings()
    keys: KeysSettings = KeysSettings()
    limits: Limits = Limits()
    timeouts: Timeouts = field(default_factory=Timeouts)
    drain: float = 20.0
    log: LogSettings = field(default_factory=LogSettings)
    tracing: TracingSettings | None = None
    workers: int = 1

    def common(self) -> dict[str, Any]:
        """These settings by name, to make a `Config` of."""
        return {each.name: getattr(self, each.name) for each in fields(CommonSettings)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings(CommonSettings):
    """A configuration file as written: secrets are references, and routes know nothing of each other."""

    admin_token: SecretRef | None = None
    upstream: UpstreamFileSettings | None = None
    public_url: str = ""
    trusted_proxies: tuple[IPNetwork | str, ...] = ()
    client_ip_header: str = "X-Forwarded-For"
    replay_store: ReplayStoreRef = PROCESS_MEMORY
    replay_fail_open: bool = False
    routes: tuple[RouteSettings, ...] = ()
    delivery_test: tuple[AccountSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """An account that may request a test delivery, and where the delivery goes. `webhook_url` is empty if none is set."""

    id: str
    api_key: Secret
    webhook_url: str


@dataclass(frozen=True, slots=True)
class KeyClient:
    """An application at a provider, whose access token requests for keys need."""

    name: ClientName
    secret: Secret
    source: str  #: of the keys, in metrics


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Config(CommonSettings):
    """One configuration, complete and checked. Requests in flight keep the one that they began with."""

    file: str
    admin_token: Secret | None
    trusted_proxies: Networks
    trust_unix: bool
    client_header: ClientHeader
    ranges: Mapping[str, Networks]  #: the published networks that routes admit, by preset
    replay_store: StoreAddress | None  #: None: each process's own memory
    replay_password: Secret | None
    sentinel_password: Secret | None
    routes: RouteTable
    accounts: tuple[Account, ...]
    tenant_directories: tuple[TenantDirectory, ...]
    key_authorities: str  #: the content of `keys.ca`, PEM
    key_clients: tuple[KeyClient, ...]
    warnings: tuple[Problem, ...]

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names, in metrics, of the published keys that routes need, without repetition."""
        verifiers = [route.verifier for route in self.routes.routes if route.verifier is not None]
        return tuple(dict.fromkeys(name for verifier in verifiers for name in verifier.key_names))

    @property
    def key_sources(self) -> tuple[KeySource, ...]:
        """The listed documents of published keys that routes need, each once."""
        verifiers = [route.verifier for route in self.routes.routes if route.verifier is not None]
        return tuple(dict.fromkeys(source for verifier in verifiers for source in verifier.key_sources))
