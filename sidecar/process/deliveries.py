"""What takes deliveries: this process, or several workers."""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from typing import Protocol

from sidecar.config.files import Remembered
from sidecar.config.settings import Config
from sidecar.process.data_plane import DataService
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recent_rejections import RecentRejection, newest_first


class Deliveries(Protocol):
    """What takes deliveries: this process (below), or several (workers.py)."""

    exits: int  #: processes that ended and should not have
    ended: asyncio.Future[None]  #: done when deliveries can be taken no longer

    @property
    def metrics(self) -> Sequence[Metrics]:
        """What each process counts."""
        ...

    @property
    def serving(self) -> int:
        """Processes that take deliveries."""
        ...

    @property
    def pids(self) -> Iterable[int]:
        """Processes besides this one."""
        ...

    async def refusals(self) -> Sequence[RecentRejection]:
        """The last deliveries that did not get through, newest first."""
        ...

    async def start(self) -> None:
        """Ends when deliveries are taken, or `ended` is done."""
        ...

    async def apply(self, config: Config, files: Remembered) -> None:
        """Ends when new requests are handled by this configuration. Raises `ConfigError` if they can't be."""
        ...

    async def drain(self, *, accepting: float, until: float) -> None:
        """Takes deliveries for `accepting` seconds more, finishes what is in flight, ends `until` then (loop time)."""
        ...

    def end_at_once(self) -> None:
        """Whatever is in flight is cut off."""
        ...


class OneProcess:
    """Deliveries taken by this process."""

    exits = 0
    serving = 1
    pids: Sequence[int] = ()

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, log: Log, data_socket: socket.socket) -> None:
        self.metrics = [Metrics()]
        self.ended: asyncio.Future[None]
        self._service = DataService(config, loop, log=log, metrics=self.metrics[0])
        self._data_socket = data_socket

    async def refusals(self) -> Sequence[RecentRejection]:
        return newest_first([self._service.refusals.since(0)])

    async def start(self) -> None:
        self._service.start(self._data_socket)
        self.ended = self._service.ended

    async def apply(self, config: Config, files: Remembered) -> None:
        self._service.apply(config)

    async def drain(self, *, accepting: float, until: float) -> None:
        await self._service.drain(accepting=accepting, until=until)

    def end_at_once(self) -> None:
        """Ends with the process."""
