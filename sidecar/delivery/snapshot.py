"""The configuration at work and what belongs to it alone. A delivery keeps the snapshot it began with."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from sidecar.config.settings import Config
from sidecar.http1.head import RequestHead
from sidecar.http1.upstream import Upstream, UpstreamSettings
from sidecar.routing.client_ip import Client, resolve_client
from sidecar.routing.refusal_limit import RefusalLimit
from sidecar.routing.routes import Route, RouteTable


class Snapshot:
    """One configuration and what belongs to it alone. A delivery keeps the snapshot it began with."""

    def __init__(self, config: Config, pools: Mapping[UpstreamSettings, Upstream]) -> None:
        self.config = config
        self.pools = pools
        #: The pool of each route; to find one by its settings would take hashing all of them.
        self.upstreams: Mapping[Route, Upstream] = {
            route: pools[settings_of(route, config)] for route in config.routes.routes
        }
        every = config.routes
        #: The routes of the data listener; the authorize listener has those without a receiver as well.
        self.forwarding = (
            every
            if all(route.forwards for route in every.routes)
            else RouteTable(route for route in every.routes if route.forwards)
        )
        self.refusal_limit = RefusalLimit(config.limits.refusals)
        self.warned: set[str] = set()  #: names of routes that a warning about proxies was logged for
        self.trusts_nobody = not (config.trusted_proxies.cidrs or config.trust_unix)
        # Connections come from few addresses, so what depends only on those is computed once. Nothing that senders write is kept.
        self.resolve_peer: Callable[[str | None], Client] = lru_cache(maxsize=1024)(self._resolve)

    def resolve_client(self, head: RequestHead) -> Client:
        """The sender of a delivery; see `client_ip.resolve_client`."""
        client = self.resolve_peer(head.peer)
        if client.trusted_peer and (lines := head.values(self.config.client_header.field)):
            return self._resolve(head.peer, lines)
        return client

    def _resolve(self, peer: str | None, lines: Sequence[bytes] = ()) -> Client:
        config = self.config
        return resolve_client(
            peer, lines, config.trusted_proxies, trust_unix=config.trust_unix, header=config.client_header
        )


class CurrentSnapshot:
    """Holds the snapshot at work, and replaces it."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.snapshot = Snapshot(config, self._pools(config, {}))

    def apply(self, config: Config) -> None:
        old = self.snapshot
        self.snapshot = Snapshot(config, self._pools(config, old.pools))
        for settings, upstream in old.pools.items():
            if settings not in self.snapshot.pools:
                upstream.close()

    def trusts_peer(self, peer: str | None) -> bool:
        """Whether a direct connection is a trusted proxy's, now. None means a unix socket's."""
        return self.snapshot.resolve_peer(peer).trusted_peer

    def close(self) -> None:
        for upstream in self.snapshot.pools.values():
            upstream.close()

    def _pools(self, config: Config, old: Mapping[UpstreamSettings, Upstream]) -> Mapping[UpstreamSettings, Upstream]:
        """A pool for each receiver; one whose settings did not change is kept, with its connections."""
        pools: dict[UpstreamSettings, Upstream] = {}
        for route in config.routes.routes:
            settings = settings_of(route, config)
            if settings not in pools:
                kept = old.get(settings)
                pools[settings] = kept if kept is not None else self._open(settings)
        return pools

    def _open(self, settings: UpstreamSettings) -> Upstream:
        return Upstream(
            settings.address,
            settings.timeouts,
            self._loop,
            tls=settings.tls,
            connections=settings.connections,
        )


def settings_of(route: Route, config: Config) -> UpstreamSettings:
    """How the route's receiver is connected to."""
    return route.pool if route.pool is not None else UpstreamSettings(route.upstream, config.timeouts)
