"""One line for each delivery and for each thing that happens to the program: JSON for machines, text for people.

Lines are formatted here and written once per turn of the event loop, because `logging` costs more than verifying does.
Nothing a sender wrote can end a line or forge a field: JSON escapes it, text mode drops what is not printable ASCII.
"""

import json
import os
import sys
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _quote  # the C function behind json.dumps, typed as str → str
from secrets import token_hex
from select import PIPE_BUF
from typing import Final

from sidecar.config import LogSettings
from sidecar.exchange import Exchange
from sidecar.handshake import Result
from sidecar.outcomes import Outcome
from sidecar.schema import Level, LogFormat

_RANKS: Final = {Level.DEBUG: 0, Level.INFO: 1, Level.WARNING: 2, Level.ERROR: 3}
_LEVELS: Final = {Outcome.ACCEPTED: Level.INFO, Outcome.REJECTED: Level.WARNING, Outcome.FAILED: Level.ERROR}
#: The line of a delivery as far as every one has it.
_LINE: Final = (
    '{"time":"%s","level":"%s","event":"delivery","id":"%s-%x","route":"%s","outcome":"%s","reason":"%s",'
    '"client":"%s","peer":"%s","method":%s,"path":%s,"status":%d,"upstream_status":%d,"secret":"%s",'
    '"request_bytes":%d,"answer_bytes":%d,"duration_ms":%.2f'
)
#: A path or delivery id longer than this is cut in the log.
MAX_SHOWN: Final = 200


def to_stdout(text: str) -> None:
    """The default writer."""
    sys.stdout.write(text)
    sys.stdout.flush()


def to_shared_stdout(text: str) -> None:
    """Where several processes write: whole lines at a time, as few bytes as a pipe takes in one piece (pipe(7))."""
    data = text.encode()
    while data:
        end = len(data) if len(data) <= PIPE_BUF else data.rfind(b"\n", 0, PIPE_BUF) + 1 or data.find(b"\n") + 1
        data = data[os.write(sys.stdout.fileno(), data[:end]) :]


class Log:
    """Settings may be swapped at any time (`log.settings = ...`)."""

    def __init__(
        self,
        settings: LogSettings,
        loop: AbstractEventLoop,
        write: Callable[[str], None] = to_stdout,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._loop = loop
        self._write = write
        self._now = now
        self._lines: list[str] = []
        self._process = token_hex(4)  # makes the ids of deliveries differ between processes
        self._second = 0
        self._prefix = ""

    def record(self, exchange: Exchange) -> None:
        """The line of one delivery, or of a handshake that was answered here."""
        if exchange.handshake is Result.ANSWERED:
            self._handshake(exchange)
            return
        level = _LEVELS[exchange.outcome]
        if exchange.outcome is Outcome.ACCEPTED and not self.settings.accepted:
            return
        if _RANKS[level] < _RANKS[self.settings.level]:
            return
        made = self._text(exchange) if self.settings.format is LogFormat.TEXT else self._json(exchange, level)
        self._append(made)

    def event(self, name: str, level: Level = Level.INFO, **fields: str | float | int | bool) -> None:
        """The line of something that happened to the program."""
        if _RANKS[level] < _RANKS[self.settings.level]:
            return
        if self.settings.format is LogFormat.TEXT:
            shown = " ".join(f"{key}={_printable(str(value))}" for key, value in fields.items())
            self._append(f"{self._time()} {level.upper():8} {name} {shown}\n")
        else:
            self._append(json.dumps({"time": self._time(), "level": level, "event": name} | fields) + "\n")

    def _handshake(self, e: Exchange) -> None:
        self.event(
            "handshake",
            route=e.route_name,
            client=e.client,
            peer=e.peer or "unix:",
            method=e.method,
            path=e.path[:MAX_SHOWN].decode("latin-1"),
            status=e.status,
        )

    def flush(self) -> None:
        """Writes what is waiting."""
        if self._lines:
            text = "".join(self._lines)
            self._lines.clear()
            self._write(text)

    def _append(self, line: str) -> None:
        if not self._lines:
            self._loop.call_soon(self.flush)
        self._lines.append(line)

    def _time(self) -> str:
        now = self._now()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return "%s%03dZ" % (self._prefix, int(now * 1000) % 1000)

    def _json(self, e: Exchange, level: Level) -> str:
        # Put together by hand, with one template: json.dumps takes ten times as long for a line of this size, an f-string
        # three times. What came from outside is quoted by the encoder's own function; names and ids were checked to be plain
        # when the configuration was read.
        line = _LINE % (
            self._time(),
            level,
            self._process,
            e.number,
            e.route_name,
            e.outcome,
            e.reason or "",
            e.client,
            e.peer or "unix:",
            _quote(e.method),
            _quote(e.path[:MAX_SHOWN].decode("latin-1")),
            e.status,
            e.upstream_status,
            e.secret_id,
            e.request_bytes,
            e.answer_bytes,
            e.seconds * 1000,
        )
        if e.verify_seconds is not None:
            line += ',"verify_ms":%.3f' % (e.verify_seconds * 1000)
        if e.upstream_seconds is not None:
            line += ',"upstream_ms":%.2f' % (e.upstream_seconds * 1000)
        if e.age is not None:
            line += ',"signature_age_s":%.3f' % e.age
        if e.delivery_id:
            line += f',"delivery_id":{_quote(e.delivery_id[:MAX_SHOWN].decode("latin-1"))}'
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

    def _text(self, e: Exchange) -> str:
        path = _word(e.path)
        parts = [f"{self._time()} {e.outcome.upper():8} {e.route_name or '-'} {e.method or '-'} {path}"]
        parts.append(f"from {e.client or e.peer or 'unix:'} {e.status} {e.request_bytes}B {e.seconds * 1000:.1f}ms")
        if e.secret_id:
            parts.append(f"secret={e.secret_id}")
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


def _word(value: bytes) -> str:
    """What a sender wrote, as one word: a blank would begin the next field."""
    return _printable(value[:MAX_SHOWN].decode("latin-1")).replace(" ", "?")


def _printable(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)
