"""Counts deliveries as plain numbers, with one `record(record)` call per delivery.

prometheus-client's own counters and histograms take a lock and a Python call for each of the ten values of a delivery, as much
time as verifying it takes. So that library only formats the output (prometheus.py). All numbers of a route are in one block at
fixed positions, which lets the block be memory that several processes share (shared_counts.py).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from typing import Final, NamedTuple

from sidecar.outcomes import ENDS, QUESTION_ENDS, SHADOWED, HandshakeResult, Hint, Outcome, Reason
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

#: Numbers at fixed positions: a list, or shared memory.
Block = MutableSequence[float]
#: Returns the block with this name and size; the same block for the same name.
Allocate = Callable[[str, int], Block]


class Histogram(NamedTuple):
    """Positions in a route's block: a count for each inclusive upper bound, one for larger values, then the sum."""

    bounds: Bounds
    first: int

    @property
    def sum(self) -> int:
        return self.first + len(self.bounds) + 1

    @property
    def end(self) -> int:
        return self.sum + 1


# A route's block begins with a count for each way that a delivery can end, accepted first.
END_AT: Final[dict[tuple[Outcome, Reason | None], int]] = {end: index for index, end in enumerate(ENDS)}
ACCEPTED_AT: Final = 0
SHADOW_AT: Final = {reason: len(END_AT) + index for index, reason in enumerate(sorted(SHADOWED))}
#: Questions on the authorize listener: a count for each reason, None for those that were allowed.
QUESTION_AT: Final[dict[Reason | None, int]] = {
    reason: len(END_AT) + len(SHADOW_AT) + index for index, reason in enumerate(QUESTION_ENDS)
}
CODES_AT: Final = len(END_AT) + len(SHADOW_AT) + len(QUESTION_AT)
#: Hints on live traffic.
LIVE_HINTS: Final[tuple[Hint, ...]] = tuple(hint for hint in Hint if hint is not Hint.OTHER_PROVIDER)
HINT_AT: Final = {hint: CODES_AT + len(CODES) + index for index, hint in enumerate(LIVE_HINTS)}
HANDSHAKE_AT: Final = {
    result: CODES_AT + len(CODES) + len(LIVE_HINTS) + index for index, result in enumerate(HandshakeResult)
}
DELIVERY: Final = Histogram(LATENCY, CODES_AT + len(CODES) + len(LIVE_HINTS) + len(HandshakeResult))
UPSTREAM: Final = Histogram(LATENCY, DELIVERY.end)
VERIFYING: Final = Histogram(VERIFY, UPSTREAM.end)
BODY: Final = Histogram(BYTES, VERIFYING.end)
SIGNED_AGE: Final = Histogram(AGE, BODY.end)
UNCHECKED_AT: Final = SIGNED_AGE.end
EVICTIONS_AT: Final = UNCHECKED_AT + 1
#: A gauge: rejected requests that are held for `capture:`.
CAPTURES_AT: Final = EVICTIONS_AT + 1
ROUTE_SIZE: Final = CAPTURES_AT + 1

#: The newest exemplar of each bucket of the three durations: trace id in 48, 48 and 32 bits, span id in 32 and 32 (a double
#: holds whole numbers up to 53 bits), the value, and its unix time, which is written last and is 0 while there is none.
EXEMPLAR_SIZE: Final = 7
EXEMPLARS: Final[tuple[Histogram, ...]] = (DELIVERY, UPSTREAM, VERIFYING)
EXEMPLARS_SIZE: Final = EXEMPLAR_SIZE * (VERIFYING.end - DELIVERY.first)
_BITS_48, _BITS_32 = 2**48 - 1, 2**32 - 1

# The same positions as plain numbers, for the one function that runs for each delivery.
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
#: Status codes 1xx are counted at `CODES_AT`.
_CODES: Final = CODES_AT - 1

#: A secret's block: the number of matches, and the unix time of the last one.
MATCHES: Final = 0
LAST_USED: Final = 1
SECRET_SIZE: Final = 2

#: The gauges' block: current values of one process, and 1 while it can't reach the shared replay store.
IN_FLIGHT: Final = 0
BUFFERED: Final = 1
CONNECTIONS: Final = 2
STORE_LOST: Final = 3
GAUGES_SIZE: Final = 4


#: The log's block: lines that were dropped because standard output was stuck.
LINES_DROPPED: Final = 0
LOG_SIZE: Final = 1


class RouteCounts:
    """All numbers of one route, at 0 from the start."""

    __slots__ = ("authorizes", "block", "captures", "exemplars", "handshakes", "hints", "replay", "secrets")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.hints = False  #: whether the route can have these
        self.handshakes = False
        self.replay = False
        self.captures = False
        self.authorizes = False
        self.secrets: dict[str, Block] = {}
        self.exemplars: Block | None = None  #: where deliveries are traced


