"""Counts of what happened, on plain numbers: one `record(exchange)` per delivery.

prometheus-client's own counters and histograms take a lock and a Python call for each of the ten values of a delivery,
which is as much time as verifying it; so it only writes the exposition (exposition.py). All numbers of a route stand in
one block at fixed places, so that a block may as well be memory that several processes share (ledger.py).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from typing import Final, NamedTuple

from sidecar.outcomes import SHADOWED, HandshakeResult, Hint, Reason
from sidecar.routing.routes import Route
from sidecar.telemetry.record import DeliveryRecord

Bounds = tuple[float, ...]
# fmt: off
LATENCY: Final[Bounds] = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
VERIFY: Final[Bounds] = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)
BYTES: Final[Bounds] = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0)
# fmt: on
#: Negative where the sender's clock is ahead of ours.
AGE: Final[Bounds] = (-300.0, -60.0, -5.0, -1.0, 0.0, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 600.0)
CODES: Final[tuple[str, ...]] = ("1xx", "2xx", "3xx", "4xx", "5xx")

#: Numbers at fixed places: a list, or shared memory.
Block = MutableSequence[float]
#: Gives the block of this name and size; the same one whenever it is asked for the same name.
Allocate = Callable[[str, int], Block]


def _after(place: int, names: Iterable[str]) -> dict[str, int]:
    return {name: place + index for index, name in enumerate(names)}


class Histogram(NamedTuple):
    """Where in a route's block: a count for each inclusive upper bound, one for what is above them all, then the sum."""

    bounds: Bounds
    first: int

    @property
    def sum(self) -> int:
        return self.first + len(self.bounds) + 1

    @property
    def end(self) -> int:
        return self.sum + 1


#: A route's block. None, no reason to refuse it, is an accepted delivery.
REASON_AT: Final[dict[Reason | None, int]] = {None: 0, **{reason: 1 + index for index, reason in enumerate(Reason)}}
SHADOW_AT: Final = {reason: len(REASON_AT) + index for index, reason in enumerate(sorted(SHADOWED))}
CODES_AT: Final = len(REASON_AT) + len(SHADOW_AT)
HINT_AT: Final = {hint: CODES_AT + len(CODES) + index for index, hint in enumerate(Hint)}
HANDSHAKE_AT: Final = {
    result: CODES_AT + len(CODES) + len(Hint) + index for index, result in enumerate(HandshakeResult)
}
DELIVERY: Final = Histogram(LATENCY, CODES_AT + len(CODES) + len(Hint) + len(HandshakeResult))
UPSTREAM: Final = Histogram(LATENCY, DELIVERY.end)
VERIFYING: Final = Histogram(VERIFY, UPSTREAM.end)
BODY: Final = Histogram(BYTES, VERIFYING.end)
SIGNED_AGE: Final = Histogram(AGE, BODY.end)
UNCHECKED_AT: Final = SIGNED_AGE.end
EVICTIONS_AT: Final = UNCHECKED_AT + 1
ROUTE_SIZE: Final = EVICTIONS_AT + 1

#: An exemplar of each bucket of the three times, newest only: trace id in 48, 48 and 32 bits, span id in 32 and 32 (a
#: double holds whole numbers up to 53 bits), the value, and when it was, unix time, written last; 0 while there is none.
EXEMPLAR_SIZE: Final = 7
EXEMPLARS: Final[tuple[Histogram, ...]] = (DELIVERY, UPSTREAM, VERIFYING)
EXEMPLARS_SIZE: Final = EXEMPLAR_SIZE * (VERIFYING.end - DELIVERY.first)
_BITS_48, _BITS_32 = 2**48 - 1, 2**32 - 1

# The same places as plain numbers, for the one function that runs for each delivery.
_DELIVERY: Final = DELIVERY.first
_DELIVERY_SUM: Final = DELIVERY.sum
_UPSTREAM: Final = UPSTREAM.first
_UPSTREAM_SUM: Final = UPSTREAM.sum
_VERIFY: Final = VERIFYING.first
_VERIFY_SUM: Final = VERIFYING.sum
_BODY: Final = BODY.first
_BODY_SUM: Final = BODY.sum
_AGE: Final = SIGNED_AGE.first
_AGE_SUM: Final = SIGNED_AGE.sum
#: Class 1 of status codes stands at `CODES_AT`.
_CODES: Final = CODES_AT - 1

#: A secret's block: how often it matched, and when last, unix time.
MATCHES: Final = 0
LAST_USED: Final = 1
SECRET_SIZE: Final = 2

#: The gauges' block: what one process holds at this moment, and whether (1 or 0) it can't ask the shared replay store.
IN_FLIGHT: Final = 0
BUFFERED: Final = 1
CONNECTIONS: Final = 2
STORE_LOST: Final = 3
GAUGES_SIZE: Final = 4


class RouteCounts:
    """All numbers of one route, at 0 from the start."""

    __slots__ = ("block", "exemplars", "handshakes", "hints", "replay", "secrets")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.hints = False  #: whether these have a meaning for the route
        self.handshakes = False
        self.replay = False
        self.secrets: dict[str, Block] = {}
        self.exemplars: Block | None = None  #: where deliveries are traced


def added(blocks: Sequence[Block]) -> Block:
    """The same counts of several processes, added up."""
    return list(blocks[0]) if len(blocks) == 1 else [sum(column) for column in zip(*blocks)]


