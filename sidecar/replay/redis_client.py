"""The servers of a shared store: a single one, the primary that sentinels name, or the primaries of a cluster.

A server that takes another's place may lack the last writes, because replicas get them a moment later. So a client reports
the change: it raises `PrimaryChangedError` once, before it uses the new server.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, Protocol

from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.credentials import CredentialProvider
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from sidecar.replay.redis_server import STEP_SECONDS, Repeat, Server
from sidecar.replay.redis_steps import Step, pack
from sidecar.replay.store import StoreAddress, StoreKind

SLOTS: Final = 16384
#: How often a step is sent again to the node that has its key by now.
_REDIRECTIONS: Final = 5

Host = tuple[str, int]


class PrimaryChangedError(Exception):
    """Another server has become the primary."""


class UnknownPrimaryError(Exception):
    """No reachable sentinel knows the primary."""


class NoClusterError(Exception):
    """The server is not part of a cluster."""


class Client(Protocol):
    """Sends steps to the servers that have their keys. The caller makes one request at a time."""

    async def ask(self, steps: Sequence[Step], repeat: Repeat) -> list[bytes]:
        """The answer to each step. Raises if any is missing, whatever the reason.

        After connecting to a server again, the steps of `repeat` are sent first.
        """

    async def probes(self, name: str) -> list[str]:
        """Keys, at least one for each primary. Raises `PrimaryChangedError` where that can be learned without them."""

    def distrust(self) -> None:
        """Call this after a failure: the primaries are looked for again."""

    async def close(self) -> None:
        """Closes all connections."""


def make_client(address: StoreAddress, store: CredentialProvider, sentinels: CredentialProvider) -> Client:
    # One for all connections: to read the system's certificates takes tens of milliseconds, for which deliveries would wait
    # whenever another server becomes the primary.
    tls = SSLConnection().ssl_context

    def connect(host: Host, credentials: CredentialProvider = store, database: int = 0) -> AbstractConnection:
        options: dict[str, Any] = {
            "credential_provider": credentials,
            "db": database,
            # `Server` has its own limits: redis-py makes a task and a timer for everything that it sends.
            "socket_timeout": None,
            "socket_connect_timeout": STEP_SECONDS,
            "retry": Retry(NoBackoff(), 0),  # `Server` does that
            "protocol": 2,
            "driver_info": None,
        }
        if address.path:
            return UnixDomainSocketConnection(path=address.path, **options)
        if not address.tls:
            return Connection(host=host[0], port=host[1], **options)
        connection = SSLConnection(host=host[0], port=host[1], **options)
        connection.ssl_context = tls
        return connection

    if address.kind is StoreKind.CLUSTER:
        return ClusterClient(address.hosts, lambda host: Server(connect(host), together=False))

    def server(host: Host) -> Server:
        return Server(connect(host, database=address.database), together=True)

    if address.kind is StoreKind.SENTINEL:
        asked = [Server(connect(host, sentinels), together=True) for host in address.hosts]
        return SentinelClient(asked, address.service, server)
    return ServerClient(server(address.hosts[0] if address.hosts else ("", 0)))


class ServerClient:
    """One server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def ask(self, steps: Sequence[Step], repeat: Repeat) -> list[bytes]:
        return await self._server.ask(steps, repeat)

    async def probes(self, name: str) -> list[str]:
        return [f"{name}:1", f"{name}:2"]  # in two slots, which a node of a cluster rejects

    def distrust(self) -> None:
        """Its address does not change."""

    async def close(self) -> None:
        await self._server.close()


