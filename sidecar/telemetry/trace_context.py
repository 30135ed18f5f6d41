"""Assigns deliveries to traces and creates span ids, by W3C Trace Context (https://www.w3.org/TR/trace-context/).

A sender's well-formed `traceparent` is always continued, because an id proves nothing and decides nothing. Its sampled
flag is ignored: with it, any sender could switch tracing on.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.http1.head import RequestHead

#: Future versions may have more fields after another dash.
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-[!-~]*)?")
_CONTINUED = frozenset({b"traceparent"})
#: `tracestate` belongs to the trace that is not continued.
_BEGUN = frozenset({b"traceparent", b"tracestate"})

#: Returns an integer of this many random bits: `random.getrandbits`.
RandomBits = Callable[[int], int]


class Trace:
    """The ids of one sampled delivery as integers, and the monotonic start times of its spans in seconds."""

    __slots__ = ("parent_id", "span_id", "trace_id", "upstream_began", "upstream_id", "verify_began")

    def __init__(self, trace_id: int, parent_id: int, random_bits: RandomBits) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id  #: the sender's span; 0 if the trace begins here
        self.span_id = random_bits(64) or 1
        self.upstream_id = random_bits(64) or 1  #: the parent of the receiver's spans
        self.verify_began: float | None = None
        self.upstream_began: float | None = None

    @property
    def replaces(self) -> frozenset[bytes]:
        """The sender's header fields that ours replace."""
        return _CONTINUED if self.parent_id else _BEGUN

    @property
    def line(self) -> bytes:
        """The header line for the receiver."""
        return b"traceparent: 00-%032x-%016x-01\r\n" % (self.trace_id, self.upstream_id)


class Sampler:
    """Samples a share of all traces by their ids, so that all samplers with the same share choose the same traces."""

    __slots__ = ("_bound", "_random_bits")

    def __init__(self, share: float, random_bits: RandomBits) -> None:
        """`share`: above 0, at most 1."""
        self._bound = round(share * 2**64)
        self._random_bits = random_bits

    def begin(self, head: RequestHead) -> Trace | None:
        """Begins or continues a trace; None if this delivery is not sampled."""
        trace_id, parent_id = self._read(head)
        if trace_id % 2**64 >= self._bound:
            return None
        return Trace(trace_id, parent_id, self._random_bits)

    def _read(self, head: RequestHead) -> tuple[int, int]:
        sent = head.values(b"traceparent")
        match = _TRACEPARENT.fullmatch(sent[0]) if len(sent) == 1 else None
        if match is None or (match[1] == b"00" and match[4]):
            return self._random_bits(128) or 1, 0
        return int(match[2], 16), int(match[3], 16)


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """The collector's endpoint, and the share of deliveries that are traced."""

    endpoint: str
    sample: float = 1.0

    def __str__(self) -> str:
        return f"{self.endpoint} (sample: {self.sample:g})"

    @property
    def traces_url(self) -> str:
        """OTLP over HTTP: https://opentelemetry.io/docs/specs/otlp/#otlphttp-request."""
        return f"{self.endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces"
