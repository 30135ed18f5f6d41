"""What a sender gets when the sidecar itself responds: to a rejected request, and to a provider's handshake."""

from http import HTTPStatus

from sidecar.delivery.delivery import Delivery
from sidecar.http1.head import field_lines
from sidecar.http1.incoming import Incoming
from sidecar.outcomes import RESPONSES, VERIFICATION, HandshakeResult, Reason, Rejected
from sidecar.routing.routes import DEFAULT_REJECTION, Route


def send_rejection(incoming: Incoming, rejected: Rejected, route: Route | None) -> int:
    """Responds to a rejected request; returns the status."""
    status, lines, body = _rejection(rejected, route)
    incoming.start(status, lines, sized=True, hold=True)
    incoming.write(body, more=False)
    return status


def unparsed_rejection(rejected: Rejected) -> tuple[int, bytes]:
    """Status and whole response, as bytes, to what never became a request."""
    status, lines, body = _rejection(rejected, None)
    phrase = HTTPStatus(status).phrase.encode()
    return status, b"HTTP/1.1 %d %b\r\n%bconnection: close\r\n\r\n%b" % (status, phrase, lines, body)


def answer_handshake(delivery: Delivery) -> Rejected | None:
    """Responds to a handshake, or returns why it is rejected. Without effect where the receiver responds to it.

    `record.handshake` says what became of it.
    """
    shape, handshakes, record = delivery.handshake, delivery.route.handshakes, delivery.record
    if shape is None or handshakes is None:
        return None
    if not handshakes.responds_to(shape):
        record.handshake = HandshakeResult.PASSED
        return None
    try:
        status, headers, content = handshakes.respond(shape, delivery.head, delivery.body.pieces)
    except Rejected as rejected:
        record.handshake = HandshakeResult.REJECTED
        return rejected
    record.handshake = HandshakeResult.ANSWERED
    record.status, record.answer_bytes = status, len(content)
    delivery.incoming.start(status, field_lines(headers), sized=True, hold=True)
    delivery.incoming.write(content, more=False)
    return None


def _rejection(rejected: Rejected, route: Route | None) -> tuple[int, bytes, bytes]:
    """Status, header lines and body. All rejections by verification get the route's one response, whatever the reason."""
    if rejected.reason in VERIFICATION:
        own = route.rejection if route is not None else DEFAULT_REJECTION
        return own.status, _json_lines(own.body), own.body
    response = rejected.response or RESPONSES[rejected.reason]
    body = b'{"detail":"%b"}' % response.detail.encode()
    lines = _json_lines(body)
    if response.retry_after is not None:
        lines += b"retry-after: %d\r\n" % response.retry_after
    if rejected.reason is Reason.METHOD_NOT_ALLOWED and route is not None:
        lines += b"allow: %b\r\n" % route.allow_header
    return response.status, lines, body


def _json_lines(body: bytes) -> bytes:
    return b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
