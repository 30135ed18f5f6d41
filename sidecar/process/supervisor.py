"""Starts the worker processes that handle deliveries, and restarts those that exit.

Each worker has its own listening socket on the one address (SO_REUSEPORT), and the system distributes connections. On one
shared socket the worker that wakes first takes a whole burst of connections, and kept connections then stay with it: of 32
opened at once, one of two workers had 30. The sockets are bound here and stay open here, so that connections to
a dead worker wait for its replacement and are not lost.

The first workers are forked (forked.py). One that exits unexpectedly is replaced by a new program. The configuration is checked
here and sent to the workers with the bytes of every file that it was read from, so that all of them agree.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from sidecar.config.files import FileRecorder
from sidecar.config.problems import ConfigError, Problem
from sidecar.config.settings import Config
from sidecar.process.channel import Channel
from sidecar.process.forked import Fleet
from sidecar.process.key_channel import KeyRelay
from sidecar.process.key_store import KeyStore
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.metrics import CAPTURES_AT, Metrics
from sidecar.telemetry.recent_rejections import KEPT, RecentRejection, newest_first
from sidecar.telemetry.shared_counts import SharedCountsFullError

#: A worker that ran for less is restarted after a pause, which doubles from the shortest to the longest. Seconds.
STEADY_SECONDS = 10.0
RESTART_PAUSES = (0.1, 5.0)
#: How long a worker may take to apply a new configuration, seconds.
RECONFIGURE_SECONDS = 10.0
#: How long to wait for a worker's recent rejections, seconds.
REJECTIONS_SECONDS = 1.0


class Process(Protocol):
    """A worker's process: forked, or a new program."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None:
        """Raises `ProcessLookupError` if it is gone."""

    async def wait(self) -> int:
        """Its exit status, negative for a signal."""


class Worker:
    """A worker's number, and the process that currently has it."""

    def __init__(self, number: int, metrics: Metrics, keys: KeyRelay) -> None:
        self.number = number
        self._keys = keys
        self.metrics = metrics
        self.process: Process | None = None
        self.channel: Channel | None = None
        self.serving = False
        self.served = asyncio.Event()  #: set once it has served
        self.cut_off = 0  #: deliveries that were cut off when its process ended
        self.keeper: asyncio.Task[None]
        self._reconfigured: dict[int, asyncio.Future[None]] = {}
        #: As of the last time that the worker was asked; they outlive the process.
        self.refusals: deque[RecentRejection] = deque(maxlen=KEPT)
        self._refusals_known = 0  # how many of this process's have been received
        self._asking: asyncio.Future[None] | None = None
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._asked = 0

    async def run(self, process: Process, end: socket.socket, setup: Any) -> int:
        """Follows a process until it exits; returns its exit status, negative for a signal. `end` is its channel's."""
        self.process = process
        self.cut_off = 0
        self.channel = channel = await Channel.open(end)
        channel.send(setup() | {"keys": self._keys.everything()})
        while (message := await channel.receive()) is not None:
            if message["is"] == "serving":
                self.serving = True
                self.served.set()
            elif message["is"] == "drained":
                self.cut_off = message["cut_off"]
            elif message["is"] == "refusals":
                self._receive_refusals(message)
            elif message["is"] == "answer":
                if (asked := self._questions.pop(message["number"], None)) is not None:
                    asked.set_result(message["answer"])
            elif message["is"] in ("keys wanted", "keys used", "confirm"):
                self._keys.receive(message, channel.send)
            else:
                self._reconfigured.pop(message["number"]).set_result(None)
        self.serving = False
        status = await process.wait()
        self.process = self.channel = None
        channel.close()
        for waiting in self._reconfigured.values():
            waiting.cancel()
        self._reconfigured.clear()
        for question in self._questions.values():
            question.cancel()
        self._questions.clear()
        self._refusals_known = 0
        self._stop_asking()
        self.cut_off += self.metrics.in_flight  # more than 0 only if it was killed
        for index in range(len(self.metrics.gauges)):  # it holds nothing now; its counters stay
            self.metrics.gauges[index] = 0.0
        for counts in self.metrics.routes.values():
            counts.block[CAPTURES_AT] = 0.0
        return status

    async def reconfigure(self, message: dict[str, Any]) -> None:
        """Returns when this worker uses the new configuration. A worker that doesn't respond is killed and restarted."""
        if self.channel is None:
            return  # being restarted, with the new configuration
        done = asyncio.get_running_loop().create_future()
        self._reconfigured[message["number"]] = done
        self.channel.send(message)
        try:
            async with asyncio.timeout(RECONFIGURE_SECONDS):
                await done
        except TimeoutError:
            self._reconfigured.pop(message["number"], None)
            self.kill()
        except asyncio.CancelledError:
            if not done.cancelled():
                raise

    async def ask_refusals(self) -> None:
        """Returns when `refusals` are up to date, or when the worker does not respond."""
        if self.channel is None:
            return
        if self._asking is None:  # otherwise it has been asked already
            self._asking = asyncio.get_running_loop().create_future()
            self.channel.send({"do": "send rejections", "since": self._refusals_known})
        await asyncio.wait([self._asking], timeout=REJECTIONS_SECONDS)

    async def ask(self, question: str) -> list[Any]:
        """The answer to a question of `DataPlane.answer`; none if the worker does not respond in time."""
        if self.channel is None:
            return []
        self._asked += 1
        number = self._asked
        asked = self._questions[number] = asyncio.get_running_loop().create_future()
        self.channel.send({"do": "answer", "number": number, "question": question})
        await asyncio.wait([asked], timeout=REJECTIONS_SECONDS)
        self._questions.pop(number, None)
        return [asked.result()] if asked.done() and not asked.cancelled() else []

    def _receive_refusals(self, message: dict[str, Any]) -> None:
        self.refusals.extend(RecentRejection(*values) for values in message["refusals"])
        self._refusals_known = message["count"]
        self._stop_asking()

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking.set_result(None)
            self._asking = None

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


