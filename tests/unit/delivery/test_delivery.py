"""Where the work on a body is done: on the event loop if it is short, else in a thread."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.config.presets import load_preset
from sidecar.delivery.body import Body, Budget
from sidecar.delivery.delivery import ON_LOOP_BYTES, PARSED_ON_LOOP_BYTES, Delivery
from sidecar.secret import Secret
from sidecar.verify.verifier import Verifier

KIBIBYTE = 1024


@pytest.mark.parametrize(
    ("preset", "secrets", "size", "thread"),
    [
        ("github", 1, ON_LOOP_BYTES, "MainThread"),
        ("github", 1, ON_LOOP_BYTES + 1, "hasher_0"),
        ("github", 2, ON_LOOP_BYTES // 2, "MainThread"),
        ("github", 2, ON_LOOP_BYTES // 2 + 1, "hasher_0"),
        ("github", 10, 200 * KIBIBYTE, "hasher_0"),
        ("github", 10, PARSED_ON_LOOP_BYTES, "MainThread"),
        ("square", 1, 600 * KIBIBYTE, "hasher_0"),  # a URL has two spellings
        ("mailgun", 1, PARSED_ON_LOOP_BYTES, "MainThread"),
        ("mailgun", 1, PARSED_ON_LOOP_BYTES + 1, "parser_0"),
        ("", 1, ON_LOOP_BYTES, "MainThread"),
        ("", 1, ON_LOOP_BYTES + 1, "hasher_0"),
    ],
)
def test_the_loop_hashes_no_more_than_a_mebibyte(
    make_route: Callable[..., Any], preset: str, secrets: int, size: int, thread: str
) -> None:
    keys = [Secret(str(number), b"secret number %d" % number) for number in range(secrets)]
    verifier = Verifier(load_preset(preset), keys, "https://hooks.example.com") if preset else None
    delivery = Delivery.__new__(Delivery)
    delivery.body = Body(Budget(1, [0.0]))
    delivery.body.size = size
    delivery.route = make_route("/", verifier=verifier)
    assert asyncio.run(delivery.compute(lambda: threading.current_thread().name)) == thread
