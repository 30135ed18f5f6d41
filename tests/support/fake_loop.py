"""An event loop whose clock is set by hand, and a transport that records what is done to it: for tests of protocols without
sockets and without waiting."""

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")


class FakeLoop(asyncio.AbstractEventLoop):
    """The parts of a loop that callbacks, timers and exception reports need."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[asyncio.TimerHandle] = []
        self.ready: list[asyncio.Handle] = []
        self.reported: list[dict[str, Any]] = []  #: calls of the exception handler

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self.timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.reported.append(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers.remove(handle)

    def turn(self) -> None:
        """Runs callbacks until none is ready."""
        while self.ready:
            ready, self.ready = self.ready, []
            for handle in ready:
                if not handle.cancelled():
                    handle._run()

    def advance(self, to: float) -> None:
        """Advances the clock to `to`, and runs each timer at its own time on the way."""
        self.turn()
        while due := [timer for timer in self.timers if timer.when() <= to]:
            timer = min(due, key=asyncio.TimerHandle.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when())
            timer._run()
            self.turn()
        self.now = to


class FakeTransport(asyncio.Transport):
    """Records writes, which `sent` joins. The peer reads everything at once unless the test sets `unsent`."""

    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)
        self.writes: list[bytes] = []
        self.unsent = 0  #: bytes in the write buffer
        self.reading = True
        self.eof = False  #: `write_eof` was called
        self.closed = False
        self.aborted = False

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)

    def take(self) -> bytes:
        """The bytes written since the last call."""
        sent, self.writes = self.sent, []
        return sent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof, "written after the end"
        self.writes.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def write_eof(self) -> None:
        self.eof = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        assert self.reading, "reading is paused already"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading, "reading is not paused"
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True
