"""The status page's event streams: who listens, for how long, and what they are sent."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.admin import events, live_page
from sidecar.admin.events import Events
from sidecar.admin.live_page import LivePage
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.config.settings import Config
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import ACCEPTED_AT, Metrics
from sidecar.telemetry.recent_rejections import RecentRejection
from sidecar.telemetry.totals import Totals

Message = MutableMapping[str, Any]


class Program:
    """As much of a program as a page shows; nothing listens."""

    serving = True
    draining = False
    workers = 1
    loaded_at = 0.0
    reload_error: ConfigError | None = None
    published_keys = ()

    def __init__(self, config: Config) -> None:
        self.config = config
        self.metrics = Metrics()
        self.metrics.configure(config.routes.routes)
        self.totals = Totals([self.metrics])
        self.written: list[str] = []

    @property
    def log(self) -> Log:
        return Log(self.config.log, asyncio.get_running_loop(), self.written.append)

    async def recent_rejections(self) -> Sequence[RecentRejection]:
        return []


@pytest.fixture
def program(tmp_path: Path) -> Program:
    file = tmp_path / "sidecar.yaml"
    routes = "".join(f"  - {{path: /{name}, verify: github, secrets: [{{env: KEY}}]}}\n" for name in "abcdef")
    file.write_text("upstream: http://127.0.0.1:3000\nroutes:\n" + routes)
    return Program(load_config(str(file), {"KEY": "k" * 32}))


async def stays() -> Message:
    """A listener that never leaves."""
    await asyncio.Event().wait()
    raise AssertionError


async def stream(
    live: LivePage, send: Callable[[Message], Awaitable[None]], receive: Callable[[], Awaitable[Message]] = stays
) -> None:
    await Events(live, 0)({"type": "http"}, receive, send)


def test_a_listener_that_takes_nothing_loses_its_place(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SEND_SECONDS", 0.05)

    async def takes_the_head_only(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def run() -> int:
        live = LivePage(program)
        await asyncio.wait_for(stream(live, takes_the_head_only), 5)
        return live.listeners

    assert asyncio.run(run()) == 0


def test_nothing_runs_when_the_last_listener_has_left(program: Program) -> None:
    async def run() -> tuple[int, int]:
        live = LivePage(program)
        sent: list[Message] = []
        began, left = asyncio.Event(), asyncio.Event()

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) == 2:
                began.set()

        async def receive() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        listening = asyncio.create_task(stream(live, send, receive))
        await began.wait()
        left.set()
        await listening
        await asyncio.sleep(0)
        return live.listeners, len(asyncio.all_tasks())

    assert asyncio.run(run()) == (0, 1)  # this one


def test_a_stream_without_news_says_that_it_is_there(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_page, "SILENCE", 0.01)

    async def run() -> list[bytes]:
        live = LivePage(program)
        await live.draw()
        sent: list[bytes] = []

        async def send(message: Message) -> None:
            sent.append(message.get("body", b""))
            if len(sent) == 5:
                live.close()

        await asyncio.wait_for(stream(live, send), 5)
        return sent

    head, first, *rest, end = asyncio.run(run())
    assert (head, end) == (b"", b"")
    assert set(json.loads(first.partition(b"data: ")[2])) == {
        "state",
        "problems",
        "routes",
        "refusals",
        "keys",
        "accounts",
    }
    assert set(rest) == {b":\n\n"}


def test_only_what_differs_is_newer(program: Program) -> None:
    async def run() -> tuple[set[str], set[str], set[str]]:
        live = LivePage(program)
        await live.draw()
        version = live.version
        await live.draw()
        nothing = set(live.newer(version))
        program.metrics.routes["c"].block[ACCEPTED_AT] += 1
        await live.draw()
        one = set(live.newer(version))
        program.config = load_config(program.config.file, {"KEY": "l" * 32})  # the same to look at
        await live.draw()
        return nothing, one, set(live.newer(version))

    assert asyncio.run(run()) == (set(), {"route-2"}, {"routes"})


def test_a_bug_while_drawing_is_logged_and_the_next_look_is_taken(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_page, "TICK", 0.01)

    class Broken(Program):
        asked = 0

        async def recent_rejections(self) -> Sequence[RecentRejection]:
            self.asked += 1
            if self.asked == 1:
                raise ZeroDivisionError
            return []

    broken = Broken(program.config)

    async def run() -> None:
        live = LivePage(broken)

        async def send(message: Message) -> None:
            if message.get("body"):
                live.close()

        await asyncio.wait_for(stream(live, send), 5)

    asyncio.run(run())
    (line,) = broken.written
    assert json.loads(line)["event"] == "status_page_failed"
    assert json.loads(line)["what"] == "ZeroDivisionError"
