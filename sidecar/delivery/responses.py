"""What a sender gets when the sidecar itself responds."""

from sidecar.outcomes import ANSWERS, VERIFICATION, Reason, Rejected
from sidecar.routing.routes import DEFAULT_REFUSAL, Route


def _answer(rejected: Rejected, route: Route | None) -> tuple[int, bytes, bytes]:
    """Status, header lines and body of a refusal. By verification: the route's one refusal, whatever the reason."""
    if rejected.reason in VERIFICATION:
        refusal = route.refusal if route is not None else DEFAULT_REFUSAL
        return refusal.status, _json_lines(refusal.body), refusal.body
    answer = rejected.answer or ANSWERS[rejected.reason]
    body = b'{"detail":"%b"}' % answer.detail.encode()
    lines = _json_lines(body)
    if answer.retry_after is not None:
        lines += b"retry-after: %d\r\n" % answer.retry_after
    if rejected.reason is Reason.METHOD_NOT_ALLOWED and route is not None:
        lines += b"allow: %b\r\n" % route.allow_header
    return answer.status, lines, body


def _json_lines(body: bytes) -> bytes:
    return b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