class Supervisor:
    """A `DataProcesses` with several workers."""

    def __init__(
        self,
        config: Config,
        files: FileRecorder,
        loop: asyncio.AbstractEventLoop,
        log: Log,
        fleet: Fleet,
        *,
        keys: KeyStore,
    ) -> None:
        self.loop = loop
        self.log = log
        self.sockets = fleet.listeners  # of each worker
        self.exits = 0  #: workers that exited unexpectedly
        self.draining = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self._shared_counts = fleet.counts
        self._forked = dict(enumerate(fleet.forked))
        self.metrics = [Metrics(self._shared_counts.allocator(number)) for number in range(config.workers)]
        self._keys = KeyRelay(keys, self._send_to_all)
        self.workers = [Worker(number, metrics, self._keys) for number, metrics in enumerate(self.metrics)]
        self._number = 0
        self._closing = False  # whether responses close their connections
        self._prepare(config)
        self._setup = self._message(config, files)

    # DataProcesses

    @property
    def serving(self) -> int:
        """How many workers accept deliveries."""
        return sum(worker.serving for worker in self.workers)

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self.workers if worker.process is not None]

    async def refusals(self) -> list[RecentRejection]:
        """The most recent ones of all workers, newest first."""
        await asyncio.gather(*(worker.ask_refusals() for worker in self.workers))
        return newest_first(worker.refusals for worker in self.workers)

    async def ask(self, question: str) -> list[Any]:
        """The answers of all workers that respond in time."""
        answers = await asyncio.gather(*(worker.ask(question) for worker in self.workers))
        return [answer for listed in answers for answer in listed]

    async def start(self) -> None:
        """Returns when all workers serve, or `ended` is done because one could not start."""
        for worker in self.workers:
            worker.keeper = asyncio.create_task(self._keep(worker))
        serving = asyncio.gather(*(worker.served.wait() for worker in self.workers))
        either: list[asyncio.Future[Any]] = [serving, self.ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()

    async def apply(self, config: Config, files: FileRecorder) -> None:
        """Returns when every worker uses this configuration. Raises `ConfigError` if it can't be used."""
        self._prepare(config)
        self._setup = message = self._message(config, files)
        await asyncio.gather(*(worker.reconfigure(message) for worker in self.workers))

    async def close_connections(self) -> None:
        """As `DataPlane.close_connections`, in every worker, including those that are started later."""
        self._number += 1
        self._closing = True
        self._setup |= {"closing": True}
        message = {"do": "close connections", "number": self._number}
        await asyncio.gather(*(worker.reconfigure(message) for worker in self.workers))

    async def drain(self, *, accepting: float, until: float) -> int:
        """As `DataPlane.drain`, in every worker."""
        self.draining = True
        for listener in self.sockets:
            for each in listener:  # the workers have their own copies
                each.close()
        draining: list[Worker] = []
        for worker in self.workers:
            if worker.channel is not None:
                draining.append(worker)
                worker.channel.send({"do": "drain", "accepting": accepting, "seconds": until - self.loop.time()})
            else:  # being restarted
                worker.kill()
                worker.keeper.cancel()
        keepers = [worker.keeper for worker in self.workers]
        _, late = await asyncio.wait(keepers, timeout=until - self.loop.time())
        if late:
            self.end_at_once()
            await asyncio.wait(late)
        return sum(worker.cut_off for worker in draining)

    def end_at_once(self) -> None:
        self.draining = True
        for worker in self.workers:
            worker.kill()

    # Internals

    async def _keep(self, worker: Worker) -> None:
        pause = 0.0
        while True:
            began = self.loop.time()
            process, end = await self._start(worker.number)
            status = await worker.run(process, end, lambda: self._setup)
            if self.draining:
                break
            if not worker.served.is_set():
                self.log.event(
                    "worker_ended", Level.ERROR, worker=worker.number, how=_describe_exit(status), at="its start"
                )
                if not self.ended.done():
                    self.ended.set_result(None)
                return
            self.exits += 1
            steady = self.loop.time() - began >= STEADY_SECONDS
            pause = 0.0 if steady else min(max(pause * 2, RESTART_PAUSES[0]), RESTART_PAUSES[1])
            self.log.event(
                "worker_ended",
                Level.ERROR,
                worker=worker.number,
                how=_describe_exit(status),
                replaced_after_seconds=pause,
            )
            await asyncio.sleep(pause)

    async def _start(self, number: int) -> tuple[Process, socket.socket]:
        """A worker's process, and our end of its channel."""
        if number in self._forked:
            return self._forked.pop(number)
        ours, its = socket.socketpair()
        listeners = [listener.fileno() for listener in self.sockets[number]]
        fds = (its.fileno(), self._shared_counts.fd, *listeners)
        arguments, environment = _command(number, len(self.workers))
        process = await asyncio.create_subprocess_exec(
            *arguments,
            *map(str, fds),
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=fds,
            start_new_session=True,  # signals of a terminal reach it through us, in our order
        )
        its.close()
        return process, ours

    def _send_to_all(self, message: Mapping[str, object]) -> None:
        for worker in self.workers:
            if worker.channel is not None:
                worker.channel.send(message)

    def _prepare(self, config: Config) -> None:
        try:
            for metrics in self.metrics:
                metrics.configure(
                    config.routes.routes, exemplars=config.tracing is not None, authorizes=config.authorize is not None
                )
        except SharedCountsFullError:
            detail = "has more routes than there is room to count until a restart; restart to apply"
            raise ConfigError([Problem(config.file, 1, "routes", detail)]) from None

    def _message(self, config: Config, files: FileRecorder) -> dict[str, Any]:
        self._number += 1
        return {
            "do": "configure",
            "number": self._number,
            "file": config.file,
            "texts": files.texts,
            "ranges": {name: networks.cidrs for name, networks in config.ranges.items()},
            "places": dict(self._shared_counts.places),
            "closing": self._closing,
        }


def _command(number: int, workers: int) -> tuple[list[str], dict[str, str]]:
    """How to start a worker: with this interpreter and its packages, none from the current directory."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    warnings = [f"-W{option}" for option in sys.warnoptions]
    arguments = [sys.executable, "-P", *warnings, "-m", "sidecar.process.worker", str(number), str(workers)]
    return arguments, os.environ | {"PYTHONPATH": path}


def _describe_exit(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
