"""Connecting to a receiver by name: one lookup for all, addresses side by side, and errors that say what failed."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from needs import needs_ipv6

from sidecar.http1 import connect
from sidecar.http1.connect import Connector, open_first
from sidecar.http1.resolver import Address, Resolver
from sidecar.http1.upstream import UpstreamAddress
from sidecar.outcomes import Reason, Rejected

HOST = "receiver.test"
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [uvloop.new_event_loop, asyncio.new_event_loop]


class Names:
    """Answers lookups after `seconds`, and counts them."""

    def __init__(self) -> None:
        self.asked = 0
        self.seconds = 0.0
        self.hosts: list[str] = ["127.0.0.1"]
        self.problem: Exception | None = None
        self.hangs: threading.Event | None = None

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        assert host == HOST
        self.asked += 1
        time.sleep(self.seconds)
        if self.hangs is not None:
            self.hangs.wait(10)
        if self.problem is not None:
            raise self.problem
        return [(family(each), socket.SOCK_STREAM, 6, "", (each, port)) for each in self.hosts]


def family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=300) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def silent(host: str, port: int = 0) -> Iterator[int]:
    """A port on which connections are neither accepted nor refused: its queue is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(family(host)))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(0)
        for _ in range(20):
            filler = stack.enter_context(socket.socket(family(host)))
            filler.settimeout(0.1)
            try:
                filler.connect(server.getsockname()[:2])
            except TimeoutError:
                break
        else:
            pytest.skip("this system's queue of connections never fills up")
        yield server.getsockname()[1]


def connecting(port: int, seconds: float = 5, count: int = 1) -> list[asyncio.Transport | Rejected]:
    """What becomes of connections that are opened together."""

    async def play() -> list[Any]:
        loop = asyncio.get_running_loop()
        connector = Connector(loop, UpstreamAddress("http", HOST, port, ""), None)
        opened = await asyncio.gather(*(connector.connect(seconds, Peer) for _ in range(count)), return_exceptions=True)
        return close(opened)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(play())


def close(opened: list[Any]) -> list[Any]:
    for each in opened:
        if isinstance(each, Peer):
            each.transport.abort()
    return opened


class Peer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.nodelay = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def rejection(found: object) -> Rejected:
    assert isinstance(found, Rejected), found
    assert found.reason == Reason.UPSTREAM_UNREACHABLE
    return found


# One lookup for all


def test_connections_opened_together_share_one_look_up(names: Names, port: int) -> None:
    names.seconds = 0.1
    began = time.monotonic()
    opened = connecting(port, count=170)
    assert all(isinstance(each, Peer) and each.nodelay for each in opened), opened
    assert names.asked == 1
    assert time.monotonic() - began < 3


def test_a_result_is_used_for_some_seconds(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        now = [loop.time()]
        monkeypatch.setattr(loop, "time", lambda: now[0])
        addresses = Resolver(loop, HOST, 1)
        for expected, seconds in ((1, 0.0), (1, 4.9), (2, 0.2), (2, 4.9)):
            now[0] += seconds
            assert await addresses.addresses() == [Address(socket.AF_INET, ("127.0.0.1", 1))]
            assert names.asked == expected

    asyncio.run(play())


def test_a_failure_is_remembered_for_half_a_second(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    names.problem = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def play() -> None:
        loop = asyncio.get_running_loop()
        now = [loop.time()]
        monkeypatch.setattr(loop, "time", lambda: now[0])
        addresses = Resolver(loop, HOST, 1)
        for expected, seconds in ((1, 0.0), (1, 0.4), (2, 0.2)):
            now[0] += seconds
            with pytest.raises(OSError, match=r"can't resolve receiver\.test: Temporary failure"):
                await addresses.addresses()
            assert names.asked == expected

    asyncio.run(play())


def test_addresses_that_nobody_listens_on_are_looked_up_again(names: Names, port: int) -> None:
    """A Pod was replaced: its name has another address, and the old one refuses."""
    names.hosts = ["127.0.0.9"]
    threading.Timer(0.7, lambda: names.hosts.__setitem__(0, "127.0.0.1")).start()
    assert isinstance(connecting(port)[0], Peer)
    assert 2 <= names.asked <= 5


def test_one_that_gives_up_does_not_end_the_look_up_of_others(names: Names, port: int) -> None:
    names.seconds = 0.4

    async def play() -> list[Any]:
        connector = Connector(asyncio.get_running_loop(), UpstreamAddress("http", HOST, port, ""), None)
        both = (connector.connect(seconds, Peer) for seconds in (0.1, 5))
        return close(await asyncio.gather(*both, return_exceptions=True))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        gone, stays = runner.run(play())
    assert rejection(gone).detail == "can't resolve receiver.test within 0.1 s"
    assert isinstance(stays, Peer)
    assert names.asked == 1


def test_a_look_up_that_hangs_does_not_keep_the_program(names: Names) -> None:
    names.hangs = threading.Event()
    began = time.monotonic()
    assert rejection(connecting(1, 0.1)[0]).detail == "can't resolve receiver.test within 0.1 s"
    assert time.monotonic() - began < 2
    names.hangs.set()  # the loop is closed: its thread must not fail
    for thread in threading.enumerate():
        if thread.name.startswith("resolve"):
            thread.join(5)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (UnicodeError("label empty or too long"), "label empty or too long"),
        (OSError("odd"), "odd"),
        (None, "it has no address"),
    ],
)
def test_the_error_says_that_the_name_was_not_resolved(names: Names, problem: Exception | None, text: str) -> None:
    names.problem, names.hosts = problem, []
    assert rejection(connecting(1, 10)[0]).detail == f"can't resolve receiver.test: {text}"


