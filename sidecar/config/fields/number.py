"""Numbers: sizes, durations, rates, counts, statuses, days."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, ClassVar

from sidecar.config.fields.base import Grammar, InvalidValueError, JSONSchema, ValueType, quote
from sidecar.routing.refusal_limit import Rate

_SIZE_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
#: Numbers have at most 15 digits before the point and 15 after it: floats hold them, and so does JSON.
_LIMIT = 10**15
_WHOLE = "[1-9][0-9]{0,14}"
_FRACTION = r"(\.[0-9]{1,15})?"


def whole_number(value: Any) -> int | None:
    """`value` if it is a whole number, else None. `5.0` is one, as in JSON Schema."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return None
    return int(value)


class Count(ValueType[int]):
    """A whole number of at least 1."""

    title = "number"

    def __init__(self, most: int | None = None) -> None:
        self.most = most

    def read(self, value: Any) -> int:
        number = whole_number(value)
        if number is None or number < 1:
            raise InvalidValueError(f"{quote(value)} is not a valid number; use a whole number of at least 1")
        if self.most is not None and number > self.most:
            raise InvalidValueError(f"{number} is too many; use at most {self.most}")
        return number

    def json_schema(self) -> JSONSchema:
        most = {"maximum": self.most} if self.most is not None else {}
        return {"title": self.title, "type": "integer", "minimum": 1} | most


class SuccessStatus(ValueType[int]):
    """A status that a provider treats as success."""

    title = "status"

    def read(self, value: Any) -> int:
        number = whole_number(value)
        if number is None or not 200 <= number <= 299:
            raise InvalidValueError(f"{quote(value)} is not a valid status; use 200 to 299")
        return number

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "integer", "minimum": 200, "maximum": 299}


class RejectionStatus(ValueType[int]):
    """A status for rejected deliveries.

    2xx would lose the delivery, 3xx would send it elsewhere, 5xx would be retried for ever, and at 410 providers disable
    the endpoint.
    """

    title = "status"

    def read(self, value: Any) -> int:
        number = whole_number(value)
        if number is None or not 400 <= number <= 499 or number == 410:
            raise InvalidValueError(
                f"{quote(value)} is not a valid status for rejections; use 400 to 499 except 410, for example 403"
            )
        return number

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "integer", "minimum": 400, "maximum": 499, "not": {"const": 410}}


class ResendStatus(ValueType[int]):
    """A status after which a provider sends again. At 404 and 410 providers disable the endpoint."""

    title = "status"

    def read(self, value: Any) -> int:
        number = whole_number(value)
        if number is None or not 400 <= number <= 599 or number in (404, 410):
            raise InvalidValueError(
                f"{quote(value)} is not a valid status for a resend; use 400 to 599 except 404 and 410, for example 503"
            )
        return number

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "integer", "minimum": 400, "maximum": 599, "not": {"enum": [404, 410]}}


