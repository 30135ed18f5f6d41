"""The configuration at work and what belongs to it alone. A delivery keeps the snapshot it began with."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from sidecar.config.settings import Config
from sidecar.http1.head import RequestHead
from sidecar.http1.upstream import Upstream, UpstreamAddress
from sidecar.routing.client_ip import Client, resolve_client
from sidecar.routing.refusal_limit import RefusalLimit


class Snapshot:
    """One configuration and what belongs to it alone. A delivery keeps the snapshot it began with."""

    def __init__(self, config: Config, upstreams: Mapping[UpstreamAddress, Upstream]) -> None:
        self.config = config
        self.upstreams = upstreams
        self.refusal_limit = RefusalLimit(config.limits.refusals)
        self.warned: set[str] = set()  #: names of routes that a warning about proxies was logged for
        self.trusts_nobody = not (config.trusted_proxies.cidrs or config.trust_unix)
        # Connections come from few addresses, so what depends only on those is computed once. What senders write is never kept.
        self.resolve_peer: Callable[[str | None], Client] = lru_cache(maxsize=1024)(self._resolve)

    def resolve_client(self, head: RequestHead) -> Client:
        """Who sent a delivery; see `client_ip.resolve_client`."""
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
        self.snapshot = Snapshot(config, self._upstreams(config, {}))

    def apply(self, config: Config) -> None:
        old = self.snapshot
        self.snapshot = Snapshot(config, self._upstreams(config, old.upstreams))
        for address, upstream in old.upstreams.items():
            if self.snapshot.upstreams.get(address) is not upstream:
                upstream.close()

    def trusts_peer(self, peer: str | None) -> bool:
        """Whether a direct connection is a trusted proxy's, now. None stands for a unix socket's."""
        return self.snapshot.resolve_peer(peer).trusted_peer

    def close(self) -> None:
        for upstream in self.snapshot.upstreams.values():
            upstream.close()

    def _upstreams(self, config: Config, old: Mapping[UpstreamAddress, Upstream]) -> Mapping[UpstreamAddress, Upstream]:
        """A pool for each receiver; one whose settings did not change is kept, with its connections."""
        upstreams: dict[UpstreamAddress, Upstream] = {}
        for route in config.routes.routes:
            address = route.upstream
            if address not in upstreams:
                kept = old.get(address)
                upstreams[address] = (
                    kept
                    if kept is not None and kept.timeouts == config.timeouts
                    else Upstream(address, config.timeouts, self._loop)
                )
        return upstreams
