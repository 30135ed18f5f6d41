"""Writes one log line for each delivery and each event of the program: JSON for machines, text for people.

Lines are formatted here and passed on once per turn of the event loop, because `logging` costs more than verifying does.
log_writer.py writes them.
Text from a sender can't end a line or forge a field: JSON escapes it, and text mode replaces everything but printable ASCII.
"""

import json
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from json.encoder import encode_basestring_ascii as _quote  # the C function behind json.dumps, typed as str → str
from secrets import token_hex
from typing import Final

from sidecar.outcomes import HandshakeResult, HashableStrEnum, Outcome
from sidecar.routing.refusal_limit import Rate
from sidecar.telemetry.record import DeliveryRecord


class Level(HashableStrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    JSON = "json"
    TEXT = "text"


DEFAULT_REJECTED: Final = Rate(100, 1.0, "100/s")


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: Level = Level.INFO
    accepted: bool = True
    format: LogFormat = LogFormat.JSON
    rejected: Rate | None = DEFAULT_REJECTED  #: lines of each kind that strangers cause; None: all


_RANKS: Final = {Level.DEBUG: 0, Level.INFO: 1, Level.WARNING: 2, Level.ERROR: 3}
_LEVELS: Final = {
    Outcome.ACCEPTED: Level.INFO,
    Outcome.DUPLICATE: Level.INFO,
    Outcome.REJECTED: Level.WARNING,
    Outcome.FAILED: Level.ERROR,
    Outcome.ALLOWED: Level.INFO,
}
_CENTS: Final = tuple(f"{number:02d}" for number in range(100))
#: Lines that strangers cause are counted over this many seconds, or over the rate's own period if that is longer: a burst is
#: logged whole, and a flood is sampled.
WINDOW_SECONDS: Final = 10.0
#: Paths and delivery ids are cut to this many bytes, in the log and in traces.
MAX_LOGGED: Final = 200


class Log:
    """The settings can be replaced at any time (`log.settings = ...`). `write` gets whole lines and must not block."""

    def __init__(
        self,
        settings: LogSettings,
        loop: AbstractEventLoop,
        write: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._loop = loop
        self._write = write
        self._now = now
        self._lines: list[str] = []
        # Lines that strangers caused in this window, and those of them that were left out, by event, route and reason.
        self._caused: dict[tuple[str, str, str], int] = {}
        self._left_out: dict[tuple[str, str, str], int] = {}
        self._process = token_hex(4)  # makes delivery ids differ between processes
        self._millisecond = -1  # of the last line, unix time
        self._timestamp = ""  # that millisecond as text
        self._prefix = ""  # its second as text

    def record(self, record: DeliveryRecord) -> None:
        """Logs a delivery, or a handshake that was answered here."""
        if record.handshake is HandshakeResult.ANSWERED:
            self._log_handshake(record)
            return
        outcome = record.outcome
        if (outcome is Outcome.ACCEPTED or outcome is Outcome.ALLOWED) and not self.settings.accepted:
            return
        level = _LEVELS[outcome]
        if _RANKS[level] < _RANKS[self.settings.level]:
            return
        if outcome is Outcome.REJECTED and self._leaves_out("delivery", record.route_name, record.reason or ""):
            return
        text = self.settings.format is LogFormat.TEXT
        self._append(self._format_text(record) if text else self._format_json(record, level))

    def event(self, name: str, level: Level = Level.INFO, **fields: str | float | int | bool) -> None:
        """Logs an event of the program."""
        if _RANKS[level] < _RANKS[self.settings.level]:
            return
        if self.settings.format is LogFormat.TEXT:
            pairs = " ".join(f"{key}={_printable(str(value))}" for key, value in fields.items())
            self._append(f"{self._time()} {level.upper():8} {name} {pairs}\n")
        else:
            self._append(json.dumps({"time": self._time(), "level": level, "event": name} | fields) + "\n")

    def admin_refused(self, status: int, detail: str, path: str, client: str) -> None:
        """Logs a request that the admin listener denied. `detail` is one of a few."""
        if not self._leaves_out("admin_refused", "", detail):
            self.event(
                "admin_refused", Level.WARNING, path=path[:MAX_LOGGED], client=client, status=status, detail=detail
            )

    def end_window(self) -> None:
        """Reports the lines that were left out, and counts from 0 again."""
        self._caused.clear()
        left_out, self._left_out = self._left_out, {}
        for (name, route, reason), lines in left_out.items():
            self.event("lines_left_out", Level.WARNING, of=name, route=route, reason=reason, lines=lines)

    def _leaves_out(self, name: str, route: str, reason: str) -> bool:
        """Counts a line that anybody can cause. Returns whether there are too many of its kind (`log.rejected`)."""
        rate = self.settings.rejected
        if rate is None:
            return False
        window = max(WINDOW_SECONDS, rate.seconds)
        kind = (name, route, reason)
        if not self._caused:
            self._loop.call_later(window, self.end_window)
        count = self._caused.get(kind, 0) + 1
        self._caused[kind] = count
        if count * rate.seconds <= rate.most * window:
            return False
        self._left_out[kind] = self._left_out.get(kind, 0) + 1
        return True

    def _log_handshake(self, e: DeliveryRecord) -> None:
        if self._leaves_out("handshake", e.route_name, ""):
            return
        self.event(
            "handshake",
            route=e.route_name,
            client=e.client,
            peer=e.peer or "unix:",
            method=e.method,
            path=e.path[:MAX_LOGGED].decode("latin-1"),
            status=e.status,
        )

    def report_dropped(self, lines: int) -> None:
        """Logs that lines were dropped because standard output was stuck."""
        self.event("log_lines_dropped", Level.ERROR, lines=lines)

    def flush(self) -> None:
        """Passes on the lines of this turn."""
        if self._lines:
            text = "".join(self._lines)
            self._lines.clear()
            self._write(text)

    def _append(self, line: str) -> None:
        if not self._lines:
            self._loop.call_soon(self.flush)
        self._lines.append(line)

    def _time(self) -> str:
        millisecond = int(self._now() * 1000)
        if millisecond != self._millisecond:
            second = millisecond // 1000
            if second != self._millisecond // 1000:
                self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._millisecond = millisecond
            self._timestamp = "%s%03dZ" % (self._prefix, millisecond % 1000)
        return self._timestamp

    def _format_json(self, e: DeliveryRecord, level: str) -> str:
        # Built by hand from strings and integers only, which mypyc compiles to a single copy; json.dumps takes four times as
        # long. Text from outside is quoted by the encoder's own function. Names and ids were checked to be plain when the
        # configuration was read.
        outcome: str = e.outcome  # as a str: for an Enum mypyc would call __str__
        reason: str = e.reason or ""
        kind = "authorization" if e.authorizes else "delivery"
        line = (
            f'{{"time":"{self._time()}","level":"{level}","event":"{kind}","id":"{self._process}-{hex(e.number)[2:]}",'
            f'"route":"{e.route_name}","outcome":"{outcome}","reason":"{reason}","client":"{e.client}",'
            f'"peer":"{e.peer or "unix:"}","method":{_quote(e.method)},"path":{_quote(e.path[:MAX_LOGGED].decode("latin-1"))},'
            f'"status":{e.status},"upstream_status":{e.upstream_status},"secret":"{e.secret_id}",'
            f'"request_bytes":{e.request_bytes},"answer_bytes":{e.answer_bytes},"duration_ms":{_milliseconds(e.seconds)}'
        )
        if e.verify_seconds is not None:
            line += ',"verify_ms":%.3f' % (e.verify_seconds * 1000)
        if e.upstream_seconds is not None:
            line += f',"upstream_ms":{_milliseconds(e.upstream_seconds)}'
        if e.age is not None:
            line += ',"signature_age_s":%.3f' % e.age
        if e.tenant:
            line += f',"tenant":"{e.tenant}"'
        if e.delivery_id:
            line += f',"delivery_id":{_quote(e.delivery_id[:MAX_LOGGED].decode("latin-1"))}'
        if e.shadow_reason is not None:
            line += f',"shadow_reason":"{e.shadow_reason}"'
        if e.hint is not None:
            line += f',"hint":"{e.hint}"'
        if e.handshake is not None:
            line += f',"handshake":"{e.handshake}"'
        if e.trace is not None:
            line += f',"trace_id":"{e.trace.trace_id:032x}"'
        if e.detail:
            line += f',"detail":{_quote(e.detail)}'
        return line + "}\n"

    def _format_text(self, e: DeliveryRecord) -> str:
        path = _word(e.path)
        parts = [f"{self._time()} {e.outcome.upper():8} {e.route_name or '-'} {e.method or '-'} {path}"]
        parts.append(f"from {e.client or e.peer or 'unix:'} {e.status} {e.request_bytes}B {e.seconds * 1000:.1f}ms")
        if e.authorizes:
            parts.append("asked by a gateway")
        if e.secret_id:
            parts.append(f"secret={e.secret_id}")
        if e.tenant:
            parts.append(f"tenant={e.tenant}")
        if e.reason is not None:
            parts.append(f"reason={e.reason}")
        if e.shadow_reason is not None:
            parts.append(f"shadow_reason={e.shadow_reason}")
        if e.hint is not None:
            parts.append(f"hint={e.hint}")
        if e.handshake is not None:
            parts.append(f"handshake={e.handshake}")
        if e.delivery_id:
            parts.append(f"delivery_id={_word(e.delivery_id)}")
        if e.trace is not None:
            parts.append(f"trace_id={e.trace.trace_id:032x}")
        if e.detail:
            parts.append(f"({_printable(e.detail)})")
        return " ".join(parts) + f" id={self._process}-{e.number:x}\n"


def _milliseconds(seconds: float) -> str:
    """With two decimal places."""
    hundredths = int(seconds * 100_000 + 0.5)
    return f"{hundredths // 100}.{_CENTS[hundredths % 100]}"


def _word(value: bytes) -> str:
    """Text from a sender as one word: a space would begin the next field."""
    return _printable(value[:MAX_LOGGED].decode("latin-1")).replace(" ", "?")


def _printable(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)