class SentinelClient:
    """The primary that the sentinels name. They are asked with each probe, because an old primary may go on for a while."""

    def __init__(self, sentinels: list[Server], service: str, connect: Callable[[Host], Server]) -> None:
        self._sentinels = sentinels
        self._service = service
        self._connect = connect
        self._host: Host | None = None
        self._primary: Server | None = None

    async def ask(self, steps: Sequence[Step], repeat: Repeat) -> list[bytes]:
        primary = self._primary
        if primary is None or not primary.is_open:
            primary = await self._locate()
        return await primary.ask(steps, repeat)

    async def probes(self, name: str) -> list[str]:
        await self._locate()
        return [name]

    def distrust(self) -> None:
        """They are asked again anyway."""

    async def close(self) -> None:
        for each in (*self._sentinels, *([self._primary] if self._primary is not None else [])):
            await each.close()

    async def _locate(self) -> Server:
        host, before = await self._find(), self._host
        if self._primary is None or host != before:
            if self._primary is not None:
                await self._primary.close()
            self._host, self._primary = host, self._connect(host)
            if before is not None:
                raise PrimaryChangedError
        return self._primary

    async def _find(self) -> Host:
        cause: Exception | None = None
        for sentinel in list(self._sentinels):
            try:
                (reply,) = await sentinel.send(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
                if isinstance(reply, list) and len(reply) == 2:
                    return reply[0].decode(), int(reply[1])
                cause = reply if isinstance(reply, Exception) else None
            except Exception as error:  # the next one may be reached
                cause = error
            self._sentinels.remove(sentinel)
            self._sentinels.append(sentinel)
        raise UnknownPrimaryError from cause


class ClusterClient:
    """The primaries of a cluster. Which of them has a key follows from its slot, and the nodes know the slots of each."""

    def __init__(self, hosts: Sequence[Host], connect: Callable[[Host], Server]) -> None:
        self._connect = connect
        self._configured = hosts
        #: By address: the nodes that we have a connection to, or want one. Those that do not answer go to the end.
        self._servers: dict[Host, Server] = {}
        self._primary_of: list[Host] = []  #: by slot; empty: not known yet
        self._replicas: dict[Host, set[Host]] = {}
        self._trusted = False
        self._redirected = False

    async def ask(self, steps: Sequence[Step], repeat: Repeat) -> list[bytes]:
        if not self._trusted:
            await self._discover()
        answers: dict[int, bytes] = {}
        for _ in range(_REDIRECTIONS):
            left = [at for at in range(len(steps)) if at not in answers]
            for at, answer in await self._ask_once(steps, left, repeat):
                if isinstance(answer, MovedError):
                    self._note_move(_slot(steps[at].name), answer)
                    continue
                # Its slot is on its way to another node, and its key is there already.
                found = await self._ask_ahead(steps[at], answer) if isinstance(answer, AskError) else answer
                if isinstance(found, bytes):
                    answers[at] = found
                elif not isinstance(found, AskError | TryAgainError):
                    _fail(found)
            if len(answers) == len(steps):
                return [answers[at] for at in range(len(steps))]
        raise ClusterDownError("too many redirections")

    async def probes(self, name: str) -> list[str]:
        if not self._trusted or self._redirected:
            await self._discover()
        missing, names, count = set(self._primary_of), list[str](), 0
        while missing:
            count += 1
            probe = f"{name}:{count}"
            if (host := self._primary_of[_slot(probe)]) in missing:
                missing.remove(host)
                names.append(probe)
        return names

    def distrust(self) -> None:
        self._trusted = False

    async def close(self) -> None:
        for each in self._servers.values():
            await each.close()

    async def _ask_once(self, steps: Sequence[Step], left: Sequence[int], repeat: Repeat) -> list[tuple[int, Any]]:
        """The answers to the steps at the places `left`, from the nodes that should have their keys, all asked at once."""
        by_host: dict[Host, list[int]] = {}
        for at in left:
            by_host.setdefault(self._primary_of[_slot(steps[at].name)], []).append(at)

        async def ask(host: Host, places: list[int]) -> list[tuple[int, Any]]:
            def repeat_here() -> list[Step]:
                return [each for each in repeat() if self._primary_of[_slot(each.name)] == host]

            return list(
                zip(places, await self._server(host).ask([steps[at] for at in places], repeat_here), strict=True)
            )

        tasks = [asyncio.ensure_future(ask(host, places)) for host, places in by_host.items()]
        try:
            return [each for some in await asyncio.gather(*tasks) for each in some]
        finally:  # one failed: the others' connections must be left by then
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _note_move(self, slot: int, to: MovedError) -> None:
        before = self._primary_of[slot]
        host = (to.host or before[0], to.port)
        self._redirected = True
        if host in self._replicas.get(before, ()):
            raise PrimaryChangedError
        self._primary_of[slot] = host

    async def _ask_ahead(self, step: Step, to: AskError) -> Any:
        server = self._server((to.host or self._primary_of[_slot(step.name)][0], to.port))
        allowed, answer = await server.send_packed([b"*1\r\n$6\r\nASKING\r\n", pack([step], whole=True)])
        return allowed if isinstance(allowed, Exception) else answer

    def _server(self, host: Host) -> Server:
        if host not in self._servers:
            self._servers[host] = self._connect(host)
        return self._servers[host]

    async def _discover(self) -> None:
        """Asks a node which primary has which slots, and which replicas it has."""
        cause: Exception | None = None
        for host in dict.fromkeys((*self._servers, *self._configured)):
            server = self._server(host)
            try:
                (reply,) = await server.send(("CLUSTER", "SLOTS"))
                if isinstance(reply, list):
                    await self._learn(reply, host)
                    return
                cause = NoClusterError() if "cluster support disabled" in str(reply) else reply
            except PrimaryChangedError:
                raise
            except Exception as error:  # the next one may be reached
                cause = error
            self._servers[host] = self._servers.pop(host)
        _fail(cause)

    async def _learn(self, ranges: list[Any], asked: Host) -> None:
        """`ranges`: the first and the last slot, the primary, and the replicas, each as host, port and more."""
        primary_of: list[Host | None] = [None] * SLOTS
        replicas: dict[Host, set[Host]] = {}
        for first, last, *nodes in ranges:
            primary, *others = [((name or b"").decode() or asked[0], int(port)) for name, port, *_ in nodes]
            primary_of[first : last + 1] = [primary] * (last + 1 - first)
            replicas.setdefault(primary, set()).update(others)
        known = [each for each in primary_of if each is not None]
        if len(known) != SLOTS or len(primary_of) != SLOTS:
            raise ClusterDownError("a slot without a primary")
        changes = set(zip(self._primary_of, known, strict=False))
        # A slot that goes to a former replica was lost by its primary; one that goes elsewhere was moved with its keys.
        changed = any(new != old and new in self._replicas.get(old, ()) for old, new in changes)
        self._primary_of, self._replicas = known, replicas
        self._trusted, self._redirected = True, False
        members = {*replicas, *(each for some in replicas.values() for each in some)}
        for host in [host for host in self._servers if host not in members]:
            await self._servers.pop(host).close()
        for host in members:
            self._server(host)
        if changed:
            raise PrimaryChangedError


def _slot(name: str) -> int:
    return key_slot(name.encode())


def _fail(answer: object) -> NoReturn:
    if isinstance(answer, Exception):
        raise answer
    raise ResponseError("another answer than the script's")
