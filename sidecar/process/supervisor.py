"""Several processes that take deliveries, and the one that keeps them going.

Each worker has a listening socket of its own on the one address (SO_REUSEPORT), and the system deals connections out. On a
socket that all wait for, whoever wakes first takes a whole burst of connections, and kept connections then stay where they
are: of 32 opened at once one of two workers had 30. The sockets are bound here and stay open here, so that connections to
a worker that died wait for the one that takes its place and are not lost.

A worker that ends unasked is replaced. The configuration is checked here and sent to the workers with the bytes of every
file that it was made of, so that they can't but agree.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from sidecar.config.files import Remembered
from sidecar.config.problems import ConfigError, Problem
from sidecar.config.settings import Config
from sidecar.process.channel import Channel
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recent_rejections import KEPT, RecentRejection, newest_first
from sidecar.telemetry.shared_counts import SharedCounts, SharedCountsFullError

#: A worker that lived for less is replaced after a pause, which doubles from the shortest to the longest. Seconds.
STEADY = 10.0
PAUSES = (0.1, 5.0)
#: How long a worker may take to take a new configuration over, seconds.
TAKE_OVER = 10.0
#: How long is waited for what a worker has refused, seconds.
TELLING = 1.0


class Worker:
    """A worker's number, and the process that has it at the moment."""

    def __init__(self, number: int, metrics: Metrics) -> None:
        self.number = number
        self.metrics = metrics
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self.serving = False
        self.served = asyncio.Event()  #: has been serving at least once
        self.keeper: asyncio.Task[None]
        self._taken_over: dict[int, asyncio.Future[None]] = {}
        self.refusals: deque[RecentRejection] = deque(
            maxlen=KEPT
        )  #: as far as they were asked for; they outlive the process
        self._told = 0  # of this process's refusals
        self._telling: asyncio.Future[None] | None = None

    async def run(self, arguments: list[str], environment: dict[str, str], fds: Iterable[int], setup: Any) -> int:
        """Runs a process to its end; returns its exit status, negative for a signal."""
        ours, its = socket.socketpair()
        self.process = await asyncio.create_subprocess_exec(
            *arguments,
            *map(str, (its.fileno(), *fds)),
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=(its.fileno(), *fds),
            start_new_session=True,  # what a terminal sends to all its processes comes from us, in our order
        )
        its.close()
        self.channel = channel = await Channel.open(ours)
        channel.tell(setup())
        while (message := await channel.hear()) is not None:
            if message["is"] == "serving":
                self.serving = True
                self.served.set()
            elif message["is"] == "told":
                self._hear_refusals(message)
            else:
                self._taken_over.pop(message["number"]).set_result(None)
        self.serving = False
        status = await self.process.wait()
        self.process = self.channel = None
        channel.close()
        for waiting in self._taken_over.values():
            waiting.cancel()
        self._taken_over.clear()
        self._told = 0
        self._telling_over()
        for index in range(len(self.metrics.gauges)):  # it holds nothing any more; what it counted stays
            self.metrics.gauges[index] = 0.0
        return status

    async def take_over(self, message: dict[str, Any]) -> None:
        """Ends when a new configuration is at work in this worker; one that does not take it is ended and replaced."""
        if self.channel is None:
            return  # being replaced, by one that starts with it
        done = asyncio.get_running_loop().create_future()
        self._taken_over[message["number"]] = done
        self.channel.tell(message)
        try:
            async with asyncio.timeout(TAKE_OVER):
                await done
        except TimeoutError:
            self._taken_over.pop(message["number"], None)
            self.kill()
        except asyncio.CancelledError:
            if not done.cancelled():
                raise

    async def ask_refusals(self) -> None:
        """Ends when `refusals` are as they are now, or when the worker does not answer."""
        if self.channel is None:
            return
        if self._telling is None:  # else it is asked already
            self._telling = asyncio.get_running_loop().create_future()
            self.channel.tell({"do": "tell", "since": self._told})
        await asyncio.wait([self._telling], timeout=TELLING)

    def _hear_refusals(self, message: dict[str, Any]) -> None:
        self.refusals.extend(RecentRejection(*values) for values in message["refusals"])
        self._told = message["count"]
        self._telling_over()

    def _telling_over(self) -> None:
        if self._telling is not None:
            self._telling.set_result(None)
            self._telling = None

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


