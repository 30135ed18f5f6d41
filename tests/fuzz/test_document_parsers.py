"""Thousands of tokens, documents of keys and certificates that real ones became by mutation: nothing but a rejection comes out,
and none costs more than it may."""

import random
import time
from typing import Any

import pytest
from document_parsers import TARGETS, seeds

#: Mutations of each kind.
COUNT = 4000
#: Processor seconds of one input: what docs/reliability.md says of a token, with room for a busy machine.
MOST = 0.25
PIECES = [
    b"", b".", b"..", b"=", b"\0", b'"', b"[" * 200, b"{" * 200, b"\xff", b"{}", b"null", b"1e400", b"-1", b"NaN", b"\\u0000",
    b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"\n", b"A" * 3000, b'"kty":', b'"RSA"', b"MII", b"\x30\x84",
]  # fmt: skip


def mutated(seed: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    text = seed
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randint(0, len(text)), rng.choice((0, 1, 1, 4, 64))
        way = rng.randint(0, 3)
        if way == 0 and text:
            bit = rng.randrange(len(text))
            text = text[:bit] + bytes([text[bit] ^ 1 << rng.randint(0, 7)]) + text[bit + 1 :]
        elif way == 1:
            text = text[:at] + rng.choice(PIECES) + text[at + size :]
        elif way == 2:
            other = rng.choice(others)
            begin = rng.randint(0, len(other))
            text = text[:at] + other[begin : begin + rng.randint(0, 200)] + text[at:]
        else:
            text = text[: at + size] + text[at : at + size] * rng.randint(1, 20) + text[at + size :]
    return text


@pytest.mark.parametrize("kind", sorted(TARGETS))
def test_a_mutated_document_is_rejected_or_read_and_soon(kind: str, record_property: Any) -> None:
    rng, found = random.Random(20), seeds(kind)
    assert len(found) > 10
    for seed in found:
        TARGETS[kind](seed)
    longest = 0.0
    for _ in range(COUNT):
        text = mutated(rng.choice(found), rng, found)
        began = time.process_time()
        TARGETS[kind](text)
        longest = max(longest, time.process_time() - began)
    record_property("longest_ms", round(longest * 1000, 2))
    assert longest < MOST
