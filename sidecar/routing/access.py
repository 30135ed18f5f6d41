"""Whether a route accepts a request's method and client, and which deliveries may pass without a signature."""

from typing import NamedTuple

from sidecar.outcomes import Reason, Rejected
from sidecar.routing.client_ip import Client
from sidecar.routing.routes import Route
from sidecar.verify.handshake import HandshakeMode


def admit(route: Route, method: str, client: Client, *, handshake: bool = False) -> None:
    """Raises `Rejected` unless the route accepts this method and this client. A handshake has its own method."""
    if not handshake:
        check_method(route, method)
    check_address(route, client)


def check_method(route: Route, method: str) -> None:
    if method not in route.methods:
        raise Rejected(Reason.METHOD_NOT_ALLOWED, f"the route accepts {', '.join(sorted(route.methods))}")


def check_address(route: Route, client: Client) -> None:
    if client.unreadable:
        raise Rejected(Reason.CLIENT_IP_UNREADABLE, f"unreadable: {client.unreadable}")
    if route.allow is None:
        return
    if client.address is None:
        raise Rejected(
            Reason.IP_NOT_ALLOWED,
            "the connection has no address (a unix socket, or a proxy that knows none); trust 'unix:' to use a header",
        )
    if client.address not in route.allow:
        raise Rejected(Reason.IP_NOT_ALLOWED, "the client's address is not in the route's allowlist")


class Waived(NamedTuple):
    """Permission to forward a delivery that no secret has verified; only `waive` grants it."""

    label: str  #: value of X-Webhook-Verified; empty for none
    admitted: bool = False  #: whether the allowlist admitted it, on a route that requires nothing else


def waive(route: Route, would_reject: Reason | None, *, handshake: bool = False) -> Waived:
    """Grants it on an open route, on a route that verifies the address only, for a rejection in shadow mode, and for an
    unsigned handshake that the route passes on. Anything else is a bug.
    """
    if route.open:
        return Waived("")
    if route.shadow and would_reject is not None:
        return Waived("shadow-rejected")
    if handshake and route.handshakes is not None and route.handshakes.mode is HandshakeMode.PASS:
        return Waived("")
    if route.verifier is None and route.allow is not None and would_reject is None:
        return Waived(route.name, admitted=True)  # `admit` found the client in the allowlist
    raise RuntimeError("this delivery was never verified")
