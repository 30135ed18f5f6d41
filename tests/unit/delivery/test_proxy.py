"""The straight line, with a fake sender and a fake receiver: no sockets, no clock."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.loader import load_config
from sidecar.config.settings import Config
from sidecar.delivery.body import Budget
from sidecar.delivery.proxy import Proxy
from sidecar.delivery.snapshot import CurrentSnapshot
from sidecar.http1.head import make_head
from sidecar.outcomes import Aborted, Reason, Rejected
from sidecar.replay.memory_store import MemoryStore
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import GAUGES_SIZE, IN_FLIGHT, Metrics
from sidecar.telemetry.recent_rejections import RecentRejections

KEY = "the-api-key-of-begini"
OTHER = "another-key-altogether"
BODY = b'{"score":712}'


class FakeIncoming:
    """A request whose body comes when the test says so."""

    def __init__(self, *, body: bytes = BODY, key: str = KEY, path: bytes = b"/hooks/begini") -> None:
        mac = hmac.new(key.encode(), body, hashlib.sha512).hexdigest().encode()
        headers = [(b"Host", b"a"), (b"X-Signature", mac), (b"Content-Length", b"%d" % len(body))]
        self.head = make_head("POST", path, headers, "203.0.113.7")
        self.fault: Rejected | None = None
        self.disconnected = False
        self.response_started = False
        self.status = 0
        self.sent = b""
        self.aborted = False
        self.on_body: Callable[[], None] = lambda: None
        self._body = body

    def take(self) -> tuple[bytes, bool]:
        self.on_body()
        return self._body, False

    async def news(self) -> None:
        raise AssertionError("the body is whole")

    def start(self, status: int, lines: bytes, *, sized: bool, hold: bool) -> None:
        self.response_started, self.status = True, status

    def write(self, body: bytes, *, more: bool) -> None:
        self.sent += body

    async def writable(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


class FakeConnection:
    status, lines, has_length, complete = 200, b"", True, True
    has_piece = True

    def take(self) -> tuple[bytes, bool]:
        return b"ok", False


class FakeUpstream:
    """A receiver that keeps what it gets, and fails if it is told to."""

    longest = 60.0
    timeouts = None

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bytes]] = []
        self.fails: Exception | None = None

    async def send(self, head: bytes, pieces: list[bytes], size: int, *, no_body: bool) -> FakeConnection:
        if self.fails is not None:
            raise self.fails
        self.seen.append((head, b"".join(pieces)))
        return FakeConnection()

    def finish(self, connection: FakeConnection) -> None: ...

    def close(self) -> None: ...


class Line:
    """The proxy with everything around it replaced."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self._file = tmp_path / "sidecar.yaml"
        self._loop = asyncio.new_event_loop()
        self.upstream = FakeUpstream()
        self.log: list[dict[str, Any]] = []
        self.rejections = RecentRejections()
        self.metrics = Metrics()
        self.budget = Budget(10**9, [0.0] * GAUGES_SIZE)
        config = self.config(**options)
        self.current = CurrentSnapshot(config, self._loop)
        self.apply(config)
        self.proxy = Proxy(
            self.current,
            budget=self.budget,
            metrics=self.metrics,
            log=Log(config.log, self._loop, write=self._write),
            rejections=self.rejections,
            replays=MemoryStore(lambda: 0.0),
            now=lambda: 1_800_000_000.0,
            monotonic=lambda: 0.0,
        )

    def _write(self, text: str) -> None:
        self.log += [json.loads(line) for line in text.splitlines()]

    def config(self, *, key: str = KEY, limits: dict[str, Any] | None = None, **route: Any) -> Config:
        listed = {"path": "/hooks/begini", "name": "begini", "verify": "begini", "secrets": [{"env": "KEY"}]} | route
        text = {"upstream": "http://127.0.0.1:3000", "routes": [listed]} | ({"limits": limits} if limits else {})
        self._file.write_text(json.dumps(text))
        return load_config(str(self._file), {"KEY": key})

    def apply(self, config: Config) -> None:
        self.current.apply(config)
        self.current.snapshot.upstreams = dict.fromkeys(self.current.snapshot.upstreams, self.upstream)  # type: ignore[arg-type]
        self.metrics.configure(config.routes.routes)

    def run(self, incoming: FakeIncoming) -> dict[str, Any]:
        """Takes one request to its end; returns its log line."""

        async def deliver() -> None:
            await self.proxy(incoming)  # type: ignore[arg-type]
            await asyncio.sleep(0)  # a diagnosis runs in the loop's next turn, and so does the log
            await asyncio.sleep(0)

        self._loop.run_until_complete(deliver())
        return self.log[-1]

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def line(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    made = Line(tmp_path, **getattr(request, "param", {}))
    yield made
    made.close()


def test_a_genuine_delivery_reaches_the_receiver_byte_for_byte(line: Line) -> None:
    incoming = FakeIncoming()
    logged = line.run(incoming)
    (head, body), *more = line.upstream.seen
    assert (body, more) == (BODY, [])
    assert b"X-Webhook-Verified: begini\r\nX-Webhook-Secret-Id: KEY\r\n" in head
    assert (incoming.status, incoming.sent) == (200, b"ok")
    assert (logged["outcome"], logged["secret"], logged["status"]) == ("accepted", "KEY", 200)
    assert (line.budget.held, line.metrics.gauges[IN_FLIGHT]) == (0, 0)


def test_a_forged_delivery_is_rejected_and_the_receiver_sees_nothing(line: Line) -> None:
    incoming = FakeIncoming(key=OTHER)
    logged = line.run(incoming)
    assert line.upstream.seen == []
    assert (incoming.status, incoming.sent) == (403, b'{"detail":"Validation Failure"}')
    assert (logged["outcome"], logged["reason"]) == ("rejected", "signature_mismatch")
    assert not logged["secret"]
    assert [rejection.reason for rejection in line.rejections.since(0)] == ["signature_mismatch"]


@pytest.mark.parametrize("line", [{"mode": "shadow"}], indirect=True)
def test_in_shadow_mode_it_is_forwarded_and_marked(line: Line) -> None:
    logged = line.run(FakeIncoming(key=OTHER))
    assert b"X-Webhook-Verified: shadow-rejected\r\n" in line.upstream.seen[0][0]
    assert (logged["outcome"], logged["shadow_reason"]) == ("accepted", "signature_mismatch")


@pytest.mark.parametrize("line", [{"replay": "10m"}], indirect=True)
def test_a_copy_is_a_duplicate(line: Line) -> None:
    line.run(FakeIncoming())
    incoming = FakeIncoming()
    logged = line.run(incoming)
    assert len(line.upstream.seen) == 1
    assert (incoming.status, incoming.sent) == (200, b'{"detail":"Already delivered"}')
    assert (logged["outcome"], logged["reason"]) == ("duplicate", "replayed")


@pytest.mark.parametrize("line", [{"replay": "10m"}], indirect=True)
def test_after_a_failure_at_the_receiver_a_copy_is_forwarded_again(line: Line) -> None:
    line.upstream.fails = Rejected(Reason.UPSTREAM_UNREACHABLE, "refused")
    incoming = FakeIncoming()
    assert line.run(incoming)["outcome"] == "failed"
    assert incoming.status == 502
    line.upstream.fails = None
    assert line.run(FakeIncoming())["outcome"] == "accepted"


def test_a_delivery_is_judged_to_its_end_by_the_configuration_that_it_began_with(line: Line) -> None:
    """A reload in the middle of the body brings another secret: the next delivery needs it, this one doesn't."""
    incoming = FakeIncoming()
    incoming.on_body = lambda: line.apply(line.config(key=OTHER))
    assert line.run(incoming)["outcome"] == "accepted"
    assert line.run(FakeIncoming())["reason"] == "signature_mismatch"
    assert line.run(FakeIncoming(key=OTHER))["outcome"] == "accepted"


@pytest.mark.parametrize("line", [{"limits": {"refusals": "1/m"}}], indirect=True)
def test_a_rejection_counts_against_its_sender_in_the_configuration_that_it_began_with(line: Line) -> None:
    incoming = FakeIncoming(key=OTHER)
    incoming.on_body = lambda: line.apply(line.config(limits={"refusals": "1/m"}))
    assert line.run(incoming)["reason"] == "signature_mismatch"
    assert line.run(FakeIncoming())["outcome"] == "accepted"  # the reload began counting again
    assert line.run(FakeIncoming(key=OTHER))["reason"] == "signature_mismatch"
    assert line.run(FakeIncoming())["reason"] == "rate_limited"


@pytest.mark.parametrize(
    ("end", "status", "outcome", "reason"),
    [
        (RuntimeError("a bug that quotes the sender"), 500, "failed", "internal_error"),
        (Rejected(Reason.UPSTREAM_TIMEOUT, "late"), 504, "failed", "upstream_timeout"),
    ],
)
def test_whatever_the_receiver_does_the_delivery_is_recorded_once(
    line: Line, end: Exception, status: int, outcome: str, reason: str
) -> None:
    line.upstream.fails = end
    incoming = FakeIncoming()
    logged = line.run(incoming)
    assert (incoming.status, logged["outcome"], logged["reason"]) == (status, outcome, reason)
    assert "quotes" not in json.dumps(logged)
    assert len(line.log) == 1
    assert line.metrics.gauges[IN_FLIGHT] == 0


def test_what_breaks_after_the_response_began_closes_the_connection(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: FakeConnection) -> tuple[bytes, bool]:
        raise Aborted(Reason.UPSTREAM_BROKE, "cut")

    monkeypatch.setattr(FakeConnection, "take", breaks)
    incoming = FakeIncoming()
    logged = line.run(incoming)
    assert incoming.aborted
    assert (logged["outcome"], logged["reason"], logged["status"]) == ("failed", "upstream_broke", 200)


def test_a_request_that_the_listener_found_wrong_gets_no_further(line: Line) -> None:
    incoming = FakeIncoming()
    incoming.fault = Rejected(Reason.MALFORMED_REQUEST, "two Host fields")
    incoming.on_body = lambda: pytest.fail("its body was read")
    assert line.run(incoming)["reason"] == "malformed_request"
    assert (incoming.status, line.upstream.seen) == (400, [])


def test_when_the_program_ends_new_requests_are_sent_away(line: Line) -> None:
    line.proxy.draining = True
    incoming = FakeIncoming()
    assert line.run(incoming)["reason"] == "draining"
    assert (incoming.status, line.upstream.seen) == (503, [])
