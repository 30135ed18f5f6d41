"""The replay store that replicas share: Redis, Valkey, or anything that speaks their protocol.

    webhook-sidecar:replay:<SHA-256>   a claim: who made it, until the delivery can't be with the receiver any longer
                                       "done": the receiver took it, for the route's `replay`

Each step is one atomic command or script, and every key expires. A store that can't be asked is never taken for one that
has not seen a delivery. What it could not be told meanwhile (done, or given up) is kept and told when it is back, before
anything else is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from secrets import token_hex
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from sidecar.replay.store import Seen, StoreAddress, StoreUnavailableError
from sidecar.secret import Secret

PREFIX = b"webhook-sidecar:replay:"
DONE = b"done"
#: Seconds for one network step, and for one question with everything that it takes.
STEP_SECONDS = 1.0
QUESTION_SECONDS = 2.0
#: How often a store is asked for its own sake, seconds: one that answers, and one that does not.
PROBE_SECONDS = 5.0
RETRY_SECONDS = 0.25
#: How long one that is back is left alone, so that first each replica tells what it still has to, seconds: a claim or a "done"
#: may have expired there meanwhile, or been forgotten, and a copy would be forwarded.
SETTLING_SECONDS = 0.75
CLOSING_SECONDS = 0.3
CONNECTIONS = 64
#: What is kept for a store that is away. Claims expire there by themselves, so that only what is recent matters.
MAX_OWED = 20_000

#: Makes the claim ARGV[1] for ARGV[2] ms, unless there is another; returns what was there. Asked twice, it is the same claim.
BEGIN = """
local there = redis.call('GET', KEYS[1])
if there and there ~= ARGV[1] then return there end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
#: Takes the claim ARGV[1] away, and no other one.
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

#: Told when the store can be asked no longer, with the reason, and when it can be asked again.
Changed = Callable[[bool, str], None]
T = TypeVar("T")


class Password(CredentialProvider):
    """What a connection is opened with: the password as it is then."""

    def __init__(self, username: str, current: Callable[[], Secret | None]) -> None:
        self._username = username
        self._current = current

    async def get_credentials_async(self) -> Any:
        """`(password,)`, `(username, password)`, or nothing: then redis-py asks for no authentication."""
        secret = self._current()
        if secret is None:
            return ()
        password = secret.reveal().decode("utf-8", "surrogateescape")
        return (self._username, password) if self._username else (password,)


