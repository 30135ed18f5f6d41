"""The main process: admin listener, signals, and a shutdown that loses no delivery.

Clock, log and counts are created here and passed in; nothing below gets them from anywhere else.

`sidecar drain` does (1) and makes responses close connections; deliveries are accepted until SIGTERM comes. When a pod ends,
the sidecar's container gets SIGTERM only after the receiver's, so its preStop hook runs the command.

On SIGTERM:  (1) `/readyz` returns 503 at once, so that no new senders are routed here
             (2) deliveries are accepted a little longer, because some are still on their way; responses close connections;
                 the time since `sidecar drain` counts
             (3) the data listener closes; deliveries in flight finish, until `drain` is over
             (4) the admin listener closes; exit 0, or 1 if a delivery was cut off at the end of `drain`
SIGINT skips (2). A second signal ends the program at once, with status 130 or 143. The configuration is read again on
SIGHUP, when one of its files changes, and when the admin listener is asked to.
"""

import asyncio
import os
import signal
import socket
import time
from base64 import b64decode
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from sidecar import __version__, is_compiled
from sidecar.admin.app import admin_app
from sidecar.admin.asgi import asgi_server
from sidecar.admin.live_page import LivePage
from sidecar.config.files import FileRecorder
from sidecar.config.problems import ConfigError
from sidecar.config.settings import Config
from sidecar.http1.sockets import bound_address, remove
from sidecar.process.data_processes import DataProcesses
from sidecar.process.drain_listener import DrainListener
from sidecar.process.drain_socket import open_drain_socket
from sidecar.process.ip_ranges import PublishedRanges, RangesRefresher
from sidecar.process.key_store import KeyStore
from sidecar.process.reload import Reloader
from sidecar.process.tenant_watch import TenantWatch
from sidecar.telemetry.keys_view import KeysView
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.log_writer import LogWriter
from sidecar.telemetry.process_metrics import ProcessMetrics, memory_limit
from sidecar.telemetry.prometheus import LogMetrics
from sidecar.telemetry.recent_rejections import RecentRejection
from sidecar.telemetry.scrape import Scraper
from sidecar.telemetry.tenant_uses import TenantUse, merge
from sidecar.telemetry.totals import Totals

#: The share of `drain` during which deliveries that are still on their way are accepted (load balancers learn of a
#: removed endpoint while SIGTERM is sent, not before).
ACCEPTING_SHARE = 0.25


