"""Signed timestamps: text to seconds, and how far from our clock they may be."""

import pytest

from sidecar.outcomes import Reason, Rejected
from sidecar.verify.scheme import TimestampField, Unit
from sidecar.verify.timestamp import READERS, age_of, format_timestamp

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def field(unit: Unit, tolerance: float | None = 300.0) -> TimestampField:
    return TimestampField(header="X-Time", unit=unit, tolerance=tolerance)


@pytest.mark.parametrize(
    ("unit", "text", "seconds"),
    [
        (Unit.SECONDS, b"1700000000", NOW),
        (Unit.MILLISECONDS, b"1700000000250", NOW + 0.25),
        (Unit.ISO8601, b"2023-11-14T22:13:20Z", NOW),
        (Unit.ISO8601, b"2023-11-14t22:13:20z", NOW),
        (Unit.ISO8601, b"2023-11-14 22:13:20", NOW),
        (Unit.ISO8601, b"2023-11-14T15:13:20-07:00", NOW),
        (Unit.ISO8601, b"2023-11-15T03:43:20+0530", NOW),
        (Unit.ISO8601, b"2023-11-14T22:13:20.5", NOW + 0.5),
        (Unit.ISO8601, b"2023-11-14T22:13:20.123456789Z", NOW + 0.123456789),
        (Unit.HTTP_DATE, b"Tue, 14 Nov 2023 22:13:20 GMT", NOW),
    ],
)
def test_each_form_is_read(unit: Unit, text: bytes, seconds: float) -> None:
    assert READERS[unit](text) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (Unit.SECONDS, b"1" * 16),
        (Unit.SECONDS, b"1.5"),
        (Unit.MILLISECONDS, b"-1"),
        (Unit.ISO8601, b"1700000000"),
        (Unit.ISO8601, b"2023-11-14"),
        (Unit.ISO8601, b"2023-13-14T22:13:20Z"),
        (Unit.ISO8601, b"2023-11-14T25:13:20Z"),
        (Unit.ISO8601, b"2023-11-14T22:13:20.Z"),
        (Unit.ISO8601, b"2023-11-14T22:13:20.1234567890Z"),
        (Unit.ISO8601, b"2023-11-14T22:13:20+25:00"),
        (Unit.ISO8601, b"2023-11-14T22:13:20 Z"),
        (Unit.ISO8601, b"2023-11-14T22:13:20Z\n"),
        (Unit.HTTP_DATE, b"Tuesday, 14-Nov-23 22:13:20 GMT"),
        (Unit.HTTP_DATE, b"Tue Nov 14 22:13:20 2023"),
        (Unit.HTTP_DATE, b"Tue, 14 Nov 2023 22:13:20 +0000"),
        (Unit.HTTP_DATE, b"Tue, 14 Foo 2023 22:13:20 GMT"),
        (Unit.HTTP_DATE, b"Tue, 31 Feb 2023 22:13:20 GMT"),
        (Unit.HTTP_DATE, b"Tue, 14 Nov 2023 24:00:61 GMT"),
    ],
)
def test_anything_else_is_malformed(unit: Unit, text: bytes) -> None:
    assert READERS[unit](text) is None
    with pytest.raises(Rejected) as refused:
        age_of(field(unit), text, None)
    assert refused.value.reason is Reason.TIMESTAMP_MALFORMED
    assert text.decode() not in refused.value.detail


@pytest.mark.parametrize("unit", Unit)
def test_what_is_written_is_read_again_and_is_now(unit: Unit) -> None:
    text = format_timestamp(unit, NOW).encode()
    assert age_of(field(unit, 1.0), text, NOW) == pytest.approx(0.0, abs=1e-3)
    assert age_of(field(unit), text, None) is None


@pytest.mark.parametrize(
    ("now", "reason"), [(NOW + 301, Reason.TIMESTAMP_TOO_OLD), (NOW - 301, Reason.TIMESTAMP_IN_FUTURE)]
)
@pytest.mark.parametrize("unit", Unit)
def test_the_tolerance_holds_in_both_directions(unit: Unit, now: float, reason: Reason) -> None:
    text = format_timestamp(unit, NOW).encode()
    with pytest.raises(Rejected) as refused:
        age_of(field(unit), text, now)
    assert refused.value.reason is reason
    assert age_of(field(unit, None), text, now) == pytest.approx(now - NOW)
