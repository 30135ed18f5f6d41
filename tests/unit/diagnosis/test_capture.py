"""Captured requests: what is read leniently, what live traffic would refuse, and what is no request."""

import pytest

from sidecar.diagnosis.capture import MAX_CAPTURE, UnusableCaptureError, read_capture
from sidecar.outcomes import Reason

HEAD = b"POST /hooks?x=1 HTTP/1.1\r\nHost: a.test\r\nX-One: 1\r\nX-One: 2\r\n"


def read(raw: bytes, *, needs_host: bool = True) -> tuple[bytes, list[str], str]:
    """Body, remarks, and what live traffic would be refused for."""
    capture = read_capture(raw, peer=None, needs_host=needs_host)
    assert capture.fault is None or capture.fault.reason is Reason.MALFORMED_REQUEST
    return capture.body, list(capture.remarks), capture.fault.detail if capture.fault is not None else ""


def test_head_and_body_are_read_as_they_stand() -> None:
    capture = read_capture(HEAD + b"Content-Length: 4\r\n\r\n\r\n\n\x00", peer="192.0.2.1")
    assert (capture.head.method, capture.head.target, capture.head.peer) == ("POST", b"/hooks?x=1", "192.0.2.1")
    assert capture.head.values(b"x-one") == (b"1", b"2")
    assert capture.body == b"\r\n\n\x00"
    assert capture.remarks == ()


def test_without_content_length_the_body_ends_with_the_file() -> None:
    assert read(HEAD + b"\r\nbody\n") == (b"body\n", [], "")


def test_a_head_with_bare_line_feeds_is_taken_and_the_body_left_alone() -> None:
    body, remarks, fault = read(HEAD.replace(b"\r\n", b"\n") + b"\na\r\nb\n")
    assert (body, fault) == (b"a\r\nb\n", "")
    assert "bare LF" in remarks[0]


def test_blank_lines_before_the_request_and_a_missing_one_behind_it_are_forgiven() -> None:
    assert read(b"\r\n\n" + HEAD + b"\r\n")[0] == b""
    body, remarks, fault = read(HEAD)
    assert (body, fault) == (b"", "")
    assert "no empty line" in remarks[0]


def test_what_an_editor_added_behind_the_body_is_left_out() -> None:
    body, remarks, _ = read(HEAD + b"Content-Length: 4\r\n\r\nbody\n")
    assert body == b"body"
    assert "1 byte(s) after the 4" in remarks[0]


def test_chunks_are_put_together() -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n"
    assert read(chunked + b"\r\n")[0] == b"body"
    assert read(chunked + b"X-Late: 1\r\n\r\n")[2] == "trailer fields after the body"


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", "exactly one Host field is required"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "exactly one Host field is required"),
        (b"POST http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "the request target is not a path"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "not HTTP/1.1"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "not HTTP/1.1"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", "not HTTP/1.1"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "CONNECT"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\n", "imitates a framing field"),
    ],
)
def test_what_live_traffic_refuses_is_refused_here(raw: bytes, fault: str) -> None:
    assert fault in read(raw)[2]


@pytest.mark.parametrize(
    "framed", [b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
)
def test_an_upgrade_is_ignored_as_in_live_traffic(framed: bytes) -> None:
    assert read(HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + framed) == (b"body", [], "")


def test_where_only_the_signature_is_in_question_host_may_be_missing() -> None:
    body, remarks, fault = read(b"POST / HTTP/1.1\r\n\r\nx", needs_host=False)
    assert (body, fault) == (b"x", "")
    assert "no Host" in remarks[0]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty; "),
        (b"\r\n\r\n", "is empty; "),
        (b'{"a":1}', "line 1: is a body without its head; "),
        (b"HTTP/1.1 200 OK\r\n\r\n", "line 1: is a response; "),
        (b"POST /\r\n\r\n", "line 1: is not a request line; "),
        (b"> POST / HTTP/1.1\n> Host: a\n\n", "line 1: is not a request line; "),
        (b"POST / HTTP/2\r\nhost: a\r\n\r\n", "line 1: says HTTP/2 or 3; "),
        (b"POST / HTTP/1.1\nHost: a\n{\n\n", "line 3: is not a header field; "),
        (b"\x16\x03\x01\x02", "line 1: is not a request line; "),
        (HEAD + b"Content-Length: 9\r\n\r\nbody", "line 5: announces a body of 9 bytes, but 4 follow; "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nbody", "the body does not consist of whole chunks"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nbo", "the body does not consist of whole chunks"),
        (b"x" * (MAX_CAPTURE + 1), "is larger than "),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_capture_that_is_not_a_request_is_reported_with_place_and_remedy(raw: bytes, message: str) -> None:
    with pytest.raises(UnusableCaptureError) as unusable:
        read_capture(raw, peer=None)
    assert str(unusable.value).startswith(message)