class RedisStore:
    """A `replay.Store`, from `start` on. `password` gives the one to use for connections opened now."""

    def __init__(self, address: StoreAddress, password: Callable[[], Secret | None], changed: Changed) -> None:
        self._client = _client(address, Password(address.username, password))
        self._begin = self._client.register_script(BEGIN)
        self._release = self._client.register_script(RELEASE)
        self._changed = changed
        self._available = True
        self._lost = asyncio.Event()  # wakes `_keep`
        self._process = token_hex(8)
        self._count = 0
        #: By key: our claims, made or being asked for, with the seconds that they are for; and the questions for them.
        self._claims: dict[bytes, tuple[bytes, float]] = {}
        self._asking: dict[bytes, asyncio.Task[Seen]] = {}
        # What the store is still to be told: milliseconds to remember a delivery, 0 to release it; and until when it matters.
        # Not empty only while the store is away.
        self._owed: dict[tuple[bytes, bytes], tuple[int, float]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep())

    # replay.Store

    async def begin(self, key: bytes, pending_seconds: float) -> Seen:
        if not self._available:  # `_keep` asks again and again; whoever comes meanwhile need not wait for it
            raise StoreUnavailableError("the replay store can't be asked, and is tried again")
        if key in self._asking:  # all copies that came here meanwhile learn from the one question
            others = await asyncio.shield(self._asking[key])
            return Seen.PENDING if others is Seen.NEW else others
        if key in self._claims:  # also if the store has lost it meanwhile
            return Seen.PENDING
        self._count += 1
        claim = f"{self._process}-{self._count:x}".encode()
        self._claims[key] = claim, pending_seconds
        self._asking[key] = asking = self._run(self._claim(key, claim, pending_seconds))
        seen: Seen | None = None
        try:
            seen = await asyncio.shield(asking)
        except asyncio.CancelledError:  # nobody waits any more, but the claim may have been made
            self._run(self._give_back(asking, key, claim, pending_seconds))
            raise
        finally:
            del self._asking[key]
            if seen is not Seen.NEW:
                del self._claims[key]
        return seen

    async def done(self, key: bytes, seconds: float) -> bool:
        # Shielded: the receiver took it, whoever waits for the answer or not.
        claim, _ = self._claims.pop(key)
        await asyncio.shield(self._run(self._tell(key, claim, seconds, remember=True)))
        return False

    def release(self, key: bytes) -> None:
        self._run(self._tell(key, *self._claims.pop(key), remember=False))

    async def close(self) -> None:
        """Tells the store what it is being told, as far as that takes a moment only."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)
        with suppress(Exception):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._client.aclose()

    # What is asked

    async def _claim(self, key: bytes, claim: bytes, pending_seconds: float) -> Seen:
        milliseconds = int(pending_seconds * 1000)
        try:
            there = await self._ask(self._begin(keys=[_name(key)], args=[claim, milliseconds]))
        except StoreUnavailableError:
            self._owe(key, claim, 0, pending_seconds)  # it may have been made all the same
            raise
        if there is None:
            return Seen.NEW
        return Seen.DONE if there == DONE else Seen.PENDING

    async def _give_back(self, asking: asyncio.Task[Seen], key: bytes, claim: bytes, seconds: float) -> None:
        with suppress(StoreUnavailableError):
            if await asking is Seen.NEW:
                await self._tell(key, claim, seconds, remember=False)

    async def _tell(self, key: bytes, claim: bytes, seconds: float, *, remember: bool) -> None:
        milliseconds = int(seconds * 1000) if remember else 0
        if self._available:
            with suppress(StoreUnavailableError):
                await self._send(key, claim, milliseconds)
                return
        self._owe(key, claim, milliseconds, seconds)

    async def _send(self, key: bytes, claim: bytes, milliseconds: int) -> None:
        if milliseconds:
            await self._ask(self._client.set(_name(key), DONE, px=milliseconds))
        else:
            await self._ask(self._release(keys=[_name(key)], args=[claim]))

    async def _ask(self, question: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                return await question
        except Exception as error:  # whatever the client fails with: the store was not asked
            why = f"{type(error).__name__}: {str(error)[:200]}"
            if self._available:
                self._available = False
                self._changed(False, why)
                self._lost.set()
            raise StoreUnavailableError(f"the replay store can't be asked ({type(error).__name__})") from None

    # What the store was away for

    def _owe(self, key: bytes, claim: bytes, milliseconds: int, seconds: float) -> None:
        self._owed[key, claim] = (milliseconds, asyncio.get_running_loop().time() + seconds)
        if len(self._owed) > MAX_OWED:
            del self._owed[next(iter(self._owed))]

    async def _keep(self) -> None:
        """Asks without waiting for a delivery: another replica may be waiting for a claim of ours, and who watches us
        wants to know. A store that answered is asked seldom."""
        while True:
            self._lost.clear()
            with suppress(StoreUnavailableError):
                await self._settle()
                if not self._available:
                    await asyncio.sleep(SETTLING_SECONDS)
                    await self._settle()
                # What a delivery would ask, so that a store that only reads, or is full, is none that is back.
                probe = PREFIX + b"probe:" + self._process.encode()
                await self._ask(self._begin(keys=[probe], args=[b"probe", int(PROBE_SECONDS * 1000)]))
                if not self._available and not self._owed:
                    self._available = True
                    self._changed(True, "")
            if self._available:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_SECONDS):
                        await self._lost.wait()
            else:
                await asyncio.sleep(RETRY_SECONDS)

    async def _settle(self) -> None:
        """Raises `StoreUnavailableError` while there is something that the store was not told."""
        for (key, claim), (milliseconds, until) in list(self._owed.items()):
            if until > asyncio.get_running_loop().time():
                await self._send(key, claim, milliseconds)
            self._owed.pop((key, claim), None)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of its own, which ends even if nobody waits for it: deliveries are no tasks, and may be cancelled."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that one which nobody waited for is not complained about


def _name(key: bytes) -> bytes:
    return PREFIX + key.hex().encode()


def _client(address: StoreAddress, credentials: Password | None) -> Redis:
    options: dict[str, Any] = {"db": address.database, "credential_provider": credentials}
    if address.path:
        options |= {"connection_class": UnixDomainSocketConnection, "path": address.path}
    else:
        options |= {"host": address.host, "port": address.port}
    if address.tls:
        options |= {"connection_class": SSLConnection}
    pool = BlockingConnectionPool(
        max_connections=CONNECTIONS,
        timeout=STEP_SECONDS,
        socket_timeout=STEP_SECONDS,
        socket_connect_timeout=STEP_SECONDS,
        # Once, and at once: a store that was started again has closed all the connections that are kept here.
        retry=Retry(NoBackoff(), 1),
        **options,
    )
    return Redis.from_pool(pool)  # closed with it
