"""Calls that confirm subscriptions: bounded, repeated a few times, and once for each address."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from sidecar.process.confirmations import MAX_KNOWN, MAX_PENDING, PAUSES, Confirmations
from sidecar.process.key_fetch import Fetcher, FetchError, Result
from sidecar.telemetry.log import Log


class Calls:
    """A `Fetcher` and a `Log` that keep what they are asked for."""

    def __init__(self, respond: Callable[[int], Exception | None] = lambda number: None) -> None:
        self.urls: list[str] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.paused: list[float] = []
        self.held = asyncio.Event()
        self.held.set()
        self._respond = respond
        self.confirmations = Confirmations(self._sleep)
        self.confirmations.apply(cast("Fetcher", self), cast("Log", self), ["sns"])

    async def _sleep(self, seconds: float) -> None:
        self.paused.append(seconds)
        await asyncio.sleep(0)

    async def call(self, url: str, name: str) -> None:
        self.urls.append(url)
        await self.held.wait()
        error = self._respond(len(self.urls))
        if error is not None:
            raise error

    def event(self, name: str, level: object, **fields: Any) -> None:
        self.events.append((name, fields))

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    def counts(self) -> dict[str, float]:
        (metric,) = self.confirmations.collect()
        return {each.labels["result"]: each.value for each in metric.samples if each.value}


def failure(result: Result = Result.STATUS, *, certain: bool = False) -> FetchError:
    return FetchError(result, "responded with status 500", certain=certain)


def test_a_failed_call_is_repeated_with_pauses_and_then_given_up_until_it_is_sent_again() -> None:
    async def run() -> None:
        calls = Calls(lambda number: failure())
        assert calls.confirmations.confirm("sns", "https://a.example/?t=secret")
        await calls.settle()
        assert calls.paused == list(PAUSES)
        assert calls.counts() == {"status": 4.0}
        assert [fields.get("next_seconds") for _, fields in calls.events] == [5, 30, 120, None]
        assert "secret" not in str(calls.events)
        assert calls.confirmations.confirm("sns", "https://a.example/?t=secret")
        await calls.settle()
        assert len(calls.urls) == 8

    asyncio.run(run())


def test_what_the_provider_says_is_wrong_is_not_repeated() -> None:
    async def run() -> None:
        calls = Calls(lambda number: failure(Result.ABSENT, certain=True))
        calls.confirmations.confirm("sns", "https://a.example/?t=1")
        await calls.settle()
        assert calls.counts() == {"absent": 1.0}

    asyncio.run(run())


def test_a_bug_in_a_call_is_counted_like_a_failure() -> None:
    async def run() -> None:
        calls = Calls(lambda number: RuntimeError("secret") if number == 1 else None)
        calls.confirmations.confirm("sns", "https://a.example/?t=1")
        await calls.settle()
        assert calls.counts() == {"unusable": 1.0, "ok": 1.0}
        assert "secret" not in str(calls.events)

    asyncio.run(run())


def test_few_calls_are_under_way_at_a_time_and_each_address_is_called_once() -> None:
    async def run() -> None:
        calls = Calls()
        calls.held.clear()
        answers = [calls.confirmations.confirm("sns", f"https://a.example/?t={number}") for number in range(100)]
        assert answers == [True] * MAX_PENDING + [False] * (100 - MAX_PENDING)
        assert calls.confirmations.confirm("sns", "https://a.example/?t=0")
        calls.held.set()
        await calls.settle()
        assert len(calls.urls) == MAX_PENDING
        for number in range(1000):
            calls.confirmations.confirm("sns", f"https://b.example/?t={number}")
            await calls.settle()
        assert len(calls.confirmations._known) == MAX_KNOWN

    asyncio.run(run())


def test_a_route_that_is_gone_has_no_series_and_one_that_stays_keeps_its_counts() -> None:
    async def run() -> None:
        calls = Calls()
        calls.confirmations.confirm("sns", "https://a.example/?t=1")
        await calls.settle()
        calls.confirmations.apply(cast("Fetcher", calls), cast("Log", calls), ["sns", "other"])
        assert calls.counts() == {"ok": 1.0}
        calls.confirmations.apply(cast("Fetcher", calls), cast("Log", calls), ["other"])
        assert calls.counts() == {}
        calls.confirmations.confirm("sns", "https://a.example/?t=2")
        await calls.settle()
        assert calls.counts() == {}

    asyncio.run(run())