def lists(name: str, size: int) -> Block:
    """Blocks of one process."""
    return [0.0] * size


class Metrics:
    """Everything that one process counts. `gauges` are moved by those who hold what they tell."""

    def __init__(self, allocate: Allocate = lists) -> None:
        self._allocate = allocate
        self.gauges = allocate("gauges", GAUGES_SIZE)
        self.routes: dict[str, RouteCounts] = {}
        self._add("", ())

    @property
    def in_flight(self) -> int:
        """Deliveries being worked on."""
        return int(self.gauges[IN_FLIGHT])

    def configure(self, routes: Iterable[Route], *, exemplars: bool = False) -> None:
        """Makes every series of these routes exist; what was counted before stays."""
        for route in routes:
            counts = self._add(route.name, route.secret_ids)
            counts.hints = counts.hints or route.verifier is not None
            counts.handshakes = counts.handshakes or route.handshakes is not None
            counts.replay = counts.replay or route.replay is not None
            if exemplars and counts.exemplars is None:
                counts.exemplars = self._allocate(f"exemplars {route.name}", EXEMPLARS_SIZE)

    def _add(self, name: str, secret_ids: Iterable[str]) -> RouteCounts:
        counts = self.routes.get(name)
        if counts is None:
            counts = self.routes[name] = RouteCounts(self._allocate(f"route {name}", ROUTE_SIZE))
        for secret_id in secret_ids:
            if secret_id not in counts.secrets:
                counts.secrets[secret_id] = self._allocate(f"secret {name} {secret_id}", SECRET_SIZE)
        return counts

    def record(self, exchange: DeliveryRecord, now: float) -> None:
        """Counts one delivery. `now` is unix time in seconds."""
        counts = self.routes[exchange.route_name]
        block = counts.block
        if exchange.handshake is not None:
            block[HANDSHAKE_AT[exchange.handshake]] += 1
            if exchange.handshake is HandshakeResult.ANSWERED:
                return  # no delivery: the receiver has no part in it
        if exchange.hint is not None:
            block[HINT_AT[exchange.hint]] += 1
        block[REASON_AT[exchange.reason]] += 1
        if exchange.shadow_reason is not None:
            block[SHADOW_AT[exchange.shadow_reason]] += 1
        if exchange.unchecked:
            block[UNCHECKED_AT] += 1
        if exchange.evicted:
            block[EVICTIONS_AT] += 1
        seconds = exchange.seconds
        block[_DELIVERY + bisect_left(LATENCY, seconds)] += 1
        block[_DELIVERY_SUM] += seconds
        size = exchange.request_bytes
        block[_BODY + bisect_left(BYTES, size)] += 1
        block[_BODY_SUM] += size
        seconds_or_none = exchange.verify_seconds
        if seconds_or_none is not None:
            block[_VERIFY + bisect_left(VERIFY, seconds_or_none)] += 1
            block[_VERIFY_SUM] += seconds_or_none
        seconds_or_none = exchange.upstream_seconds
        if seconds_or_none is not None:
            block[_UPSTREAM + bisect_left(LATENCY, seconds_or_none)] += 1
            block[_UPSTREAM_SUM] += seconds_or_none
        age = exchange.age
        if age is not None:
            block[_AGE + bisect_left(AGE, age)] += 1
            block[_AGE_SUM] += age
        if exchange.secret_id:
            secret = counts.secrets[exchange.secret_id]
            secret[MATCHES] += 1
            secret[LAST_USED] = now
        if exchange.upstream_status:
            block[_CODES + exchange.upstream_status // 100] += 1

    def exemplify(self, exchange: DeliveryRecord, now: float) -> None:
        """Keeps a traced delivery as the example of the buckets that it was counted in. `now` is unix time in seconds."""
        block, trace = self.routes[exchange.route_name].exemplars, exchange.trace
        if block is None or trace is None or exchange.handshake is HandshakeResult.ANSWERED:
            return
        values = (exchange.seconds, exchange.upstream_seconds, exchange.verify_seconds)
        for histogram, value in zip(EXEMPLARS, values):
            if value is not None:
                place = exemplar_place(histogram, bisect_left(histogram.bounds, value))
                numbers = (
                    trace.trace_id >> 80,
                    trace.trace_id >> 32 & _BITS_48,
                    trace.trace_id & _BITS_32,
                    trace.span_id >> 32,
                    trace.span_id & _BITS_32,
                    value,
                    now,
                )
                block[place + EXEMPLAR_SIZE - 1] = 0.0
                for index, number in enumerate(numbers):
                    block[place + index] = float(number)


def exemplar_place(histogram: Histogram, bucket: int) -> int:
    """Where in a block of exemplars."""
    return EXEMPLAR_SIZE * (histogram.first - DELIVERY.first + bucket)


class Exemplar(NamedTuple):
    """One traced delivery of those that a bucket counts."""

    trace_id: str
    span_id: str
    value: float
    time: float  #: unix seconds


def exemplar_at(block: Block, place: int) -> Exemplar | None:
    """None if there is none, or if another process is writing it at this moment."""
    high, middle, low, span_high, span_low, value, time = block[place : place + EXEMPLAR_SIZE]
    if not time or block[place + EXEMPLAR_SIZE - 1] != time:
        return None
    trace_id, span_id = int(high) << 80 | int(middle) << 32 | int(low), int(span_high) << 32 | int(span_low)
    return Exemplar(f"{trace_id:032x}", f"{span_id:016x}", value, time)
