"""The configuration at work: swapped whole, and only for one that is right; the last good one is kept."""

import asyncio
from collections.abc import Callable, Mapping
from functools import lru_cache

from sidecar.client_ip import Client, resolve_client
from sidecar.config import Config, ConfigError, load_config
from sidecar.files import ReadFile, read_file
from sidecar.routes import UpstreamAddress
from sidecar.upstream import Upstream
from sidecar.yaml_source import Problem


class Site:
    """One configuration and what belongs to it alone. A request keeps the site it began with."""

    def __init__(self, config: Config, upstreams: Mapping[UpstreamAddress, Upstream]) -> None:
        self.config = config
        self.upstreams = upstreams
        # Connections come from few addresses; what depends on those alone is worked out once. Never kept: what senders write.
        self._peers: Callable[[str | None], Client] = lru_cache(maxsize=1024)(self._resolve_peer)

    def resolve_client(self, peer: str | None, forwarded_for: tuple[bytes, ...]) -> Client:
        """Who sent a delivery; see `client_ip.resolve_client`."""
        client = self._peers(peer)
        if not (client.trusted_peer and forwarded_for):
            return client
        return resolve_client(peer, forwarded_for, self.config.trusted_proxies, trust_unix=self.config.trust_unix)

    def _resolve_peer(self, peer: str | None) -> Client:
        return resolve_client(peer, (), self.config.trusted_proxies, trust_unix=self.config.trust_unix)


class Current:
    """Holds the site at work, and replaces it."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.site = Site(config, self._upstreams(config, {}))

    def apply(self, config: Config) -> None:
        old = self.site
        self.site = Site(config, self._upstreams(config, old.upstreams))
        for address, upstream in old.upstreams.items():
            if self.site.upstreams.get(address) is not upstream:
                upstream.close()

    def close(self) -> None:
        for upstream in self.site.upstreams.values():
            upstream.close()

    def _upstreams(self, config: Config, old: Mapping[UpstreamAddress, Upstream]) -> Mapping[UpstreamAddress, Upstream]:
        """A pool for each receiver; one that is still right is kept, with its connections."""
        made: dict[UpstreamAddress, Upstream] = {}
        for route in config.routes.routes:
            address = route.upstream
            if address not in made:
                kept = old.get(address)
                made[address] = (
                    kept
                    if kept is not None and kept.timeouts == config.timeouts
                    else Upstream(address, config.timeouts, self._loop)
                )
        return made


def read_again(old: Config, env: Mapping[str, str], read: ReadFile = read_file) -> Config:
    """The configuration as its file is now. Raises `ConfigError`, also for what can't change while running."""
    new = load_config(old.file, env, read=read)
    fixed = (
        ("listen", old.listen, new.listen),
        ("admin", old.admin, new.admin),
        ("workers", old.workers, new.workers),
    )
    problems = [
        Problem(new.file, 1, key, f"can't change from {before} to {after} while running; restart to apply")
        for key, before, after in fixed
        if before != after
    ]
    if problems:
        raise ConfigError(problems)
    return new
