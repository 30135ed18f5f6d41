"""The counts of all workers, in memory that they share with their parent.

Each worker has a region of its own and is the only one that writes there, 8 bytes at a time; the parent reads them all and
adds up. A region belongs to a worker's number, not to its process: whoever takes a dead worker's place counts on where it
stopped, so no delivery is forgotten and none is counted twice, whatever killed it. Places are given out by the parent and
never taken back, so that a region means the same to processes with an older and with a newer configuration.
"""

import mmap
import os
from collections.abc import MutableMapping
from typing import cast

from sidecar.telemetry.metrics import GAUGES_SIZE, Allocate, Block

#: Numbers in a region: some 25,000 routes. What was never written takes no memory.
REGION_SIZE = 4 * 1024 * 1024
_NUMBER = 8


class SharedCountsFullError(Exception):
    """More series than a region has places."""


class SharedCounts:
    """`places` tells where in a region the block of each name begins."""

    def __init__(self, fd: int, workers: int, places: MutableMapping[str, int]) -> None:
        self.fd = fd
        self.places = places
        self._numbers = memoryview(mmap.mmap(fd, workers * REGION_SIZE * _NUMBER)).cast("d")
        self._workers = workers
        self._end = GAUGES_SIZE

    @classmethod
    def create(cls, workers: int) -> "SharedCounts":
        """A new one, for the parent. `fd` may be handed to the workers."""
        fd = os.memfd_create("webhook-sidecar-counts")
        os.ftruncate(fd, workers * REGION_SIZE * _NUMBER)
        return cls(fd, workers, {"gauges": 0})

    def gauges_of_others(self, worker: int) -> list[Block]:
        """The gauges of all workers but this one."""
        return [self._block(other, 0, GAUGES_SIZE) for other in range(self._workers) if other != worker]

    def allocator(self, worker: int) -> Allocate:
        """Blocks of one worker, counted from 0. New places are for the parent to give out."""

        def allocate(name: str, size: int) -> Block:
            return self._block(worker, self._place(name, size), size)

        return allocate

    def _place(self, name: str, size: int) -> int:
        place = self.places.get(name)
        if place is None:
            place = self._end
            if place + size > REGION_SIZE:
                raise SharedCountsFullError
            self.places[name] = place
            self._end += size
        return place

    def _block(self, worker: int, place: int, size: int) -> Block:
        begin = worker * REGION_SIZE + place
        return cast(Block, self._numbers[begin : begin + size])
