"""Fetches the keys that providers publish, for all processes, and keeps the last good ones.

    listed documents    fetched at the start, at a reload, and at 80 % of their lifetime; after a failure the last good one
                        stays in use for `keep`, and is fetched again after 30 s, doubling to 300 s
    by id               (a key or a certificate that a delivery names) fetched when a delivery needs it; few new ones a minute,
                        few kept, and those that verified nothing are the first to go

A new good document replaces the old one as a whole: a key that is gone is revoked. Metrics, log and status page name the source,
which comes from a closed list, and never text of a sender.
"""

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sidecar.config.settings import Config, KeyClient, KeysSettings
from sidecar.process.access_tokens import AccessTokens
from sidecar.process.confirmations import Confirmations
from sidecar.process.key_documents import NEGATIVE_SECONDS, Entry, KeyDocuments
from sidecar.process.key_fetch import Fetched, Fetcher, FetchError, Result
from sidecar.routing.routes import Route
from sidecar.telemetry.keys_view import KeysView
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.prometheus import family
from sidecar.verify.published import Document, KeySource

#: How often to check which documents are due, seconds.
CHECK_SECONDS = 1.0
#: How long the start waits for the first documents, seconds.
FIRST_SECONDS = 10.0
#: The share of its lifetime after which a document is fetched again.
REFRESH_SHARE = 0.8
#: Seconds until a failed fetch is repeated; the time doubles from the shortest to the longest.
RETRY_SECONDS = (30.0, 300.0)
#: Fetches at a time. A key server that hangs takes one place for ten seconds.
MAX_FETCHES = 16
#: Of one source: fetches by id that deliveries ask for in a minute, documents by id, and ids that the provider has no key for.
MAX_NEW_IDS = 30
MAX_BY_ID = 32
MAX_NEGATIVES = 256
#: Ids of keys in one log line.
_MAX_LOGGED = 10


class Fetching(Entry):
    """An entry with its schedule."""

    __slots__ = ("due", "failures", "fetched", "ids", "linked", "result", "task", "used")

    def __init__(self, source: KeySource) -> None:
        super().__init__(source)
        self.due = 0.0  #: when to fetch it again, monotonic seconds; a document by id only if it is used then
        self.failures = 0  #: since the last success
        self.fetched = 0.0  #: when the server last sent the document, unix seconds
        self.ids: tuple[str, ...] = ()
        self.linked: KeySource | None = None  #: of a discovery document: the document of keys that it names
        self.result: Result | None = None  #: of the last fetch
        self.used = False  #: whether the document of one key has verified a delivery
        self.task: asyncio.Task[None] | None = None


class _ById:
    """The documents by id of one source."""

    def __init__(self) -> None:
        self.kept: OrderedDict[KeySource, Fetching] = OrderedDict()  #: the least recently used first
        self.without: OrderedDict[KeySource, Fetching] = OrderedDict()  #: no document: absent, or not reachable
        self.begun: deque[float] = deque()  #: when new ids were asked for, monotonic seconds


