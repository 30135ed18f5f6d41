"""A limit on the exchanges with one receiver at a time: further deliveries wait in line, for a limited time."""

import asyncio
from typing import Final

from sidecar.http1.deadlines import DeadlineQueue
from sidecar.http1.light_task import Signal
from sidecar.outcomes import Reason, Rejected


class _Waiter:
    __slots__ = ("granted", "late", "signal")

    def __init__(self) -> None:
        self.signal = Signal()
        self.granted = False
        self.late = False


class Slots:
    """`take` before an exchange, `give` after it."""

    def __init__(self, most: int, seconds: float, loop: asyncio.AbstractEventLoop, receiver: str) -> None:
        """At most `most` exchanges at a time; a delivery waits for `seconds`. `receiver` is for messages."""
        self._free = most
        self._problem: Final = f"all {most} connections to {receiver} were busy for {seconds:g} s"
        self._waiting: DeadlineQueue[_Waiter] = DeadlineQueue(loop, seconds, self._expire)

    async def take(self) -> None:
        """Returns when an exchange may begin, in the order of asking. Raises `Rejected(upstream_unreachable)`."""
        if self._free:  # then nobody waits
            self._free -= 1
            return
        waiter = _Waiter()
        self._waiting.add(waiter)
        try:
            while not (waiter.granted or waiter.late):
                await waiter.signal
        except BaseException:
            self._waiting.discard(waiter)
            if waiter.granted:
                self.give()
            raise
        if not waiter.granted:
            raise Rejected(Reason.UPSTREAM_UNREACHABLE, self._problem)

    def give(self) -> None:
        """Ends an exchange; the one that has waited longest may begin."""
        for waiter in self._waiting:
            self._waiting.discard(waiter)
            waiter.granted = True
            waiter.signal.set()
            return
        self._free += 1

    def _expire(self, waiter: _Waiter) -> None:
        waiter.late = True
        waiter.signal.set()
