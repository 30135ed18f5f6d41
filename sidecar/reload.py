"""The configuration at work: swapped whole, and only for one that is right; the last good one is kept."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from sidecar.config.files import ReadFile, Remembered
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError, Problem
from sidecar.config.settings import Config
from sidecar.http1.head import RequestHead
from sidecar.http1.upstream import Upstream, UpstreamAddress
from sidecar.routing.client_ip import Client, resolve_client
from sidecar.routing.networks import Networks


class Site:
    """One configuration and what belongs to it alone. A request keeps the site it began with."""

    def __init__(self, config: Config, upstreams: Mapping[UpstreamAddress, Upstream]) -> None:
        self.config = config
        self.upstreams = upstreams
        self.trusts_nobody = not (config.trusted_proxies.cidrs or config.trust_unix)
        # Connections come from few addresses; what depends on those alone is worked out once. Never kept: what senders write.
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

    def trusts_peer(self, peer: str | None) -> bool:
        """Whether a direct connection is a trusted proxy's, now. None stands for a unix socket's."""
        return self.site.resolve_peer(peer).trusted_peer

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


#: How often a configuration is read again because a file changed while it was read.
MAX_READS: Final = 5
#: While a configuration is read in a thread, how long that thread may keep the others waiting, seconds.
SWITCH_SECONDS: Final = 0.0005


def read_again(
    old: Config, env: Mapping[str, str], ranges: Mapping[str, Networks]
) -> tuple[Config | ConfigError, Remembered]:
    """The configuration as its files are now, or what is wrong with it, and what was read. To be called in a thread.

    Never half of it: if a file changed meanwhile, all of them are read again.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        for _ in range(MAX_READS):
            files = Remembered()
            read = _read(old, env, files, ranges)
            if files.look_again() == files.looks:
                break
    finally:
        sys.setswitchinterval(interval)
    return read, files


def _read(
    old: Config, env: Mapping[str, str], files: Remembered, ranges: Mapping[str, Networks]
) -> Config | ConfigError:
    try:
        return _changed(old, env, files, ranges)
    except ConfigError as error:
        return error
    except Exception as bug:  # whatever a file may hold, the configuration at work goes on
        return ConfigError([Problem(old.file, 1, "", f"can't be read: {type(bug).__name__}, a bug of this program")])


def _changed(old: Config, env: Mapping[str, str], read: ReadFile, ranges: Mapping[str, Networks]) -> Config:
    """Raises `ConfigError`, also for what can't change while running."""
    new = load_config(old.file, env, read=read, ranges=ranges)
    fixed = (
        ("listen", old.listen, new.listen),
        ("admin", old.admin, new.admin),
        ("tracing", old.tracing or "off", new.tracing or "off"),
        ("workers", old.workers, new.workers),
        ("proxy_protocol", old.proxy_protocol, new.proxy_protocol),
        ("replay_store", old.replay_store or "memory", new.replay_store or "memory"),
    )
    problems = [
        Problem(new.file, 1, key, f"can't change from {before} to {after} while running; restart to apply")
        for key, before, after in fixed
        if before != after
    ]
    if problems:
        raise ConfigError(problems)
    return new
