"""The running program: two listeners in one event loop, signals, and a stop that loses nothing.

Clock, registry and log are made here and passed in; nothing below reads them from elsewhere.

On SIGTERM:  (1) `/readyz` says 503 at once, so that no new senders are sent here
             (2) deliveries are still taken for a moment, because they are still on their way
             (3) the data listener closes; what is in flight finishes, until `drain` is over
             (4) the admin listener closes; exit 0
SIGINT skips (2). A second signal ends the program at once, with 130 or 143. SIGHUP reloads the configuration.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry, ProcessCollector
from uvicorn import Config as UvicornConfig
from uvicorn import Server as UvicornServer

from sidecar import __version__
from sidecar.admin import admin_app
from sidecar.body import Budget
from sidecar.config import Config, ConfigError
from sidecar.fields import ListenAddress
from sidecar.log import Log
from sidecar.metrics import Metrics
from sidecar.protocol import DataProtocol, Deadlines
from sidecar.proxy import Proxy
from sidecar.reload import Reloader
from sidecar.schema import Level

#: How much of `drain` is spent taking deliveries that are still on their way (endpoints are removed from load
#: balancers while SIGTERM is sent, not before).
ACCEPTING_SHARE = 0.25
BACKLOG = 512


class ListenError(Exception):
    """An address that can't be listened on; the message names it and the remedy."""


class Server(UvicornServer):
    """uvicorn's server, with the signals left to us and without its ten wake-ups a second."""

    def __init__(self, config: UvicornConfig) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stopping.wait()

    def stop(self, seconds: float) -> None:
        """Closes the listener; what is in flight after `seconds` is cut off."""
        self.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment] # passed on to asyncio.wait_for
        self.stopping.set()


def serve(config: Config, env: Mapping[str, str]) -> int:
    """Runs until stopped; returns the exit status. Raises `ListenError` before anything is served."""
    data_socket = bind(config.listen)
    try:
        admin_socket = bind(config.admin)
    except ListenError:
        data_socket.close()
        Path(config.listen.path).unlink(missing_ok=True) if config.listen.path else None
        raise
    _tune_garbage_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(config, env, data_socket, admin_socket))


async def _run(config: Config, env: Mapping[str, str], data_socket: socket.socket, admin_socket: socket.socket) -> int:
    _quiet_uvicorn()
    return await Service(config, env, asyncio.get_running_loop()).run(data_socket, admin_socket)


