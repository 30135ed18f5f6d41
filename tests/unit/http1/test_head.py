"""A request's head, and what is refused because two parsers could read it in two ways."""

import pytest

from sidecar.http1.head import check_head, make_head
from sidecar.outcomes import Reason

Fields = dict[bytes, list[bytes]]

HOST: Fields = {b"host": [b"hooks.example.com"]}


def refusal(
    fields: Fields | None = None, *, method: bytes = b"POST", target: bytes = b"/hooks", version: str = "1.1"
) -> str | None:
    """The detail of what is wrong with a head; None if nothing is."""
    listed = [(name, value) for name, values in (HOST if fields is None else fields).items() for value in values]
    rejected = check_head(make_head(method.decode(), target, listed, None), version=version)
    if rejected is None:
        return None
    assert rejected.reason is Reason.MALFORMED_REQUEST
    return rejected.detail


def test_make_head_keeps_every_value_in_order_under_any_spelling_of_its_name() -> None:
    sent = [(b"X-B", b"1"), (b"x-a", b"2"), (b"X-b", b"3"), (b"X-Empty", b"")]
    head = make_head("POST", b"/a%2Fb?c=/d?e", sent, "192.0.2.1")
    assert list(head.values(b"x-b")) == [b"1", b"3"]
    assert list(head.values(b"x-a")) == [b"2"]
    assert list(head.values(b"x-empty")) == [b""]
    assert list(head.values(b"x-c")) == []
    assert (head.target, head.path) == (b"/a%2Fb?c=/d?e", b"/a%2Fb")
    assert (head.method, head.peer) == ("POST", "192.0.2.1")


def test_the_announced_size_is_that_of_content_length() -> None:
    assert make_head("POST", b"/", [(b"Content-Length", b"12")], None).content_length == 12
    assert make_head("POST", b"/", [(b"Transfer-Encoding", b"chunked")], None).content_length is None


@pytest.mark.parametrize("version", ["0.9", "2.0", "1.2", "11", "", "1.1 "])
def test_only_http_1_0_and_1_1_are_spoken(version: str) -> None:
    assert refusal(version=version) == f"HTTP version {version!r} is not 1.0 or 1.1"


def test_connect_is_never_tunnelled() -> None:
    assert refusal(method=b"CONNECT", target=b"example.com:443") == "CONNECT is never tunnelled"


@pytest.mark.parametrize(
    "target", [b"/", b"/a?b=c", b"/a%2F..;x=1", b"/~a!$&'()*+,;=:@[]|\"<>^`{}\\", b"//double", b"/?"]
)
def test_a_path_of_visible_ascii_is_taken_as_it_is(target: bytes) -> None:
    assert refusal(target=target) is None


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"hooks",
        b"http://hooks.example.com/",
        b"/a b",
        b"/a\tb",
        b"/a#b",
        b"/a\x00",
        b"/a\x7f",
        b"/\xc3\xa9",
        b"/a\n",
        b"/a\r\nX: y",
    ],
)
def test_any_other_target_is_refused(target: bytes) -> None:
    assert refusal(target=target) == "the request target is not a path of visible ASCII characters without '#'"


@pytest.mark.parametrize("hosts", [[], [b"a", b"a"], [b"a", b"b"], [b"", b"a"]])
def test_http_1_1_needs_exactly_one_host(hosts: list[bytes]) -> None:
    assert refusal({b"host": hosts} if hosts else {}) == "exactly one Host field is required"


def test_http_1_0_may_leave_the_host_out_but_not_repeat_it() -> None:
    assert refusal({}, version="1.0") is None
    assert refusal({b"host": [b"a", b"a"]}, version="1.0") == "exactly one Host field is required"


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"localhost",
        b"a.example:8080",
        b"a:",
        b"192.0.2.1",
        b"[2001:db8::1]",
        b"[::1]:80",
        b"a_b",
        b"xn--caf-dma.example",
    ],
)
def test_a_host_is_a_name_or_an_address_with_or_without_a_port(host: bytes) -> None:
    assert refusal({b"host": [host]}) is None


@pytest.mark.parametrize(
    "host",
    [
        b"user@a",
        b"a/b",
        b"a b",
        b"a:http",
        b"a:123456",
        b"[::1",
        b"::1",
        b"[fe80::1%eth0]",
        b"a?b",
        b"a\\b",
        b"caf\xc3\xa9",
        b"a\x00",
        b"a\n",
    ],
)
def test_any_other_host_is_refused(host: bytes) -> None:
    assert refusal({b"host": [host]}) == "the Host field is not a host and port"


@pytest.mark.parametrize(
    "framing",
    [
        {b"content-length": [b"1", b"1"]},
        {b"content-length": [b"1", b"2"]},
        {b"transfer-encoding": [b"chunked", b"chunked"]},
        {b"content-length": [b"1"], b"transfer-encoding": [b"chunked"]},
    ],
)
def test_two_framing_fields_are_refused(framing: Fields) -> None:
    assert refusal(HOST | framing) == "more than one framing field (Content-Length, Transfer-Encoding)"


@pytest.mark.parametrize("length", [b"0", b"5", b"007", b"9" * 18])
def test_a_content_length_of_digits_is_taken(length: bytes) -> None:
    assert refusal(HOST | {b"content-length": [length]}) is None


@pytest.mark.parametrize("length", [b"", b"+5", b"-5", b"5,5", b"0x5", b"5\x0b", b"5.0", b"1_0", b"\xb2", b"9" * 19])
def test_any_other_content_length_is_refused(length: bytes) -> None:
    assert refusal(HOST | {b"content-length": [length]}) == "Content-Length is not a plain number"


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED"])
def test_chunked_is_taken_in_any_letter_case(coding: bytes) -> None:
    assert refusal(HOST | {b"transfer-encoding": [coding]}) is None


@pytest.mark.parametrize(
    "coding",
    [b"", b"gzip", b"gzip, chunked", b"chunked, chunked", b"chunked;q=1", b"\x0bchunked", b"identity", b"xchunked"],
)
def test_any_other_transfer_coding_is_refused(coding: bytes) -> None:
    assert refusal(HOST | {b"transfer-encoding": [coding]}) == "Transfer-Encoding is not exactly 'chunked'"


def test_http_1_0_has_no_transfer_coding() -> None:
    assert (
        refusal(HOST | {b"transfer-encoding": [b"chunked"]}, version="1.0")
        == "Transfer-Encoding in an HTTP/1.0 request"
    )


@pytest.mark.parametrize(
    "name", [b"content_length", b"transfer_encoding", b"_content-length", b"content-length_", b"_transfer_encoding_"]
)
def test_a_name_that_cgi_folds_into_a_framing_field_is_refused(name: bytes) -> None:
    assert refusal(HOST | {name: [b"5"]}) == "a header's name imitates a framing field"


@pytest.mark.parametrize("name", [b"x_content_length", b"content_type", b"x-content-length"])
def test_other_names_with_underscores_pass(name: bytes) -> None:
    assert refusal(HOST | {name: [b"5"]}) is None


def test_a_refusal_tells_nothing_of_what_was_sent() -> None:
    """`detail` goes to the log; a long or hostile value must not go with it."""
    for detail in (
        refusal({b"host": [b"@SENT"]}),
        refusal(HOST | {b"content-length": [b"SENT"]}),
        refusal(HOST | {b"transfer-encoding": [b"SENT"]}),
        refusal(target=b"SENT"),
        refusal(version="12345678SENT"),
    ):
        assert detail
        assert "SENT" not in detail
