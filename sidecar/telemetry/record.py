"""The record of one request: filled in on its way, handed to log and metrics once, at its end."""

from sidecar.outcomes import HandshakeResult, Hint, Outcome, Reason
from sidecar.routing.routes import Route
from sidecar.telemetry.trace_context import Trace


class DeliveryRecord:
    """Everything that log and metrics may know. No secret, no signature, no body: they have no field here.

    The defaults stand on the class, so that making one costs three assignments and not twenty.
    """

    route: Route | None = None
    client: str = ""
    reason: Reason | None = None
    detail: str = ""
    shadow_reason: Reason | None = None  #: what would have refused it, on a route in shadow mode
    hint: Hint | None = None  #: why the signature did not match, if that was looked into
    handshake: HandshakeResult | None = None  #: what became of it, if it was a provider's handshake
    unchecked: bool = False  #: forwarded although the replay store could not be asked
    evicted: bool = False  #: remembering it made the replay store forget another one early
    secret_id: str = ""
    delivery_id: bytes = b""
    age: float | None = None  #: seconds since it was signed, by our clock
    status: int = 0  #: what the sender was answered; 0 if nothing
    upstream_status: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    verify_seconds: float | None = None
    upstream_seconds: float | None = None
    seconds: float = 0.0
    trace: Trace | None = None  #: if it is traced

    def __init__(self, *, number: int, peer: str | None, started: float, method: str = "", path: bytes = b"") -> None:
        self.number = number  #: counted from 1 since the process started
        self.peer = peer
        self.method = method
        self.path = path
        self.started = started  #: monotonic seconds
        self.outcome = Outcome.ACCEPTED

    @property
    def route_name(self) -> str:
        """Label and log field; empty if no route took it."""
        return self.route.name if self.route is not None else ""
