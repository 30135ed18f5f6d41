"""The replay store that replicas share: Redis, Valkey, or anything that speaks their protocol.

    webhook-sidecar:replay:<SHA-256>   a claim: its owner, until the delivery can't be with the receiver any longer
                                       "done": the receiver accepted it, for the time of the route's `replay`

Each step is one atomic command or script, and every key expires. An unavailable store never counts as one that has not seen
a delivery. Updates that it missed (done, or released) are kept and sent when it is back, before anything else.
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

from sidecar.replay.describe_error import describe_error
from sidecar.replay.store import Seen, StoreAddress, StoreUnavailableError
from sidecar.secret import Secret

PREFIX = b"webhook-sidecar:replay:"
DONE = b"done"
#: Seconds for one network step, and for one request with all its steps.
STEP_SECONDS = 1.0
REQUEST_SECONDS = 2.0
#: How often the store is probed when it is available, and when it is not. Seconds.
PROBE_SECONDS = 5.0
RETRY_SECONDS = 0.25
#: How long to wait once the store is back, so that each replica can send the updates that it missed. Seconds. A claim or a
#: "done" may have expired or been lost there in the meantime, and a copy would be forwarded.
SETTLING_SECONDS = 0.75
CLOSING_SECONDS = 0.3
CONNECTIONS = 64
#: How many updates are kept for an unavailable store. Claims expire there anyway, so only recent ones matter.
MAX_OWED = 20_000

#: Sets the claim ARGV[1] for ARGV[2] ms, unless there is another value, which it returns. Repeating it is harmless.
BEGIN = """
local there = redis.call('GET', KEYS[1])
if there and there ~= ARGV[1] then return there end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
#: Deletes the claim ARGV[1], and no other value.
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

#: Called when the store becomes unavailable, with the reason, and when it is available again.
Changed = Callable[[bool, str], None]
T = TypeVar("T")


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
    """A `Store`, from `start` on. `password` returns the current password."""

    def __init__(self, address: StoreAddress, password: Callable[[], Secret | None], changed: Changed) -> None:
        self._client = _client(address, Password(address.username, password))
        self._begin = self._client.register_script(BEGIN)
        self._release = self._client.register_script(RELEASE)
        self._changed = changed
        self._available = True
        self._lost = asyncio.Event()  # wakes `_keep`
        self._process = token_hex(8)
        self._count = 0
        #: By key: our claims with their seconds, made or requested; and the requests for them.
        self._claims: dict[bytes, tuple[bytes, float]] = {}
        self._asking: dict[bytes, asyncio.Task[Seen]] = {}
        # Updates that the store has missed: milliseconds to remember a delivery, 0 to release it; and until when it matters.
        # Empty while the store is available.
        self._owed: dict[tuple[bytes, bytes], tuple[int, float]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep())

    # Store

    async def begin(self, key: bytes, pending_seconds: float, share: str) -> Seen:
        if not self._available:  # `_keep` keeps trying; deliveries need not wait for it
            raise StoreUnavailableError("the replay store is unavailable, and is being tried again")
        if key in self._asking:  # all copies that arrive in the meantime share the one request
            seen_by_first = await asyncio.shield(self._asking[key])
            return Seen.PENDING if seen_by_first is Seen.NEW else seen_by_first
        if key in self._claims:  # even if the store has lost it in the meantime
            return Seen.PENDING
        self._count += 1
        claim = f"{self._process}-{self._count:x}".encode()
        self._claims[key] = claim, pending_seconds
        self._asking[key] = asking = self._run(self._claim(key, claim, pending_seconds))
        seen: Seen | None = None
        try:
            seen = await asyncio.shield(asking)
        except asyncio.CancelledError:  # no longer needed, but the claim may have been made
            self._run(self._give_back(asking, key, claim, pending_seconds))
            raise
        finally:
            del self._asking[key]
            if seen is not Seen.NEW:
                del self._claims[key]
        return seen

    async def done(self, key: bytes, seconds: float, share: str) -> bool:
        # Shielded: the receiver accepted it, even if the sender has gone.
        claim, _ = self._claims.pop(key)
        await asyncio.shield(self._run(self._update(key, claim, seconds, remember=True)))
        return False

    def release(self, key: bytes) -> None:
        self._run(self._update(key, *self._claims.pop(key), remember=False))

    async def close(self) -> None:
        """Finishes pending updates, if that takes only a moment."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)
        with suppress(Exception):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._client.aclose()

    # Requests

    async def _claim(self, key: bytes, claim: bytes, pending_seconds: float) -> Seen:
        milliseconds = int(pending_seconds * 1000)
        try:
            there = await self._ask(self._begin(keys=[_name(key)], args=[claim, milliseconds]))
        except StoreUnavailableError:
            self._owe(key, claim, 0, pending_seconds)  # it may have been made nevertheless
            raise
        if there is None:
            return Seen.NEW
        return Seen.DONE if there == DONE else Seen.PENDING

    async def _give_back(self, asking: asyncio.Task[Seen], key: bytes, claim: bytes, seconds: float) -> None:
        with suppress(StoreUnavailableError):
            if await asking is Seen.NEW:
                await self._update(key, claim, seconds, remember=False)

    async def _update(self, key: bytes, claim: bytes, seconds: float, *, remember: bool) -> None:
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

    async def _ask(self, request: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await request
        except Exception as error:  # whatever the client raises, the store is unavailable
            if self._available:
                self._available = False
                self._changed(False, describe_error(error))
                self._lost.set()
            raise StoreUnavailableError(f"the replay store is unavailable ({type(error).__name__})") from None

    # While the store is unavailable

    def _owe(self, key: bytes, claim: bytes, milliseconds: int, seconds: float) -> None:
        self._owed[key, claim] = (milliseconds, asyncio.get_running_loop().time() + seconds)
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
                # The same request as a delivery's, so that a read-only or full store does not count as available.
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
        """Sends the missed updates. Raises `StoreUnavailableError` if one can't be sent."""
        for (key, claim), (milliseconds, until) in list(self._owed.items()):
            if until > asyncio.get_running_loop().time():
                await self._send(key, claim, milliseconds)
            self._owed.pop((key, claim), None)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs it as a separate task, which finishes even if the delivery that started it is cancelled."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it


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
        # Retry once, immediately: a restarted store has closed all connections in this pool.
        retry=Retry(NoBackoff(), 1),
        **options,
    )
    return Redis.from_pool(pool)  # closes the pool with it
