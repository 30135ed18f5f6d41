"""The sidecar's own responses: to a rejected request, and to a provider's handshake."""

from collections.abc import Callable

from sidecar.delivery.delivery import Delivery
from sidecar.http1.head import field_lines
from sidecar.http1.incoming import Incoming
from sidecar.http1.status_response import format_response, format_unparsed, json_lines, send
from sidecar.outcomes import DEFAULT_REJECTION, RESPONSES, VERIFICATION, HandshakeResult, Reason, Rejected
from sidecar.routing.routes import Route


def send_rejection(incoming: Incoming, rejected: Rejected, route: Route | None) -> int:
    """Responds to a rejected request; returns the status."""
    status, lines, body = _rejection(rejected, route)
    send(incoming, status, lines, body)
    return status


def unparsed_rejection(rejected: Rejected) -> tuple[int, bytes]:
    """Status and whole response, as bytes, to input that never became a request."""
    status, lines, body = _rejection(rejected, None)
    return status, format_unparsed(status, lines, body)


def answer_handshake(delivery: Delivery, confirm: Callable[[str, str], bool] | None = None) -> Rejected | None:
    """Responds to a handshake, or returns why it is rejected. Does nothing if the receiver responds to it.

    `confirm` has an address called for a route. If it can't, the provider should send the handshake again.

    The result is in `record.handshake`.
    """
    shape, handshakes, record = delivery.handshake, delivery.route.handshakes, delivery.record
    if shape is None or handshakes is None:
        return None
    if not handshakes.responds_to(shape):
        record.handshake = HandshakeResult.PASSED
        return None
    try:
        status, headers, content = handshakes.respond(shape, delivery.head, delivery.body.pieces)
        url = handshakes.address(shape, delivery.head, delivery.body.pieces)
    except Rejected as rejected:
        record.handshake = HandshakeResult.REJECTED
        return rejected
    if url and (confirm is None or not confirm(delivery.route.name, url)):
        record.handshake = HandshakeResult.REJECTED
        return Rejected(Reason.OVERLOADED, "too many confirmations of subscriptions are under way")
    record.handshake = HandshakeResult.ANSWERED
    record.status, record.answer_bytes = status, len(content)
    send(delivery.incoming, status, field_lines(headers), content)
    return None


def _rejection(rejected: Rejected, route: Route | None) -> tuple[int, bytes, bytes]:
    """Status, header lines and body. All rejections by verification get the route's one response, whatever the reason."""
    if rejected.reason in VERIFICATION:
        own = route.rejection if route is not None else DEFAULT_REJECTION
        # Xero requires an empty body, which isn't JSON.
        return own.status, json_lines(own.body) if own.body else b"content-length: 0\r\n", own.body
    status, lines, body = format_response(rejected.response or RESPONSES[rejected.reason])
    if rejected.reason is Reason.METHOD_NOT_ALLOWED and route is not None:
        lines += b"allow: %b\r\n" % route.allow_header
    return status, lines, body
