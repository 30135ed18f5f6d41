"""The data listener and everything after it, in one process: the main process, or one worker."""

import asyncio
import contextlib
import gc
import resource
import socket
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, TypeVar

from sidecar.config.settings import Config
from sidecar.delivery.authorize import Authorizer
from sidecar.delivery.body import Budget
from sidecar.delivery.captures import Captures
from sidecar.delivery.missing_key import RefreshableKeys
from sidecar.delivery.proxy import Proxy
from sidecar.delivery.recorder import Recorder
from sidecar.delivery.snapshot import CurrentSnapshot
from sidecar.http1.admission import ConnectionCount, Deadlines, Listener
from sidecar.http1.uvicorn_server import http_server
from sidecar.process.tenant_watch import TenantWatch
from sidecar.replay.memory_store import MemoryStore
from sidecar.replay.store import Store
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.metrics import CONNECTIONS, STORE_LOST, Block, Metrics
from sidecar.telemetry.recent_rejections import RecentRejections

#: Seconds before the end of the drain at which connections are cut off, so that they can still close.
CLOSING_SECONDS = 0.5
#: How long a thread that computes may keep the event loop waiting for the interpreter's lock; Python's default is 5 ms,
#: and a delivery comes back to the loop several times.
SWITCH_SECONDS = 0.0001

P = TypeVar("P", bound=Proxy)


