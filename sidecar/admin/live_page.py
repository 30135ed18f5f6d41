"""Keeps the parts of the status page up to date, and wakes the event streams when some have changed.

Parts are drawn for each page load, and every second while there are listeners, once for all of them; otherwise nothing runs.
They are drawn in slices, so that no delivery has to wait for many routes. A changed part gets a new version, and each listener
is sent the parts newer than its own version. Versions come from the clock, so that a page from before a restart is renewed.
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
from sidecar.telemetry.keys_view import KeysView
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.metrics import BUFFERED, CONNECTIONS, IN_FLIGHT
from sidecar.telemetry.rates import Rates
from sidecar.telemetry.recent_rejections import RecentRejection
from sidecar.telemetry.totals import Totals

#: Seconds between two updates while there are listeners.
TICK = 1.0
#: Routes drawn in one turn of the event loop; each takes about 0.05 ms.
DRAWN_PER_TURN = 4
#: Event streams at a time.
MAX_LISTENERS = 16
#: A stream without events sends a comment after this many seconds, because proxies close idle ones.
SILENCE = 15.0


class ProgramView(Protocol):
    """The parts of the program that the page shows."""

    @property
    def config(self) -> Config: ...
    @property
    def totals(self) -> Totals: ...
    @property
    def loaded_at(self) -> float:
        """Unix time when the configuration was loaded."""
        ...

    @property
    def reload_error(self) -> ConfigError | None: ...
    @property
    def workers(self) -> int:
        """How many processes accept deliveries."""
        ...

    @property
    def serving(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    @property
    def log(self) -> Log: ...
    @property
    def published_keys(self) -> Sequence[KeysView]:
        """The documents of keys that providers publish."""
        ...

    async def recent_rejections(self) -> Sequence[RecentRejection]: ...


class LivePage:
    """`parts` are the page's parts as last drawn; `version` is the newest version among them."""

    def __init__(self, program: ProgramView, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.parts: dict[str, Markup] = {}
        self.version = 0
        self.rates = Rates(program.totals, monotonic)
        self.listeners = 0
        self.closed = False
        self._program = program
        self._versions: dict[str, int] = {}
        self._routes_version = 0  # when the list of routes last changed
        self._drawn_config: Config | None = None
        self._drawing = asyncio.Lock()
        self._ticking: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def draw(self) -> None:
        """Updates `parts`."""
        async with self._drawing:
            config = self._program.config
            drawn = await self._draw(config)
            version = max(self.version + 1, int(time.time() * 1000))
            changed = {name for name, part in drawn.items() if self.parts.get(name) != part}
            if config is not self._drawn_config:
                self._drawn_config, self._routes_version = config, version
                changed.add("routes")
            self._versions = {name: version if name in changed else self._versions[name] for name in drawn}
            self.parts = drawn
            if changed:
                self.version = version
                self._news.set()
                self._news = asyncio.Event()

    def newer(self, version: int) -> dict[str, Markup]:
        """The parts that changed after a version, which a page of that version must replace."""
        newer = {name: self.parts[name] for name, of in self._versions.items() if of > version}
        if version < self._routes_version:  # their number or order may have changed
            newer = {name: part for name, part in newer.items() if not name.startswith("route-")}
            newer["routes"] = status_page.draw_routes(self.parts)
        return newer

    def close(self) -> None:
        """Ends all streams, and accepts no new ones."""
        self.closed = True
        self._news.set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[bool]:
        """Occupies one of the listeners' places; yields false if none is free."""
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
        """Waits for a newer version or the end of the streams, at most `SILENCE` seconds."""
        if self.version <= version and not self.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SILENCE):
                    await self._news.wait()

    async def _tick(self) -> None:
        while True:
            try:
                await self.draw()
            except Exception as bug:  # keep updating all the same
                self._program.log.event("status_page_failed", Level.ERROR, what=type(bug).__name__)
            await asyncio.sleep(TICK)

    async def _draw(self, config: Config) -> dict[str, Markup]:
        program, totals = self._program, self._program.totals
        error = program.reload_error
        rejections = await program.recent_rejections()
        gauges = totals.gauges()
        state = status_page.State(
            serving=program.serving,
            draining=program.draining,
            workers=program.workers,
            in_flight=int(gauges[IN_FLIGHT]),
            buffered=int(gauges[BUFFERED]),
            connections=int(gauges[CONNECTIONS]),
            loaded=program.loaded_at,
        )
        parts = {
            "state": status_page.draw_state(config, state),
            "problems": status_page.draw_problems(
                error.problems if error is not None else (), config.warnings, program.loaded_at
            ),
            "refusals": status_page.draw_rejections(rejections),
            "keys": status_page.draw_keys(program.published_keys),
            "accounts": status_page.draw_accounts(config),
        }
        for number, route in enumerate(config.routes.routes):
            counts = totals.route(route.name)
            rates = self.rates.per_minute(route.name, counts.block)
            parts[f"route-{number}"] = status_page.draw_route(route, counts.block, rates, counts.secrets)
            if number % DRAWN_PER_TURN == DRAWN_PER_TURN - 1:
                await asyncio.sleep(0)
        counts = totals.route("")
        parts["route-none"] = status_page.draw_no_route(counts.block, self.rates.per_minute("", counts.block))
        return parts
