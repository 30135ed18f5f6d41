"""Which trace a delivery belongs to, and the ids of its spans: W3C Trace Context (https://www.w3.org/TR/trace-context/).

The sender's `traceparent` is continued if it is well-formed, whoever sent it: an id proves nothing and decides nothing. Its
sampled flag is not followed, because a stranger could switch tracing on with it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.http1.head import RequestHead

#: A version that is to come may have more behind a further dash.
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-[!-~]*)?")
_CONTINUED = frozenset({b"traceparent"})
#: `tracestate` belongs to the trace that is not continued.
_BEGUN = frozenset({b"traceparent", b"tracestate"})

#: So many random bits as a number: `random.getrandbits`.
RandomBits = Callable[[int], int]


class Trace:
    """The ids of one sampled delivery as numbers, and when its spans began, in monotonic seconds."""

    __slots__ = ("parent_id", "span_id", "trace_id", "upstream_began", "upstream_id", "verify_began")

    def __init__(self, trace_id: int, parent_id: int, random_bits: RandomBits) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id  #: the sender's span; 0 if this trace begins here
        self.span_id = random_bits(64) or 1
        self.upstream_id = random_bits(64) or 1  #: the receiver's parent
        self.verify_began: float | None = None
        self.upstream_began: float | None = None

    @property
    def replaces(self) -> frozenset[bytes]:
        """Fields of the sender's that ours stand for."""
        return _CONTINUED if self.parent_id else _BEGUN

    @property
    def line(self) -> bytes:
        """The header line for the receiver."""
        return b"traceparent: 00-%032x-%016x-01\r\n" % (self.trace_id, self.upstream_id)


class Sampler:
    """Takes a share of all traces, by their ids, so that whoever takes the same share takes the same traces."""

    __slots__ = ("_bound", "_random_bits")

    def __init__(self, share: float, random_bits: RandomBits) -> None:
        """`share`: above 0, at most 1."""
        self._bound = round(share * 2**64)
        self._random_bits = random_bits

    def begin(self, head: RequestHead) -> Trace | None:
        """None if this delivery is not traced."""
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
    """Where spans go, and of which share of all deliveries."""

    endpoint: str
    sample: float

    def __str__(self) -> str:
        return f"{self.endpoint} (sample: {self.sample:g})"

    @property
    def traces_url(self) -> str:
        """OTLP over HTTP: https://opentelemetry.io/docs/specs/otlp/#otlphttp-request."""
        return f"{self.endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces"
