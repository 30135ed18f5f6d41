"""Fetches what providers publish of their networks, and keeps the last good list of each.

Only from the https URLs that the package or the configuration names: redirects are not followed, an answer has a size and a time.
What can't be had or read changes nothing but the counts and the log.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sidecar.config.ranges import RangesError, load_ranges
from sidecar.routing.networks import Networks

if TYPE_CHECKING:
    import httpx

#: Bytes. GitHub's answer with all its services is about 300 KB.
MAX_BYTES = 4 * 1024 * 1024
FETCH_SECONDS = 30.0
#: How long nothing may come.
SILENCE_SECONDS = 10.0
#: A list that could not be had is asked for again after this many seconds, or after `refresh` if that is less.
RETRY_SECONDS = 300.0


class PublishedRanges:
    """The lists that were fetched, by preset. Everything not fetched is the package's snapshot."""

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
        """Which of these presets are to be fetched now."""
        return [name for name in names if self._due.get(name, 0.0) <= self._now()]

    def in_use(self, ranges: Mapping[str, Networks]) -> bool:
        """Whether a configuration's published networks are those that were fetched."""
        return all(self.networks.get(name, networks) is networks for name, networks in ranges.items())

    def state(self, names: Iterable[str]) -> list[tuple[str, float, int]]:
        """Of each of these presets its name, the age of its list in seconds, and how often that could not be fetched."""
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


def _get_all(urls: Sequence[str]) -> list[bytes]:
    """The bodies of their answers, each with status 200. Raises `RangesError`."""
    import httpx  # noqa: PLC0415 - memory that a program without refresh does without

    bodies = []
    with httpx.Client(follow_redirects=False, timeout=SILENCE_SECONDS) as client:
        for url in urls:
            try:
                bodies.append(_get(client, url))
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                raise RangesError(f"{url} can't be had: {type(error).__name__}") from None
    return bodies


def _get(client: "httpx.Client", url: str) -> bytes:
    deadline = time.monotonic() + FETCH_SECONDS
    headers = {"accept-encoding": "identity", "user-agent": "webhook-sidecar"}
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code != 200:
            raise RangesError(f"{url} answered {answer.status_code}")
        body = b""
        for piece in answer.iter_raw():
            body += piece
            if len(body) > MAX_BYTES:
                raise RangesError(f"{url} answered more than {MAX_BYTES} bytes")
            if time.monotonic() > deadline:
                raise RangesError(f"{url} took longer than {FETCH_SECONDS:g} s")
    return body


async def _in_thread(work: Callable[[], Networks]) -> Networks:
    """In a thread that the end of the program doesn't wait for."""
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
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, daemon=True).start()
    return await done