class Program:
    """Everything that runs, put together."""

    def __init__(
        self,
        config: Config,
        env: Mapping[str, str],
        loop: asyncio.AbstractEventLoop,
        *,
        files: FileRecorder,
        log: Log,
        writer: LogWriter,
        data_processes: DataProcesses,
        keys: KeyStore,
    ) -> None:
        """`files` are those that the configuration was read from, and `keys` are those that its routes verify with."""
        self.loop = loop
        self.log = log
        self._writer = writer
        self.keys = keys
        self.data_processes = data_processes
        self.ready = self.draining = False
        ranges = PublishedRanges(time.time)
        self._reloader = Reloader(
            config,
            files,
            env,
            networks=ranges.networks,
            keys=keys,
            processes=data_processes,
            log=log,
        )
        self._refresher = RangesRefresher(ranges, self._reloader, log)
        self.totals = Totals(data_processes.metrics)
        self.scraper = Scraper(self.totals, shared_store=config.replay_store is not None)
        log_metrics = LogMetrics([writer.dropped, *(metrics.log for metrics in data_processes.metrics)])
        processes = ProcessMetrics(data_processes, memory_limit())
        for owner in (self._reloader, self._refresher, processes, log_metrics, keys):
            self.scraper.registry.register(owner)
        self.live_page = LivePage(self)
        self.admin = asgi_server(admin_app(self), loop)
        self._tasks: set[asyncio.Task[object]] = set()
        self._drain_listener: DrainListener | None = None
        self._unready_since: float | None = None  # loop time of the first `sidecar drain`

    async def run(self, sockets: Sequence[socket.socket], admin_socket: socket.socket) -> int:
        """Serves until a signal says stop, then shuts down; returns the exit status.

        `sockets` are the data listener's and, with `authorize:`, that listener's.
        """
        signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, signals.put_nowait, number)
        self.loop.add_signal_handler(signal.SIGHUP, self._in_background, self.reload, "SIGHUP")

        # The admin listener first: a probe must never find the data listener open and this one not.
        admin = asyncio.create_task(self.admin.serve([admin_socket]))
        stop = asyncio.create_task(signals.get())
        self.keys.apply(self.config, self.log)
        start = asyncio.create_task(self.data_processes.start())
        await asyncio.wait([start, stop], return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            return self._end_at_once(128 + stop.result(), Level.WARNING, "at once, by a signal during the start")
        deliveries = self.data_processes.ended
        if deliveries.done():
            return self._end_at_once(1, Level.ERROR, "no worker could be started; the lines above say why")
        if (drain_socket := open_drain_socket()) is not None:
            self._drain_listener = DrainListener(drain_socket, self.begin_drain)
            await self._drain_listener.serve()
        # Ready without keys after that: a provider that is down must affect nothing but its own routes.
        keys = asyncio.create_task(self.keys.wait_first())
        ends: list[asyncio.Future[Any]] = [stop, deliveries, admin]
        await asyncio.wait([*ends, keys], return_when=asyncio.FIRST_COMPLETED)
        keys.cancel()
        self.ready = True
        self.log.event(
            "serving",
            **{"version": __version__}
            | self._addresses(sockets, admin_socket)
            | {"pid": os.getpid(), "workers": self.config.workers, "compiled": is_compiled()},
        )
        self._in_background(self._reloader.watch)
        self._in_background(self._refresher.run)
        if self.config.workers > 1:  # each worker watches for itself; this is for the pages and the log
            self._in_background(TenantWatch(lambda: self.config.tenant_directories, self.log).run)
        self._in_background(self.keys.run)
        self._in_background(self.live_page.rates.keep)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            return self._end_at_once(1, Level.ERROR, "a listener stopped unexpectedly")
        drained = asyncio.create_task(self._drain(stop.result(), admin))
        again = asyncio.create_task(signals.get())
        await asyncio.wait([drained, again], return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            return self._end_at_once(128 + again.result(), Level.WARNING, "at once, by a second signal")
        again.cancel()
        if cut_off := drained.result():
            return self._record_stop(1, Level.ERROR, f"cut off at the end of drain: {cut_off} in flight")
        return self._record_stop(0, Level.INFO, "all deliveries in flight are finished")

    def _addresses(self, sockets: Sequence[socket.socket], admin_socket: socket.socket) -> dict[str, Any]:
        """Where it listens, for the log."""
        config = self.config
        named = {"listen": bound_address(config.listen, sockets[0]), "admin": bound_address(config.admin, admin_socket)}
        if config.authorize is not None:
            named["authorize"] = bound_address(config.authorize.listen, sockets[1])
        return named

    # Shown and used by the admin listener

    @property
    def config(self) -> Config:
        """The current configuration."""
        return self._reloader.config

    @property
    def reload_error(self) -> ConfigError | None:
        """The mistakes that the last reload found."""
        return self._reloader.error

    async def reload(self, cause: str) -> ConfigError | None:
        """Reads the configuration again. On any mistake nothing changes, and the error is returned."""
        return await self._reloader.reload(cause)

    @property
    def published_keys(self) -> Sequence[KeysView]:
        """The documents of keys that providers publish."""
        return self.keys.view()

    @property
    def serving(self) -> bool:
        """Whether deliveries are accepted and should be sent here."""
        return self.ready and self.data_processes.serving > 0

    @property
    def loaded_at(self) -> float:
        """Unix time when the current configuration was loaded."""
        return self._reloader.loaded_at

    @property
    def workers(self) -> int:
        """How many processes accept deliveries."""
        return self.data_processes.serving

    async def recent_rejections(self) -> Sequence[RecentRejection]:
        """The most recent rejections and failures, newest first."""
        return await self.data_processes.refusals()

    async def tenant_uses(self) -> list[TenantUse]:
        """Tenants with two secrets, and when they last used each; those that used the old one last come first."""
        answers = await self.data_processes.ask("tenants")
        return merge([TenantUse(*use) for answer in answers for use in answer])

    async def captures(self) -> list[dict[str, Any]]:
        """A description of each held rejected request, newest first; without the request itself."""
        answers = await self.data_processes.ask("captures")
        return sorted((each for answer in answers for each in answer), key=lambda each: -each["at"])

    async def capture(self, ident: str) -> tuple[dict[str, Any], bytes] | None:
        """One entry of `captures`, and its request; None if it is no longer held."""
        answers = await self.data_processes.ask(f"capture {ident}")
        for about in (each for answer in answers for each in answer):
            return about, b64decode(about.pop("raw"))
        return None

    @property
    def in_flight(self) -> int:
        """Deliveries being handled."""
        return sum(metrics.in_flight for metrics in self.data_processes.metrics)

    async def begin_drain(self) -> None:
        """Unready from now on, and responses close their connections. Returns when that is so in every worker."""
        if self._unready_since is None:
            self._unready_since = self.loop.time()
            self.ready, self.draining = False, True
            self.log.event("drain_requested", Level.INFO, in_flight=self.in_flight)
        await self.data_processes.close_connections()

    # Internals

    def _in_background(self, work: Callable[..., Coroutine[Any, Any, object]], *arguments: str) -> None:
        task: asyncio.Task[object] = asyncio.create_task(work(*arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, first: signal.Signals, admin: asyncio.Task[None]) -> int:
        """Returns how many deliveries were cut off."""
        seconds = self.config.drain
        deadline = self.loop.time() + seconds
        self.log.event("draining", signal=first.name, seconds=seconds, in_flight=self.in_flight)
        self.ready, self.draining = False, True  # (1)
        self.live_page.close()
        for task in self._tasks:
            task.cancel()  # no reloads during shutdown
        if self._drain_listener is not None:
            self._drain_listener.close()
        accepting = seconds * ACCEPTING_SHARE if first is signal.SIGTERM else 0.0
        if self._unready_since is not None:
            accepting = max(accepting - (self.loop.time() - self._unready_since), 0.0)
        cut_off = await self.data_processes.drain(accepting=accepting, until=deadline)  # (2) and (3)
        # (4): a scrape in progress may finish, an idle connection is cut.
        self.admin.stop(0.2)
        await admin
        return cut_off

    def _end_at_once(self, status: int, level: Level, detail: str) -> int:
        self.data_processes.end_at_once()
        self._record_stop(status, level, detail)
        os._exit(status)  # deliveries in flight must not delay it

    def _record_stop(self, status: int, level: Level, detail: str) -> int:
        self.log.end_window()
        self.log.event("stopped", level, detail=detail, in_flight=self.in_flight)
        self.log.flush()
        self._writer.close()
        remove(self.config.listen)
        remove(self.config.admin)
        if self.config.authorize is not None:
            remove(self.config.authorize.listen)
        return status