class KeyStore(KeyDocuments[Fetching], Collector):
    """The documents of all processes."""

    def __init__(self, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(now, monotonic)
        #: Called after each fetch with the entry, and with one that was dropped.
        self.on_fetched: list[Callable[[Fetching], None]] = []
        self.on_dropped: list[Callable[[KeySource], None]] = []
        self._log: Log  # from `apply` on
        self._settings = (KeysSettings(), "")
        self._fetcher = Fetcher({})
        self._tokens = AccessTokens(monotonic)
        self._asking: set[asyncio.Task[None]] = set()
        self._wanted: set[KeySource] = set()
        self._by_id: dict[str, _ById] = {}
        self._counts: dict[str, dict[Result, int]] = {}
        self._slots = asyncio.Semaphore(MAX_FETCHES)
        self.confirmations = Confirmations()

    # Interface

    def apply(self, config: Config, log: Log) -> None:
        """Fetches what this configuration needs and lacks, and drops what it no longer needs."""
        self._log = log
        if (config.keys, config.key_authorities) != self._settings:
            self._settings = config.keys, config.key_authorities
            self._fetcher = Fetcher(config.keys.mirrors, config.key_authorities)
            for entry in self.entries.values():
                entry.due = 0.0
        self.confirmations.apply(self._fetcher, log, confirming(config.routes.routes))
        self._use_clients(config.key_clients)
        self._wanted = set(config.key_sources)
        names = {*config.key_names, *(source.name for source in self._wanted)}
        linked = {entry.linked for source, entry in self.entries.items() if source in self._wanted}
        for source in list(self.entries):
            if source.name not in names or (source.listed and source not in self._wanted | linked):
                self._drop(source)
        for name in list(self._counts):
            if name not in names:
                del self._counts[name]
                self._by_id.pop(name, None)
        for name in names:
            self.counts_of(name)
        for source in self._wanted:
            self._add(source)

    def confirm(self, route: str, url: str) -> bool:
        """Has the address called that confirms a subscription; False if too many are under way."""
        return self.confirmations.confirm(route, url)

    async def wait_first(self) -> None:
        """Returns when each listed document was fetched or failed, at most `FIRST_SECONDS` later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SECONDS):
                while tasks := [entry.task for entry in self._listed() if entry.task and entry.result is None]:
                    await asyncio.wait(tasks)

    async def run(self) -> None:
        """Fetches documents before they expire, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                self._check()
            except Exception as bug:  # keep trying
                self._log.event("keys_failed", Level.ERROR, what=type(bug).__name__)

    def request(self, source: KeySource) -> bool:
        """Has a document fetched for a worker's delivery, unless that is too early. Returns whether it is being fetched."""
        entry = self._find(source)
        if entry is None or not (entry.fetching or (not self.is_current(source) and self._ask(entry))):
            return False
        entry.wanted = True
        return True

    def pause(self, source: KeySource) -> float:
        """Seconds until the source's next new id may be asked for."""
        by_id = self._by_id.get(source.name)
        if by_id is None or len(by_id.begun) < MAX_NEW_IDS:
            return 0.0
        return max(by_id.begun[0] + 60.0 - self._monotonic(), 0.0)

    def view(self) -> list[KeysView]:
        """The documents as they are now; those by id after the listed ones."""
        entries = sorted(self.entries.values(), key=lambda entry: (not entry.source.listed, entry.source.name))
        return [self._view(entry) for entry in entries if entry.source.listed or entry.good]

    def collect(self) -> Iterator[Metric]:
        """The metrics of the sources that the configuration uses."""
        ages = [((name,), self._age(name)) for name in sorted(self._counts)]
        yield family("webhook_sidecar_keys_age_seconds", ages)
        counts = [
            ((name, result.value), count)
            for name in sorted(self._counts)
            for result, count in self._counts[name].items()
        ]
        yield family("webhook_sidecar_key_fetches_total", counts)
        yield from self.confirmations.collect()

    # Internals: credentials

    def _use_clients(self, clients: Iterable[KeyClient]) -> None:
        """Tries new credentials at once, so that a mistake is in the log before a delivery needs a key."""
        new = self._tokens.apply(clients)
        for client in new:
            task = asyncio.get_running_loop().create_task(self._try(client))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        names = {client.name for client in new}
        for entry in [each for each in self.entries.values() if each.source.client in names and each.failed]:
            if entry.good:
                entry.due = 0.0
            else:
                self._drop(entry.source)  # the next delivery asks again

    async def _try(self, client: KeyClient) -> None:
        try:
            await self._tokens.get(self._fetcher, client.name)
        except FetchError as error:
            self.counts_of(client.source)[error.result] += 1
            self._log.event(
                "keys_failed",
                Level.WARNING,
                source=client.source,
                url=shown_url(client.name.token_url),
                result=error.result.value,
                detail=str(error),
                kept="the last good keys; deliveries with others get 503",
            )

    # Internals: which documents there are

    def _listed(self) -> Iterable[Fetching]:
        return [entry for source, entry in self.entries.items() if source.listed]

    def _add(self, source: KeySource) -> None:
        """A listed source: fetched at once if it is new, or due."""
        self.counts_of(source.name)
        entry = self.entries.get(source)
        if entry is None:
            entry = self.entries[source] = Fetching(source)
        if not entry.fetching and entry.due <= self._monotonic():
            self._begin(entry)

    def _drop(self, source: KeySource) -> None:
        entry = self.entries.pop(source, None)
        if entry is None:
            return
        if entry.task is not None:
            entry.task.cancel()
        entry.wake()
        by_id = self._by_id.get(source.name)
        if by_id is not None:
            by_id.kept.pop(source, None)
            by_id.without.pop(source, None)
        for notify in self.on_dropped:
            notify(source)

    def _find(self, source: KeySource) -> Fetching | None:
        entry = self.entries.get(source)
        if entry is None and not source.listed:  # a new id; kept only if it is asked for
            entry = Fetching(source)
        return entry

    def _ask(self, entry: Fetching) -> bool:
        if self.is_early(entry):
            return False
        if not entry.source.listed and not self._spend(entry):
            return False
        self._begin(entry)
        return True

    def _spend(self, entry: Fetching) -> bool:
        """Counts a fetch by id for a delivery. Returns whether one was left in this minute."""
        by_id = self._by_id.setdefault(entry.source.name, _ById())
        now = self._monotonic()
        while by_id.begun and by_id.begun[0] <= now - 60.0:
            by_id.begun.popleft()
        if len(by_id.begun) >= MAX_NEW_IDS:
            return False
        by_id.begun.append(now)
        self.entries[entry.source] = entry
        return True

    def _check(self) -> None:
        now, clock = self._now(), self._monotonic()
        for source in self.take_used():
            self.note_used(source)
        for entry in self._listed():
            if not entry.fetching and entry.due <= clock:
                self._begin(entry)
        for by_id in self._by_id.values():
            for entry in [*by_id.kept.values(), *by_id.without.values()]:
                ended = entry.until <= now if entry.document is not None else not self.is_early(entry)
                if ended and not entry.fetching:
                    self._drop(entry.source)

    def note_used(self, source: KeySource) -> None:
        """A document by id has verified a delivery: it is kept before others, and fetched again if it is due."""
        entry = self.entries.get(source)
        if entry is None or source.listed or not entry.good:
            return
        entry.used = True
        self._by_id[source.name].kept.move_to_end(source)
        if not entry.fetching and entry.due <= self._monotonic():
            self._begin(entry)

    # Internals: fetching

    def _begin(self, entry: Fetching) -> None:
        entry.fetching = True
        entry.task = asyncio.get_running_loop().create_task(self._fetch(entry))

    async def _fetch(self, entry: Fetching) -> None:
        try:
            async with self._slots:
                fetched = await self._tokens.fetch(self._fetcher, entry.source)
        except FetchError as error:
            self._failed(entry, error)
        except Exception as bug:  # of this program or its libraries: keep the last good document
            self._failed(entry, FetchError(Result.UNUSABLE, type(bug).__name__))
        else:
            self._succeeded(entry, fetched)
        if entry.wanted:
            entry.asked = self._monotonic()
        entry.task = None
        entry.wake()
        self._file(entry)
        for notify in self.on_fetched:
            notify(entry)

    def _succeeded(self, entry: Fetching, fetched: Fetched) -> None:
        source, now = entry.source, self._now()
        self._count(entry, Result.OK)
        before, old_ids = entry.document, entry.ids
        recovered = entry.failures > 0
        if before is None or before.content != fetched.content:  # otherwise the verifier's parsed keys stay in use
            entry.document = Document(fetched.content, now, fetched.content_type)
        entry.fetched, entry.until, entry.failed, entry.failures = now, now + source.keep, False, 0
        entry.due = self._monotonic() + REFRESH_SHARE * fetched.lifetime
        entry.ids = fetched.ids
        if before is None or not before.content or recovered:
            self._log.event(
                "keys_fetched", Level.INFO, source=source.name, url=shown_url(source.url), keys=len(entry.ids)
            )
        if old_ids and set(old_ids) != set(entry.ids):
            self._log.event(
                "keys_rotated",
                Level.INFO,
                source=source.name,
                url=shown_url(source.url),
                appeared=_listing(set(entry.ids) - set(old_ids)),
                vanished=_listing(set(old_ids) - set(entry.ids)),
            )
        if fetched.linked != entry.linked:
            if entry.linked is not None and not self._is_needed(entry.linked, entry):
                self._drop(entry.linked)
            entry.linked = fetched.linked
        if entry.linked is not None:
            self._add(entry.linked)

    def _failed(self, entry: Fetching, error: FetchError) -> None:
        source, now = entry.source, self._now()
        self._count(entry, error.result)
        if error.certain and not entry.good:
            entry.document, entry.until, entry.failed = Document(b"", now), now + NEGATIVE_SECONDS, False
            return
        entry.failed = True
        clock = self._monotonic()
        if (
            not entry.failures or entry.due <= clock
        ):  # otherwise it was an extra fetch, for a delivery: the next one stays scheduled
            shortest, longest = RETRY_SECONDS
            entry.due = clock + min(shortest * 2 ** min(entry.failures, 10), longest)
            entry.failures += 1
        usable = entry.good and entry.until > now
        self._log.event(
            "keys_failed",
            Level.WARNING,
            source=source.name,
            url=shown_url(source.url),
            result=error.result.value,
            detail=str(error),
            kept=f"the last good keys, for {entry.until - now:.0f} s" if usable else "nothing: deliveries get 503",
            **({"next_seconds": round(entry.due - clock)} if source.listed else {}),
        )

    def _file(self, entry: Fetching) -> None:
        """Keeps a document by id where it belongs, and drops the surplus."""
        source = entry.source
        if source.listed or source not in self.entries:
            return
        by_id = self._by_id.setdefault(source.name, _ById())
        if entry.good:
            by_id.without.pop(source, None)
            by_id.kept[source] = entry
            if len(by_id.kept) > MAX_BY_ID:
                unused = (each for each, kept in by_id.kept.items() if not kept.used and each != source)
                self._drop(next(unused, next(iter(by_id.kept))))
        else:
            by_id.without[source] = entry
            by_id.without.move_to_end(source)
            if len(by_id.without) > MAX_NEGATIVES:
                self._drop(next(iter(by_id.without)))

    def _is_needed(self, linked: KeySource, other_than: Fetching) -> bool:
        return linked in self._wanted or any(
            entry.linked == linked for entry in self.entries.values() if entry is not other_than
        )

    # Internals: reports

    def counts_of(self, name: str) -> dict[Result, int]:
        """The fetches of a source by their results, from 0 on."""
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = dict.fromkeys(Result, 0)
        return counts

    def _count(self, entry: Fetching, result: Result) -> None:
        entry.result = result
        self.counts_of(entry.source.name)[result] += 1

    def _age(self, name: str) -> float:
        """The age of the oldest listed document; infinite if one was never fetched. Without any, of the newest by id, or 0."""
        now = self._now()
        entries = [entry for source, entry in self.entries.items() if source.name == name]
        listed = [now - entry.fetched if entry.good else math.inf for entry in entries if entry.source.listed]
        if listed:
            return max(listed)
        return min((now - entry.fetched for entry in entries if entry.good), default=0.0)

    def _view(self, entry: Fetching) -> KeysView:
        now = self._now()
        listed = entry.source.listed
        return KeysView(
            source=entry.source.name,
            url=shown_url(entry.source.url),
            fetched=entry.fetched if entry.good else None,
            usable=entry.good and entry.until > now,
            next_fetch=now + max(entry.due - self._monotonic(), 0.0) if listed else None,
            keys=len(entry.ids) if listed else 1,
            failures=entry.failures,
            result=entry.result.value if entry.result is not None else "",
        )


def confirming(routes: Iterable[Route]) -> list[str]:
    """The names of the routes that confirm subscriptions."""
    return [
        route.name
        for route in routes
        if route.handshakes is not None and any(shape.confirm is not None for shape in route.handshakes.signed)
    ]


def shown_url(url: str) -> str:
    """A document's URL for logs and pages, without its query. It has no user, but may have an `@` in its path (Google)."""
    path, mark, _ = url.partition("?")
    return f"{path}?***" if mark else path


def _listing(ids: Iterable[str]) -> str:
    """The ids as one text for the log, which quotes it."""
    shown = sorted(ids)
    more = f", and {len(shown) - _MAX_LOGGED} more" if len(shown) > _MAX_LOGGED else ""
    return ", ".join(shown[:_MAX_LOGGED]) + more
