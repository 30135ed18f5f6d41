"""Lines of the log: complete, parseable, and forged by nobody."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.outcomes import HandshakeResult, Outcome, Reason, outcome_of
from sidecar.routing.refusal_limit import Rate
from sidecar.telemetry.log import MAX_LOGGED, Level, Log, LogFormat, LogSettings
from sidecar.telemetry.record import DeliveryRecord

#: What a sender might write into a path or a delivery id to end a line or begin a field.
HOSTILE = [
    b'","outcome":"accepted","x":"',
    b'"}\n{"event":"delivery","outcome":"accepted"}',
    b"\r\n2030-01-01T00:00:00.000Z ACCEPTED acme",
    b"\x1b[2K\x1b[1A",
    b"\\",
    b'\\"',
    b"\x00\x01\x7f\x80\x9b\xff",
    "\u2028\u2029\u0085".encode(),
    b"</script>",
    b"x" * 5000,
]


class Loop(asyncio.AbstractEventLoop):
    """A loop that notes what it shall call soon."""

    def __init__(self) -> None:
        self.soon: list[Callable[..., object]] = []
        self.later: list[tuple[float, Callable[..., object]]] = []

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        self.soon.append(callback)
        return asyncio.Handle(callback, args, self)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        self.later.append((delay, callback))

    def get_debug(self) -> bool:
        return False


class Written:
    """A log with what it wrote."""

    def __init__(
        self, *, level: Level = Level.DEBUG, accepted: bool = True, format: LogFormat = LogFormat.JSON
    ) -> None:
        self.loop = Loop()  # type: ignore[abstract]  # it has what is used
        self.writes: list[str] = []
        self.now = 1_700_000_000.0426
        self.log = Log(LogSettings(level, accepted, format), self.loop, self.writes.append, lambda: self.now)

    def lines(self) -> list[str]:
        """What was written, in lines; each ends with one newline."""
        self.log.flush()
        text = "".join(self.writes)
        assert text == "" or text.endswith("\n")
        return text.split("\n")[:-1]

    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def finished(make_route: Any) -> Any:
    """`finished(field=value, ...)`: an record at its end."""

    def make(**fields: Any) -> DeliveryRecord:
        record = DeliveryRecord(number=255, peer="10.0.0.1", started=0.0)
        defaults = {
            "method": "POST",
            "path": b"/hooks/acme",
            "route": make_route(name="acme"),
            "client": "192.0.2.1",
            "status": 200,
        }
        for field, value in (defaults | fields).items():
            setattr(record, field, value)
        return record

    return make


@pytest.fixture
def whole(finished: Any) -> DeliveryRecord:
    record: DeliveryRecord = finished(
        secret_id="current",
        delivery_id=b"d-1",
        age=1.25,
        upstream_status=204,
        status=204,
        request_bytes=16,
        answer_bytes=2,
        verify_seconds=0.0000125,
        upstream_seconds=0.004,
        seconds=0.005,
        shadow_reason=Reason.SIGNATURE_MISMATCH,
        detail="no match",
    )
    return record


def test_a_json_line_holds_everything_that_is_known(whole: DeliveryRecord) -> None:
    written = Written()
    written.log.record(whole)
    (line,) = written.json()
    assert re.fullmatch(r"[0-9a-f]{8}-ff", line.pop("id"))
    assert line == {
        "time": "2023-11-14T22:13:20.042Z",
        "level": "info",
        "event": "delivery",
        "route": "acme",
        "outcome": "accepted",
        "reason": "",
        "client": "192.0.2.1",
        "peer": "10.0.0.1",
        "method": "POST",
        "path": "/hooks/acme",
        "status": 204,
        "upstream_status": 204,
        "secret": "current",
        "request_bytes": 16,
        "answer_bytes": 2,
        "duration_ms": 5.0,
        "verify_ms": 0.013,
        "upstream_ms": 4.0,
        "signature_age_s": 1.25,
        "delivery_id": "d-1",
        "shadow_reason": "signature_mismatch",
        "detail": "no match",
    }


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.00"),
        (0.000004, "0.00"),
        (0.000006, "0.01"),
        (0.00001, "0.01"),
        (0.000994, "0.99"),
        (0.000996, "1.00"),
        (0.0101, "10.10"),
        (1.23456, "1234.56"),
        (86_400.5, "86400500.00"),
    ],
)
def test_durations_are_milliseconds_with_two_digits_behind_the_point(finished: Any, seconds: float, shown: str) -> None:
    written = Written()
    written.log.record(finished(seconds=seconds, upstream_seconds=seconds))
    (line,) = written.lines()
    assert f'"duration_ms":{shown},"upstream_ms":{shown}' in line


def test_each_line_has_its_own_time() -> None:
    written = Written()
    for later in (0.0, 0.0001, 0.001, 0.9, 0.999, 1.0, 60.0, 86_400.0, 0.0):
        written.now = 1_700_000_000.0426 + later
        written.log.event("something")
    assert [line["time"][8:] for line in written.json()] == [
        "14T22:13:20.042Z",
        "14T22:13:20.042Z",
        "14T22:13:20.043Z",
        "14T22:13:20.942Z",
        "14T22:13:21.041Z",
        "14T22:13:21.042Z",
        "14T22:14:20.042Z",
        "15T22:13:20.042Z",
        "14T22:13:20.042Z",
    ]


def test_what_is_not_known_is_left_out() -> None:
    written = Written()
    written.log.record(DeliveryRecord(number=1, peer=None, started=0.0))
    (line,) = written.json()
    assert (line["peer"], line["route"], line["path"], line["client"]) == ("unix:", "", "", "")
    assert not line.keys() & {"verify_ms", "upstream_ms", "signature_age_s", "delivery_id", "shadow_reason", "detail"}


def test_a_text_line_holds_what_a_person_looks_for(whole: DeliveryRecord) -> None:
    written = Written(format=LogFormat.TEXT)
    written.log.record(whole)
    (line,) = written.lines()
    assert re.sub(r"id=[0-9a-f]{8}-ff$", "id=?", line) == (
        "2023-11-14T22:13:20.042Z ACCEPTED acme POST /hooks/acme from 192.0.2.1 204 16B 5.0ms"
        " secret=current shadow_reason=signature_mismatch delivery_id=d-1 (no match) id=?"
    )


def test_a_text_line_of_a_request_that_was_nothing_has_dashes() -> None:
    written = Written(format=LogFormat.TEXT)
    record = DeliveryRecord(number=1, peer=None, started=0.0)
    record.outcome, record.reason = Outcome.REJECTED, Reason.MALFORMED_REQUEST
    written.log.record(record)
    (line,) = written.lines()
    assert re.fullmatch(r"\S+ REJECTED - -  from unix: 0 0B 0\.0ms reason=malformed_request id=[0-9a-f]{8}-1", line)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_logged_under_the_level_of_its_outcome(finished: Any, reason: Reason) -> None:
    written = Written()
    written.log.record(finished(reason=reason, outcome=outcome_of(reason)))
    (line,) = written.json()
    assert line["reason"] == reason
    assert line["level"] == {"duplicate": "info", "rejected": "warning", "failed": "error"}[line["outcome"]]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("field", ["path", "delivery_id"])
def test_no_sender_forges_a_json_line(finished: Any, field: str, hostile: bytes) -> None:
    written = Written()
    written.log.record(finished(**{field: hostile, "reason": Reason.NO_ROUTE, "outcome": Outcome.REJECTED}))
    (text,) = written.lines()
    assert text.isascii()
    assert text.isprintable()
    pairs = json.loads(text, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names))
    line = dict(pairs)
    assert (line["outcome"], line["reason"], line["event"]) == ("rejected", "no_route", "delivery")
    assert line[field] == hostile.decode("latin-1")[:MAX_LOGGED]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("field", ["path", "delivery_id"])
def test_no_sender_ends_a_text_line_or_moves_the_cursor(finished: Any, field: str, hostile: bytes) -> None:
    written = Written(format=LogFormat.TEXT)
    written.log.record(finished(**{field: hostile, "reason": Reason.NO_ROUTE, "outcome": Outcome.REJECTED}))
    (line,) = written.lines()
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < MAX_LOGGED + 200
    assert "REJECTED acme POST " in line


def test_no_sender_forges_a_field_of_a_text_line(finished: Any) -> None:
    """A header's value may hold blanks, and blanks are what separates fields."""
    written = Written(format=LogFormat.TEXT)
    record = finished(
        delivery_id=b"1 secret=current id=0-0", reason=Reason.SIGNATURE_MISMATCH, outcome=Outcome.REJECTED, status=403
    )
    written.log.record(record)
    (line,) = written.lines()
    assert " secret=" not in line
    assert line.count(" id=") == 1


