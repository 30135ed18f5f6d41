"""Writes log lines to standard output from a thread, so that a stuck reader never holds up a delivery or a probe.

A pipe that nobody reads is full after 64 KiB, and the next write blocks. Non-blocking writes are no way out: O_NONBLOCK belongs
to the open file, which a terminal or another process may share. So the lines wait in a queue with a limit, and a thread writes
them. When the queue is full, new lines are dropped and counted; once half of it is free again, the log says how many.

The thread writes at once when the program is calm. Under load it pauses after each write, so that it wakes up a hundred times
a second and not for each turn of the event loop.
"""

import contextlib
import os
import select
import sys
import threading
import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, MutableSequence
from typing import Final

from sidecar.telemetry.log import Log, LogSettings

#: The most that waits in the queue of one process.
MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024
MAX_QUEUED_LINES: Final = 20_000
#: At the end of the program: how long lines that wait may still be written.
FLUSH_SECONDS: Final = 1.0
#: Between two writes.
PAUSE_SECONDS: Final = 0.01
#: How long to wait before trying again when standard output can't be written to.
RETRY_SECONDS: Final = 0.1
#: The most bytes that are taken from the queue at a time.
BATCH_BYTES: Final = 256 * 1024


class LogWriter:
    """The queue and its thread. Several processes that share standard output each have one."""

    def __init__(
        self,
        fd: int | None = None,
        *,
        shared: bool = False,
        dropped: MutableSequence[float] | None = None,
        max_bytes: int = MAX_QUEUED_BYTES,
        max_lines: int = MAX_QUEUED_LINES,
    ) -> None:
        """`fd`: default standard output. `shared`: other processes write there too.

        The number of dropped lines is `dropped[0]`, which may be shared memory.
        """
        self.dropped: MutableSequence[float] = dropped if dropped is not None else [0.0]
        #: Called in the thread, with the number of lines that were dropped, when half of the queue is free again.
        self.on_resumed: Callable[[int], object] = lambda lines: None
        self._fd = fd if fd is not None else sys.stdout.fileno()
        self._piece = select.PIPE_BUF if shared else BATCH_BYTES
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._texts: deque[tuple[str, int]] = deque()  # with the number of their lines
        self._bytes = self._lines = 0  # in the queue or being written
        self._unreported = 0  # dropped lines
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._closing = False
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def write(self, text: str) -> None:
        """Queues whole lines of ASCII, or drops them. Never blocks."""
        size, lines = len(text), text.count("\n")
        with self._lock:
            if self._bytes + size > self._max_bytes or self._lines + lines > self._max_lines:
                self._unreported += lines
                self.dropped[0] += lines
                return
            self._texts.append((text, lines))
            self._bytes += size
            self._lines += lines
            self._idle.clear()
        if not self._news.is_set():
            self._news.set()

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Waits until everything is written, at most this long."""
        self._closing = True
        self._idle.wait(seconds)

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            while self._texts:
                text, lines = self._take()
                self._write(text.encode())
                self._release(len(text), lines)
                if len(text) < BATCH_BYTES and not self._closing:
                    time.sleep(PAUSE_SECONDS)

    def _take(self) -> tuple[str, int]:
        texts: list[str] = []
        size = lines = 0
        while self._texts and size < BATCH_BYTES:
            text, count = self._texts.popleft()
            texts.append(text)
            size += len(text)
            lines += count
        return "".join(texts), lines

    def _release(self, size: int, lines: int) -> None:
        with self._lock:
            self._bytes -= size
            self._lines -= lines
            if not self._bytes:
                self._idle.set()
            unreported = 0
            if self._bytes <= self._max_bytes // 2 and self._lines <= self._max_lines // 2:
                unreported, self._unreported = self._unreported, 0
        if unreported:
            self.on_resumed(unreported)

    def _write(self, data: bytes) -> None:
        """Whole lines, at most PIPE_BUF bytes at a time where other processes write too (pipe(7)); a longer line alone."""
        begin = 0
        while begin < len(data):
            end = begin + self._piece
            if end < len(data):
                end = data.rfind(b"\n", begin, end) + 1 or data.find(b"\n", begin) + 1
            try:
                begin += os.write(self._fd, data[begin:end])
            except BlockingIOError:  # another process that shares the open file made it non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:  # nobody will ever read this, or the disk is full
                lines = data.count(b"\n", begin)
                with self._lock:
                    self._unreported += lines
                    self.dropped[0] += lines
                time.sleep(RETRY_SECONDS)
                return


def open_log(settings: LogSettings, loop: AbstractEventLoop, writer: LogWriter) -> Log:
    """The log of an event loop. It reports the lines that the writer had to drop."""
    log = Log(settings, loop, writer.write)

    def resumed(lines: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended in the meantime
            loop.call_soon_threadsafe(log.report_dropped, lines)

    writer.on_resumed = resumed
    return log
