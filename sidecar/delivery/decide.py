"""The decisions about a request, as pure functions: stages 2 to 4 and 6 of a delivery's path.

The proxy calls them on live traffic and `explain` on a captured request, so both always decide the same. Each stage takes the
`Decisions` made so far, adds its own, and returns the `Rejected` that ends the request, or None. Nothing here reads a clock,
waits, logs or knows about shadow mode: `tolerates` is the only place that does, and the caller asks it.

A rejection is returned, not raised: raised through four compiled functions, that of an unsigned delivery takes 6.4 µs
of this program's own time instead of 5.4 (`tests/bench/path.py --unsigned`).
"""

from collections.abc import Sequence
from dataclasses import replace

from sidecar.http1.head import RequestHead
from sidecar.outcomes import SHADOWED, Reason, Rejected
from sidecar.routing.access import Waived, check_address, check_method, waive
from sidecar.routing.client_certificate import check_certificate
from sidecar.routing.client_ip import Client
from sidecar.routing.routes import Route, RouteTable, host_name
from sidecar.verify.claim import Claim
from sidecar.verify.handshake import Shape
from sidecar.verify.keys import key_problem
from sidecar.verify.tenants import TenantMatcher
from sidecar.verify.verifier import Verified


class Decisions:
    """The findings of the stages about one request. An attribute without a default is set by the stage in brackets."""

    head: RequestHead
    client: Client | None = None  #: (2); None: unknown, in a captured request
    route: Route  #: (3)
    tenant: str = ""  #: (3) as the request says, on a route with tenants
    matcher: TenantMatcher | None = None  #: (3) checks against the tenant's secrets
    handshake: Shape | None = None  #: (3) an unsigned one, (6) a signed one
    claim: Claim | None = None  #: (4)
    verified: Verified | None = None  #: (6)
    tolerated: Rejected | None = None  #: what would have ended it, on a route in shadow mode

    def __init__(self, head: RequestHead) -> None:
        self.head = head

    @property
    def scope(self) -> str:
        """Deliveries of different scopes are never copies of each other."""
        return f"{self.route.name}/{self.tenant}" if self.tenant else self.route.name


def with_secrets_of_tenant(decisions: Decisions) -> Route:
    """The route with a verifier that has the tenant's secrets, if any: for diagnosis, which tries them in other forms."""
    route = decisions.route
    if route.tenants is None or route.verifier is None:
        return route
    usable = [
        secret for secret in route.tenants.secrets(decisions.tenant) if not key_problem(route.tenants.scheme, secret)
    ]
    if not usable:
        return route
    return replace(route, verifier=route.verifier.with_scheme(route.tenants.scheme, secrets=usable))


def find_route(decisions: Decisions, routes: RouteTable) -> Rejected | None:
    """Stage 3: sets `route`, and the tenant with what checks its signatures."""
    head = decisions.head
    route = routes.find_on(host_name(head), head.path) if routes.by_host else routes.find(head.path)
    if isinstance(route, Rejected):
        return route
    decisions.route = route
    tenants = route.tenants
    if tenants is not None:
        decisions.tenant = tenant = tenants.name(decisions.head)
        decisions.matcher = tenants.matcher(tenant)
    return None


def admit(decisions: Decisions, now: float) -> Rejected | None:
    """Stages 3 and 4: everything that can be rejected by the head alone. Sets `handshake` and `claim`.

    `now` is unix time in seconds.
    """
    head, route = decisions.head, decisions.route
    handshake = route.handshakes.find_unsigned(head) if route.handshakes is not None else None
    decisions.handshake = handshake
    try:
        if handshake is None:  # a handshake has its own method
            check_method(route, head.method)
        if decisions.client is not None:
            check_address(route, decisions.client)
            if route.client_certificate is not None:
                check_certificate(route.client_certificate, head, decisions.client)
        verifier = route.verifier
        if verifier is not None and handshake is None:
            unsigned = verifier.unsigned(head)
            if unsigned is not None:
                return unsigned
            decisions.claim = verifier.read_claim(head, now)
    except Rejected as rejected:
        return rejected
    return None


def verify(decisions: Decisions, body: Sequence[bytes]) -> Rejected | None:
    """Stage 6, for a request with a claim. Sets `verified`, and `handshake` to a signed one. The body comes in pieces."""
    head, route, claim = decisions.head, decisions.route, decisions.claim
    verifier = route.verifier
    if verifier is None or claim is None:
        return None
    try:
        verified = verifier.match(claim, head, body, decisions.matcher)
        if verified is None:
            return _unless_published(decisions, body, verifier.mismatch)
        if route.handshakes is not None:
            decisions.handshake = route.handshakes.find_signed(head, body)
    except Rejected as rejected:
        return _unless_published(decisions, body, rejected)
    decisions.verified = verified
    return None


def _unless_published(decisions: Decisions, body: Sequence[bytes], rejected: Rejected) -> Rejected | None:
    """The rejection, unless the request is a handshake that is signed with a published secret. Sets `handshake` to that."""
    handshakes, claim = decisions.route.handshakes, decisions.claim
    if handshakes is None or claim is None or not handshakes.has_published:
        return rejected
    decisions.handshake = handshakes.find_published(decisions.head, body, claim.now)
    return rejected if decisions.handshake is None else None


def tolerates(decisions: Decisions, rejected: Rejected) -> bool:
    """Whether shadow mode lets this rejection pass; if so, it is noted in `tolerated`."""
    if not decisions.route.shadow or rejected.reason not in SHADOWED:
        return False
    decisions.tolerated = rejected
    return True


def leave(decisions: Decisions) -> Verified | Waived:
    """The permission to forward a request that no stage ended. Raises `RuntimeError` if nothing allows it, which is a bug."""
    would_reject: Reason | None = None
    if decisions.tolerated is not None:
        would_reject = decisions.tolerated.reason
    elif decisions.verified is not None:
        return decisions.verified
    return waive(decisions.route, would_reject, handshake=decisions.handshake is not None)


def age(decisions: Decisions) -> float | None:
    """Seconds since the request was signed, by our clock; None if it isn't known."""
    if decisions.verified is not None and decisions.verified.age is not None:
        return decisions.verified.age
    return decisions.claim.age if decisions.claim is not None else None