def test_the_detail_is_escaped_too(finished: Any) -> None:
    for format in LogFormat:
        written = Written(format=format)
        written.log.record(finished(detail='a "b"\nc\x1b'))
        (line,) = written.lines()
        assert line.isprintable()
    assert '(a "b"?c?)' in line


@pytest.mark.parametrize(
    ("level", "outcomes"),
    [
        (Level.DEBUG, ["accepted", "duplicate", "rejected", "failed", "allowed"]),
        (Level.INFO, ["accepted", "duplicate", "rejected", "failed", "allowed"]),
        (Level.WARNING, ["rejected", "failed"]),
        (Level.ERROR, ["failed"]),
    ],
)
def test_the_level_leaves_out_what_is_less_severe(finished: Any, level: Level, outcomes: list[str]) -> None:
    written = Written(level=level)
    for outcome in Outcome:
        written.log.record(finished(outcome=outcome))
    assert [line["outcome"] for line in written.json()] == outcomes


def test_accepted_false_leaves_out_accepted_deliveries_only(finished: Any) -> None:
    written = Written(accepted=False)
    for outcome in Outcome:
        written.log.record(finished(outcome=outcome))
    assert [line["outcome"] for line in written.json()] == ["duplicate", "rejected", "failed"]


def test_settings_may_be_swapped_at_any_time(finished: Any) -> None:
    written = Written(level=Level.ERROR)
    written.log.record(finished())
    written.log.settings = LogSettings(Level.INFO, True, LogFormat.TEXT)
    written.log.record(finished())
    (line,) = written.lines()
    assert "ACCEPTED" in line


