"""The straight line in one process: the sender is a fake transport, the receiver a script, the clock stands still."""

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_loop import FakeTransport

from sidecar.config.loader import load_config
from sidecar.config.settings import Config
from sidecar.delivery.body import Budget
from sidecar.delivery.proxy import Proxy
from sidecar.delivery.snapshot import CurrentSnapshot
from sidecar.diagnosis.diagnose import DIAGNOSABLE
from sidecar.diagnosis.effort import MAX_LIVE_BODY
from sidecar.diagnosis.live import MAX_PENDING, Hints
from sidecar.http1.admission import ConnectionCount, Deadlines, Listener
from sidecar.http1.connection import DataProtocol
from sidecar.replay.memory_store import MemoryStore
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import IN_FLIGHT, Metrics
from sidecar.telemetry.recent_rejections import RecentRejections

KEY = "the-api-key-of-begini"
OTHER = "another-key-altogether"
BODY = b'{"score":712}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def delivery(key: str = KEY, path: bytes = b"/hooks/begini") -> tuple[bytes, bytes]:
    """Head and body."""
    mac = hmac.new(key.encode(), BODY, hashlib.sha512).hexdigest().encode()
    fields = b"Host: a\r\nX-Signature: %b\r\nContent-Length: %d\r\n" % (mac, len(BODY))
    return b"POST %b HTTP/1.1\r\n%b\r\n" % (path, fields), BODY


class Line:
    """The proxy between a sender and a receiver. `respond` is what the receiver sends; None: nothing, ever."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self._file = tmp_path / "sidecar.yaml"
        self.loop = asyncio.new_event_loop()
        self.respond: bytes | None = OK
        self.seen: list[tuple[bytes, bytes]] = []
        self.log: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._connections: set[asyncio.Task[None]] = set()  # of the receiver
        self._receiver = self.loop.run_until_complete(asyncio.start_server(self._receive, "127.0.0.1", 0))
        self._port = self._receiver.sockets[0].getsockname()[1]
        config = self.config(**options)
        self.rejections = RecentRejections()
        self.metrics = Metrics()
        self.budget = Budget(10**9, self.metrics.gauges)
        self.current = CurrentSnapshot(config, self.loop)
        self.apply(config)
        self.proxy = Proxy(
            self.current,
            budget=self.budget,
            metrics=self.metrics,
            log=Log(config.log, self.loop, write=self._write),
            rejections=self.rejections,
            replays=MemoryStore(lambda: 0.0),
            now=lambda: 1_800_000_000.0,
            monotonic=lambda: 0.0,
        )

    def config(
        self,
        *,
        key: str = KEY,
        limits: dict[str, Any] | None = None,
        timeouts: dict[str, Any] | None = None,
        down: bool = False,
        **route: Any,
    ) -> Config:
        listed = {"path": "/hooks/begini", "name": "begini", "verify": "begini", "secrets": [{"env": "KEY"}]} | route
        settings = {
            "upstream": f"http://127.0.0.1:{1 if down else self._port}",
            "limits": limits or {},
            "timeouts": timeouts or {},
            "routes": [listed],
        }
        self._file.write_text(json.dumps(settings))
        return load_config(str(self._file), {"KEY": key})

    def apply(self, config: Config) -> None:
        self.current.apply(config)
        self.metrics.configure(config.routes.routes)

    def run(
        self, head: bytes, body: bytes, between: Callable[[], None] = lambda: None
    ) -> tuple[dict[str, Any], FakeTransport]:
        """Sends a delivery on a new connection, with `between` head and body; returns its log line and the connection."""
        deadlines = Deadlines(self.loop, head=10, body=10)
        tasks: set[Any] = set()
        protocol = DataProtocol(
            self.proxy,
            deadlines=deadlines,
            listener=Listener(deadlines, 9, ConnectionCount([0.0], 0)),
            connections=set(),
            tasks=tasks,
        )
        transport = FakeTransport(peername=("203.0.113.7", 4000))
        logged = len(self.log)

        async def send() -> None:
            protocol.connection_made(transport)
            protocol.data_received(head)
            await asyncio.sleep(0)
            between()
            if not transport.closed:
                protocol.data_received(body)
            async with asyncio.timeout(10):
                while tasks or len(self.log) == logged:  # noqa: ASYNC110 - the proxy has no event for it
                    await asyncio.sleep(0.001)
            protocol.connection_lost(None)

        self.loop.run_until_complete(send())
        assert len(self.log) == logged + 1, "a delivery has one record"
        return self.log[-1], transport

    def close(self) -> None:
        self.current.close()
        self._receiver.close()
        self.loop.run_until_complete(self._end_connections())
        self.loop.close()

    async def _end_connections(self) -> None:
        """The receiver closes each connection when it sees its end; what is still open with the loop's end is never closed."""
        while self._connections:
            await asyncio.wait(self._connections)
        await asyncio.sleep(0.01)  # for the proxy's own ends

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.seen.append((head, await reader.readexactly(len(BODY))))
                if self.respond is None:
                    await reader.read()
                writer.write(self.respond or b"")
                if self.respond is not OK:
                    break
        except asyncio.IncompleteReadError:
            pass  # the connection is not used again
        finally:
            writer.close()

    def _write(self, text: str) -> None:
        for line in map(json.loads, text.splitlines()):
            (self.log if line["event"] == "delivery" else self.events).append(line)