def _tune_garbage_collector() -> None:
    """What was made at the start stays; deliveries leave no cycles behind, so looking for them can be rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class Service:
    """Everything that runs, put together."""

    def __init__(self, config: Config, env: Mapping[str, str], loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.log = Log(config.log, loop)
        self.budget = Budget(config.limits.buffer)
        self.deadlines = Deadlines(loop, head=config.limits.header_timeout, body=config.limits.body_timeout)
        self.metrics = Metrics(buffered_bytes=lambda: self.budget.held)
        registry = CollectorRegistry()
        registry.register(self.metrics)
        ProcessCollector(registry=registry)
        self.reloader = Reloader(config, env, loop, applied=self._applied, failed=self._failed)
        self.proxy = Proxy(self.reloader, budget=self.budget, metrics=self.metrics, log=self.log)
        self.ready = True
        protocol = functools.partial(
            DataProtocol,
            deadlines=self.deadlines,
            max_connections=lambda: self.reloader.site.config.limits.connections,
        )
        self.data = Server(uvicorn_config(self.proxy, protocol))
        app = admin_app(reloader=self.reloader, registry=registry, ready=lambda: self.ready)
        self.admin = Server(uvicorn_config(app, "httptools"))

    async def run(self, data_socket: socket.socket, admin_socket: socket.socket) -> int:
        """Serves until a signal says stop, and stops; returns the exit status."""
        signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, signals.put_nowait, number)
        self.loop.add_signal_handler(signal.SIGHUP, self.reloader.reload)

        # The admin listener first: a probe must never find the data listener open and this one not.
        admin = asyncio.create_task(self.admin.serve([admin_socket]))
        data = asyncio.create_task(self.data.serve([data_socket]))
        config = self.reloader.site.config
        self.log.event(
            "serving",
            version=__version__,
            listen=_shown(config.listen, data_socket),
            admin=_shown(config.admin, admin_socket),
            pid=os.getpid(),
        )
        stop = asyncio.create_task(signals.get())
        await asyncio.wait([stop, data, admin], return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            return self._ended(1, Level.ERROR, "a listener stopped by itself")
        drained = asyncio.create_task(self._drain(stop.result(), data, admin))
        again = asyncio.create_task(signals.get())
        await asyncio.wait([drained, again], return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            self._ended(0, Level.WARNING, "at once, by a second signal")
            os._exit(128 + again.result())  # whatever is in flight may not hold it up
        again.cancel()
        return self._ended(0, Level.INFO, "what was in flight is finished")

    async def _drain(self, first: signal.Signals, data: asyncio.Task[None], admin: asyncio.Task[None]) -> None:
        seconds = self.reloader.site.config.drain
        deadline = self.loop.time() + seconds
        self.log.event("draining", signal=first.name, seconds=seconds, in_flight=self.metrics.in_flight)
        self.ready = False  # (1)
        if first is signal.SIGTERM:
            await asyncio.sleep(seconds * ACCEPTING_SHARE)  # (2)
        self.proxy.draining = True
        # (3): what is still in flight after this long is cut off; half a second is left to close up.
        self.data.stop(max(deadline - self.loop.time() - 0.5, 0.1))
        await data
        # (4): a scrape under way may end, a kept connection is cut.
        self.admin.stop(0.2)
        await admin

    def _ended(self, status: int, level: Level, detail: str) -> int:
        self.log.event("stopped", level, detail=detail, in_flight=self.metrics.in_flight)
        self.log.flush()
        self.reloader.close()
        config = self.reloader.site.config
        for address in (config.listen, config.admin):
            if address.path:
                Path(address.path).unlink(missing_ok=True)
        return status

    def _applied(self, new: Config) -> None:
        self.log.settings = new.log
        self.budget.limit = new.limits.buffer
        self.deadlines.head.seconds = new.limits.header_timeout
        self.deadlines.body.seconds = new.limits.body_timeout
        self.metrics.configure(new.routes.routes)
        self.metrics.reload_successful = True
        self.metrics.reload_success_time = time.time()
        for warning in new.warnings:
            self.log.event("config_warning", Level.WARNING, detail=str(warning))
        self.log.event("config_loaded", file=new.file, routes=len(new.routes.routes))

    def _failed(self, error: ConfigError) -> None:
        self.metrics.reload_successful = False
        for problem in error.problems:
            self.log.event("config_reload_failed", Level.ERROR, detail=str(problem), kept="the last good configuration")


def bind(address: ListenAddress) -> socket.socket:
    """A bound socket. Raises `ListenError`."""
    if address.path:
        return _bind_unix(address)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"can't listen on {address}: {error.strerror}; is another program there?") from None
    return listener


def _bind_unix(address: ListenAddress) -> socket.socket:
    path = Path(address.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()  # left behind by a process that was killed
        listener.bind(address.path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"can't listen on {address}: {error.strerror}") from None
    return listener


def _shown(address: ListenAddress, listener: socket.socket) -> str:
    """The address with the port that the system chose for port 0."""
    return str(address if address.path else address._replace(port=listener.getsockname()[1]))


def uvicorn_config(app: object, protocol: object) -> UvicornConfig:
    return UvicornConfig(
        app,  # type: ignore[arg-type]
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        interface="asgi3",
        lifespan="off",
        loop="none",
        proxy_headers=False,  # else uvicorn overwrites the peer's address with X-Forwarded-For before we see it
        server_header=False,
        date_header=False,
        access_log=False,
        log_config=None,
    )


def _quiet_uvicorn() -> None:
    """uvicorn's own messages repeat what our log says, in another format."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