def test_an_event_is_one_line_in_both_formats() -> None:
    written = Written()
    written.log.event("reloaded", file='a\n"b"', routes=3, ok=True, seconds=0.5)
    assert written.json() == [
        {
            "time": "2023-11-14T22:13:20.042Z",
            "level": "info",
            "event": "reloaded",
            "file": 'a\n"b"',
            "routes": 3,
            "ok": True,
            "seconds": 0.5,
        }
    ]
    written = Written(format=LogFormat.TEXT)
    written.log.event("reloaded", Level.WARNING, file="a\nb\x1b", routes=3)
    assert written.lines() == ["2023-11-14T22:13:20.042Z WARNING  reloaded file=a?b? routes=3"]


def test_an_event_below_the_level_is_left_out() -> None:
    written = Written(level=Level.WARNING)
    written.log.event("started")
    written.log.event("broken", Level.ERROR)
    assert [line["event"] for line in written.json()] == ["broken"]


def test_lines_are_written_together_once_per_turn_of_the_loop(finished: Any) -> None:
    written = Written()
    written.log.record(finished())
    written.log.event("reloaded")
    assert (len(written.loop.soon), written.writes) == (1, [])
    written.loop.soon[0]()
    assert len(written.writes) == 1
    written.log.flush()
    assert len(written.writes) == 1
    written.log.event("again")
    assert len(written.loop.soon) == 2