# Several addresses


@pytest.mark.parametrize(("first", "second"), [("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("127.0.0.1", "127.0.0.2")])
def test_an_address_that_is_silent_does_not_hinder(names: Names, first: str, second: str) -> None:
    if "::1" in (first, second):
        needs_ipv6()
    with silent(first) as at, socket.create_server((second, at), family=family(second)):
        names.hosts = [first, second]
        began = time.monotonic()
        assert isinstance(connecting(at, 3)[0], Peer)
        assert time.monotonic() - began < 2


def test_all_addresses_are_tried_within_a_short_timeout(names: Names) -> None:
    with silent("127.0.0.1") as at, socket.create_server(("127.0.0.3", at)), silent("127.0.0.2", at):
        names.hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        assert isinstance(connecting(at, 0.4)[0], Peer)


def test_all_silent_ends_with_the_timeout(names: Names) -> None:
    with silent("127.0.0.1") as at, silent("127.0.0.2", at):
        names.hosts = ["127.0.0.1", "127.0.0.2"]
        began = time.monotonic()
        detail = rejection(connecting(at, 0.4)[0]).detail
        assert detail == f"no connection to http://{HOST}:{at} within 0.4 s"
        assert 0.3 < time.monotonic() - began < 2


def test_refusals_from_all_addresses_are_reported_as_one(names: Names, port: int) -> None:
    names.hosts = ["127.0.0.8", "127.0.0.9"]
    assert rejection(connecting(port, 0.5)[0]).detail == f"no connection to http://{HOST}:{port}: Connection refused"


@pytest.mark.parametrize("new_loop", LOOPS)
def test_the_next_address_is_tried_at_once_where_one_refuses(
    new_loop: Callable[[], asyncio.AbstractEventLoop], port: int
) -> None:
    async def play() -> None:
        addresses = [Address(socket.AF_INET, (host, port)) for host in ("127.0.0.8", "127.0.0.9", "127.0.0.1")]
        opened, place = await open_first(asyncio.get_running_loop(), addresses, 60)
        assert (opened.getpeername(), place) == (("127.0.0.1", port), 2)
        opened.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(play(), 5))


def test_only_one_of_several_connections_is_kept(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both connect in the same turn of the loop: the other one is closed, not left to the collector."""
    opened: list[socket.socket] = []

    async def ready_together(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
        one = socket.create_connection(address.sockaddr[:2])
        opened.append(one)
        await both.wait()
        return one

    async def play() -> None:
        addresses = [Address(socket.AF_INET, ("127.0.0.1", port))] * 2
        asyncio.get_running_loop().call_later(0.1, both.set)
        kept, _ = await open_first(asyncio.get_running_loop(), addresses, 0.01)
        await asyncio.sleep(0.01)
        assert sum(each.fileno() >= 0 for each in opened) == 1
        kept.close()

    both = asyncio.Event()
    monkeypatch.setattr(connect, "_open_socket", ready_together)
    asyncio.run(play())


def in_order(*hosts: str, overtaken: tuple[str, ...] = (), times: int = 1) -> list[list[str]]:
    async def play() -> list[list[str]]:
        addresses = Resolver(asyncio.get_running_loop(), HOST, 1)
        addresses.overtaken([Address(family(host), (host, 1)) for host in overtaken])
        return [[each.sockaddr[0] for each in await addresses.addresses()] for _ in range(times)]

    return asyncio.run(play())


def test_families_take_turns_and_the_first_choice_keeps_its_family(names: Names) -> None:
    names.hosts = ["::1", "::2", "::3", "127.0.0.1", "127.0.0.2"]
    (found,) = in_order()
    assert [":" in host for host in found] == [True, False, True, False, True]
    assert set(found) == set(names.hosts)


def test_the_addresses_of_a_family_take_turns(names: Names) -> None:
    """What name servers do by rotating their answers, which are asked for less often now."""
    names.hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert {found[0] for found in in_order(times=3)} == set(names.hosts)


def test_an_address_that_was_overtaken_is_tried_last(names: Names) -> None:
    names.hosts = ["::1", "127.0.0.1"]
    assert in_order(overtaken=("::1",), times=2) == [["127.0.0.1", "::1"]] * 2
