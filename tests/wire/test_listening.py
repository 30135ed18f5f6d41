"""The listeners' addresses: both families on one socket, and unix sockets that change hands."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from craft import Craft
from needs import needs_ipv6
from preloaded import run_text
from receiver import Peer, Receiver
from sidecar_process import Sidecar, Start
from waiting import PATIENCE


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("l") / "s"


@pytest.fixture
def everywhere(start: Start) -> Callable[..., Sidecar]:
    """Starts a sidecar on every address, and talks to it over one."""

    def begin(host: str = "127.0.0.1", **changes: Any) -> Sidecar:
        needs_ipv6()
        sidecar = start({"listen": "[::]:0", "admin": "[::]:0", **changes})
        assert sidecar.address.startswith("[::]:")
        assert sidecar.admin_address.startswith("[::]:")
        sidecar.address = f"{host}:{port_of(sidecar.address)}"
        sidecar.admin_address = f"127.0.0.1:{port_of(sidecar.admin_address)}"
        return sidecar

    return begin


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def ask(sidecar: Sidecar, raw: bytes, source: str | None = None) -> tuple[int, dict[str, Any]]:
    mark = sidecar.mark()
    status = sidecar.ask(raw, source=source).status
    return status, sidecar.delivery(mark)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_ipv4_sender_on_a_dual_stack_socket_has_an_ipv4_address(
    everywhere: Callable[..., Sidecar], receiver: Receiver, craft: type[Craft], workers: int
) -> None:
    """For the allowlist, trusted proxies, the log and the receiver."""
    sidecar = everywhere(workers=workers)
    status, line = ask(sidecar, craft.begini())
    assert (status, line["peer"], line["client"]) == (200, "127.0.0.1", "127.0.0.1")
    assert receiver.requests[-1].values(b"X-Forwarded-For") == [b"127.0.0.1"]
    raw = craft.request(b"/network", method=b"POST")
    assert ask(sidecar, raw, "127.0.0.3")[0] == 200
    seen = len(receiver.requests)
    assert ask(sidecar, raw, "127.0.0.5")[0] == 403
    assert len(receiver.requests) == seen


def test_an_ipv6_sender_on_a_dual_stack_socket_has_its_address(
    everywhere: Callable[..., Sidecar], receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = everywhere("::1")
    status, line = ask(sidecar, craft.begini())
    assert (status, line["peer"], line["client"]) == (200, "::1", "::1")
    assert receiver.requests[-1].values(b"X-Forwarded-For") == [b"::1"]


@pytest.mark.parametrize("listen", ["[::]", "127.0.0.1", "[::1]", "0.0.0.0"])
def test_healthcheck_finds_the_admin_listener(start: Start, receiver: Receiver, tmp_path: Path, listen: str) -> None:
    if listen.startswith("["):
        needs_ipv6()
    sidecar = start({"admin": f"{listen}:0"})
    host = {"[::]": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::1]": "::1"}.get(listen, listen)
    port = port_of(sidecar.admin_address)
    sidecar.admin_address = f"{host}:{port}"
    asked = [listen] if listen == "0.0.0.0" else [listen, "[::]"]
    for admin in asked:  # `[::]` also where only one family can be reached
        file = tmp_path / "health.yaml"
        file.write_text(json.dumps(sidecar.config | {"admin": f"{admin}:{port}"}))
        done = run_text("healthcheck", "--config", file)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_second_start_leaves_the_socket_of_the_first(
    start: Start, receiver: Receiver, craft: type[Craft], path: Path
) -> None:
    first = start({"listen": f"unix:{path}"})
    second = start({"listen": f"unix:{path}"}, wait=False)
    assert second.process.wait(20) == 1
    for reader in second.readers:
        reader.join(5)
    assert b"another process listens there" in second.stderr + b"".join(second.stdout)
    assert first.ask(craft.begini()).status == 200
    assert len(receiver.requests) == 1


def test_a_handover_leaves_the_socket_of_the_new_process(
    start: Start, receiver: Receiver, craft: type[Craft], path: Path
) -> None:
    """The old process stops listening, and still has a delivery when the new one begins."""
    arrived, answer = threading.Event(), threading.Event()

    def slowly(peer: Peer) -> None:
        arrived.set()
        answer.wait(PATIENCE)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    # It listens for a quarter of `drain`; the new one may need longer than the rest to start.
    old = start({"listen": f"unix:{path}", "drain": "20s", "timeouts": {"response": "2m", "total": "2m"}})
    receiver.then(slowly)
    with old.connect() as client:
        client.send(craft.begini())
        assert arrived.wait(PATIENCE)
        old.process.terminate()
        new = None
        while new is None:
            candidate = start({"listen": f"unix:{path}"}, wait=False)
            try:
                candidate.wait_serving()
                new = candidate
            except AssertionError:
                candidate.exit_status()
                assert b"another process listens there" in candidate.stderr + b"".join(candidate.stdout)
        answer.set()
        assert client.answer().status == 200
    assert old.process.wait(20) == 0
    assert path.exists()
    assert new.ask(craft.begini()).status == 200
    new.stop()
    assert not path.exists()
