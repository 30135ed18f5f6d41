"""Responses that the program makes itself: a status, and a JSON body that says no more than the status does."""

from http import HTTPStatus

from sidecar.http1.incoming import Incoming
from sidecar.outcomes import Response


def json_lines(body: bytes) -> bytes:
    """The header lines of a JSON body."""
    return b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)


def format_response(response: Response) -> tuple[int, bytes, bytes]:
    """Status, header lines and body."""
    body = b'{"detail":"%b"}' % response.detail.encode()
    lines = json_lines(body)
    if response.retry_after is not None:
        lines += b"retry-after: %d\r\n" % response.retry_after
    return response.status, lines, body


def send(incoming: Incoming, status: int, lines: bytes, body: bytes) -> None:
    """Responds to a request."""
    incoming.start(status, lines, sized=True, hold=True)
    incoming.write(body, more=False)


def format_unparsed(status: int, lines: bytes, body: bytes) -> bytes:
    """The whole response, as bytes, to input that never became a request."""
    phrase = HTTPStatus(status).phrase.encode()
    return b"HTTP/1.1 %d %b\r\n%bconnection: close\r\n\r\n%b" % (status, phrase, lines, body)
