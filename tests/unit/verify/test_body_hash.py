"""Hashes of the body in a header, and the body without its coding."""

import base64
import gzip
import hashlib
import time
import tracemalloc
import zlib
from contextlib import suppress

import pytest

from sidecar.http1.head import RequestHead, make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.body_hash import check_body_hash, decompress, write_body_hash
from sidecar.verify.encoding import Encoding
from sidecar.verify.scheme import BodyHash, HashForm

BODY = b'{"hello": "world"}'
SHA256 = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
SHA512 = base64.b64encode(hashlib.sha512(BODY).digest()).decode()
WRONG = base64.b64encode(bytes(32)).decode()
LIMIT = 1024 * 1024


def head(name: str, *values: str, target: bytes = b"/") -> RequestHead:
    return make_head("POST", target, [(name.encode(), value.encode()) for value in values], None)


def is_right(rule: BodyHash, *values: str) -> bool:
    with suppress(Rejected):
        check_body_hash(rule, head(rule.header, *values), [BODY[:3], BODY[3:]])
        return True
    return False


@pytest.mark.parametrize(
    ("value", "right"),
    [
        # RFC 9530, appendix D, has this body and this digest.
        ("sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:", True),
        (f"sha-256=:{SHA256}:", True),
        (f"sha-512=:{SHA512}:", True),
        (f"sha-256=:{SHA256}:, sha-512=:{SHA512}:", True),
        (f"unixsum=:AAA=:, sha-256=:{SHA256}:", True),
        (f"sha-256=:{SHA256}:,sha-512=:{WRONG}:", False),
        (f"sha-256=:{WRONG}:, sha-256=:{SHA256}:", False),
        ("md5=:AAAAAAAAAAAAAAAAAAAAAA==:", False),
        (f"sha-256={SHA256}", False),
        (f"SHA-256=:{SHA256}:", False),
        (f"sha-256=:{SHA256}", False),
        (f"sha-256=:{SHA256}:;a=1", False),
        ("", False),
        (",", False),
        (f"sha-256=:{SHA256}:," * 9, False),
    ],
)
def test_a_content_digest_holds_where_every_known_hash_is_right(value: str, right: bool) -> None:
    assert is_right(BodyHash(header="Content-Digest", form=HashForm.CONTENT_DIGEST), value) is right


@pytest.mark.parametrize(
    ("value", "right"),
    [
        (f"SHA-256={SHA256}", True),
        (f"sha-256={SHA256},SHA-512={SHA512}", True),
        (f"SHA=AAAA,SHA-256={SHA256}", True),
        (f"SHA-256={WRONG}", False),
        (f"SHA-256=:{SHA256}:", False),
        ("SHA=AAAA", False),
    ],
)
def test_the_older_digest_is_read_likewise(value: str, right: bool) -> None:
    assert is_right(BodyHash(header="Digest", form=HashForm.DIGEST), value) is right


def test_a_header_of_the_provider_holds_one_hash() -> None:
    rule = BodyHash(header="X-Sum", algorithm=Algorithm.SHA512, encoding=Encoding.BASE64, prefix="v1=")
    assert is_right(rule, f"v1={SHA512}")
    assert not is_right(rule, SHA512)
    assert not is_right(rule, f"v1={SHA256}")
    assert not is_right(rule, f"v1={SHA512}", f"v1={SHA512}")
    assert not is_right(rule)
    with pytest.raises(Rejected, match="X-Sum is absent, repeated, or not a hash of the body") as error:
        check_body_hash(rule, head("X-Sum", "v1=abc"), [BODY])
    assert error.value.reason is Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize("form", HashForm)
def test_what_is_written_is_accepted(form: HashForm) -> None:
    rule = BodyHash(header="X-Sum", form=form, prefix="sha256=")
    assert is_right(rule, write_body_hash(rule, [BODY]))


# -- the coding --


@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("X-GZIP", gzip.compress(BODY, mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
        ("", BODY),
    ],
)
def test_a_body_is_decompressed_however_it_arrives(coding: str, sent: bytes) -> None:
    for pieces in ([sent], [bytes([byte]) for byte in sent], [sent[:5], b"", sent[5:]]):
        assert b"".join(decompress(head("Content-Encoding", coding), pieces, LIMIT)) == BODY
    assert decompress(make_head("POST", b"/", [], None), [sent], LIMIT) == [sent]


@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        ("br", BODY),
        ("gzip, gzip", gzip.compress(gzip.compress(BODY, mtime=0), mtime=0)),
        ("gzip", BODY),
        ("gzip", b""),
        ("gzip", gzip.compress(BODY, mtime=0)[:-1]),
        ("gzip", gzip.compress(BODY, mtime=0) + b"\0"),
        ("gzip", gzip.compress(BODY, mtime=0) * 2),
        ("gzip", gzip.compress(BODY, mtime=0)[:-8] + bytes(8)),
        ("deflate", zlib.compress(BODY)[2:-4]),
        ("deflate", gzip.compress(BODY, mtime=0)),
    ],
)
def test_a_body_that_is_not_what_its_coding_says_is_malformed(coding: str, sent: bytes) -> None:
    for pieces in ([sent], [bytes([byte]) for byte in sent]):
        with pytest.raises(Rejected) as error:
            decompress(head("Content-Encoding", coding), pieces, LIMIT)
        assert error.value.reason is Reason.SIGNATURE_MALFORMED


def test_two_codings_are_malformed() -> None:
    with pytest.raises(Rejected, match="neither gzip nor deflate"):
        decompress(head("Content-Encoding", "gzip", "gzip"), [gzip.compress(BODY, mtime=0)], LIMIT)


@pytest.mark.parametrize("size", [LIMIT, 64 * 1024, 64 * 1024 - 1, 64 * 1024 + 1, 16 * 1024, 0])
def test_a_body_of_any_size_up_to_the_limit_is_whole(size: int) -> None:
    body = b"".join([b"%08x" % (number * 2654435761 % 2**32) for number in range(size // 8)]) + b"x" * (size % 8)
    assert b"".join(decompress(head("Content-Encoding", "gzip"), [gzip.compress(body)], LIMIT)) == body


def test_a_bomb_stops_at_the_limit() -> None:
    bomb = gzip.compress(bytes(1 << 28))  # 256 MiB in 256 KiB
    for pieces in ([bomb], [bomb[at : at + 100] for at in range(0, len(bomb), 100)]):
        tracemalloc.start()
        began = time.process_time()
        with pytest.raises(Rejected, match="longer than the route's limit of 1048576 bytes"):
            decompress(head("Content-Encoding", "gzip"), pieces, LIMIT)
        assert time.process_time() - began < 0.5
        assert tracemalloc.get_traced_memory()[1] < 3 * LIMIT
        tracemalloc.stop()
    with pytest.raises(Rejected, match="more than 100 times as long as the compressed one"):
        decompress(head("Content-Encoding", "gzip"), [bomb], 1 << 30)


def test_five_megabytes_that_barely_shrink_cost_a_moment() -> None:
    body = b"".join(hashlib.sha512(b"%d" % number).digest() for number in range(5 * 1024**2 // 64))
    began = time.process_time()
    assert b"".join(decompress(head("Content-Encoding", "gzip"), [gzip.compress(body)], 2 * len(body))) == body
    assert time.process_time() - began < 1
