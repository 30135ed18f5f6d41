"""Whether a route takes a request by its method and its client, and who may pass without a signature."""

from typing import NamedTuple

from sidecar.outcomes import Reason, Rejected
from sidecar.routing.client_ip import Client
from sidecar.routing.routes import Route
from sidecar.verify.handshake import HandshakeMode


def admit(route: Route, method: str, client: Client, *, handshake: bool = False) -> None:
    """Raises `Rejected` if the route doesn't take this method, or its allowlist this client. A handshake has its own method."""
    if not handshake:
        check_method(route, method)
    check_address(route, client)


def check_method(route: Route, method: str) -> None:
    if method not in route.methods:
        raise Rejected(Reason.METHOD_NOT_ALLOWED, f"the route takes {', '.join(sorted(route.methods))}")


def check_address(route: Route, client: Client) -> None:
    if client.unreadable:
        raise Rejected(Reason.CLIENT_IP_UNREADABLE, f"unreadable: {client.unreadable}")
    if route.allow is None:
        return
    if client.address is None:
        raise Rejected(
            Reason.IP_NOT_ALLOWED,
            "the connection has no address (a unix socket, or a proxy that knows none); trust 'unix:' so that a header counts",
        )
    if client.address not in route.allow:
        raise Rejected(Reason.IP_NOT_ALLOWED, "the client's address is in no network of the route's allowlist")


class Waived(NamedTuple):
    """The leave to forward a delivery that no secret vouches for; only `waive` gives it."""

    label: str  #: value of X-Webhook-Verified; empty for none
    admitted: bool = False  #: whether the allowlist vouches for it, where that is all the route asks for


def waive(route: Route, would_reject: Reason | None, *, handshake: bool = False) -> Waived:
    """For an open route, a route that admits by address alone, a rejection in shadow mode, and an unsigned handshake that
    the route passes on; else it is a bug.
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
