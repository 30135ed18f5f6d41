"""Where the work on a body is done: on the event loop if it is short, else in a thread."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from sidecar.config.presets import load_preset
from sidecar.delivery.delivery import HASHER, ON_LOOP_BYTES, PARSED_ON_LOOP_BYTES, PARSER, thread_for
from sidecar.secret import Secret
from sidecar.verify.composite import Combine, Composite
from sidecar.verify.verifier import Verifier

KIBIBYTE = 1024


@pytest.mark.parametrize(
    ("preset", "secrets", "size", "thread"),
    [
        ("github", 1, ON_LOOP_BYTES, None),
        ("github", 1, ON_LOOP_BYTES + 1, HASHER),
        ("github", 2, ON_LOOP_BYTES // 2, None),
        ("github", 2, ON_LOOP_BYTES // 2 + 1, HASHER),
        ("github", 10, 200 * KIBIBYTE, HASHER),
        ("github", 10, PARSED_ON_LOOP_BYTES, None),
        ("square", 1, 600 * KIBIBYTE, HASHER),  # a URL has two spellings
        ("mailgun", 1, PARSED_ON_LOOP_BYTES, None),
        ("mailgun", 1, PARSED_ON_LOOP_BYTES + 1, PARSER),
        ("", 1, ON_LOOP_BYTES, None),
        ("", 1, ON_LOOP_BYTES + 1, HASHER),
    ],
)
def test_the_loop_hashes_no_more_than_a_mebibyte(
    preset: str, secrets: int, size: int, thread: ThreadPoolExecutor | None
) -> None:
    keys = [Secret(str(number), b"secret number %d" % number) for number in range(secrets)]
    verifier = Verifier(load_preset(preset), keys, "https://hooks.example.com") if preset else None
    assert thread_for(size, verifier) is thread


def test_several_schemes_share_what_one_may_do_on_the_loop() -> None:
    key = [Secret("key", b"a secret of the schemes")]
    parsing = [Verifier(load_preset(name), key) for name in ("mailgun", "microsoft-graph", "mailgun", "mailgun")]
    hashing = [Verifier(load_preset("github"), key) for _ in range(4)]
    for count in (2, 4):
        share = PARSED_ON_LOOP_BYTES // count
        several = Composite(Combine.ANY, parsing[:count])
        assert [thread_for(size, several) for size in (share, share + 1)] == [None, PARSER]
        several = Composite(Combine.ALL, hashing[:count])
        most = ON_LOOP_BYTES // count
        assert [thread_for(size, several) for size in (most, most + 1)] == [None, HASHER]
