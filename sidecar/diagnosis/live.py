"""Hints on live traffic: `diagnose` for rejected deliveries, after the response, in a thread, and under limits.

The response is sent before anything is tried, so neither its content nor its timing shows what was found. Only a few of many
rejections are diagnosed; the others have no hint, and are not counted as `unknown`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from sidecar.diagnosis.diagnose import DIAGNOSABLE, Finding, diagnose
from sidecar.diagnosis.effort import LIVE, MAX_LIVE_BODY, OutOfTimeError
from sidecar.http1.head import RequestHead
from sidecar.outcomes import Hint, Reason
from sidecar.routing.routes import Route, foreign_secrets

#: Diagnoses that one process begins in a second.
PER_SECOND: Final = 10
#: Seconds of processor time for the diagnoses of one second; the last one may exceed it.
CPU_PER_SECOND: Final = 0.1
#: One that runs and one that waits. Rejections that come in the meantime have no hint.
MAX_PENDING: Final = 2
#: Seconds until a diagnosis is given up, by the clock.
DEADLINE: Final = 0.05
#: After `TURN` seconds the thread lets the event loop run, for as long as the loop needs and for at least `PAUSE` seconds. By
#: itself the interpreter would take its lock away from the thread only every 5 ms.
TURN: Final = 0.0005
PAUSE: Final = 0.0001


class Turns:
    """The `Check` of live traffic: raises `OutOfTimeError` after `deadline`, and lets the event loop run in between."""

    def __init__(self, clock: Callable[[], float], pause: Callable[[float], None], deadline: float) -> None:
        self._clock = clock
        self._pause = pause
        self._began = clock()
        self._deadline = self._began + deadline

    def check(self) -> None:
        now = self._clock()
        if now >= self._deadline:
            raise OutOfTimeError
        if now - self._began >= TURN:
            self._pause(PAUSE)
            self._began = self._clock()


class LiveRejection(NamedTuple):
    """The input of a diagnosis."""

    reason: Reason
    route: Route
    head: RequestHead
    pieces: Sequence[bytes]  #: of the body
    now: float  #: unix time
    routes: Sequence[Route]  #: all routes: the secret may belong to another one


class Hints:
    """Decides which rejections are diagnosed, and diagnoses them in a thread."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        diagnose: Callable[..., Finding | None] = diagnose,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        """`cpu` is the processor time of the thread that asks, in seconds."""
        self._monotonic = monotonic
        self._diagnose = diagnose
        self._cpu = cpu
        self._second = -1
        self._left = 0
        self._cpu_left = 0.0
        self._worker: ThreadPoolExecutor | None = None
        self._chosen = 0  #: rejections that `wants` chose and whose diagnosis has not ended
        self._pending: set[asyncio.Future[Hint | None]] = set()

    def wants(self, reason: Reason | None, route: Route | None, body_size: int) -> bool:
        """Whether to diagnose a rejection; if so, it counts against the limits, and `begin` must follow."""
        if reason not in DIAGNOSABLE or route is None or route.verifier is None or body_size > MAX_LIVE_BODY:
            return False
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._left, self._cpu_left = second, PER_SECOND, CPU_PER_SECOND
        if self._left <= 0 or self._cpu_left <= 0 or self._chosen >= MAX_PENDING:
            return False
        self._left -= 1
        self._chosen += 1
        return True

    def begin(self, rejection: LiveRejection) -> "asyncio.Future[Hint | None]":
        """Diagnoses a rejection that `wants` chose. The result is None if the reason says enough, or if the time ran out.

        It is an exception if the diagnosis failed, or could not begin.
        """
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, "diagnosis")
        loop = asyncio.get_running_loop()
        pending: asyncio.Future[Hint | None]
        try:
            pending = loop.run_in_executor(self._worker, self._work, rejection)
        except RuntimeError as error:  # the system gives us no thread
            pending = loop.create_future()
            pending.set_exception(error)
        self._pending.add(pending)
        pending.add_done_callback(self._end)
        return pending

    def _end(self, pending: "asyncio.Future[Hint | None]") -> None:
        self._pending.discard(pending)
        self._chosen -= 1

    async def finish(self) -> None:
        """Waits for the diagnoses of all that were chosen; they take a moment."""
        await asyncio.sleep(0)  # what was chosen in this turn of the loop begins in the next one
        if self._pending:
            await asyncio.wait(list(self._pending))
            await asyncio.sleep(0)  # for the callbacks that were added to them

    def _work(self, rejection: LiveRejection) -> Hint | None:
        """Runs in the thread."""
        reason, route, head, pieces, now, routes = rejection
        verifier = route.verifier
        assert verifier is not None  # `wants` checked
        began = self._cpu()
        turns = Turns(time.monotonic, time.sleep, DEADLINE)
        others = foreign_secrets(routes, route)
        try:
            found = self._diagnose(
                reason, verifier, head, b"".join(pieces), now=now, effort=LIVE, others=others, check=turns.check
            )
        except OutOfTimeError:
            return None
        finally:
            self._cpu_left -= self._cpu() - began
        return found.hint if found is not None else None
