"""The record of one delivery: filled in while it is handled, then passed once to log, metrics and traces."""

from sidecar.outcomes import HandshakeResult, Hint, Outcome, Reason
from sidecar.routing.routes import Route
from sidecar.telemetry.trace_context import Trace


class DeliveryRecord:
    """Everything that log and metrics may know. It has no field for a secret, a signature or a body.

    The defaults are class attributes, so that creating a record costs a few assignments and not twenty.
    """

    route: Route | None = None
    authorizes: bool = False  #: a gateway's question, which is not forwarded and not counted as a delivery
    client: str = ""
    reason: Reason | None = None
    detail: str = ""
    shadow_reason: Reason | None = None  #: why it would have been rejected, on a route in shadow mode
    hint: Hint | None = None  #: why the signature did not match, if that was diagnosed
    handshake: HandshakeResult | None = None  #: set if it was a provider's handshake
    unchecked: bool = False  #: forwarded although the replay store was unavailable
    evicted: bool = False  #: the replay store forgot another delivery early to make room for it
    secret_id: str = ""
    tenant: str = ""  #: as the request says, on a route with tenants
    also_matched: tuple[str, ...] = ()  #: further secrets, where several schemes had to accept
    delivery_id: bytes = b""
    age: float | None = None  #: seconds since it was signed, by our clock
    status: int = 0  #: of the response to the sender; 0 if there was none
    upstream_status: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    verify_seconds: float | None = None
    upstream_seconds: float | None = None
    seconds: float = 0.0
    trace: Trace | None = None  #: set if it is traced

    def __init__(self, *, number: int, peer: str | None, started: float, method: str = "", path: bytes = b"") -> None:
        self.number = number  #: counted from 1 since the process started
        self.peer = peer
        self.method = method
        self.path = path
        self.started = started  #: monotonic seconds
        self.outcome = Outcome.ACCEPTED

    @property
    def route_name(self) -> str:
        """The value of the label and log field `route`; empty if no route matched."""
        return self.route.name if self.route is not None else ""
