"""The processes that handle deliveries: this one, or several workers."""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sidecar.config.files import FileRecorder
from sidecar.config.settings import Config
from sidecar.process.data_plane import DataPlane
from sidecar.process.key_store import KeyStore
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recent_rejections import RecentRejection, newest_first


class DataProcesses(Protocol):
    """The processes that handle deliveries: `SingleProcess` below, or `Supervisor` in supervisor.py."""

    exits: int  #: processes that exited unexpectedly
    ended: asyncio.Future[None]  #: done when deliveries can no longer be accepted

    @property
    def metrics(self) -> Sequence[Metrics]:
        """The counts of each process."""
        ...

    @property
    def serving(self) -> int:
        """How many processes accept deliveries."""
        ...

    @property
    def pids(self) -> Iterable[int]:
        """Processes other than this one."""
        ...

    async def refusals(self) -> Sequence[RecentRejection]:
        """The most recent rejections and failures, newest first."""
        ...

    async def ask(self, question: str) -> list[Any]:
        """Each process's answer to a question of `DataPlane.answer`. Processes that don't respond in time are left out."""
        ...

    async def start(self) -> None:
        """Returns when deliveries are accepted, or `ended` is done."""
        ...

    async def apply(self, config: Config, files: FileRecorder) -> None:
        """Returns when new requests are handled by this configuration. Raises `ConfigError` if they can't be."""
        ...

    async def close_connections(self) -> None:
        """From now on each response closes its connection; deliveries are still accepted."""
        ...

    async def drain(self, *, accepting: float, until: float) -> int:
        """Accepts deliveries for `accepting` more seconds, then finishes those in flight, by `until` (loop time).

        Returns how many were cut off because they were not finished by then.
        """
        ...

    def end_at_once(self) -> None:
        """Cuts off the deliveries in flight."""
        ...


class SingleProcess:
    """Deliveries are handled in this process."""

    exits = 0
    serving = 1
    pids: Sequence[int] = ()

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        log: Log,
        sockets: Sequence[socket.socket],
        keys: KeyStore,
    ) -> None:
        self.metrics = [Metrics()]
        self.ended: asyncio.Future[None]
        self._data_plane = DataPlane(config, loop, log=log, metrics=self.metrics[0], keys=keys)
        self._sockets = sockets

    async def refusals(self) -> Sequence[RecentRejection]:
        return newest_first([self._data_plane.refusals.since(0)])

    async def ask(self, question: str) -> list[Any]:
        return [self._data_plane.answer(question)]

    async def start(self) -> None:
        self._data_plane.start(self._sockets)
        self.ended = self._data_plane.ended

    async def apply(self, config: Config, files: FileRecorder) -> None:
        self._data_plane.apply(config)

    async def close_connections(self) -> None:
        self._data_plane.close_connections()

    async def drain(self, *, accepting: float, until: float) -> int:
        return await self._data_plane.drain(accepting=accepting, until=until)

    def end_at_once(self) -> None:
        """Nothing to do: deliveries in flight end with the process."""
