"""One delivery: the value that is passed from stage to stage."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sidecar.delivery.body import Body
from sidecar.delivery.decide import Decisions
from sidecar.delivery.snapshot import Snapshot
from sidecar.http1.incoming import Incoming
from sidecar.replay.once import ReplayTurn
from sidecar.routing.question import Question
from sidecar.telemetry.record import DeliveryRecord
from sidecar.verify.verifier import MAX_SCHEMES, Verifier

#: More than this is hashed in a thread: a MiB takes over a millisecond, and hashing releases the interpreter's lock. A body
#: counts once for each time that it may be hashed.
ON_LOOP_BYTES: Final = 1024 * 1024
#: The same for a body that is parsed: as JSON of 64 KiB it takes up to 3 ms. Several schemes share it.
PARSED_ON_LOOP_BYTES: Final = 64 * 1024
#: A body of this size is always verified on the loop, however many schemes a route has.
SMALL_BYTES: Final = PARSED_ON_LOOP_BYTES // MAX_SCHEMES

#: One thread each: more would compete with the event loop, and a stranger could keep any number of them busy.
#: Parsing holds the interpreter's lock, so hashing must not wait for it.
PARSER: Final = ThreadPoolExecutor(1, "parser")
HASHER: Final = ThreadPoolExecutor(1, "hasher")
T = TypeVar("T")


class Delivery(Decisions):
    """One delivery on its way, from its head to its record.

    It keeps the snapshot of the configuration that it began with, so a reload in the middle changes nothing for it.
    """

    turn: ReplayTurn | None = None  #: on a route with `replay:`, from stage 7 on
    question: Question | None = None  #: on the authorize listener: the gateway's question

    def __init__(self, incoming: Incoming, snapshot: Snapshot, record: DeliveryRecord, body: Body) -> None:
        self.head = incoming.head
        self.incoming = incoming
        self.snapshot = snapshot
        self.record = record
        self.body = body

    @property
    def expands(self) -> bool:
        """Whether verification decompresses the body, which may then be a thousand times larger."""
        verifier = self.route.verifier
        return verifier is not None and verifier.decompresses and bool(self.head.values(b"content-encoding"))

    async def compute(self, function: Callable[[], T]) -> T:
        """The result of `function`, in a thread if the body is so large that others would wait for it."""
        thread = PARSER if self.expands else thread_for(self.body.size, self.route.verifier)
        if thread is None:
            return function()
        return await asyncio.get_running_loop().run_in_executor(thread, function)


def thread_for(size: int, verifier: Verifier | None) -> ThreadPoolExecutor | None:
    """The thread that works on a body of `size` bytes; None: the event loop itself."""
    if size <= SMALL_BYTES:
        return None
    if verifier is None:
        return HASHER if size > ON_LOOP_BYTES else None
    if size * verifier.schemes <= PARSED_ON_LOOP_BYTES:
        return None
    if verifier.reads_body:
        return PARSER
    return HASHER if size * verifier.passes > ON_LOOP_BYTES else None