class Workers:
    """`metrics` are those of each worker. `ended` is done when deliveries can be taken no longer."""

    def __init__(
        self,
        config: Config,
        files: Remembered,
        loop: asyncio.AbstractEventLoop,
        log: Log,
        data_sockets: Sequence[socket.socket],
    ) -> None:
        self.loop = loop
        self.log = log
        self.data_sockets = data_sockets  # one for each worker
        self.exits = 0  #: of workers that nobody told to end
        self.draining = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self._ledger = SharedCounts.create(config.workers)
        self.metrics = [Metrics(self._ledger.allocator(number)) for number in range(config.workers)]
        self.workers = [Worker(number, metrics) for number, metrics in enumerate(self.metrics)]
        self._number = 0
        self._prepare(config)
        self._setup = self._message(config, files)

    # What the program asks

    @property
    def serving(self) -> int:
        """Workers that take deliveries."""
        return sum(worker.serving for worker in self.workers)

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self.workers if worker.process is not None]

    async def refusals(self) -> list[RecentRejection]:
        """The last of all workers, newest first."""
        await asyncio.gather(*(worker.ask_refusals() for worker in self.workers))
        return newest_first(worker.refusals for worker in self.workers)

    async def start(self) -> None:
        """Ends when all workers serve, or `ended` is done because one could not."""
        for worker in self.workers:
            worker.keeper = asyncio.create_task(self._keep(worker))
        serving = asyncio.gather(*(worker.served.wait() for worker in self.workers))
        either: list[asyncio.Future[Any]] = [serving, self.ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()

    async def apply(self, config: Config, files: Remembered) -> None:
        """Ends when every worker works by this configuration. Raises `ConfigError` if none can."""
        self._prepare(config)
        self._setup = message = self._message(config, files)
        await asyncio.gather(*(worker.take_over(message) for worker in self.workers))

    async def drain(self, *, accepting: float, until: float) -> None:
        """As `DataService.drain`, in every worker."""
        self.draining = True
        for data_socket in self.data_sockets:  # the workers have theirs
            data_socket.close()
        for worker in self.workers:
            if worker.channel is not None:
                worker.channel.tell({"do": "drain", "accepting": accepting, "seconds": until - self.loop.time()})
            else:  # being replaced
                worker.kill()
                worker.keeper.cancel()
        keepers = [worker.keeper for worker in self.workers]
        _, late = await asyncio.wait(keepers, timeout=until - self.loop.time())
        if late:
            self.end_at_once()
            await asyncio.wait(late)

    def end_at_once(self) -> None:
        self.draining = True
        for worker in self.workers:
            worker.kill()

    # How they are kept going

    async def _keep(self, worker: Worker) -> None:
        pause = 0.0
        while True:
            began = self.loop.time()
            status = await worker.run(
                *_command(worker.number, len(self.workers)), self._fds(worker.number), lambda: self._setup
            )
            if self.draining:
                break
            if not worker.served.is_set():
                self.log.event("worker_ended", Level.ERROR, worker=worker.number, how=_how(status), at="its start")
                if not self.ended.done():
                    self.ended.set_result(None)
                return
            self.exits += 1
            steady = self.loop.time() - began >= STEADY
            pause = 0.0 if steady else min(max(pause * 2, PAUSES[0]), PAUSES[1])
            self.log.event(
                "worker_ended", Level.ERROR, worker=worker.number, how=_how(status), replaced_after_seconds=pause
            )
            await asyncio.sleep(pause)

    def _fds(self, number: int) -> tuple[int, int]:
        return self.data_sockets[number].fileno(), self._ledger.fd

    def _prepare(self, config: Config) -> None:
        try:
            for metrics in self.metrics:
                metrics.configure(config.routes.routes, exemplars=config.tracing is not None)
        except SharedCountsFullError:
            detail = "more routes since the start than there is room to count; restart to apply"
            raise ConfigError([Problem(config.file, 1, "routes", detail)]) from None

    def _message(self, config: Config, files: Remembered) -> dict[str, Any]:
        self._number += 1
        return {
            "do": "configure",
            "number": self._number,
            "file": config.file,
            "texts": files.texts,
            "ranges": {name: networks.cidrs for name, networks in config.ranges.items()},
            "places": dict(self._ledger.places),
        }


def _command(number: int, workers: int) -> tuple[list[str], dict[str, str]]:
    """How a worker is started: this interpreter, with the packages that it found here and none from where it runs."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    warnings = [f"-W{option}" for option in sys.warnoptions]
    arguments = [sys.executable, "-P", *warnings, "-m", "sidecar.process.worker", str(number), str(workers)]
    return arguments, os.environ | {"PYTHONPATH": path}


def _how(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
