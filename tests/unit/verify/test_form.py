"""Forms, urlencoded and multipart: what is read from them, and hostile ones."""

import re
import time
from contextlib import suppress

import pytest

from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.form import MAX_FIELDS, MAX_PART_HEAD, Fields, join_fields, only_field, read_fields, read_query

URLENCODED = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data; boundary=B"


def part(name: bytes, value: bytes, *, more: bytes = b"", head: bytes = b"") -> bytes:
    return b'--B\r\nContent-Disposition: form-data; name="%b"%b\r\n%b\r\n%b\r\n' % (name, more, head, value)


END = b"--B--\r\n"


def read(body: bytes, content_type: bytes = MULTIPART) -> Fields:
    return read_fields(make_head("POST", b"/", [(b"Content-Type", content_type)], None), [body[:7], body[7:]])


def rejected(body: bytes, content_type: bytes = MULTIPART) -> str:
    with pytest.raises(Rejected) as error:
        read(body, content_type)
    assert error.value.reason is Reason.SIGNATURE_MALFORMED
    return error.value.detail


def test_fields_are_read_in_order_and_decoded() -> None:
    assert read(b"b=1+2&a=%C3%A9&b=&c", URLENCODED) == [
        (b"b", b"1 2"),
        (b"a", b"\xc3\xa9"),
        (b"b", b""),
        (b"c", b""),
    ]
    assert read(b"", b"text/plain") == []


def test_fields_of_a_multipart_form_are_read_as_they_are_and_its_files_left_out() -> None:
    file = part(b"a", b"\x00\r\n--", more=b'; filename="x\\"y.txt"', head=b"Content-Type: text/plain\r\n")
    body = part(b"token", b"a+b%20") + file + part(b"empty", b"") + part(b"lines", b"1\r\n\r\n2\r\n") + END
    assert read(body) == [(b"token", b"a+b%20"), (b"empty", b""), (b"lines", b"1\r\n\r\n2\r\n")]
    quoted = b'Multipart/Form-Data; charset=utf-8; boundary="B"'
    assert read(body.removesuffix(b"\r\n"), quoted) == read(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"x" + part(b"a", b"1") + END, "does not begin with its boundary"),
        (part(b"a", b"1"), "a boundary that does not end its line|does not end with its boundary"),
        (part(b"a", b"1") + b"--B-x", "does not end its line"),
        (part(b"a", b"1") + END + b"--B\r\n", "more after its end"),
        (b"--B\r\n\r\n1\r\n" + END, "one Content-Disposition"),
        (b"--B\r\nContent-Disposition: form-data\r\n\r\n1\r\n" + END, "has no name"),
        (b'--B\r\nContent-Disposition: attachment; name="a"\r\n\r\n1\r\n' + END, "one Content-Disposition"),
        (b'--B\r\nContent-Disposition : form-data; name="a"\r\n\r\n1\r\n' + END, "one Content-Disposition"),
        (part(b"a", b"1", head=b'Content-Disposition: form-data; name="b"\r\n') + END, "one Content-Disposition"),
        (part(b"a", b"1", more=b"; name=b") + END, "a parameter twice"),
        (part(b"a", b"1", more=b"; name*=b") + END, "has no name"),
        (part(b"a\\b", b"1") + END, "a backslash"),
        (part(b"a", b"MQ==", head=b"Content-Transfer-Encoding: base64\r\n") + END, "Content-Transfer-Encoding"),
        (part(b"a", b"1", head=b"X: %b\r\n" % (b"x" * MAX_PART_HEAD)) + END, "no head of at most"),
        (b"--B\r\nno end of the head\r\n" + END, "no head of at most"),
        (part(b"a", b"1") * (MAX_FIELDS + 1) + END, "more than 1000 fields"),
        (b"--B--", ""),
    ],
)
def test_a_multipart_form_that_two_parsers_could_read_differently_is_malformed(body: bytes, said: str) -> None:
    if not said:
        assert read(body) == []
        return
    assert re.search(said, rejected(body))


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"text/plain",
        b"multipart/form-data",
        b"multipart/form-data; boundary=B; boundary=C",
        b"multipart/mixed; boundary=B",
    ],
)
def test_another_media_type_is_no_form(content_type: bytes) -> None:
    assert rejected(part(b"a", b"1") + END, content_type)


def test_two_media_types_are_malformed() -> None:
    head = make_head("POST", b"/", [(b"Content-Type", URLENCODED), (b"content-type", MULTIPART)], None)
    with pytest.raises(Rejected, match="2 Content-Type headers"):
        read_fields(head, [b"a=1"])


def test_fields_are_joined_in_order_without_some() -> None:
    assert join_fields([(b"b", b"2"), (b"a", b""), (b"sign", b"x")], [b"sign"]) == b"a=&b=2"


@pytest.mark.parametrize(
    "name",
    [b"data_id", b"data.id[]", b"data id", b" data.id", b"data[id", b"data.id\0x", b"data_id[0]", b"data.id[a][b]"],
)
def test_a_field_is_malformed_beside_one_that_php_takes_for_it(name: bytes) -> None:
    for fields in ([(b"data.id", b"1"), (name, b"2")], [(name, b"2"), (b"data.id", b"1")]):
        with pytest.raises(Rejected, match=r"form field data\.id appears in another spelling"):
            only_field(fields, b"data.id", "form field")


@pytest.mark.parametrize("name", [b"data", b"Data.id", b"data.id2", b"xdata.id", b"[data.id]", b"data-id", b""])
def test_a_field_may_have_others_beside_it(name: bytes) -> None:
    assert only_field([(b"data.id", b"1"), (name, b"2")], b"data.id", "form field") == b"1"
    assert only_field([(name, b"2")], b"data.id", "form field") is None


def test_a_query_is_read_like_a_form() -> None:
    assert read_query(b"/p?b=1+2&a=%26") == [(b"b", b"1 2"), (b"a", b"&")]
    assert read_query(b"/p") == []
    with pytest.raises(Rejected, match="the query has a '%' without two hex digits"):
        read_query(b"/p?a=%zz")


@pytest.mark.parametrize(
    "piece",
    [b"\r\n--", b"\r\n--B", b"\r\n\r\n", b"--B\r\n", b"\r\n--" + b"b" * 69, b';a="\\"', b'; name="', b"a" * 100],
)
@pytest.mark.parametrize("boundary", [b"B", b"b" * 70])
def test_five_megabytes_of_a_hostile_multipart_form_cost_a_moment(piece: bytes, boundary: bytes) -> None:
    opening = b'--%b\r\nContent-Disposition: form-data; name="a"' % boundary
    body = opening + piece * (5 * 1024**2 // len(piece)) + b"\r\n--%b--" % boundary
    began = time.process_time()
    with suppress(Rejected):
        read(body, b"multipart/form-data; boundary=" + boundary)
    assert time.process_time() - began < 0.5
