"""The finished configuration: frozen values, checked as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar.config.problems import Problem
from sidecar.http1.sockets import ListenAddress
from sidecar.http1.upstream import Timeouts
from sidecar.replay.store import StoreAddress
from sidecar.routing.client_ip import ClientHeader
from sidecar.routing.networks import Networks
from sidecar.routing.refusal_limit import Rate
from sidecar.routing.routes import RouteTable
from sidecar.secret import Secret
from sidecar.telemetry.log import LogSettings
from sidecar.telemetry.trace_context import TracingSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, durations in seconds."""

    body: int
    buffer: int
    connections: int
    header_timeout: float
    body_timeout: float
    refusals: Rate | None = None


@dataclass(frozen=True, slots=True)
class RangesSettings:
    """`refresh` in seconds, None for never; `sources` are mirrors, by preset."""

    refresh: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """Who may ask for a test delivery, and where it goes. `webhook_url` is empty if none is set."""

    id: str
    api_key: Secret
    webhook_url: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Config:
    """One configuration, whole and checked. Requests in flight keep the one they began with."""

    file: str
    listen: ListenAddress
    admin: ListenAddress
    admin_token: Secret | None
    trusted_proxies: Networks
    trust_unix: bool
    client_header: ClientHeader
    proxy_protocol: bool
    ip_ranges: RangesSettings
    ranges: Mapping[str, Networks]  #: the published networks that routes admit, by preset
    limits: Limits
    timeouts: Timeouts
    drain: float
    replay_store: StoreAddress | None  #: None: each process's own memory
    replay_password: Secret | None
    log: LogSettings
    tracing: TracingSettings | None
    workers: int
    routes: RouteTable
    accounts: tuple[Account, ...]
    warnings: tuple[Problem, ...]
