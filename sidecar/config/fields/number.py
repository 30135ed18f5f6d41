"""Numbers: sizes, durations, rates, counts, statuses, days."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, ClassVar

from marshmallow import ValidationError

from sidecar.config.fields.text import JSONSchema, Text, Value, shown
from sidecar.routing.refusal_limit import Rate

_SIZE_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)[ \t]*([A-Za-z]*)")
_RATE = re.compile(r"([1-9][0-9]{0,8})/([smh])")


class AnswerStatus(Value):
    schema: ClassVar[JSONSchema] = {"title": "status", "type": "integer", "minimum": 200, "maximum": 299}

    def read(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 200 <= value <= 299:
            raise ValidationError(f"{shown(value)} is no status of success; use 200 to 299")
        return value


class Count(Value):
    schema: ClassVar[JSONSchema] = {"title": "number", "type": "integer", "minimum": 1}

    def read(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValidationError(f"{shown(value)} is not a whole number of at least 1")
        return value


class Size(Value):
    """Bytes: `64KiB`, `5MiB`, `1GB` or a plain number."""

    schema: ClassVar[JSONSchema] = {
        "title": "size",
        "type": ["string", "integer"],
        "pattern": "^[0-9]+(\\.[0-9]+)?\\s*(B|[KMG]i?B)?$",
        "minimum": 1,
    }

    def read(self, value: Any) -> int:
        number, unit = _quantity(value)
        if number is None or unit not in _SIZE_UNITS or number * _SIZE_UNITS[unit] < 1:
            raise ValidationError(f"{shown(value)} is not a size; write bytes or a unit: 64KiB, 5MiB, 1GB")
        return int(number * _SIZE_UNITS[unit])

    def write(self, value: Any) -> str:
        return _in_units(value, _SIZE_UNITS)


class Duration(Value):
    """Seconds: `500ms`, `30s`, `5m`, `1h` or a plain number. Never 0: a limit that is off would be one that is absent."""

    schema: ClassVar[JSONSchema] = {
        "title": "duration",
        "type": ["string", "number"],
        "pattern": "^[0-9]+(\\.[0-9]+)?\\s*(ms|s|m|h)?$",
        "exclusiveMinimum": 0,
    }

    def read(self, value: Any) -> float:
        number, unit = _quantity(value)
        if number is None or unit not in _DURATION_UNITS or number <= 0:
            raise ValidationError(f"{shown(value)} is not a duration; write seconds or a unit: 500ms, 30s, 5m, 1h")
        return number * _DURATION_UNITS[unit]

    def write(self, value: Any) -> str:
        return _in_units(value, _DURATION_UNITS)


class RateOf(Value):
    """So many in a time: `10/s`, `60/m`, `500/h`."""

    schema: ClassVar[JSONSchema] = {"title": "rate", "type": "string", "pattern": "^[1-9][0-9]{0,8}/[smh]$"}

    def read(self, value: Any) -> Rate:
        match = _RATE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValidationError(
                f"{shown(value)} is not a rate; write a number and a second, a minute or an hour: 10/s, 60/m, 500/h"
            )
        return Rate(int(match[1]), _DURATION_UNITS[match[2]], value)


class Share(Value):
    """A part of all: above 0, and at most 1."""

    schema: ClassVar[JSONSchema] = {"title": "share", "type": "number", "exclusiveMinimum": 0, "maximum": 1}

    def read(self, value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
            raise ValidationError(f"{shown(value)} is not a share; write a number above 0 and up to 1, for example 0.1")
        return float(value)


class Tolerance(Value):
    """A duration, or `none` for a clock that is signed but not compared."""

    def read(self, value: Any) -> float | None:
        if value == "none":
            return None
        try:
            return Duration().read(value)
        except ValidationError as error:
            raise ValidationError(f"{error.messages[0]}; or none") from None

    def json_schema(self) -> JSONSchema:
        return {"title": "duration or none", "anyOf": [{"const": "none"}, Duration.schema]}

    def write(self, value: Any) -> str:
        return Duration().write(value)


def _quantity(value: Any) -> tuple[float | None, str]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None, ""
    match = _QUANTITY.fullmatch(str(value))
    return (float(match[1]), match[2]) if match else (None, "")


def _in_units(value: float, units: Mapping[str, float]) -> str:
    """In the largest unit of which it is a whole number."""
    unit = max((unit for unit, size in units.items() if unit and value % size == 0), key=lambda unit: units[unit])
    return f"{value / units[unit]:g}{unit}"


class Refresh(Duration):
    """How often others' servers are asked."""

    def read(self, value: Any) -> float:
        seconds = super().read(value)
        if seconds < 60:
            raise ValidationError(
                f"{shown(value)} is too often; lists change in weeks, so use 1m at least, for example 24h"
            )
        return seconds


class Status(Value):
    schema: ClassVar[JSONSchema] = {"title": "status", "type": "integer", "minimum": 400, "maximum": 499}

    def read(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 400 <= value <= 499 or value == 410:
            # 2xx would lose the delivery, 3xx send it elsewhere, 5xx be retried for ever; at 410 providers disable the endpoint.
            raise ValidationError(
                f"{shown(value)} is no status for a refusal; use 400 to 499, not 410, for example 403"
            )
        return value


class Day(Value):
    """A day, such as 2026-12-31; becomes the unix time at which it is over, in UTC."""

    schema: ClassVar[JSONSchema] = {"title": "day", "type": "string", "format": "date"}

    def read(self, value: Any) -> float:
        text = Text().read(value)
        try:
            day = date.fromisoformat(text)
            if text != day.isoformat():  # other forms of ISO 8601 are read too
                raise ValueError
            over = datetime.combine(day + timedelta(days=1), time.min, UTC)
        except (ValueError, OverflowError):
            raise ValidationError(f"{shown(text)} is no day; for example 2026-12-31") from None
        return over.timestamp()
