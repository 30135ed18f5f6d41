"""Calls the addresses that confirm subscriptions (Amazon SNS), after a SubscriptionConfirmation was verified.

The sender gets its response first, so it doesn't wait for the call. An address is on the provider's host, which the preset
fixes. It is called over https, without redirects, few at a time, and a few times again if that fails. Log and metrics name
the route, and the log the host: the rest of the address is a credential.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sidecar.process.key_fetch import Fetcher, FetchError, Result
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.prometheus import family

#: Confirmations under way. If there would be more, the sender gets a response after which it sends again.
MAX_PENDING: Final = 16
#: Addresses that were called or are being called, and are not called again for a copy.
MAX_KNOWN: Final = 256
#: Seconds before each attempt.
PAUSES: Final = (0.0, 5.0, 30.0, 120.0)


class Confirmations(Collector):
    """The confirmations of all processes."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep
        self._log: Log  # from `apply` on
        self._fetcher = Fetcher({})
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._counts: dict[str, dict[Result, int]] = {}

    def apply(self, fetcher: Fetcher, log: Log, routes: Iterable[str]) -> None:
        """`routes` are the names of those that confirm."""
        self._fetcher, self._log = fetcher, log
        self._counts = {name: self._counts.get(name, dict.fromkeys(Result, 0)) for name in routes}

    def confirm(self, route: str, url: str) -> bool:
        """Has an address called. Returns whether that will happen, or has already happened."""
        if url in self._known:
            return True
        if len(self._tasks) >= MAX_PENDING:
            return False
        self._known[url] = None
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        task = asyncio.get_running_loop().create_task(self._run(route, url))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def collect(self) -> Iterator[Metric]:
        """The metric of the routes that confirm."""
        counts = [
            ((route, result.value), count)
            for route, counted in sorted(self._counts.items())
            for result, count in counted.items()
        ]
        yield family("webhook_sidecar_confirmations_total", counts)

    async def _run(self, route: str, url: str) -> None:
        host = urlsplit(url).netloc
        for attempt, pause in enumerate(PAUSES, 1):
            await self._sleep(pause)
            try:
                await self._fetcher.call(url, route)
            except FetchError as error:
                result, detail, certain = error.result, str(error), error.certain
            except Exception as bug:  # of this program or its libraries
                result, detail, certain = Result.UNUSABLE, type(bug).__name__, False
            else:
                self._count(route, Result.OK)
                self._log.event("subscription_confirmed", Level.INFO, route=route, host=host)
                return
            self._count(route, result)
            last = certain or attempt == len(PAUSES)
            self._log.event(
                "subscription_not_confirmed",
                Level.WARNING if not last else Level.ERROR,
                route=route,
                host=host,
                result=result.value,
                detail=detail,
                **({} if last else {"next_seconds": round(PAUSES[attempt])}),
            )
            if last:
                break
        self._known.pop(url, None)  # the provider may send it again

    def _count(self, route: str, result: Result) -> None:
        if route in self._counts:
            self._counts[route][result] += 1
