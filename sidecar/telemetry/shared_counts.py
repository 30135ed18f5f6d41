"""Keeps the counts of all workers in memory that they share with their parent.

Each worker has its own region and is the only process that writes there, 8 bytes at a time; the parent reads all regions and
adds them up. A region belongs to a worker's number, not to its process: the process that replaces a dead worker continues its
counts, so no delivery is lost or counted twice, however the worker died. The parent assigns positions and never reassigns
them, so that a region means the same to processes with an older and a newer configuration.
"""

import mmap
import os
from collections.abc import MutableMapping
from typing import cast

from sidecar.telemetry.metrics import GAUGES_SIZE, Allocate, Block

#: Numbers in a region, enough for about 25,000 routes. Unwritten pages take no memory.
REGION_SIZE = 4 * 1024 * 1024
_NUMBER = 8


class SharedCountsFullError(Exception):
    """A region has no room for more series."""


class SharedCounts:
    """`places` maps the name of each block to its position in a region."""

    def __init__(self, fd: int, workers: int, places: MutableMapping[str, int]) -> None:
        self.fd = fd
        self.places = places
        self._numbers = memoryview(mmap.mmap(fd, workers * REGION_SIZE * _NUMBER)).cast("d")
        self._workers = workers
        self._end = GAUGES_SIZE

    @classmethod
    def create(cls, workers: int) -> "SharedCounts":
        """Creates the shared memory, in the parent. Workers open it by its `fd`."""
        fd = os.memfd_create("webhook-sidecar-counts")
        os.ftruncate(fd, workers * REGION_SIZE * _NUMBER)
        return cls(fd, workers, {"gauges": 0})

    def gauges_of_others(self, worker: int) -> list[Block]:
        """The gauges of all other workers."""
        return [self._block(other, 0, GAUGES_SIZE) for other in range(self._workers) if other != worker]

    def allocator(self, worker: int) -> Allocate:
        """Returns the allocator of one worker, numbered from 0. Only the parent may use it for new names."""

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
