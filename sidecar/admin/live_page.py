"""The status page's parts as they are now, and the event streams that tell browsers which of them changed.

Parts are drawn for each page, and every second while anybody listens, once for all of them; otherwise nothing runs. They are
drawn in slices, so that no delivery waits for many routes. A part that differs from before gets a new version, and a
listener is sent what is newer than what it has. Versions go by the clock, so that a page from before a restart is renewed.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from sidecar.admin import status_page
from sidecar.admin.markup import Markup
from sidecar.config.problems import ConfigError
from sidecar.config.settings import Config
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.metrics import BUFFERED, CONNECTIONS, IN_FLIGHT
from sidecar.telemetry.prometheus import Exposition
from sidecar.telemetry.rates import Rates
from sidecar.telemetry.recent_rejections import RecentRejection

#: Seconds between two looks while somebody listens.
TICK = 1.0
#: Routes drawn in one turn of the event loop; each takes some 0.05 ms.
SLICE = 4
#: Streams at a time; and seconds in which a listener must take what it is sent, else its place is somebody else's.
MAX_LISTENERS = 16
#: A stream that says nothing for so long says that it is there: proxies close silent ones. Seconds.
SILENCE = 15.0


class ProgramView(Protocol):
    """What the page shows."""

    @property
    def config(self) -> Config: ...
    @property
    def exposition(self) -> Exposition: ...
    @property
    def reload_error(self) -> ConfigError | None: ...
    @property
    def serving(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    @property
    def log(self) -> Log: ...
    async def refusals(self) -> Sequence[RecentRejection]: ...


class LivePage:
    """`parts` are the page's, as they were last drawn; `version` is the newest of theirs."""

    def __init__(self, shown: ProgramView, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.parts: dict[str, Markup] = {}
        self.version = 0
        self.rates = Rates(shown.exposition.parts, monotonic)
        self.listeners = 0
        self.closed = False
        self._shown = shown
        self._versions: dict[str, int] = {}
        self._routes_version = 0  # when other routes took the place of those that were
        self._drawn_of: Config | None = None
        self._drawing = asyncio.Lock()
        self._ticking: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def draw(self) -> None:
        """Brings `parts` up to date."""
        async with self._drawing:
            config = self._shown.config
            drawn = await self._draw(config)
            version = max(self.version + 1, int(time.time() * 1000))
            changed = {name for name, part in drawn.items() if self.parts.get(name) != part}
            if config is not self._drawn_of:
                self._drawn_of, self._routes_version = config, version
                changed.add("routes")
            self._versions = {name: version if name in changed else self._versions[name] for name in drawn}
            self.parts = drawn
            if changed:
                self.version = version
                self._news.set()
                self._news = asyncio.Event()

    def newer(self, version: int) -> dict[str, Markup]:
        """The parts that changed after a version: those that a page of that version must replace."""
        newer = {name: self.parts[name] for name, of in self._versions.items() if of > version}
        if version < self._routes_version:  # their number or order may differ
            newer = {name: part for name, part in newer.items() if not name.startswith("route-")}
            newer["routes"] = status_page.routes(self.parts)
        return newer

    def close(self) -> None:
        """Ends all streams, and lets no new one begin."""
        self.closed = True
        self._news.set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[bool]:
        """A listener's place; false if there is none left."""
        if self.closed or self.listeners >= MAX_LISTENERS:
            yield False
            return
        self.listeners += 1
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())
        try:
            yield True
        finally:
            self.listeners -= 1
            if not self.listeners and self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None

    async def news(self, version: int) -> None:
        """Waits until there is something newer, but not for long, or the streams end."""
        if self.version <= version and not self.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SILENCE):
                    await self._news.wait()

    async def _tick(self) -> None:
        while True:
            try:
                await self.draw()
            except Exception as bug:  # no reason to look no more
                self._shown.log.event("status_page_failed", Level.ERROR, what=type(bug).__name__)
            await asyncio.sleep(TICK)

    async def _draw(self, config: Config) -> dict[str, Markup]:
        shown, exposition = self._shown, self._shown.exposition
        error = shown.reload_error
        last = await shown.refusals()
        gauges = exposition.gauges()
        state = status_page.State(
            serving=shown.serving,
            draining=shown.draining,
            workers=exposition.workers()[0],
            in_flight=int(gauges[IN_FLIGHT]),
            buffered=int(gauges[BUFFERED]),
            connections=int(gauges[CONNECTIONS]),
            loaded=exposition.reload_success_time,
        )
        parts = {
            "state": status_page.state(config, state),
            "problems": status_page.problems(
                error.problems if error is not None else (), config.warnings, exposition.reload_success_time
            ),
            "refusals": status_page.refusals(last),
            "accounts": status_page.accounts(config),
        }
        for number, route in enumerate(config.routes.routes):
            counts = exposition.sum_of(route.name)
            rates = self.rates.per_minute(route.name, counts.block)
            parts[f"route-{number}"] = status_page.route(route, counts.block, rates, counts.secrets)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        counts = exposition.sum_of("")
        parts["route-none"] = status_page.no_route(counts.block, self.rates.per_minute("", counts.block))
        return parts
