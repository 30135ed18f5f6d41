"""uvicorn's server: it accepts connections and shuts down. Everything that this program does itself is switched off.

uvicorn gets our own protocol by its `http` parameter. It calls a connection's `shutdown()`, and expects the connection in
`server_state.connections` and its request in `server_state.tasks`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from uvicorn import Config as UvicornConfig
from uvicorn import Server as UvicornServer
from uvicorn.server import ServerState

from sidecar.http1.admission import Deadlines, Listener
from sidecar.http1.connection import Application, DataProtocol


class Server(UvicornServer):
    """uvicorn's server without its signal handlers, which are ours, and without its ten wake-ups a second."""

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
        """Closes the listener; requests still in flight after `seconds` are cut off."""
        self.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment] # passed on to asyncio.wait_for
        self.stopping.set()


def http_server(application: Application, *, deadlines: Deadlines, listener: Listener) -> Server:
    """A listener's server."""

    def connect(*, server_state: ServerState, **_: object) -> DataProtocol:
        return DataProtocol(
            application,
            deadlines=deadlines,
            listener=listener,
            connections=server_state.connections,
            tasks=server_state.tasks,
        )

    return Server(_config(application, connect))


def _config(application: object, protocol: object) -> UvicornConfig:
    return UvicornConfig(
        application,  # type: ignore[arg-type]
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        interface="asgi3",
        lifespan="off",
        loop="none",
        proxy_headers=False,  # otherwise uvicorn replaces the peer's address with X-Forwarded-For before we see it
        server_header=False,
        date_header=False,
        access_log=False,
        log_config=None,
    )


def quiet_uvicorn() -> None:
    """Silences uvicorn's own messages, which repeat our log in another format."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
