"""A token's base64url has one spelling for each value: compared with the definition, not with another decoder."""

import itertools
import json
import random
from base64 import urlsafe_b64encode

import pytest

from sidecar.verify.token import TokenError, decode_base64url, read_object

#: Characters of the alphabet, of plain base64, of neither, and those whose unused bits are zero in the last place.
CHARACTERS = b"AQgwEBcd-_+/= \n\r!\0\xff048Z.\t"


def decoded(text: bytes) -> bytes | None:
    try:
        return decode_base64url(text)
    except TokenError:
        return None


def test_every_short_text_is_decoded_if_it_is_the_encoding_of_something_and_else_rejected() -> None:
    spelled = {b"": b""}
    for first in range(256):
        spelled[urlsafe_b64encode(bytes([first])).rstrip(b"=")] = bytes([first])
        for second in range(256):
            spelled[urlsafe_b64encode(bytes([first, second])).rstrip(b"=")] = bytes([first, second])
    for text, value in spelled.items():
        assert decode_base64url(text) == value
    for length in range(4):
        for characters in itertools.product(CHARACTERS, repeat=length):
            text = bytes(characters)
            assert decoded(text) == spelled.get(text), text


def test_a_changed_character_is_another_value_or_none() -> None:
    random_ = random.Random(20)
    for _ in range(20_000):
        value = random_.randbytes(random_.randrange(40))
        text = bytearray(urlsafe_b64encode(value).rstrip(b"="))
        assert decode_base64url(bytes(text)) == value
        where = random_.randrange(len(text) + 1)
        if random_.random() < 0.5:
            text.insert(where, random_.randrange(256))
        elif text:
            text[where % len(text)] = random_.choice(CHARACTERS)
        found = decoded(bytes(text))
        assert found is None or urlsafe_b64encode(found).rstrip(b"=") == text


@pytest.mark.parametrize("text", [b'{"a":1}', b' {"a":1}', b'{"a":1}\n', b'\r\n\t{ "a" : 1 }  '])
def test_white_space_around_an_object_is_no_part_of_it(text: bytes) -> None:
    assert read_object(text, "payload") == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"a":1',
        b'{"a":1}}',
        b'{"a":1} x',
        b'{"a":1}\0',
        b'\xef\xbb\xbf{"a":1}',
        b"[1]",
        b'"a"',
        b"{}{}",
        b"\xff{}",
    ],
)
def test_anything_else_around_an_object_is_rejected(text: bytes) -> None:
    with pytest.raises(TokenError):
        read_object(text, "payload")


def test_an_object_is_read_as_json_reads_it() -> None:
    value = {"a": [1, 2.5, None, True, {"b": "é\n"}], "": ""}
    assert read_object(json.dumps(value).encode(), "payload") == value
    assert read_object(json.dumps(value, ensure_ascii=False, indent=1).encode(), "payload") == value
