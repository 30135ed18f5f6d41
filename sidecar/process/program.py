"""The running program: admin listener, signals, reloads, and a stop that loses nothing.

Clock, log and counts are made here and passed in; nothing below reads them from elsewhere.

On SIGTERM:  (1) `/readyz` says 503 at once, so that no new senders are sent here
             (2) deliveries are still taken for a moment, because they are still on their way; answers close connections
             (3) the data listener closes; what is in flight finishes, until `drain` is over
             (4) the admin listener closes; exit 0
SIGINT skips (2). A second signal ends the program at once, with 130 or 143. The configuration is read again on SIGHUP, when
one of its files changes, and when the admin listener is asked to.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from sidecar import __version__, is_compiled
from sidecar.admin.app import admin_app
from sidecar.admin.live_page import LivePage
from sidecar.config.files import Recalled, Remembered
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.config.ranges import RangesError
from sidecar.config.settings import Config, RangesSettings
from sidecar.http1.sockets import remove, shown
from sidecar.http1.uvicorn_server import Server, uvicorn_config
from sidecar.process.deliveries import Deliveries
from sidecar.process.ip_ranges import PublishedRanges
from sidecar.process.reload import read_again, wait_for_change
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.process_metrics import Processes, memory_limit
from sidecar.telemetry.prometheus import Exposition
from sidecar.telemetry.recent_rejections import RecentRejection

#: How much of `drain` is spent taking deliveries that are still on their way (endpoints are removed from load
#: balancers while SIGTERM is sent, not before).
ACCEPTING_SHARE = 0.25
#: How often is looked whether a list of networks is due.
RANGES_SECONDS = 5.0


class Program:
    """Everything that runs, put together."""

    def __init__(
        self,
        config: Config,
        env: Mapping[str, str],
        loop: asyncio.AbstractEventLoop,
        *,
        files: Remembered,
        log: Log,
        deliveries: Deliveries,
    ) -> None:
        """`files` are those that the configuration was read from."""
        self.config = config
        self.files = files  #: what was last read, also if it could not be used
        self.published = PublishedRanges(time.time)
        self._good = files  # what the configuration at work was read from
        self.reload_error: ConfigError | None = None
        self.loop = loop
        self.log = log
        self.deliveries = deliveries
        self.ready = self.draining = False
        self.exposition = exposition = Exposition(deliveries.metrics, lambda: (deliveries.serving, deliveries.exits))
        exposition.shared_store = config.replay_store is not None
        exposition.ranges = lambda: self.published.state(self.config.ranges)
        exposition.retirements = lambda: [
            (route.name, secret.id, secret.retire_by)
            for route in self.config.routes.routes
            for secret in (route.verifier.secrets if route.verifier else ())
            if secret.retire_by is not None
        ]
        exposition.memory_limit = memory_limit()
        self.processes = Processes(lambda: deliveries.pids)
        self.live_page = LivePage(self)
        self.admin = Server(uvicorn_config(admin_app(self), "httptools"))
        self._env = env
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()
        self._loaded(config, "the start")

    async def run(self, data_address: str, admin_socket: socket.socket) -> int:
        """Serves until a signal says stop, and stops; returns the exit status."""
        signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, signals.put_nowait, number)
        self.loop.add_signal_handler(signal.SIGHUP, self._in_background, self.reload, "SIGHUP")

        # The admin listener first: a probe must never find the data listener open and this one not.
        admin = asyncio.create_task(self.admin.serve([admin_socket]))
        stop = asyncio.create_task(signals.get())
        start = asyncio.create_task(self.deliveries.start())
        await asyncio.wait([start, stop], return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            return self._end_at_once(
                128 + stop.result(), Level.WARNING, "at once, by a signal before the start was over"
            )
        deliveries = self.deliveries.ended
        if deliveries.done():
            return self._end_at_once(1, Level.ERROR, "no worker can be started")
        self.ready = True
        self.log.event(
            "serving",
            version=__version__,
            listen=data_address,
            admin=shown(self.config.admin, admin_socket),
            pid=os.getpid(),
            workers=self.config.workers,
            compiled=is_compiled(),
        )
        self._in_background(self._watch)
        self._in_background(self._keep_ranges_current)
        self._in_background(self.live_page.rates.keep)
        ends: list[asyncio.Future[Any]] = [stop, deliveries, admin]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            return self._end_at_once(1, Level.ERROR, "a listener stopped by itself")
        drained = asyncio.create_task(self._drain(stop.result(), admin))
        again = asyncio.create_task(signals.get())
        await asyncio.wait([drained, again], return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            return self._end_at_once(128 + again.result(), Level.WARNING, "at once, by a second signal")
        again.cancel()
        return self._ended(0, Level.INFO, "what was in flight is finished")

    async def reload(self, cause: str) -> ConfigError | None:
        """Reads the configuration again. On any mistake nothing changes and the error is returned."""
        async with self._reloading:
            read, self.files = await asyncio.to_thread(read_again, self.config, self._env, self.published.networks)
            try:
                if isinstance(read, ConfigError):
                    raise read
                await self.deliveries.apply(read, self.files)
            except ConfigError as error:
                self.reload_error = error
                self.exposition.reload_successful = False
                for problem in error.problems:
                    self.log.event(
                        "config_reload_failed",
                        Level.ERROR,
                        cause=cause,
                        detail=str(problem),
                        kept="the last good configuration",
                    )
                return error
            self.config, self._good = read, self.files
            self._loaded(read, cause)
            return None

    async def _watch(self) -> None:
        while True:
            try:
                await wait_for_change(lambda: self.files)
                await self.reload("a file changed")
            except Exception as bug:  # no reason to look no more
                self.log.event("config_watch_failed", Level.ERROR, what=type(bug).__name__)

    async def _keep_ranges_current(self) -> None:
        """Fetches the lists of networks that the configuration uses and wants to be current."""
        while True:
            try:
                settings = self.config.ip_ranges
                due = self.published.due(self.config.ranges) if settings.refresh is not None else []
                fetched = {
                    name: changed for name in due if (changed := await self._fetch_ranges(name, settings)) is not None
                }
                if not self.published.in_use(self.config.ranges):
                    await self._apply_ranges()
                for name in fetched.keys() & self.config.ranges.keys():
                    networks = len(self.config.ranges[name].cidrs)
                    self.log.event("ip_ranges_fetched", preset=name, networks=networks, changed=fetched[name])
            except Exception as bug:  # no reason to fetch no more
                self.log.event("ip_ranges_failed", Level.ERROR, what=type(bug).__name__)
            await asyncio.sleep(RANGES_SECONDS)

    async def _fetch_ranges(self, name: str, settings: RangesSettings) -> bool | None:
        """Whether a list has changed; None if it could not be had."""
        assert settings.refresh is not None
        try:
            return await self.published.fetch(name, settings.sources.get(name), settings.refresh)
        except RangesError as error:
            detail, kept = str(error), "the last good list"
            self.log.event("ip_ranges_failed", Level.WARNING, preset=name, detail=detail, kept=kept)
            return None

    async def _apply_ranges(self) -> None:
        """The configuration at work with other networks; its files, as they are now, may be half written."""
        async with self._reloading:
            config = await asyncio.to_thread(
                load_config,
                self.config.file,
                self._env,
                read=Recalled(self._good.texts),
                ranges=dict(self.published.networks),
            )
            await self.deliveries.apply(config, self._good)
            self.config = config

    def _in_background(self, work: Callable[..., Coroutine[Any, Any, object]], *arguments: str) -> None:
        task: asyncio.Task[object] = asyncio.create_task(work(*arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _loaded(self, config: Config, cause: str) -> None:
        self.reload_error = None
        self.log.settings = config.log
        self.exposition.reload_successful = True
        self.exposition.reload_success_time = time.time()
        for warning in config.warnings:
            self.log.event("config_warning", Level.WARNING, detail=str(warning))
        self.log.event("config_loaded", cause=cause, file=config.file, routes=len(config.routes.routes))

    async def _drain(self, first: signal.Signals, admin: asyncio.Task[None]) -> None:
        seconds = self.config.drain
        deadline = self.loop.time() + seconds
        self.log.event("draining", signal=first.name, seconds=seconds, in_flight=self.in_flight)
        self.ready, self.draining = False, True  # (1)
        self.live_page.close()
        for task in self._tasks:
            task.cancel()  # what this process ends with is what it has
        accepting = seconds * ACCEPTING_SHARE if first is signal.SIGTERM else 0.0
        await self.deliveries.drain(accepting=accepting, until=deadline)  # (2) and (3)
        # (4): a scrape under way may end, a kept connection is cut.
        self.admin.stop(0.2)
        await admin

    @property
    def serving(self) -> bool:
        """Whether deliveries are taken, and may be sent here."""
        return self.ready and self.deliveries.serving > 0

    async def refusals(self) -> Sequence[RecentRejection]:
        """The last deliveries that did not get through, newest first."""
        return await self.deliveries.refusals()

    @property
    def in_flight(self) -> int:
        """Deliveries being worked on."""
        return sum(metrics.in_flight for metrics in self.deliveries.metrics)

    def _end_at_once(self, status: int, level: Level, detail: str) -> int:
        self.deliveries.end_at_once()
        self._ended(status, level, detail)
        os._exit(status)  # whatever is in flight may not hold it up

    def _ended(self, status: int, level: Level, detail: str) -> int:
        self.log.event("stopped", level, detail=detail, in_flight=self.in_flight)
        self.log.flush()
        for address in (self.config.listen, self.config.admin):
            remove(address)
        return status