class DataPlane:
    """Accepts deliveries from `start` until the end of `drain`; `ended` is done when it no longer does."""

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        *,
        log: Log,
        metrics: Metrics,
        keys: RefreshableKeys | None = None,
        gauges_of_others: Sequence[Block] = (),
    ) -> None:
        """With the gauges of the other processes in `gauges_of_others`, the limits hold for all processes together."""
        self.loop = loop
        self.log = log
        self.metrics = metrics
        self.budget = Budget(config.limits.buffer, metrics.gauges, gauges_of_others)
        self.deadlines = Deadlines(
            loop,
            head=config.limits.header_timeout,
            body=config.limits.body_timeout,
            keep_alive=config.timeouts.keep_alive,
        )
        self.current = CurrentSnapshot(config, loop)
        self.replays = self._replay_store(config)
        self.refusals = RecentRejections()
        self.proxy = self._application(Proxy, metrics, keys)
        self.captures = Captures(metrics, loop, time.time)
        self.proxy.recorder.captures = self.captures
        if config.tracing is not None:
            from sidecar.telemetry.tracing import Tracing  # noqa: PLC0415

            self.proxy.recorder.tracing = Tracing(config.tracing, loop, self._collector_changed)
        count = ConnectionCount(metrics.gauges, CONNECTIONS, gauges_of_others)
        self.listener = Listener(self.deadlines, config.limits.connections, count)
        if config.proxy_protocol:
            self.listener.wants_proxy_header = self.current.trusts_peer
        self.server = http_server(self.proxy, deadlines=self.deadlines, listener=self.listener)
        self.authorizer: Authorizer | None = None
        self.servers = [self.server]
        if config.authorize is not None:
            self.authorizer = self._application(Authorizer, metrics, keys, self.proxy.recorder)
            self.servers.append(http_server(self.authorizer, deadlines=self.deadlines, listener=self.listener))
        self.ended: asyncio.Task[None]
        self._watching: asyncio.Task[None] | None = None
        self._configure(config)

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """`sockets` are the data listener's and, with `authorize:`, that listener's."""
        self.replays.start()
        self.ended = asyncio.create_task(self._serve(sockets))
        alone = self.current.snapshot.config.workers == 1  # otherwise the main process reports what is wrong with files
        watch = TenantWatch(lambda: self.current.snapshot.config.tenant_directories, self.log if alone else None)
        self._watching = asyncio.create_task(watch.run())

    def answer(self, question: str) -> Any:
        """The answer to a question about this process, as JSON values."""
        if question == "tenants":
            return [
                list(use)
                for route in self.current.snapshot.config.routes.routes
                if route.tenants is not None
                for use in self.proxy.recorder.tenant_uses.listed(route.name, route.tenants)
            ]
        if question == "captures":
            return [captured.about() for captured in self.captures.listed()]
        if question.startswith("capture "):
            found = self.captures.find(question.removeprefix("capture "))
            return [found.about() | {"raw": b64encode(found.raw).decode()}] if found is not None else []
        raise ValueError(question)

    async def _serve(self, sockets: Sequence[socket.socket]) -> None:
        """Returns when the listeners were stopped, or one of them ended by itself."""
        serving = [
            asyncio.create_task(server.serve([each])) for server, each in zip(self.servers, sockets, strict=True)
        ]
        await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
        for server in self.servers:
            server.stopping.set()
        await asyncio.gather(*serving)

    def apply(self, config: Config) -> None:
        """New requests are handled by this configuration from now on."""
        self.current.apply(config)
        self._configure(config)

    def _configure(self, config: Config) -> None:
        self.log.settings = config.log
        self.budget.limit = config.limits.buffer
        self.listener.max_connections = config.limits.connections
        self.deadlines.head.seconds = config.limits.header_timeout
        self.deadlines.body.seconds = config.limits.body_timeout
        self.deadlines.keep_alive.seconds = config.timeouts.keep_alive
        self.metrics.configure(
            config.routes.routes, exemplars=config.tracing is not None, authorizes=config.authorize is not None
        )
        self.captures.configure(config.routes.routes)

    def _application(
        self, kind: type[P], metrics: Metrics, keys: RefreshableKeys | None, recorder: Recorder | None = None
    ) -> P:
        """The application of a listener."""
        return kind(
            self.current,
            budget=self.budget,
            metrics=metrics,
            log=self.log,
            rejections=self.refusals,
            replays=self.replays,
            keys=keys,
            recorder=recorder,
        )

    def _replay_store(self, config: Config) -> Store:
        if config.replay_store is None:
            return MemoryStore(self.loop.time)
        from sidecar.replay.redis_store import RedisStore  # noqa: PLC0415 - saves memory where it is not used

        return RedisStore(
            config.replay_store,
            lambda: self.current.snapshot.config.replay_password,
            self._replay_store_changed,
            sentinel_password=lambda: self.current.snapshot.config.sentinel_password,
        )

    def _replay_store_changed(self, available: bool, reason: str) -> None:
        self.metrics.gauges[STORE_LOST] = float(not available)
        if available:
            self.log.event("replay_store_back", Level.INFO)
        else:
            self.log.event("replay_store_lost", Level.ERROR, detail=reason)

    def _collector_changed(self, available: bool) -> None:
        if available:
            self.log.event("traces_sent_again", Level.INFO)
        else:
            self.log.event(
                "traces_lost",
                Level.WARNING,
                detail="the collector at tracing.endpoint accepts no spans; check that it runs there",
            )

    def close_connections(self) -> None:
        """From now on each response closes its connection; deliveries are still accepted."""
        self.listener.closing = True

    async def drain(self, *, accepting: float, until: float) -> int:
        """Accepts deliveries for `accepting` more seconds, then finishes those in flight, by `until` (loop time).

        Returns how many were cut off because they were not finished by then.
        """
        self.close_connections()
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.sleep(accepting)
        self.proxy.draining = True
        if self.authorizer is not None:
            self.authorizer.draining = True
        for server in self.servers:
            server.stop(max(until - self.loop.time() - CLOSING_SECONDS, 0.1))
        await self.ended
        # Cancelled; a few turns of the loop later they are recorded.
        if late := [task for server in self.servers for task in server.server_state.tasks]:
            await asyncio.wait(late, timeout=CLOSING_SECONDS / 2)
        await self.proxy.recorder.finish()
        await self.replays.close()
        if self.proxy.recorder.tracing is not None:
            await self.proxy.recorder.tracing.close(until)
        self.current.close()
        return self.proxy.cut_off + (self.authorizer.cut_off if self.authorizer is not None else 0)


def tune_process() -> None:
    """Call this before the event loop starts."""
    sys.setswitchinterval(SWITCH_SECONDS)
    # Objects made at the start stay alive, and deliveries leave no reference cycles, so the garbage collector can run rarely.
    # To collect first would take 5% of the start and free nothing.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    # A delivery takes two connections: the usual soft limit of 1024 is lower than what `limits.connections` needs.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