class Fraction(ValueType[float]):
    """A part of the whole: above 0 and at most 1."""

    title = "fraction"

    def read(self, value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
            raise InvalidValueError(
                f"{quote(value)} is not a valid fraction; use a number above 0 and up to 1, for example 0.1"
            )
        return float(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "number", "exclusiveMinimum": 0, "maximum": 1}


class Size(ValueType[int]):
    """Bytes: `64KiB`, `5MiB`, `1GB` or a plain number."""

    title = "size"
    #: Whole bytes, or a multiple of a unit. Less than 0.001 of one would be less than a byte.
    grammar = Grammar(
        rf"{_WHOLE}[ \t]*B?|({_WHOLE}{_FRACTION}|0\.0{{0,2}}[1-9][0-9]{{0,12}})[ \t]*(KB|MB|GB|KiB|MiB|GiB)"
    )

    def read(self, value: Any) -> int:
        number = whole_number(value)
        if number is not None and 1 <= number < _LIMIT:
            return number
        if self.grammar.match(value) is None:
            raise InvalidValueError(f"{quote(value)} is not a valid size; use bytes or a unit: 64KiB, 5MiB, 1GB")
        number_text, unit = _split_quantity(value)
        return int(float(number_text) * _SIZE_UNITS[unit])

    def write(self, value: int) -> str:
        return _write_quantity(value, _SIZE_UNITS)

    def json_schema(self) -> JSONSchema:
        types = {"type": ["string", "integer"], "minimum": 1, "maximum": _LIMIT - 1}
        return {"title": self.title} | self.grammar.json_schema() | types


class Duration(ValueType[float]):
    """Seconds: `500ms`, `30s`, `5m`, `1h` or a plain number. Never 0: leave the key out to switch a limit off."""

    title = "duration"
    expected: ClassVar[str] = "a valid duration; use seconds or a unit: 500ms, 30s, 5m, 1h"
    grammar: ClassVar[Grammar] = Grammar(rf"[0-9]{{1,15}}{_FRACTION}[ \t]*(ms|s|m|h)?", excluded=r"^[0.]+([ \ta-z]|$)")
    minimum: ClassVar[JSONSchema] = {"exclusiveMinimum": 0}

    def read(self, value: Any) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and self._is_enough(value):
            return float(value)
        if self.grammar.match(value) is None:
            raise InvalidValueError(f"{quote(value)} is not {self.expected}")
        number, unit = _split_quantity(value)
        return float(number) * _DURATION_UNITS[unit]

    def _is_enough(self, seconds: float) -> bool:
        return 0 < seconds < _LIMIT

    def write(self, value: float) -> str:
        return _write_quantity(value, _DURATION_UNITS)

    def json_schema(self) -> JSONSchema:
        numbers = {"type": ["string", "number"], "exclusiveMaximum": _LIMIT} | self.minimum
        return {"title": self.title} | self.grammar.json_schema() | numbers


class RefreshInterval(Duration):
    """How often servers of others are asked: at most once a minute."""

    title = "duration"
    expected = "a valid refresh interval; use at least 1m, for example 24h"
    #: A minute or more, in each unit.
    grammar = Grammar(
        rf"({_WHOLE}{_FRACTION}[ \t]*m|({_WHOLE}{_FRACTION}|0\.[1-9][0-9]{{0,14}})[ \t]*h"
        rf"|([6-9][0-9]|[1-9][0-9]{{2,14}}){_FRACTION}[ \t]*s?|([6-9][0-9]{{4}}|[1-9][0-9]{{5,14}}){_FRACTION}[ \t]*ms)"
    )
    minimum = {"minimum": 60}  # noqa: RUF012 - as in the class above

    def _is_enough(self, seconds: float) -> bool:
        return 60 <= seconds < _LIMIT


class RefusalRate(ValueType[Rate]):
    """A number for each second, minute or hour: `10/s`, `60/m`, `500/h`."""

    title = "rate"
    grammar = Grammar("([1-9][0-9]{0,8})/([smh])")

    def read(self, value: Any) -> Rate:
        match = self.grammar.match(value)
        if match is None:
            raise InvalidValueError(
                f"{quote(value)} is not a valid rate; use a number for each second, minute or hour: 10/s, 60/m, 500/h"
            )
        return Rate(int(match[1]), _DURATION_UNITS[match[2]], value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema()


class _OrWord(ValueType[Any]):
    """A value of `kind`, or a word, which is read as None."""

    kind: ClassVar[ValueType[Any]]
    word: ClassVar[str]

    def read(self, value: Any) -> Any:
        if value == self.word:
            return None
        try:
            return self.kind.read(value)
        except InvalidValueError as error:
            raise InvalidValueError(f"{error}; or {self.word}") from None

    def write(self, value: Any) -> str:
        return self.word if value is None else str(self.kind.write(value))

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "anyOf": [{"const": self.word}, self.kind.json_schema()]}


class Tolerance(_OrWord):
    """A duration, or `none` for a timestamp that is signed but not compared with the clock."""

    title = "duration or none"
    kind = Duration()
    word = "none"


class LogRate(_OrWord):
    """A rate, or `off`."""

    title = "rate or off"
    kind = RefusalRate()
    word = "off"


#: Days of the years 2000 to 2999, leap years included.
_DAY = (
    "2[0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    "|2([048]00|[0-9](0[48]|[2468][048]|[13579][26]))-02-29"
)


class Day(ValueType[float]):
    """A day such as 2026-12-31, read as the unix time at which it ends in UTC."""

    title = "day"
    grammar = Grammar(_DAY)

    def read(self, value: Any) -> float:
        if self.grammar.match(value) is None:
            raise InvalidValueError(f"{quote(value)} is not a valid day; use the form 2026-12-31")
        end = datetime.combine(date.fromisoformat(value) + timedelta(days=1), time.min, UTC)
        return end.timestamp()

    def write(self, value: float) -> str:
        return (datetime.fromtimestamp(value, UTC) - timedelta(days=1)).date().isoformat()

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "format": "date"} | self.grammar.json_schema()


def _split_quantity(text: str) -> tuple[str, str]:
    """`5 MiB` → `("5", "MiB")`, for a text that has matched its grammar."""
    number = re.match("[0-9.]+", text)
    assert number is not None
    return number[0], text[number.end() :].strip(" \t")


def _write_quantity(value: float, units: Mapping[str, float]) -> str:
    """In the largest unit of which it is a whole number."""
    unit = max((unit for unit, size in units.items() if unit and value % size == 0), key=lambda unit: units[unit])
    return f"{value / units[unit]:g}{unit}"
