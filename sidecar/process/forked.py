"""Workers that are forked from the main process, so that they share its memory.

A fork is safe only while the process has one thread, no event loop and no connection. So workers are forked before any of these
exist, and one that exits later is replaced by a new program (supervisor.py). They share the modules and the configuration, which
nobody changes, and which the garbage collector leaves alone, because `tune_process` has frozen them. Each worker immediately
closes the sockets of the others.
"""

import asyncio
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

from sidecar.config.settings import Config
from sidecar.process import worker
from sidecar.telemetry.shared_counts import SharedCounts


class ForkedProcess:
    """A child of this process, with the part of `asyncio.subprocess.Process` that the supervisor needs."""

    def __init__(self, pid: int) -> None:
        self.pid: Final = pid
        self._ended = os.pidfd_open(pid)
        self._status: int | None = None

    def kill(self) -> None:
        """Raises `ProcessLookupError` if it has been waited for."""
        if self._status is not None:
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit status, negative for a signal. Call it once."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        loop.add_reader(self._ended, ended.set_result, None)
        try:
            await ended
        finally:
            loop.remove_reader(self._ended)
            os.close(self._ended)
        _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222 - it has ended
        self._status = os.waitstatus_to_exitcode(status)
        return self._status


class Fleet(NamedTuple):
    """The resources that workers share, and the workers that were forked."""

    listeners: Sequence[Sequence[socket.socket]]  #: those of each worker: of data and, with `authorize:`, of questions
    counts: SharedCounts
    forked: Sequence[tuple[ForkedProcess, socket.socket]]  #: each with our end of its channel; empty if none was


def fork_workers(config: Config, listeners: Sequence[Sequence[socket.socket]], admin: socket.socket) -> Fleet:
    """Forks a worker for each of `listeners`.

    There are none where the system can't report the end of a process by a descriptor (before Linux 5.3, or in a sandbox). They
    are then started as new programs.
    """
    fleet = Fleet(listeners, SharedCounts.create(config.workers), [])
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return fleet
    forked: list[tuple[ForkedProcess, socket.socket]] = []
    every = [each for of_worker in listeners for each in of_worker]
    for number, own in enumerate(listeners):
        ours, its = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            others = [each for each in (*every, admin, ours, *(end for _, end in forked)) if each not in own]
            _be_worker(worker.Place(number, config.workers, its, fleet.counts.fd, own), config, others)
        its.close()
        forked.append((ForkedProcess(pid), ours))
    return fleet._replace(forked=forked)


def _be_worker(place: worker.Place, config: Config, others: Sequence[socket.socket]) -> NoReturn:
    """Runs in the child, where nothing that the parent was doing may continue."""
    status = 1
    try:
        os.setsid()  # signals of a terminal reach it through the parent, in its order
        for each in others:
            each.close()
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        worker.run(place, config)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
