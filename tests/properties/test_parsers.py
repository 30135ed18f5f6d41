"""Every parser of bytes or text that somebody else wrote: it reads what its form says, and refuses the rest by its own error."""

import asyncio
import json
import re
import string
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.config.fields.base import InvalidValueError
from sidecar.config.fields.number import Duration, Size
from sidecar.diagnosis.capture import Capture, UnusableCaptureError, read_capture
from sidecar.http1.deadlines import DeadlineQueue
from sidecar.http1.head import make_head
from sidecar.outcomes import Rejected
from sidecar.verify.document import find_values, read_document
from sidecar.verify.scheme import Unit
from sidecar.verify.timestamp import READERS, format_timestamp

settings.register_profile("parsers", deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("parsers")

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
SECONDS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, blank: str) -> None:
    assert Size().read(f"{number}{blank}{unit}") == number * UNITS[unit]


@given(st.integers(1, 10**6), st.sampled_from(sorted(SECONDS)))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert abs(Duration().read(f"{number}{unit}") - number * SECONDS[unit]) < 1e-6


#: Near misses: what Python's own int() and float() would take among them.
quantities = st.one_of(
    st.text(max_size=20),
    st.text(string.digits + "_+-.eExX kKmMsShiB\n\t٣²", max_size=12),
    st.sampled_from(
        ["nan", "inf", "1e3", "1_000", "+1", "-1", "0", "0x10", "1.", ".5", "٣s", "1s\n", "9" * 400, "1 s", "1S"]
    ),
    st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers(), max_size=2)),
)


@given(quantities)
@example(float("nan"))
@example("9" * 15 + "GiB")
def test_any_value_is_a_quantity_or_a_mistake(value: Any) -> None:
    for kind, units in ((Size(), UNITS), (Duration(), SECONDS)):
        try:
            read = kind.read(value)
        except InvalidValueError:
            continue
        assert 0 < read < float("inf")
        if isinstance(value, str):
            match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)[ \t]*([A-Za-z]*)", value.strip(" \t"))
            assert match, value
            assert match[2] in units


pieces = st.sampled_from(
    [
        b"POST /a HTTP/1.1", b"GET / HTTP/1.0", b"HTTP/1.1 200 OK", b"Host: a", b"Content-Length: 3", b"Content-Length: x", b"Transfer-Encoding: chunked", b"X: y",
        b"\r\n", b"\n", b"\r\n\r\n", b"\n\n", b"3\r\nabc\r\n0\r\n\r\n", b"abc", b"\0", b"\xff", b" ", b":", b"Upgrade: h2c", b"Connection: upgrade", b"0\r\nT: x\r\n\r\n", b"Expect: 100-continue",
    ]
)  # fmt: skip


@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(pieces, max_size=14).map(b"".join),
        st.lists(pieces, max_size=9).map(b"\r\n".join),
    )
)
@settings(max_examples=400)
def test_any_bytes_are_a_capture_or_an_unusable_one(raw: bytes) -> None:
    try:
        capture = read_capture(raw, peer="192.0.2.1")
    except UnusableCaptureError:
        return
    assert isinstance(capture, Capture)
    assert capture.fault is None or isinstance(capture.fault, Rejected)


@given(st.sampled_from([b"\r\n", b"\n"]), st.binary(max_size=60), st.booleans())
def test_a_captured_request_is_read_as_it_was_sent(end: bytes, body: bytes, sized: bool) -> None:
    lines = [b"POST /hook?a=b HTTP/1.1", b"Host: a", b"X-Name: value"] + (
        [b"Content-Length: %d" % len(body)] if sized else []
    )
    capture = read_capture(end.join(lines) + end * 2 + body, peer=None)
    assert (capture.fault, capture.body, capture.head.target) == (None, body, b"/hook?a=b")
    assert capture.head.values(b"x-name") == (b"value",)


@given(
    st.sampled_from(sorted(Unit)),
    st.one_of(st.binary(max_size=40), st.from_regex(rb"\A[0-9TZ:+. -]{1,30}\Z"), st.just(b"9" * 5000)),
)
def test_any_bytes_are_a_time_or_none(unit: Unit, text: bytes) -> None:
    moment = READERS[unit](text)
    assert moment is None or -1e15 < moment < 1e15


@given(st.sampled_from(sorted(Unit)), st.integers(10**9, 4 * 10**9))
def test_a_time_that_is_written_is_read(unit: Unit, now: int) -> None:
    assert READERS[unit](format_timestamp(unit, now).encode()) == now


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=8,
)


@given(
    st.one_of(st.binary(max_size=80), json_like.map(lambda value: json.dumps(value).encode()), st.just(b"[" * 100_000), st.just(b"1" * 5000)),
    st.sampled_from([b"application/json", b"multipart/form-data; boundary=x", b"application/x-www-form-urlencoded", b"\xff", b""]),
    st.sampled_from(["", "payload"]),
    st.sampled_from(["a", "a.b", "a[].b", "[]", "a[]"]),
)  # fmt: skip
@example(b'{"a":"\\ud800"}', b"application/json", "", "a")
def test_any_body_is_a_document_or_a_refusal(body: bytes, content_type: bytes, form_field: str, path: str) -> None:
    head = make_head("POST", b"/", [(b"Content-Type", content_type)], None)
    try:
        document = read_document(head, [body], form_field)
    except Rejected:
        return
    assert all(isinstance(value, str) for value in find_values(document, path))


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["add", "discard", "wait"])), max_size=30))
@settings(max_examples=40)
def test_a_deadline_ends_what_stays_too_long_and_nothing_else(steps: list[tuple[int, str]]) -> None:
    """Against a model, on a loop whose clock stands still until it is moved."""

    class Loop(asyncio.SelectorEventLoop):
        clock = 0.0

        def time(self) -> float:
            return self.clock

    loop = Loop()
    ended: list[int] = []
    queue: DeadlineQueue[int] = DeadlineQueue(loop, 10.0, ended.append)
    due: dict[int, float] = {}
    expected: list[int] = []
    try:
        for item, step in steps:
            if step == "add":
                queue.add(item)
                due[item] = loop.clock + 10
            elif step == "discard":
                queue.discard(item)
                due.pop(item, None)
            else:
                loop.clock += item
                for _ in range(3):  # timers, and what they call
                    loop.call_soon(loop.stop)
                    loop.run_forever()
                late = [each for each, moment in due.items() if moment <= loop.clock]
                expected += sorted(late)
                for each in late:
                    del due[each]
            assert sorted(ended) == sorted(expected)
            assert len(queue) == len(due)
    finally:
        loop.close()
