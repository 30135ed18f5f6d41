"""The parts of a body that a scheme names, and hostile bodies in their place."""

import json
import time
from contextlib import suppress
from urllib.parse import unquote_to_bytes

import pytest

from sidecar.http1.head import RequestHead, make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.document import MAX_UNVERIFIED, MAX_VALUES, find_value, find_values, read_document
from sidecar.verify.form import MAX_FIELDS, sorted_form

FORM = b"application/x-www-form-urlencoded"


def head(content_type: bytes = b"application/json") -> RequestHead:
    return make_head("POST", b"/", [(b"Content-Type", content_type)] if content_type else [], None)


def refused(body: bytes, form_field: str = "", content_type: bytes = b"application/json") -> Rejected:
    with pytest.raises(Rejected) as error:
        read_document(head(content_type), [body[:3], body[3:]], form_field)
    return error.value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"{",
        b"\xff{}",
        b"{}{}",
        b'{"a":NaN}',
        b"-Infinity",
        b'{"a":1,"a":2}',
        b'[{"b":{"a":1,"a":1}}]',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"1" * 100_000,
        "{}".encode("utf-16"),
        "\ufeff{}".encode(),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_two_parsers_could_read_differently_is_malformed(body: bytes) -> None:
    assert refused(body).reason is Reason.SIGNATURE_MALFORMED


@pytest.mark.parametrize("seed", [b"[", b"{},", b'{"a":', b"1,", b'"\\u0000",', b"[[],"])
def test_the_largest_hostile_body_costs_a_moment(seed: bytes) -> None:
    body = (seed * MAX_UNVERIFIED)[:MAX_UNVERIFIED]
    began = time.process_time()
    for text in (body, b"[" + body + b"0]"):
        with suppress(Rejected):
            read_document(head(), [text], "")
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", ["text"]),
        ("b.c", ["12"]),
        ("list[].x", ["1", "2"]),
        ("words[]", ["p", "q"]),
        ("missing", []),
        ("a.b", []),
        ("mixed[].x", []),
        ("yes", []),
        ("half", []),
        ("none", []),
        ("empty", []),
        ("void[].x", []),
        ("b", []),
    ],
)
def test_texts_and_whole_numbers_are_found_and_nothing_else(path: str, found: list[str]) -> None:
    document = json.loads(
        '{"a":"text","b":{"c":12},"list":[{"x":1},{"x":"2"}],"words":["p","q"],"mixed":[{"x":1},{}],'
        '"yes":true,"half":1.5,"none":null,"empty":"","void":[]}'
    )
    assert find_values(document, path) == found
    assert find_value(document, path) == (found[0] if found else None)


def test_a_number_beyond_what_is_converted_is_not_there() -> None:
    assert find_value({"a": 10**5000}, "a") is None


def test_a_document_may_stand_in_a_form_field() -> None:
    document = {"event": {"event_time": "1"}}
    text = json.dumps(document).encode()
    parts = (
        b'--B\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--B\r\nContent-Disposition: form-data; '
        b'name="json"\r\nContent-Type: application/json\r\n\r\n%b\r\n--B--\r\n'
    )
    assert read_document(head(b"multipart/form-data; boundary=B"), [parts % text], "json") == document
    assert read_document(head(b'multipart/form-data; charset=x; boundary="B"'), [parts % text], "json") == document
    urlencoded = b"json=" + text.replace(b" ", b"+").replace(b'"', b"%22")
    assert read_document(head(FORM), [urlencoded], "json") == document
    assert read_document(head(), [text], "json") == document


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"json={}&json={}", FORM),
        (b"other={}", FORM),
        (b"{}", b"text/plain"),
        (b"{}", b""),
        (b"{}", b"multipart/form-data"),
        (b'--B\r\nContent-Disposition: form-data; name="json"\r\n\r\n{}\r\n' * 2, b"multipart/form-data; boundary=B"),
        (b"--B--", b"multipart/form-data; boundary=B"),
        (b"--B\r\n" * (MAX_FIELDS + 2), b"multipart/form-data; boundary=B"),
        (b"a&" * (MAX_FIELDS + 2), FORM),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_form_holds_the_document_once(body: bytes, content_type: bytes) -> None:
    assert refused(body, "json", content_type).reason is Reason.SIGNATURE_MALFORMED


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", b""),
        (b"b=2&a=1", b"a1b2"),
        (b"a=2&a=1&a=2", b"a1a2"),
        (b"a=%C3%BC+x%26y&b", "a\u00fc x&yb".encode()),
        (b"&&a=1&", b"a1"),
        (b"a=1=2", b"a1=2"),
        (b"\xff=\x00", b"\xff\x00"),
        (b"a=%3d%3D%25=\r\n \t&b= %0D%0A", b"a==%=\r\n \tb \r\n"),
    ],
)
def test_a_form_is_sorted_with_each_pair_once(body: bytes, message: bytes) -> None:
    assert sorted_form(head(FORM + b"; charset=utf-8"), [body[:2], body[2:]]) == message


@pytest.mark.parametrize("body", [b"a=%", b"a=%4", b"a=%zz", b"%=a", b"a=%%41", b"a=%4\n1"])
def test_a_broken_escape_is_malformed(body: bytes) -> None:
    with pytest.raises(Rejected) as error:
        sorted_form(head(FORM), [body])
    assert error.value.reason is Reason.SIGNATURE_MALFORMED


@pytest.mark.parametrize("item", [b"%41", b"+", b"=", b"=3D", b"%3D%0A", b"\r\n"])
def test_a_form_of_five_megabytes_is_read_like_urllib_does_and_costs_a_moment(item: bytes) -> None:
    body = b"a=" + item * (5 * 1024**2 // len(item))
    began = time.process_time()
    made = sorted_form(head(FORM), [body])
    assert time.process_time() - began < 0.5
    assert made == b"a" + unquote_to_bytes(item.replace(b"+", b" ")) * (5 * 1024**2 // len(item))


@pytest.mark.parametrize("size", range(64 * 1024 - 3, 64 * 1024 + 4))
def test_a_long_value_is_unescaped_the_same_wherever_it_is_cut(size: int) -> None:
    body = b"a=" + b"x" * (size - 2) + b"%41%3d%25+" * 30_000
    assert sorted_form(head(FORM), [body]) == b"a" + unquote_to_bytes(body[2:].replace(b"+", b" "))
    for broken in (b"%", b"%4", b"%4g"):
        with pytest.raises(Rejected):
            sorted_form(head(FORM), [b"a=" + b"x" * (size - 2) + broken + b"%41" * 30_000])


@pytest.mark.parametrize("item", [b"0,", b"[],", b"{},", b'{"a":0},'])
def test_a_document_has_so_many_values_and_no_more(item: bytes) -> None:
    each = sum(item.count(mark) for mark in (b",", b"[", b"{"))
    fits = (MAX_VALUES - 1) // each
    assert len(read_document(head(), [b"[" + item * fits + b"0]"], "")) == fits + 1
    assert refused(b"[" + item * (fits + 1) + b"0]").detail.startswith("the body's JSON has more than 50000 ")


def test_a_body_that_is_no_form_is_not_read_as_one() -> None:
    for content_type, body in ((b"application/json", b"a=1"), (b"", b"a=1"), (FORM, b"a&" * MAX_FIELDS)):
        with pytest.raises(Rejected) as error:
            sorted_form(head(content_type), [body])
        assert error.value.reason is Reason.SIGNATURE_MALFORMED
