"""Sockets to listen on, and uvicorn's server on them, without what this program does itself."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from uvicorn import Config as UvicornConfig
from uvicorn import Server as UvicornServer


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


def quiet_uvicorn() -> None:
    """uvicorn's own messages repeat what our log says, in another format."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
