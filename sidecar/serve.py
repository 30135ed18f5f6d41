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


def serve(config: Config, env: Mapping[str, str]) -> int:
    """Runs until stopped; returns the exit status. Raises `ListenError` before anything is served."""
    data_socket = bind(config.listen)
    admin_socket = bind(config.admin)
    _tune_garbage_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, env, data_socket, admin_socket))


def _tune_garbage_collector() -> None:
    """What was made at the start stays; deliveries leave no cycles behind, so looking for them can be rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def _serve(
    config: Config, env: Mapping[str, str], data_socket: socket.socket, admin_socket: socket.socket
) -> int:
    loop = asyncio.get_running_loop()
    log = Log(config.log, loop)
    metrics = Metrics()
    registry = CollectorRegistry()
    registry.register(metrics)
    ProcessCollector(registry=registry)
    budget = Budget(config.limits.buffer)
    metrics.buffered_bytes = lambda: budget.held
    deadlines = Deadlines(loop, head=config.limits.header_timeout, body=config.limits.body_timeout)

    def applied(new: Config) -> None:
        log.settings = new.log
        budget.limit = new.limits.buffer
        deadlines.head.seconds = new.limits.header_timeout
        deadlines.body.seconds = new.limits.body_timeout
        metrics.configure(new.routes.routes)
        metrics.reload_successful = True
        metrics.reload_success_time = time.time()
        for warning in new.warnings:
            log.event("config_warning", Level.WARNING, detail=str(warning))
        log.event("config_loaded", file=new.file, routes=len(new.routes.routes))

    def failed(error: ConfigError) -> None:
        metrics.reload_successful = False
        for problem in error.problems:
            log.event("config_reload_failed", Level.ERROR, detail=str(problem), kept="the configuration before it")

    reloader = Reloader(config, env, loop, applied=applied, failed=failed)
    proxy = Proxy(reloader, budget=budget, metrics=metrics, log=log)
    draining = asyncio.Event()

    _quiet_uvicorn()
    protocol = functools.partial(
        DataProtocol, deadlines=deadlines, max_connections=lambda: reloader.site.config.limits.connections
    )
    data = Server(_uvicorn_config(proxy, protocol))
    admin = Server(
        _uvicorn_config(
            admin_app(reloader=reloader, registry=registry, ready=lambda: not draining.is_set()), "httptools"
        )
    )

    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    loop.add_signal_handler(signal.SIGHUP, reloader.reload)

    # uvicorn binds `admin` first: a probe must never find the data listener open and the admin one not.
    tasks = [asyncio.create_task(admin.serve([admin_socket])), asyncio.create_task(data.serve([data_socket]))]
    log.event(
        "serving",
        version=__version__,
        listen=_shown(config.listen, data_socket),
        admin=_shown(config.admin, admin_socket),
        pid=os.getpid(),
    )
    stop = asyncio.create_task(signals.get())
    await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
    if not stop.done():
        log.event("listener_ended", Level.ERROR, detail="a listener stopped by itself")
        log.flush()
        return 1

    first = stop.result()
    drain = reloader.site.config.drain
    log.event("draining", signal=first.name, seconds=drain, in_flight=metrics.in_flight)
    draining.set()  # (1)
    second = asyncio.create_task(signals.get())
    ended = asyncio.create_task(_drain(first, drain, proxy, data, admin, tasks))
    await asyncio.wait([second, ended], return_when=asyncio.FIRST_COMPLETED)
    if second.done() and not ended.done():
        log.event("stopped", Level.WARNING, detail="at once, by a second signal", in_flight=metrics.in_flight)
        log.flush()
        os._exit(128 + second.result())
    second.cancel()
    reloader.close()
    _remove_unix(config.listen, config.admin)
    log.event("stopped", detail="everything in flight was finished")
    log.flush()
    return 0


async def _drain(
    first: signal.Signals, seconds: float, proxy: Proxy, data: Server, admin: Server, tasks: list[asyncio.Task[None]]
) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    if first is signal.SIGTERM:
        await asyncio.sleep(seconds * ACCEPTING_SHARE)  # (2)
    proxy.draining = True
    # (3): uvicorn gives its tasks this long and then cancels them; half a second is left to close up.
    data.config.timeout_graceful_shutdown = max(deadline - asyncio.get_running_loop().time() - 0.5, 0.1)  # type: ignore[assignment]
    data.stopping.set()
    await tasks[1]
    admin.config.timeout_graceful_shutdown = 0.2  # type: ignore[assignment] # (4): a scrape may end, a kept connection is cut
    admin.stopping.set()
    await tasks[0]


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


def _remove_unix(*addresses: ListenAddress) -> None:
    for address in addresses:
        if address.path:
            Path(address.path).unlink(missing_ok=True)


def _shown(address: ListenAddress, listener: socket.socket) -> str:
    """The address with the port that the system chose for port 0."""
    return str(address if address.path else address._replace(port=listener.getsockname()[1]))


def _uvicorn_config(app: object, protocol: object) -> UvicornConfig:
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