@pytest.fixture
def line(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Line]:
    line = Line(tmp_path, **getattr(request, "param", {}))
    yield line
    line.close()


def test_a_genuine_delivery_reaches_the_receiver_byte_for_byte(line: Line) -> None:
    logged, sender = line.run(*delivery())
    ((head, body),) = line.seen
    assert body == BODY
    assert b"X-Webhook-Verified: begini\r\nX-Webhook-Secret-Id: KEY\r\n" in head
    assert sender.sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sender.sent.endswith(b"\r\n\r\nok")
    assert (logged["outcome"], logged["secret"], logged["status"]) == ("accepted", "KEY", 200)
    assert (line.budget.held, line.metrics.gauges[IN_FLIGHT]) == (0, 0)


def test_a_forged_delivery_is_rejected_and_the_receiver_sees_nothing(line: Line) -> None:
    logged, sender = line.run(*delivery(OTHER))
    assert line.seen == []
    assert sender.sent.startswith(b"HTTP/1.1 403 ")
    assert sender.sent.endswith(b'{"detail":"Validation Failure"}')
    assert (logged["outcome"], logged["reason"]) == ("rejected", "signature_mismatch")
    assert not logged["secret"]
    assert [rejection.reason for rejection in line.rejections.since(0)] == ["signature_mismatch"]


def test_a_rejection_is_in_flight_and_its_body_held_until_it_has_been_diagnosed(line: Line) -> None:
    held = []
    gauges = line.metrics.gauges

    def note(*arguments: object, **options: object) -> None:
        held.append((line.budget.held, gauges[IN_FLIGHT]))

    line.proxy.recorder.hints = Hints(lambda: 0.0, diagnose=note)
    logged, _ = line.run(*delivery(OTHER))
    assert "hint" not in logged
    assert held == [(len(BODY), 1)]
    assert (line.budget.held, gauges[IN_FLIGHT]) == (0, 0)


def test_a_diagnosis_that_fails_costs_the_hint_alone(line: Line) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    line.proxy.recorder.hints = Hints(lambda: 0.0, diagnose=fail)
    logged, _ = line.run(*delivery(OTHER))
    assert (logged["reason"], "hint" in logged) == ("signature_mismatch", False)
    assert [event["where"].partition(", ")[0] for event in line.events] == ["ZeroDivisionError in fail"]
    assert line.budget.held == 0