def test_the_time_is_written_to_the_millisecond_as_it_goes_on() -> None:
    written = Written()
    for now in (1_700_000_000.0426, 1_700_000_000.999, 1_700_000_001.5, 0.25):
        written.now = now
        written.log.event("tick")
    assert [line["time"] for line in written.json()] == [
        "2023-11-14T22:13:20.042Z",
        "2023-11-14T22:13:20.999Z",
        "2023-11-14T22:13:21.500Z",
        "1970-01-01T00:00:00.250Z",
    ]


def sampled(rate: Rate | None) -> Written:
    written = Written()
    written.log.settings = LogSettings(rejected=rate)
    return written


def test_rejections_of_one_kind_are_left_out_above_the_rate(finished: Any, make_route: Any) -> None:
    written = sampled(Rate(3, 1.0, "3/s"))  # 30 in ten seconds
    other = make_route(name="other")
    for _ in range(40):
        written.log.record(finished(outcome=Outcome.REJECTED, reason=Reason.SIGNATURE_MISSING))
        written.log.record(finished(outcome=Outcome.FAILED, reason=Reason.UPSTREAM_TIMEOUT))
        written.log.record(finished())
    for _ in range(30):
        written.log.record(finished(outcome=Outcome.REJECTED, reason=Reason.SIGNATURE_MISSING, route=other))
        written.log.record(finished(outcome=Outcome.REJECTED, reason=Reason.SIGNATURE_MISMATCH))
    kinds = Counter((line["outcome"], line["route"], line["reason"]) for line in written.json())
    assert kinds == {
        ("rejected", "acme", "signature_missing"): 30,
        ("failed", "acme", "upstream_timeout"): 40,
        ("accepted", "acme", ""): 40,
        ("rejected", "other", "signature_missing"): 30,
        ("rejected", "acme", "signature_mismatch"): 30,
    }
    ((delay, end_window),) = written.loop.later
    assert delay == 10
    end_window()
    line = written.json()[-1]
    assert (line["event"], line["of"], line["route"], line["reason"], line["lines"]) == (
        "lines_left_out",
        "delivery",
        "acme",
        "signature_missing",
        10,
    )
    before = len(written.json())
    written.log.record(finished(outcome=Outcome.REJECTED, reason=Reason.SIGNATURE_MISSING))
    assert len(written.json()) == before + 1  # the next ten seconds
    assert len(written.loop.later) == 2


def test_a_rate_for_a_longer_time_is_counted_over_that_time(finished: Any) -> None:
    written = sampled(Rate(2, 3600.0, "2/h"))
    for _ in range(5):
        written.log.record(finished(outcome=Outcome.REJECTED, reason=Reason.TOKEN_MISMATCH))
    assert len(written.json()) == 2
    assert written.loop.later[0][0] == 3600


def test_without_a_rate_everything_is_logged(finished: Any) -> None:
    written = sampled(None)
    for _ in range(5000):
        written.log.record(finished(outcome=Outcome.REJECTED, reason=Reason.TOKEN_MISMATCH))
    assert len(written.json()) == 5000
    assert written.loop.later == []


def test_handshakes_and_denied_requests_are_sampled_too_and_say_nothing_long(finished: Any) -> None:
    written = sampled(Rate(1, 10.0, "1/10s"))
    for _ in range(3):
        written.log.record(finished(handshake=HandshakeResult.ANSWERED))
        written.log.admin_refused(403, "no", "/" + "p" * 5000, "192.0.2.1")
    written.log.end_window()
    lines = written.json()
    assert [line["event"] for line in lines] == ["handshake", "admin_refused", "lines_left_out", "lines_left_out"]
    assert [(line["of"], line["lines"]) for line in lines[2:]] == [("handshake", 2), ("admin_refused", 2)]
    assert len(lines[1]["path"]) == MAX_LOGGED
