"""One delivery: the value that the stages hand on."""

from typing import Final

from sidecar.delivery.body import Body
from sidecar.delivery.decide import Decisions
from sidecar.delivery.snapshot import Snapshot
from sidecar.http1.incoming import Incoming
from sidecar.replay.once import ReplayTurn
from sidecar.telemetry.record import DeliveryRecord

#: A larger body is hashed in a thread: a MiB takes over a millisecond, and hashing releases the interpreter's lock.
ON_LOOP_BYTES: Final = 1024 * 1024


class Delivery(Decisions):
    """One delivery on its way, from its head to its record.

    It keeps the snapshot of the configuration that it began with, so a reload in the middle changes nothing for it.
    """

    turn: ReplayTurn | None = None  #: on a route with `replay:`, from stage 7 on

    def __init__(self, incoming: Incoming, snapshot: Snapshot, record: DeliveryRecord, body: Body) -> None:
        self.head = incoming.head
        self.incoming = incoming
        self.snapshot = snapshot
        self.record = record
        self.body = body
