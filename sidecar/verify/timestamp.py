"""Signed timestamps: from text to unix seconds, and whether they are within tolerance.

Every form has a maximal length, which is checked before the text is converted.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime

from sidecar.outcomes import Reason, Rejected
from sidecar.verify.scheme import TimestampField, Unit

#: Enough digits for milliseconds until the year 33658.
_NUMBER = re.compile(rb"[0-9]{1,15}")
#: RFC 3339. The fraction is a group of its own, because datetime accepts six digits; the zone may be absent.
_ISO8601 = re.compile(
    rb"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:?[0-9]{2})?"
)
#: IMF-fixdate, the only form that RFC 9110 allows senders to write.
_HTTP_DATE = re.compile(rb"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_FORMS = {
    Unit.SECONDS: "one integer of unix time (s)",
    Unit.MILLISECONDS: "one integer of unix time (ms)",
    Unit.ISO8601: "one ISO 8601 time, for example 2026-11-25T03:00:00Z",
    Unit.HTTP_DATE: "one HTTP date, for example Wed, 25 Nov 2026 03:00:00 GMT",
}


def _seconds(text: bytes) -> float | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _milliseconds(text: bytes) -> float | None:
    return int(text) / 1000 if _NUMBER.fullmatch(text) else None


def _iso8601(text: bytes) -> float | None:
    match = _ISO8601.fullmatch(text)
    if match is None:
        return None
    zone = b"+00:00" if match[3] in (None, b"Z", b"z") else match[3]
    try:
        moment = datetime.fromisoformat((match[1].upper() + zone).decode())
    except ValueError:
        return None
    return moment.timestamp() + float(b"0." + (match[2] or b"0"))


def _http_date(text: bytes) -> float | None:
    if not _HTTP_DATE.fullmatch(text):
        return None
    _, day, month, year, time, _ = text.decode().split()
    hour, minute, second = time.split(":")
    try:
        return datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second), tzinfo=UTC
        ).timestamp()
    except ValueError:
        return None


#: From text to unix seconds; None if it is malformed.
READERS: dict[Unit, Callable[[bytes], float | None]] = {
    Unit.SECONDS: _seconds,
    Unit.MILLISECONDS: _milliseconds,
    Unit.ISO8601: _iso8601,
    Unit.HTTP_DATE: _http_date,
}


def age_of(clock: TimestampField, text: bytes, now: float | None) -> float | None:
    """Seconds from the signed time to `now`. Raises `Rejected` if it is malformed or out of tolerance.

    With `now` None any time is accepted, and the age is None.
    """
    signed_at = READERS[clock.unit](text)
    if signed_at is None:
        raise Rejected(Reason.TIMESTAMP_MALFORMED, describe_malformed(clock))
    if now is None:
        return None
    age = now - signed_at
    tolerance = clock.tolerance
    if tolerance is not None and age > tolerance:
        raise Rejected(Reason.TIMESTAMP_TOO_OLD, f"signed {age:.0f} s ago, tolerance is {tolerance:g} s")
    ahead = tolerance if clock.future is None else clock.future
    if ahead is not None and age < -ahead:
        raise Rejected(Reason.TIMESTAMP_IN_FUTURE, f"signed {-age:.0f} s in the future, tolerance is {ahead:g} s")
    return age


def describe_malformed(clock: TimestampField) -> str:
    """Why a timestamp is malformed: the expected form."""
    return f"{clock.place} is not {_FORMS[clock.unit]}"


def format_timestamp(unit: Unit, now: float) -> str:
    """`now` (unix seconds) as senders write it."""
    if unit is Unit.SECONDS:
        return str(int(now))
    if unit is Unit.MILLISECONDS:
        return str(int(now * 1000))
    moment = datetime.fromtimestamp(now, UTC)
    if unit is Unit.ISO8601:
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return format_datetime(moment.replace(microsecond=0), usegmt=True)
