"""One connection to the receiver after another delivery: nothing of the answer before may be left.

Over the wire this takes a sender that leaves in the very turn of the loop in which its answer arrives; see also
tests/wire/test_receiver_faults.py.
"""

import asyncio
from collections.abc import Callable

import pytest

from sidecar.http1.upstream import HEAD_TOO_LARGE, Connection, Timeouts, Upstream, UpstreamAddress
from sidecar.outcomes import Reason

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


class Transport(asyncio.Transport):
    """Takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def used_before(end: Callable[[Connection], None]) -> Connection | None:
    """The pool's connection for the next delivery, after one whose exchange was ended like this; None for a new one."""

    async def play() -> Connection | None:
        loop = asyncio.get_running_loop()
        timeouts = Timeouts(connect=1, response=1, total=1, idle=1)
        pool = Upstream(UpstreamAddress("http", "127.0.0.1", 1, ""), timeouts, loop)
        connection = Connection(pool)
        connection.connection_made(Transport())
        connection.write(b"POST / HTTP/1.1\r\n\r\n", [], 0, no_body=False)
        end(connection)
        pool.finish(connection)
        kept = pool._take()
        if kept is not None:
            kept.write(b"POST / HTTP/1.1\r\n\r\n", [], 0, no_body=False)
        pool.close()
        return kept

    return asyncio.run(play())


def handed_on(connection: Connection) -> None:
    connection.data_received(ANSWER + b"first")
    assert connection.take() == (b"first", False)


def left_before_it_was_handed_on(connection: Connection) -> None:
    connection.data_received(ANSWER + b"first")


def left_before_its_end_was_handed_on(connection: Connection) -> None:
    connection.data_received(ANSWER + b"fi")
    connection.take()
    connection.data_received(b"rst")


def failed_and_then_answered(connection: Connection) -> None:
    connection.data_received(ANSWER)
    connection.fail(Reason.UPSTREAM_TIMEOUT, "too late")
    connection.data_received(b"first")


def test_a_connection_whose_answer_was_handed_on_whole_is_used_again_with_nothing_left() -> None:
    connection = used_before(handed_on)
    assert connection is not None
    assert (connection.status, connection.lines, connection.head_done, connection.complete) == (0, b"", False, False)
    connection.data_received(ANSWER + b"other")
    assert connection.take() == (b"other", False)


@pytest.mark.parametrize(
    "end", [left_before_it_was_handed_on, left_before_its_end_was_handed_on, failed_and_then_answered]
)
def test_any_other_connection_is_closed(end: Callable[[Connection], None]) -> None:
    assert used_before(end) is None


@pytest.mark.parametrize("field", [b"a:\r\n", b"X: " + b"x" * 8000 + b"\r\n"])
def test_a_head_that_is_too_large_is_told_from_a_body_in_the_same_read(field: bytes) -> None:
    def too_large(connection: Connection) -> None:
        head = b"HTTP/1.1 200 OK\r\n" + field * (80_000 // len(field)) + b"Content-Length: 0\r\n\r\n"
        connection.data_received(head)
        assert connection.failed is not None
        assert connection.failed.detail == HEAD_TOO_LARGE

    def with_its_body(connection: Connection) -> None:
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 80000\r\n\r\n" + b"x" * 80_000)
        assert connection.complete

    assert used_before(too_large) is None
    used_before(with_its_body)
