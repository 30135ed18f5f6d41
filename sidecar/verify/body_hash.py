"""Hashes of the body in a signed place of the delivery, as data (`body_hash:`), and the body without its coding."""

import zlib
from base64 import b64encode
from collections.abc import Sequence
from hmac import compare_digest
from typing import Final

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.algorithms import DIGEST_SIZES, Algorithm, hash_pieces
from sidecar.verify.encoding import encode, make_decoder
from sidecar.verify.form import malformed
from sidecar.verify.message import query_values
from sidecar.verify.scheme import BodyHash, HashForm

#: Hashes in one header.
MAX_HASHES: Final = 8
MAX_HEADER: Final = 1024
#: Names in RFC 9530, section 5, and in RFC 5843 for the older Digest. SHA-1 and weaker ones don't count.
_ALGORITHMS: Final = {b"sha-256": Algorithm.SHA256, b"sha-512": Algorithm.SHA512}
#: Bytes that are decompressed at a time.
_STEP: Final = 64 * 1024
#: Bytes that the decompressor gets at a time: it copies the ones that it did not use.
_SLICE: Final = 16 * 1024
#: The most bytes that one byte may become. Documents shrink to a tenth; a bomb, which shrinks to a thousandth, must cost its
#: sender more.
MAX_RATIO: Final = 100
#: A body may become this large whatever its ratio.
SMALL: Final = 64 * 1024
_WINDOWS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


def check_body_hash(rule: BodyHash, head: RequestHead, body: Sequence[bytes]) -> None:
    """Raises `Rejected` if the hash that the delivery carries is absent, repeated or not the body's."""
    sent = query_values(head.target, rule.query) if rule.query else head.values(rule.header.lower().encode())
    if len(sent) == 1 and len(sent[0]) <= MAX_HEADER and _is_hash(rule, sent[0], body):
        return
    what = "the SHA-256 of the body" if rule.query else "a hash of the body"
    raise Rejected(Reason.SIGNATURE_MISMATCH, f"{rule.place} is absent, repeated, or not {what}")


def write_body_hash(rule: BodyHash, body: Sequence[bytes]) -> str:
    """The value that `check_body_hash` accepts."""
    if rule.form is HashForm.PLAIN:
        return rule.prefix + encode(rule.encoding, hash_pieces(rule.algorithm, body))
    text = b64encode(hash_pieces(Algorithm.SHA256, body)).decode()
    return f"sha-256=:{text}:" if rule.form is HashForm.CONTENT_DIGEST else f"SHA-256={text}"


def _is_hash(rule: BodyHash, sent: bytes, body: Sequence[bytes]) -> bool:
    if rule.form is HashForm.PLAIN:
        prefix = rule.prefix.encode()
        decode = make_decoder(rule.encoding, DIGEST_SIZES[rule.algorithm])
        found = decode(sent[len(prefix) :]) if sent.startswith(prefix) else None
        return found is not None and compare_digest(found, hash_pieces(rule.algorithm, body))
    # Every known hash must be right, and at least one must be known.
    items = sent.split(b",", MAX_HASHES)
    if len(items) > MAX_HASHES:
        return False
    known = False
    for item in items:
        name, equals, text = item.strip(b" \t").partition(b"=")
        algorithm = _ALGORITHMS.get(name if rule.form is HashForm.CONTENT_DIGEST else name.lower())
        if not equals:
            return False
        if algorithm is None:
            continue
        wanted = b64encode(hash_pieces(algorithm, body))
        if rule.form is HashForm.CONTENT_DIGEST:
            wanted = b":%b:" % wanted
        if not compare_digest(text, wanted):
            return False
        known = True
    return known


def decompress(head: RequestHead, body: Sequence[bytes], limit: int) -> Sequence[bytes]:
    """The body without its Content-Encoding, gzip (RFC 1952) or deflate (RFC 1950), of at most `limit` bytes.

    Raises `Rejected` for another coding, a broken stream, or more than one, and as soon as it is longer than the limit, or
    more than `MAX_RATIO` times as long as it was.
    """
    codings = [value.lower() for value in head.values(b"content-encoding")]
    if not codings or codings in ([b""], [b"identity"]):
        return body
    if len(codings) > 1 or codings[0] not in _WINDOWS:
        raise malformed("Content-Encoding is neither gzip nor deflate")
    stream = zlib.decompressobj(_WINDOWS[codings[0]])
    most = min(limit, max(SMALL, MAX_RATIO * sum(map(len, body))))
    found: list[bytes] = []
    size = 0
    try:
        for piece in body:
            for at in range(0, len(piece), _SLICE):
                rest = piece[at : at + _SLICE]
                while rest or (found and len(found[-1]) == _STEP):
                    if stream.eof:
                        break
                    made = stream.decompress(rest, _STEP)
                    found.append(made)
                    size += len(made)
                    if size > most:
                        raise malformed(_too_long(limit, most))
                    rest = stream.unconsumed_tail
                if rest or stream.unused_data:
                    raise malformed("the compressed body has more after its end")
    except zlib.error:
        raise malformed("the body is not what its Content-Encoding says") from None
    if not stream.eof:
        raise malformed("the compressed body is not whole")
    return found


def _too_long(limit: int, most: int) -> str:
    if most < limit:
        return f"the decompressed body is more than {MAX_RATIO} times as long as the compressed one"
    return f"the decompressed body is longer than the route's limit of {limit} bytes"
