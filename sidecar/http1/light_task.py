"""Coroutines driven in one batch for each turn of the event loop, at a third of the cost of an `asyncio.Task` each.

A delivery waits once or twice, always for an event that one of our own protocols sees. All tasks that become ready in
a turn of the loop are resumed together at the turn's end: first everything that arrived is read, then everything is
written. asyncio uses the same order, with a handle, a future and a context for each. Resuming at once, inside the
protocol's callback, measured far worse, because every single write then wakes the process on the other side.

A `LightTask` waits for a `Signal`, or for any asyncio future. `asyncio.timeout` and the like need an `asyncio.Task`, so
wrap code that uses them in `loop.create_task(...)` and await that.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Final

_ENDED: Final = object()


class ReadyQueue:
    """The tasks to resume at the end of this turn of the loop."""

    __slots__ = ("_loop", "_ready")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: list[LightTask] = []

    def add(self, task: "LightTask") -> None:
        if not self._ready:
            self._loop.call_soon(self._run)
        self._ready.append(task)

    def _run(self) -> None:
        ready, self._ready = self._ready, []
        for task in ready:
            task.step()

    def report_bug(self, bug: BaseException) -> None:
        """Reports an exception that escaped from a coroutine, where nothing can catch it."""
        self._loop.call_exception_handler({"message": "a light task failed", "exception": bug})


class Signal:
    """One `LightTask` at a time waits for it until `set` is called. It keeps no state: check first, then wait."""

    __slots__ = ("waiter",)

    def __init__(self) -> None:
        self.waiter: LightTask | None = None

    def __await__(self) -> Generator["Signal", None, None]:
        yield self

    def set(self) -> None:
        """Resumes the waiting task at the end of this turn."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            waiter.turn.add(waiter)


class LightTask:
    """Runs `coroutine`, starting at the end of this turn, and calls `done(task)` after its end, however it ended."""

    __slots__ = ("_cancelled", "_coroutine", "_done", "_steps", "_waits_for", "turn")

    def __init__(
        self, coroutine: Coroutine[Any, None, None], turn: ReadyQueue, done: Callable[["LightTask"], None]
    ) -> None:
        self._coroutine = coroutine
        # `next` with a default doesn't raise at the end, as `send` does; docs/dependencies.md has the cost of exceptions.
        self._steps: Iterator[Any] = coroutine.__await__()
        self.turn = turn
        self._done: Callable[[LightTask], None] | None = done
        self._waits_for: Signal | asyncio.Future[Any] | None = None
        self._cancelled = False
        turn.add(self)

    def cancel(self, msg: object = None) -> None:
        """Raises `CancelledError` where the task waits, at the end of this turn. `msg` is for asyncio's signature only."""
        self._cancelled = True
        waits_for = self._waits_for
        if isinstance(waits_for, Signal):
            waits_for.set()
        elif waits_for is not None:
            waits_for.cancel()

    def step(self) -> None:
        """Runs up to the next wait."""
        waited_for, self._waits_for = self._waits_for, None
        try:
            if self._cancelled and waited_for is not None:
                waits_for = self._raise_cancelled(waited_for)
            else:
                waits_for = next(self._steps, _ENDED)
        except StopIteration:
            waits_for = _ENDED
        except BaseException as bug:
            self._end()
            if not isinstance(bug, asyncio.CancelledError):
                self.turn.report_bug(bug)
            return
        if waits_for is _ENDED:
            self._end()
            return
        self._waits_for = waits_for
        if type(waits_for) is Signal:
            waits_for.waiter = self
        elif waits_for is None:  # a bare yield: asyncio.sleep(0)
            self.turn.add(self)
        else:
            waits_for._asyncio_future_blocking = False  # as asyncio's own Task does: the future was awaited
            waits_for.add_done_callback(self._future_done)
        if self._cancelled:
            self.cancel()

    def _end(self) -> None:
        # The callback's owner holds this task as well: the cycle would wait for the collector.
        done, self._done = self._done, None
        assert done is not None
        done(self)

    def _raise_cancelled(self, waited_for: Signal | asyncio.Future[Any]) -> Any:
        if isinstance(waited_for, Signal):
            self._cancelled = False
            return self._coroutine.throw(asyncio.CancelledError())
        # A future that already has its result keeps it, and the next wait is cancelled instead.
        self._cancelled = not waited_for.cancelled()
        return next(self._steps, _ENDED)

    def _future_done(self, future: asyncio.Future[Any]) -> None:
        self.step()