def test_without_a_thread_for_its_diagnosis_a_rejection_only_lacks_the_hint(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(MAX_PENDING + 1):  # none of them keeps the next one from being diagnosed
        logged, _ = line.run(*delivery(OTHER))
        assert (logged["reason"], "hint" in logged) == ("signature_mismatch", False)
    assert [event["where"].partition(", ")[0] for event in line.events] == ["RuntimeError in refuse"] * (
        MAX_PENDING + 1
    )
    assert (line.budget.held, line.metrics.gauges[IN_FLIGHT]) == (0, 0)


@pytest.mark.parametrize(
    ("verify", "size", "on_loop"),
    [
        ("begini", 64 * 1024, True),
        ("begini", 1024 * 1024, True),
        ("begini", 1024 * 1024 + 1, False),
        ("mailgun", 64 * 1024, True),
        ("mailgun", 64 * 1024 + 1, False),
        ("twilio", 64 * 1024, True),
        ("twilio", 64 * 1024 + 1, False),
    ],
)
def test_what_takes_long_to_verify_is_verified_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: str, size: int, on_loop: bool
) -> None:
    line = Line(tmp_path, verify=verify, public_url="https://a.test")
    threads = []
    run_in_executor = line.loop.run_in_executor

    def note(executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        threads.append(function)
        return run_in_executor(executor, function, *arguments)

    line.proxy.recorder.hints = Hints(lambda: 0.0, diagnose=lambda *arguments, **options: None)
    monkeypatch.setattr(line.loop, "run_in_executor", note)
    fields = b"Host: a\r\nX-Signature: %b\r\nX-Twilio-Signature: %b=\r\nContent-Length: %d\r\n"
    head = b"POST /hooks/begini HTTP/1.1\r\n%b\r\n" % (fields % (b"0" * 128, b"A" * 27, size))
    try:
        logged, _ = line.run(head, b"x" * size)
    finally:
        line.close()
    assert logged["outcome"] == "rejected"
    diagnosed = size <= MAX_LIVE_BODY and logged["reason"] in DIAGNOSABLE
    assert len(threads) == diagnosed + (not on_loop)


@pytest.mark.parametrize("line", [{"mode": "shadow"}], indirect=True)
def test_in_shadow_mode_it_is_forwarded_and_marked(line: Line) -> None:
    logged, _ = line.run(*delivery(OTHER))
    assert b"X-Webhook-Verified: shadow-rejected\r\n" in line.seen[0][0]
    assert (logged["outcome"], logged["shadow_reason"]) == ("accepted", "signature_mismatch")


@pytest.mark.parametrize("line", [{"replay": "10m"}], indirect=True)
def test_a_copy_is_a_duplicate(line: Line) -> None:
    line.run(*delivery())
    logged, sender = line.run(*delivery())
    assert len(line.seen) == 1
    assert sender.sent.startswith(b"HTTP/1.1 200 ")
    assert sender.sent.endswith(b'{"detail":"Already delivered"}')
    assert (logged["outcome"], logged["reason"]) == ("duplicate", "replayed")


@pytest.mark.parametrize("line", [{"replay": "10m"}], indirect=True)
def test_after_a_failure_at_the_receiver_a_copy_is_forwarded_again(line: Line) -> None:
    line.respond = b""  # it closes
    assert line.run(*delivery())[0]["outcome"] == "failed"
    line.respond = OK
    assert line.run(*delivery())[0]["outcome"] == "accepted"
    assert len(line.seen) == 2


def test_a_delivery_is_judged_to_its_end_by_the_configuration_that_it_began_with(line: Line) -> None:
    """A reload in the middle of the body brings another secret: the next delivery needs it, this one doesn't."""
    logged, _ = line.run(*delivery(), between=lambda: line.apply(line.config(key=OTHER)))
    assert logged["outcome"] == "accepted"
    assert line.run(*delivery())[0]["reason"] == "signature_mismatch"
    assert line.run(*delivery(OTHER))[0]["outcome"] == "accepted"


@pytest.mark.parametrize("line", [{"limits": {"refusals": "1/m"}}], indirect=True)
def test_a_rejection_counts_against_its_sender_in_the_configuration_that_it_began_with(line: Line) -> None:
    def reload() -> None:
        line.apply(line.config(limits={"refusals": "1/m"}))

    assert line.run(*delivery(OTHER), between=reload)[0]["reason"] == "signature_mismatch"
    assert line.run(*delivery())[0]["outcome"] == "accepted"  # the reload started the count again
    assert line.run(*delivery(OTHER))[0]["reason"] == "signature_mismatch"
    assert line.run(*delivery())[0]["reason"] == "rate_limited"


@pytest.mark.parametrize(
    ("respond", "status", "reason"),
    [(None, 504, "upstream_timeout"), (b"", 502, "upstream_broke"), (b"no HTTP\r\n\r\n", 502, "upstream_broke")],
)
def test_whatever_the_receiver_does_the_sender_gets_a_response(
    line: Line, respond: bytes | None, status: int, reason: str
) -> None:
    line.respond = respond
    if respond is None:
        line.apply(line.config(timeouts={"response": "100ms"}))
    logged, sender = line.run(*delivery())
    assert sender.sent.startswith(b"HTTP/1.1 %d " % status)
    assert (logged["outcome"], logged["reason"], logged["status"]) == ("failed", reason, status)
    assert line.metrics.gauges[IN_FLIGHT] == 0


@pytest.mark.parametrize("line", [{"down": True}], indirect=True)
def test_a_receiver_that_is_down_is_unreachable(line: Line) -> None:
    logged, sender = line.run(*delivery())
    assert sender.sent.startswith(b"HTTP/1.1 502 ")
    assert (logged["outcome"], logged["reason"]) == ("failed", "upstream_unreachable")


def test_what_breaks_after_the_response_began_closes_the_connection(line: Line) -> None:
    line.respond = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut"
    logged, sender = line.run(*delivery())
    assert sender.aborted
    assert (logged["outcome"], logged["reason"], logged["status"]) == ("failed", "upstream_broke", 200)


def test_a_request_that_the_listener_found_wrong_gets_no_further(line: Line) -> None:
    head, body = delivery()
    logged, sender = line.run(head.replace(b"Host: a\r\n", b"Host: a\r\nHost: b\r\n"), body)
    assert sender.sent.startswith(b"HTTP/1.1 400 ")
    assert (logged["reason"], line.seen) == ("malformed_request", [])


def test_a_path_without_a_route_gets_no_further(line: Line) -> None:
    logged, sender = line.run(*delivery(path=b"/hooks/other"))
    assert sender.sent.startswith(b"HTTP/1.1 404 ")
    assert (logged["reason"], line.seen) == ("no_route", [])


def test_when_the_program_ends_new_requests_are_sent_away(line: Line) -> None:
    line.proxy.draining = True
    logged, sender = line.run(*delivery())
    assert sender.sent.startswith(b"HTTP/1.1 503 ")
    assert (logged["reason"], line.seen) == ("draining", [])
