"""What a sender gets when the sidecar itself responds."""

from sidecar.outcomes import RESPONSES, VERIFICATION, Reason, Rejected
from sidecar.routing.routes import DEFAULT_REJECTION, Route


def _answer(rejected: Rejected, route: Route | None) -> tuple[int, bytes, bytes]:
    """Status, header lines and body of a refusal. By verification: the route's one refusal, whatever the reason."""
    if rejected.reason in VERIFICATION:
        rejection = route.rejection if route is not None else DEFAULT_REJECTION
        return rejection.status, _json_lines(rejection.body), rejection.body
    answer = rejected.response or RESPONSES[rejected.reason]
    body = b'{"detail":"%b"}' % answer.detail.encode()
    lines = _json_lines(body)
    if answer.retry_after is not None:
        lines += b"retry-after: %d\r\n" % answer.retry_after
    if rejected.reason is Reason.METHOD_NOT_ALLOWED and route is not None:
        lines += b"allow: %b\r\n" % route.allow_header
    return answer.status, lines, body


def _json_lines(body: bytes) -> bytes:
    return b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
