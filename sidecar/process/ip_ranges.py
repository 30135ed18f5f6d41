"""Keeps the networks that providers publish up to date, and keeps the last good list of each.

Lists come only from the https URLs that the package or the configuration names. Redirects are not followed, and a response
is limited in size and time. If a list can't be fetched or read, only the counts and the log change.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sidecar.config.ranges import RangesError, load_ranges
from sidecar.config.settings import RangesSettings
from sidecar.process.reload import Reloader
from sidecar.routing.networks import Networks
from sidecar.secret import mask_url
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.prometheus import family

if TYPE_CHECKING:
    import httpx

#: How often to check whether a list is due.
CHECK_SECONDS = 5.0
#: Bytes. GitHub's list with all its services is about 300 KB.
MAX_LIST_BYTES = 4 * 1024 * 1024
FETCH_SECONDS = 30.0
#: Seconds for which a server may send nothing.
SILENCE_SECONDS = 10.0
#: A list that could not be fetched is fetched again after this many seconds, or after `refresh` if that is less.
RETRY_SECONDS = 300.0


class PublishedRanges:
    """The lists that were fetched, by preset. For all others the list shipped with the package is used."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.networks: dict[str, Networks] = {}
        self.failures: dict[str, int] = {}  #: since the start
        self._now = now
        self._fetched: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def age(self, name: str) -> float:
        """Seconds since the list in use was published or fetched."""
        return self._now() - self._fetched.get(name, load_ranges(name).date)

    def due(self, names: Iterable[str]) -> list[str]:
        """The presets whose list should be fetched now."""
        return [name for name in names if self._due.get(name, 0.0) <= self._now()]

    def in_use(self, ranges: Mapping[str, Networks]) -> bool:
        """Whether a configuration uses the lists that were fetched."""
        return all(self.networks.get(name, networks) is networks for name, networks in ranges.items())

    def state(self, names: Iterable[str]) -> list[tuple[str, float, int]]:
        """For each preset its name, the age of its list in seconds, and how often fetching it has failed."""
        return [(name, self.age(name), self.failures.get(name, 0)) for name in names]

    async def fetch(self, name: str, mirror: str | None, refresh: float) -> bool:
        """Fetches a preset's list; returns whether it differs from the one in use. Raises `RangesError`."""
        ranges = load_ranges(name)
        self._due[name] = self._now() + min(refresh, RETRY_SECONDS)
        try:
            networks = await _in_thread(lambda: ranges.read(_get_all((mirror,) if mirror else ranges.sources)))
        except RangesError:
            self.failures[name] = self.failures.get(name, 0) + 1
            raise
        self._fetched[name] = self._now()
        self._due[name] = self._now() + refresh
        known = self.networks.get(name, ranges.networks)
        if set(networks.cidrs) == set(known.cidrs):
            return False
        self.networks[name] = networks
        return True


class RangesRefresher(Collector):
    """Fetches the lists that the configuration uses and wants kept current, and applies those that changed."""

    def __init__(self, ranges: PublishedRanges, reloader: Reloader, log: Log) -> None:
        self._ranges = ranges
        self._reloader = reloader
        self._log = log

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                await self._refresh(self._reloader.config.ip_ranges)
            except Exception as bug:  # keep trying
                self._log.event("ip_ranges_failed", Level.ERROR, what=type(bug).__name__)
            await asyncio.sleep(CHECK_SECONDS)

    def collect(self) -> Iterator[Metric]:
        """The metrics of the lists that the configuration uses."""
        lists = self._ranges.state(self._reloader.config.ranges)
        yield family("webhook_sidecar_ip_ranges_age_seconds", [((preset,), age) for preset, age, _ in lists])
        failures = [((preset,), failed) for preset, _, failed in lists]
        yield family("webhook_sidecar_ip_ranges_fetch_failures_total", failures)

    async def _refresh(self, settings: RangesSettings) -> None:
        due = self._ranges.due(self._reloader.config.ranges) if settings.refresh is not None else []
        fetched = {name: changed for name in due if (changed := await self._fetch(name, settings)) is not None}
        if not self._ranges.in_use(self._reloader.config.ranges):
            await self._reloader.use_fetched_networks()
        in_use = self._reloader.config.ranges
        for name in fetched.keys() & in_use.keys():
            networks = len(in_use[name].cidrs)
            self._log.event("ip_ranges_fetched", preset=name, networks=networks, changed=fetched[name])

    async def _fetch(self, name: str, settings: RangesSettings) -> bool | None:
        """Whether a list has changed; None if it could not be fetched."""
        assert settings.refresh is not None
        try:
            return await self._ranges.fetch(name, settings.sources.get(name), settings.refresh)
        except RangesError as error:
            detail, kept = str(error), "the last good list"
            self._log.event("ip_ranges_failed", Level.WARNING, preset=name, detail=detail, kept=kept)
            return None


def _get_all(urls: Sequence[str]) -> list[bytes]:
    """The bodies of the responses, each with status 200. Raises `RangesError`."""
    import httpx  # noqa: PLC0415 - saves memory where nothing is fetched

    bodies = []
    with httpx.Client(follow_redirects=False, timeout=SILENCE_SECONDS) as client:
        for url in urls:
            try:
                bodies.append(_get(client, url))
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                raise RangesError(f"{mask_url(url)} can't be fetched ({type(error).__name__})") from None
    return bodies


def _get(client: "httpx.Client", url: str) -> bytes:
    deadline = time.monotonic() + FETCH_SECONDS
    headers = {"accept-encoding": "identity", "user-agent": "webhook-sidecar"}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code != 200:
            raise RangesError(f"{mask_url(url)} responded with status {response.status_code}")
        body = b""
        for piece in response.iter_raw():
            body += piece
            if len(body) > MAX_LIST_BYTES:
                raise RangesError(f"{mask_url(url)} sent more than {MAX_LIST_BYTES} bytes")
            if time.monotonic() > deadline:
                raise RangesError(f"{mask_url(url)} took longer than {FETCH_SECONDS:g} s")
    return body


async def _in_thread(work: Callable[[], Networks]) -> Networks:
    """Runs `work` in a thread that does not delay the end of the program."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Networks] = loop.create_future()

    def settle(result: Networks | None, error: Exception | None) -> None:
        if done.done():
            return
        if result is not None:
            done.set_result(result)
        elif error is not None:
            done.set_exception(error)

    def run() -> None:
        result, problem = None, None
        try:
            result = work()
        except Exception as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop has ended in the meantime
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, daemon=True).start()
    return await done
