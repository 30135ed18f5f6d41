"""What a delivery leaves behind is freed at once. Circles of objects would wait for Python's collector of garbage, which runs
seldom here, and hold bodies and buffers until then: hundreds of megabytes under a burst of large deliveries."""

import os
import socket
import struct
import time
from collections.abc import Callable

import pytest
from client import Client
from compiled import PROGRAMS
from craft import Craft
from needs import needs_compiled_code
from receiver import Peer, Receiver, Script
from sidecar_process import Sidecar, Start

#: Runs inside the sidecar: no collection by itself; one for each line that is asked, answered with how many objects it found.
INSIDE = """
import sys
if "serve" in sys.orig_argv:
    import gc, os, threading

    def count():
        while True:
            with open(os.environ["GARBAGE_ASK"]) as ask:
                ask.read()
            with open(os.environ["GARBAGE_TOLD"], "w") as told:
                told.write(str(gc.collect()))

    gc.disable()
    gc.enable = lambda: None
    threading.Thread(target=count, daemon=True).start()
"""
MEBIBYTE = 1 << 20
TIMES = 40
#: A sidecar, and how many objects in circles it holds.
Collecting = tuple[Sidecar, Callable[[], int]]


@pytest.fixture(scope="module", params=PROGRAMS.values(), ids=list(PROGRAMS))
def collecting(
    request: pytest.FixtureRequest, start_for_module: Start, tmp_path_factory: pytest.TempPathFactory
) -> Collecting:
    needs_compiled_code(request.param)
    directory = tmp_path_factory.mktemp("garbage")
    (directory / "sitecustomize.py").write_text(INSIDE)
    ask, told = directory / "ask", directory / "told"
    for fifo in (ask, told):
        os.mkfifo(fifo)
    sidecar = start_for_module(
        {"timeouts": {"response": "300ms", "total": "600ms"}},
        env={
            "SIDECAR_PURE": request.param,
            "PYTHONPATH": str(directory),
            "GARBAGE_ASK": str(ask),
            "GARBAGE_TOLD": str(told),
        },
    )

    def circles() -> int:
        ask.write_text("")
        return int(told.read_text())

    return sidecar, circles


def cut(peer: Peer) -> None:
    peer.read_body()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal")
    peer.close()


def reset(client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def ask(sidecar: Sidecar, raw: bytes) -> None:
    with sidecar.connect() as client:
        client.send(raw).answer()


def ask_ten_times(sidecar: Sidecar, raw: bytes) -> None:
    with sidecar.connect() as client:
        for _ in range(10):
            client.send(raw).answer()


def leave(sidecar: Sidecar, raw: bytes) -> None:
    with sidecar.connect() as client:
        client.send(raw)
        reset(client)


def acme(craft: type[Craft]) -> bytes:
    stamp = b"%d" % (time.time() * 1000)
    mac = craft.mac("ACME_SECRET", b".".join([stamp, b"evt-1", craft.json_body]), "sha256")
    fields = [(b"X-Acme-Signature", b"v1=" + mac), (b"X-Acme-Timestamp", stamp), (b"X-Acme-Id", b"evt-1")]
    return craft.request(b"/webhooks/acme", fields, craft.json_body)


KINDS: dict[str, tuple[Callable[[Sidecar, bytes], object], Callable[[type[Craft]], bytes], Script | None]] = {
    "accepted": (ask, lambda craft: craft.begini(), None),
    "accepted, by a scheme that signs a header": (ask, acme, None),
    "accepted, on a kept connection": (ask_ten_times, lambda craft: craft.begini(), None),
    "refused, on a kept connection": (ask_ten_times, lambda craft: craft.begini(secret="ACME_SECRET"), None),
    "refused": (ask, lambda craft: craft.begini(secret="ACME_SECRET"), None),
    "no route": (ask, lambda craft: craft.begini(path=b"/nowhere"), None),
    "malformed": (ask, lambda craft: craft.begini(headers=[(b"Host", b"another")]), None),
    "large": (ask, lambda craft: craft.begini(b"x" * MEBIBYTE), None),
    "the receiver closes": (ask, lambda craft: craft.begini(), lambda peer: peer.close()),
    "the answer is cut": (ask, lambda craft: craft.begini(), cut),
    "the receiver is too slow": (ask, lambda craft: craft.begini(), lambda peer: peer.gone()),
    "leaves after the request": (leave, lambda craft: craft.begini(), None),
    "leaves in the body": (leave, lambda craft: craft.begini(b"x" * 1000)[:-500], None),
    "leaves in the head": (leave, lambda craft: craft.begini()[:40], None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_leaves_nothing_for_the_collector(
    collecting: Collecting, receiver: Receiver, craft: type[Craft], kind: str
) -> None:
    sidecar, circles = collecting
    how, make, answer = KINDS[kind]
    raw = make(craft)
    times = 5 if "slow" in kind else TIMES
    if answer is not None:
        receiver.then(*[answer] * (times + 1))
    how(sidecar, raw)  # what is made once, is made
    sidecar.idle()
    circles()
    for _ in range(times):
        how(sidecar, raw)
    sidecar.idle()
    receiver.forget()
    assert circles() < times, "each connection leaves circles of objects"
