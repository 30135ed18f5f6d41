"""Receivers by name: a slow name server in a burst of new connections, an address that is dead, a name that is unknown.

The process under test resolves names as the test says: `sitecustomize` replaces `socket.getaddrinfo` in it.
"""

import contextlib
import json
import os
import socket
import ssl
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from craft import Craft
from needs import needs_ipv6
from receiver import Receiver
from sidecar_process import Sidecar, Start

RESOLVER = """
    import json, os, socket, time

    system = socket.getaddrinfo

    def getaddrinfo(host, port, *arguments, **options):
        names = json.loads(os.environ["NAMES"])
        if host not in names:
            return system(host, port, *arguments, **options)
        time.sleep(names[host]["seconds"])
        with open(os.environ["NAMES_ASKED"], "a") as file:
            file.write(host + "\\n")
        if not names[host]["addresses"]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in names[host]["addresses"]
        ]

    socket.getaddrinfo = getaddrinfo
"""


#: Starts a sidecar; gives it, and the file with the names that it asked for.
Resolving = Callable[..., tuple[Sidecar, Path]]


@pytest.fixture
def resolving(start: Start, tmp_path: Path) -> Resolving:
    """Starts a sidecar whose receiver has this name."""
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(RESOLVER))
    asked = tmp_path / "asked"
    asked.touch()

    def begin(
        port: int, *, addresses: list[str], seconds: float = 0.0, connect: str = "5s", scheme: str = "http"
    ) -> tuple[Sidecar, Path]:
        path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        names = {"receiver.test": {"addresses": addresses, "seconds": seconds}}
        env = {"NAMES": json.dumps(names), "NAMES_ASKED": str(asked), "PYTHONPATH": path}
        changes = {"upstream": f"{scheme}://receiver.test:{port}", "timeouts": {"connect": connect}}
        return start(changes, env=env), asked

    return begin


def test_a_burst_of_new_connections_waits_for_one_look_up(
    resolving: Resolving, receiver: Receiver, craft: type[Craft]
) -> None:
    """150 connections and a name server that responds after 100 ms gave 52 times 502."""
    sidecar, asked = resolving(receiver.port, addresses=["127.0.0.1"], seconds=0.15, connect="3s")
    raw = craft.begini()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(sidecar.connect()) for _ in range(120)]
        for client in clients:
            client.send(raw)
        statuses = [client.answer().status for client in clients]
    assert statuses == [200] * 120
    assert len(receiver.requests) == 120
    assert 1 <= len(asked.read_text().splitlines()) <= 3  # the burst may take longer than a result is kept


def test_a_name_that_is_not_resolved_is_named_in_the_log(
    resolving: Resolving, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar, _ = resolving(receiver.port, addresses=[], connect="200ms")
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini()).status == 502
    line = sidecar.delivery(mark)
    assert (line["reason"], line["outcome"]) == ("upstream_unreachable", "failed")
    assert line["detail"] == "can't resolve receiver.test: Name or service not known"
    assert not receiver.requests


def test_a_silent_ipv6_address_does_not_hinder_a_good_ipv4_address(
    resolving: Resolving, receiver: Receiver, craft: type[Craft]
) -> None:
    """Nobody accepts on the IPv6 address, whose queue is full; within timeouts.connect the other one is tried."""
    needs_ipv6()
    with contextlib.ExitStack() as stack:
        dead = stack.enter_context(socket.socket(socket.AF_INET6))
        dead.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        dead.bind(("::1", receiver.port))
        dead.listen(0)
        for _ in range(20):
            filler = stack.enter_context(socket.socket(socket.AF_INET6))
            filler.settimeout(0.1)
            try:
                filler.connect(("::1", receiver.port))
            except TimeoutError:
                break
        sidecar, _ = resolving(receiver.port, addresses=["::1", "127.0.0.1"], connect="10s")
        began = time.monotonic()
        assert sidecar.ask(craft.begini()).status == 200
        assert time.monotonic() - began < 5
    assert len(receiver.requests) == 1


def test_a_name_server_that_hangs_does_not_delay_the_end(
    resolving: Resolving, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar, _ = resolving(receiver.port, addresses=["127.0.0.1"], seconds=20, connect="200ms")
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini()).status == 502
    assert sidecar.delivery(mark)["detail"] == "can't resolve receiver.test within 0.2 s"
    ending = threading.Timer(10, sidecar.kill)
    ending.start()
    began = time.monotonic()
    sidecar.stop()
    ending.cancel()
    assert time.monotonic() - began < 10


def test_tls_to_a_receiver_by_name_checks_the_name(
    resolving: Resolving,
    receiver: Receiver,
    new_receiver: Callable[..., Receiver],
    authority: tuple[Path, Callable[[str], ssl.SSLContext]],
    craft: type[Craft],
) -> None:
    tls = new_receiver(tls=authority[1]("receiver.test"))
    sidecar, _ = resolving(tls.port, addresses=["127.0.0.9", "127.0.0.1"], scheme="https")
    assert sidecar.ask(craft.begini()).status == 200
    stranger = new_receiver(tls=authority[1]("other.test"))
    sidecar, _ = resolving(stranger.port, addresses=["127.0.0.1"], scheme="https", connect="300ms")
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini()).status == 502
    assert "TLS" in sidecar.delivery(mark)["detail"]
    assert stranger.bytes_seen == 0