def sum_blocks(blocks: Sequence[Block]) -> Block:
    """Adds up the same counts of several processes."""
    return list(blocks[0]) if len(blocks) == 1 else [sum(column) for column in zip(*blocks)]


def allocate_list(name: str, size: int) -> Block:
    """Allocates a block that only this process uses."""
    return [0.0] * size


class Metrics:
    """Everything that one process counts. The owners of the values in `gauges` update them there."""

    def __init__(self, allocate: Allocate = allocate_list) -> None:
        self._allocate = allocate
        self.gauges = allocate("gauges", GAUGES_SIZE)
        self.log = allocate("log", LOG_SIZE)
        self.routes: dict[str, RouteCounts] = {}
        self._add("", ())

    @property
    def in_flight(self) -> int:
        """The number of deliveries in progress."""
        return int(self.gauges[IN_FLIGHT])

    def configure(self, routes: Iterable[Route], *, exemplars: bool = False, authorizes: bool = False) -> None:
        """Creates every series of these routes; existing counts are kept. `authorizes`: gateways ask about them."""
        self.routes[""].authorizes = authorizes
        for route in routes:
            counts = self._add(route.name, route.secret_ids)
            counts.hints = counts.hints or route.verifier is not None
            counts.handshakes = counts.handshakes or route.handshakes is not None
            counts.replay = counts.replay or route.replay is not None
            counts.captures = counts.captures or route.capture is not None
            counts.authorizes = authorizes
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

    def record(self, record: DeliveryRecord, now: float) -> None:
        """Counts one delivery. `now` is unix time in seconds."""
        counts = self.routes[record.route_name]
        block = counts.block
        if record.handshake is not None:
            block[HANDSHAKE_AT[record.handshake]] += 1
            if record.handshake is HandshakeResult.ANSWERED:
                return  # not a delivery: the receiver doesn't see it
        if record.hint is not None:
            block[HINT_AT[record.hint]] += 1
        block[ACCEPTED_AT if record.outcome is Outcome.ACCEPTED else _place_of_end(record)] += 1
        if record.shadow_reason is not None:
            block[SHADOW_AT[record.shadow_reason]] += 1
        if record.unchecked:
            block[UNCHECKED_AT] += 1
        if record.evicted:
            block[EVICTIONS_AT] += 1
        seconds = record.seconds
        block[_DELIVERY + bisect_left(LATENCY, seconds)] += 1
        block[_DELIVERY_SUM] += seconds
        size = record.request_bytes
        block[_BODY + bisect_left(BYTES, size)] += 1
        block[_BODY_SUM] += size
        seconds_or_none = record.verify_seconds
        if seconds_or_none is not None:
            block[_VERIFY + bisect_left(VERIFY, seconds_or_none)] += 1
            block[_VERIFY_SUM] += seconds_or_none
        seconds_or_none = record.upstream_seconds
        if seconds_or_none is not None:
            block[_UPSTREAM + bisect_left(LATENCY, seconds_or_none)] += 1
            block[_UPSTREAM_SUM] += seconds_or_none
        age = record.age
        if age is not None:
            block[_AGE + bisect_left(AGE, age)] += 1
            block[_AGE_SUM] += age
        if record.secret_id:
            secret = counts.secrets[record.secret_id]
            secret[MATCHES] += 1
            secret[LAST_USED] = now
            for also in record.also_matched:
                secret = counts.secrets[also]
                secret[MATCHES] += 1
                secret[LAST_USED] = now
        if record.upstream_status:
            block[_CODES + record.upstream_status // 100] += 1

    def exemplify(self, record: DeliveryRecord, now: float) -> None:
        """Keeps a traced delivery as the exemplar of the buckets that counted it. `now` is unix time in seconds."""
        block, trace = self.routes[record.route_name].exemplars, record.trace
        if block is None or trace is None or record.handshake is HandshakeResult.ANSWERED:
            return
        values = (record.seconds, record.upstream_seconds, record.verify_seconds)
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


def _place_of_end(record: DeliveryRecord) -> int:
    return QUESTION_AT[record.reason] if record.authorizes else END_AT[record.outcome, record.reason]


def exemplar_place(histogram: Histogram, bucket: int) -> int:
    """The position of a bucket's exemplar in a block of exemplars."""
    return EXEMPLAR_SIZE * (histogram.first - DELIVERY.first + bucket)


class Exemplar(NamedTuple):
    """One of the traced deliveries that a bucket counts."""

    trace_id: str
    span_id: str
    value: float
    time: float  #: unix seconds


def exemplar_at(block: Block, place: int) -> Exemplar | None:
    """None if there is none, or while another process is writing it."""
    high, middle, low, span_high, span_low, value, time = block[place : place + EXEMPLAR_SIZE]
    if not time or block[place + EXEMPLAR_SIZE - 1] != time:
        return None
    trace_id, span_id = int(high) << 80 | int(middle) << 32 | int(low), int(span_high) << 32 | int(span_low)
    return Exemplar(f"{trace_id:032x}", f"{span_id:016x}", value, time)
