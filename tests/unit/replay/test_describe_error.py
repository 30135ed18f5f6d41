"""The log says why the store is unavailable, without a word of the server's or the client's."""

import socket
import ssl

import pytest
from redis import exceptions

from sidecar.replay.describe_error import describe_error

PASSWORD = "CANARY-SECRET-store-5d20"


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (exceptions.AuthenticationError("x"), "AuthenticationError: the server rejected the credentials"),
        (exceptions.ResponseError("unknown command `HELLO`, with args beginning with"), "the server doesn't know a command"),
        (exceptions.ResponseError("ERR unknown command `SET`"), "the server doesn't know a command; Redis 6"),
        (exceptions.ResponseError("WRONGPASS of user"), "ResponseError: the server rejected the credentials"),
        (exceptions.ResponseError("MISCONF of server"), "ResponseError: the server can't save its data"),
        (exceptions.ResponseError("other"), "ResponseError: the connection failed, or the server's reply was not"),
        (exceptions.ConnectionError("Error 111"), "ConnectionError: the connection failed, or"),
        (caused(exceptions.ConnectionError("x"), OSError(111, "x")), "ConnectionError: connection refused"),
        (caused(exceptions.ConnectionError("x"), socket.gaierror(-2, "x")), "ConnectionError: the host's name can't be"),
        (caused(exceptions.ConnectionError("x"), ssl.SSLError(1, "[SSL: X] x")), "ConnectionError: TLS failed"),
        (TimeoutError("x"), "TimeoutError: the server did not respond in time"),
        (ValueError("x"), "ValueError: the connection failed, or"),
    ],
)  # fmt: skip
def test_the_kind_of_error_is_said_and_nothing_of_its_text(error: Exception, words: str) -> None:
    assert words in describe_error(error)
    error.args = tuple(f"{arg} {PASSWORD}" for arg in error.args)
    assert words in describe_error(error)
    assert PASSWORD not in describe_error(error)


def test_what_a_server_sends_for_a_tls_error_is_a_name_or_left_out() -> None:
    error = ssl.SSLError(1, "x")
    error.reason = f"told {PASSWORD}"
    assert describe_error(error) == "SSLError: TLS failed"
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    assert describe_error(error) == "SSLError: TLS failed (CERTIFICATE_VERIFY_FAILED)"
