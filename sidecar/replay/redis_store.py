"""The replay store that replicas share: Redis, Valkey, or anything that speaks their protocol.

    webhook-sidecar:replay:<SHA-256>   a claim: its owner, until the delivery can't be with the receiver any longer
                                       "done": the receiver accepted it, for the time of the route's `replay`

Each step is atomic, and every key expires. Steps of deliveries that come together share one round trip. An unavailable store
never counts as one that has not seen a delivery. Updates that it missed (done, or released) are kept and sent when it is back,
before anything else; and with them what was claimed and marked shortly before, because a replica that became the primary, or
a restarted server, may not have it.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from secrets import token_hex
from typing import Any, TypeVar

from redis.credentials import CredentialProvider

from sidecar.replay.describe_error import describe_error
from sidecar.replay.redis_client import make_client
from sidecar.replay.redis_steps import MAX_STEPS, Step, StepQueue, Verb
from sidecar.replay.store import Seen, StoreAddress, StoreUnavailableError
from sidecar.secret import Secret

PREFIX = "webhook-sidecar:replay:"
DONE = b"done"
#: Seconds for one request with all its steps.
REQUEST_SECONDS = 2.0
#: How often the store is probed when it is available and no delivery asks it, and when it is not. Seconds.
PROBE_SECONDS = 0.5
RETRY_SECONDS = 0.25
#: How long to wait once the store is back, so that each replica can notice it and send the updates that it missed. Seconds,
#: more than those of a probe. A claim or a "done" may have expired or been lost there, and a copy would be forwarded.
SETTLING_SECONDS = 0.75
CLOSING_SECONDS = 0.3
#: How many updates are kept for an unavailable store. Claims expire there anyway, so only recent ones matter.
MAX_OWED = 20_000
#: For how long marks are kept, to be repeated where another server takes over. Seconds: longer than an isolated primary of a
#: cluster continues (cluster-node-timeout, by default 15 s).
REPEAT_SECONDS = 30.0
#: For how long a probe's key counts. Seconds.
PROBE_KEY_SECONDS = 5.0

T = TypeVar("T")

#: Called when the store becomes unavailable, with the reason, and when it is available again.
Changed = Callable[[bool, str], None]


class Password(CredentialProvider):
    """The credentials of a connection: the password as it is when the connection is opened."""

    def __init__(self, username: str, current: Callable[[], Secret | None]) -> None:
        self._username = username
        self._current = current

    async def get_credentials_async(self) -> Any:
        """`(password,)`, `(username, password)`, or nothing: then redis-py does not authenticate."""
        secret = self._current()
        if secret is None:
            return ()
        password = secret.reveal().decode("utf-8", "surrogateescape")
        return (self._username, password) if self._username else (password,)


class RedisStore:
    """A `Store`, from `start` on. `password` and `sentinel_password` return the current ones."""

    def __init__(
        self,
        address: StoreAddress,
        password: Callable[[], Secret | None],
        changed: Changed,
        *,
        sentinel_password: Callable[[], Secret | None] = lambda: None,
    ) -> None:
        self._client = make_client(address, Password(address.username, password), Password("", sentinel_password))
        self._asking_now = asyncio.Lock()  # one request at a time, so that each server has one connection
        self._changed = changed
        self._available = True
        self._answered = 0.0  #: when the store last did what it was asked; loop time
        self._lost = asyncio.Event()  # wakes `_keep`
        self._process = token_hex(8)
        self._count = 0
        self._steps = StepQueue(self._send, REQUEST_SECONDS)
        #: By key: our claims with their seconds, made or requested; and the copies that wait for the answer to a request.
        self._claims: dict[bytes, tuple[str, float]] = {}
        self._asking: dict[bytes, list[asyncio.Future[Seen]]] = {}
        # Updates that the store has missed, with the time until which they matter. Empty while the store is available.
        self._owed: dict[tuple[str, str], tuple[Step, float]] = {}
        #: Recent marks, each with its time and its end, oldest first.
        self._marked: deque[tuple[Step, float, float]] = deque(maxlen=MAX_OWED)
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep())

    # Store

    async def begin(self, key: bytes, pending_seconds: float, share: str) -> Seen:
        if not self._available:  # `_keep` keeps trying; deliveries need not wait for it
            raise StoreUnavailableError("the replay store is unavailable, and is being tried again")
        if key in self._asking:  # all copies that arrive in the meantime share the one request
            answer: asyncio.Future[Seen] = asyncio.get_running_loop().create_future()
            self._asking[key].append(answer)
            return await answer
        if key in self._claims:  # even if the store has lost it in the meantime
            return Seen.PENDING
        self._count += 1
        claim = f"{self._process}-{self._count:x}"
        self._claims[key] = claim, pending_seconds
        copies: list[asyncio.Future[Seen]] = []
        self._asking[key] = copies
        seen: Seen | None = None
        failure: StoreUnavailableError | None = None
        try:
            seen = _seen(await self._steps.add(Step(Verb.BEGIN, _name(key), claim, pending_seconds)))
        except asyncio.CancelledError:  # no longer needed, but the claim may have been made or be made yet
            self._update(Step(Verb.RELEASE, _name(key), claim, pending_seconds))
            raise
        except StoreUnavailableError as error:
            failure = error
            raise
        finally:
            del self._asking[key]
            if seen is not Seen.NEW:
                del self._claims[key]
            for copy in copies:
                _tell(copy, seen, failure)
        return seen

    def begin_at_once(self, key: bytes, share: str) -> None:
        """Only the server knows it."""

    def done_at_once(self, key: bytes, seconds: float, share: str) -> None:
        """Only the server can remember it."""

    async def done(self, key: bytes, seconds: float, share: str) -> bool:
        claim, _ = self._claims.pop(key)
        step = Step(Verb.DONE, _name(key), claim, seconds)
        self._remember(step)
        update = self._update(step)
        if update is not None:
            with suppress(StoreUnavailableError):
                await update
        return False

    def release(self, key: bytes) -> None:
        claim, pending_seconds = self._claims.pop(key)
        self._update(Step(Verb.RELEASE, _name(key), claim, pending_seconds))

    async def close(self) -> None:
        """Finishes pending updates, if that takes only a moment."""
        if self._keeper is not None:
            self._keeper.cancel()
        await self._steps.close(CLOSING_SECONDS)
        with suppress(Exception):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._client.close()

    # Steps

    def _update(self, step: Step) -> asyncio.Future[bytes] | None:
        if self._available:
            return self._steps.add(step)
        self._owe(step)
        return None

    async def _send(self, steps: list[Step], seconds: float) -> list[bytes]:
        """For the queue. Steps that the store may not have taken are kept."""
        try:
            if not self._available:
                raise StoreUnavailableError("the replay store is unavailable, and is being tried again")
            return await self._ask(steps, seconds)
        except StoreUnavailableError:
            for step in steps:
                self._owe(step)
            raise

    async def _ask(self, steps: Sequence[Step], seconds: float) -> list[bytes]:
        """Returns the answer to each step."""
        answers = await self._call(lambda: self._client.ask(steps, self._repeated), seconds)
        self._answered = asyncio.get_running_loop().time()
        return answers

    async def _call(self, work: Callable[[], Awaitable[T]], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds), self._asking_now:
                return await work()
        except Exception as error:  # whatever the client raises, the store is unavailable
            self._client.distrust()
            if self._available:
                self._available = False
                for step in self._repeated():
                    self._keep_for_later(step)
                self._changed(False, describe_error(error))
                self._lost.set()
            raise StoreUnavailableError(f"the replay store is unavailable ({type(error).__name__})") from None

    def _remember(self, step: Step) -> None:
        now = asyncio.get_running_loop().time()
        while self._marked and self._marked[0][1] < now - REPEAT_SECONDS:
            self._marked.popleft()
        self._marked.append((step, now, now + step.seconds))

    def _repeated(self) -> list[Step]:
        """The recent marks and the current claims. Repeating them changes nothing in a store that has them already."""
        now = asyncio.get_running_loop().time()
        marked = [
            step._replace(seconds=until - now)
            for step, at, until in self._marked
            if at > now - REPEAT_SECONDS and until > now
        ]
        claimed = [Step(Verb.BEGIN, _name(key), claim, seconds) for key, (claim, seconds) in self._claims.items()]
        return marked + claimed

    # While the store is unavailable

    def _owe(self, step: Step) -> None:
        """Keeps an update until the store is back. For a claim that may have been made, that is its release."""
        if step.verb is Verb.BEGIN:
            step = step._replace(verb=Verb.RELEASE)
        self._keep_for_later(step)

    def _keep_for_later(self, step: Step) -> None:
        self._owed[step.name, step.claim] = step, asyncio.get_running_loop().time() + step.seconds
        if len(self._owed) > MAX_OWED:
            del self._owed[next(iter(self._owed))]

    async def _keep(self) -> None:
        """Probes the store without waiting for a delivery, for the metric, and because another replica may wait for a claim
        of ours. An available store is probed rarely."""
        while True:
            self._lost.clear()
            with suppress(StoreUnavailableError):
                await self._settle()
                if not self._available:
                    await asyncio.sleep(SETTLING_SECONDS)
                    await self._settle()
                await self._probe()
                if not self._available and not self._owed:
                    self._available = True
                    self._changed(True, "")
            if self._available:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_SECONDS):
                        await self._lost.wait()
            else:
                await asyncio.sleep(RETRY_SECONDS)

    async def _probe(self) -> None:
        """Asks every primary. If deliveries just did, it only checks that they are still the primaries.

        It is the same script as a delivery's, so that a read-only or full store does not count as available.
        """
        names = await self._call(lambda: self._client.probes(f"{PREFIX}probe:{self._process}"), REQUEST_SECONDS)
        if not self._available or asyncio.get_running_loop().time() - self._answered > PROBE_SECONDS / 2:
            probes = [Step(Verb.BEGIN, name, "probe", PROBE_KEY_SECONDS) for name in names]
            await self._ask(probes, REQUEST_SECONDS)

    async def _settle(self) -> None:
        """Sends the missed updates. Raises `StoreUnavailableError` if some can't be sent."""
        while self._owed:
            now = asyncio.get_running_loop().time()
            some = list(itertools.islice(self._owed.items(), MAX_STEPS))
            steps = [step for _, (step, until) in some if until > now]
            if steps:
                await self._ask(steps, REQUEST_SECONDS)
            for owed, _ in some:
                self._owed.pop(owed, None)


def _tell(copy: asyncio.Future[Seen], seen: Seen | None, failure: StoreUnavailableError | None) -> None:
    """Gives a copy the answer to the first one's request. If the first one left, nobody knows it, and the copy asks again."""
    if copy.done():
        return
    if failure is not None:
        copy.set_exception(StoreUnavailableError(str(failure)))
    else:
        copy.set_result(Seen.DONE if seen is Seen.DONE else Seen.PENDING)


def _seen(answer: bytes) -> Seen:
    if not answer:
        return Seen.NEW
    return Seen.DONE if answer == DONE else Seen.PENDING


def _name(key: bytes) -> str:
    return PREFIX + key.hex()
