"""`sidecar drain`: unready, and each response closes its connection, while deliveries are still accepted."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from craft import Craft
from receiver import Receiver
from sidecar_process import Sidecar, Start
from waiting import WaitUntil

COMMAND = [sys.executable, "-W", "error", "-m", "sidecar", "drain"]


def drain(*arguments: str, command: list[str] | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(command or COMMAND), *arguments], capture_output=True, text=True, timeout=30, check=False, **more
    )


def drain_sockets(pid: int) -> list[str]:
    """The names of the sockets on which a process waits for `sidecar drain`."""
    words = Path("/proc/net/unix").read_text().split()
    return sorted({word for word in words if word.startswith(f"@webhook-sidecar/drain/{pid}-")})


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize("workers", [1, 2])
def test_it_keeps_serving_unready_and_every_response_closes_its_connection(
    start: Start, receiver: Receiver, craft: type[Craft], workers: int
) -> None:
    sidecar = start({"workers": workers, "drain": "3s"})
    kept = [sidecar.connect() for _ in range(8)]  # over all workers
    for client in kept:
        assert client.send(craft.begini()).answer().values(b"connection") == []
    done = drain("--pid", str(sidecar.process.pid))
    assert (done.returncode, done.stderr) == (0, "")
    assert sidecar.admin("/readyz")[0] == 503
    assert sidecar.admin("/livez")[0] == 200
    for client in kept:
        answer = client.send(craft.begini()).answer()
        assert (answer.status, answer.values(b"connection")) == (200, [b"close"])
        assert client.rest() == b""
        client.close()
    for _ in range(4):
        answer = sidecar.ask(craft.begini())
        assert (answer.status, answer.values(b"connection")) == (200, [b"close"])
    forged = craft.request(b"/webhooks/begini", [(b"X-Signature", b"0" * 128)], b"{}")
    assert sidecar.ask(forged).values(b"connection") == [b"close"]
    assert len(receiver.requests) == 20
    assert drain("--pid", str(sidecar.process.pid)).returncode == 0  # again, and nothing changes
    assert [line["event"] for line in sidecar.lines].count("drain_requested") == 1


def test_a_worker_that_is_restarted_during_the_drain_closes_connections_too(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    sidecar = start({"workers": 2})
    assert drain("--pid", str(sidecar.process.pid)).returncode == 0
    old = children_of(sidecar.process.pid)
    for pid in old:
        os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: len(set(children_of(sidecar.process.pid)) - set(old)) == 2)
    for _ in range(6):
        assert sidecar.ask(craft.begini()).values(b"connection") == [b"close"]


def test_the_time_since_the_drain_began_is_not_waited_for_again_on_sigterm(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    """The receiver has ended by then: whoever comes must find a closed port, which a balancer tries elsewhere, and no 502."""
    sidecar = start({"drain": "8s"})  # of which a quarter is for deliveries that are on their way
    assert drain("--pid", str(sidecar.process.pid)).returncode == 0
    time.sleep(2)
    began = time.monotonic()
    sidecar.send_signal(signal.SIGTERM)
    assert sidecar.exit_status(10) == 0
    assert time.monotonic() - began < 1.5
    sidecar.check_leaks()


def test_a_configuration_that_was_broken_meanwhile_does_not_stop_it(start: Start) -> None:
    sidecar = start()
    sidecar.file.write_text("routes: [")
    assert drain("--pid", str(sidecar.process.pid), cwd=sidecar.directory).returncode == 0
    assert sidecar.admin("/readyz")[0] == 503


def test_of_several_one_must_be_chosen_and_the_others_stay_ready(start: Start) -> None:
    first, second = start(), start()
    done = drain()
    assert done.returncode == 1
    assert "several are running: " in done.stderr
    assert {str(each.process.pid) for each in (first, second)} <= set(
        done.stderr.replace(",", "").replace(";", "").split()
    )
    assert drain("--pid", str(second.process.pid)).returncode == 0
    assert (first.admin("/readyz")[0], second.admin("/readyz")[0]) == (200, 503)


def test_without_a_running_process_it_says_so() -> None:
    done = drain("--pid", str(os.getpid()))
    assert done.returncode == 1
    assert f"no running sidecar with PID {os.getpid()} found; run this in its container" in done.stderr


def test_a_process_that_is_stopping_has_no_socket_left(start: Start) -> None:
    sidecar = start({"drain": "4s"})
    assert len(drain_sockets(sidecar.process.pid)) == 1
    sidecar.send_signal(signal.SIGTERM)
    sidecar.line(event="draining")
    assert drain("--pid", str(sidecar.process.pid)).returncode == 1
    assert sidecar.exit_status(10) == 0


# -- who may not --


def is_ready(sidecar: Sidecar) -> bool:
    time.sleep(0.2)
    return sidecar.admin("/readyz")[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_can_not_begin_it(start: Start) -> None:
    sidecar = start()
    (name,) = drain_sockets(sidecar.process.pid)
    code = (
        f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({chr(0) + name[1:]!r}); "
        "s.sendall(b'drain\\n'); print(s.recv(9))"
    )
    python = os.path.realpath(sys.executable)  # the environment may be in root's home, which others can't enter
    done = subprocess.run([python, "-c", code], user=65534, capture_output=True, text=True, cwd="/", check=False)
    assert done.stdout == "b''\n" or "ConnectionResetError" in done.stderr or "BrokenPipeError" in done.stderr
    assert is_ready(sidecar)


def test_another_container_of_the_pod_can_not_begin_it(tmp_path: Path) -> None:
    """It shares the network's namespace, and with it abstract sockets, but not that of processes."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can make a PID namespace")
    file = tmp_path / "sidecar.yaml"
    file.write_text(
        "{listen: '127.0.0.1:0', admin: '127.0.0.1:0', routes: [{path: /a, open: true, upstream: 'http://127.0.0.1:9'}]}"
    )
    before = set(Path("/proc/net/unix").read_text().split())
    serve = [sys.executable, "-m", "sidecar", "serve", "--config", str(file)]
    # Not --mount-proc, which needs a root that is a mount: in a chroot it isn't.
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--propagation", "unchanged"]
    own_proc = ["sh", "-c", 'mount --make-private /proc && mount -t proc proc /proc && exec "$@"', "sh"]
    container = subprocess.Popen([*unshare, *own_proc, *serve], stdout=subprocess.PIPE)
    assert container.stdout is not None
    try:
        assert b"config_loaded" in container.stdout.readline()
        assert b"serving" in container.stdout.readline()
        new = set(Path("/proc/net/unix").read_text().split()) - before
        (name,) = (word for word in new if word.startswith("@webhook-sidecar/drain/1-"))
        done = drain("--pid", "1")
        assert done.returncode == 1
        assert "no running sidecar with PID 1 found" in done.stderr
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"\0{name[1:]}")
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(b"drain\n")
                assert connection.recv(9) == b""
        inside = ["nsenter", "--target", children_of(container.pid)[0], "--pid", "--mount", "--root"]
        done = drain(command=[*inside, *COMMAND])  # as a preStop hook runs it: it needs no PID
        assert (done.returncode, done.stderr) == (0, "")
        assert b"drain_requested" in container.stdout.readline()  # the first one
    finally:
        container.kill()
        container.wait()
        container.stdout.close()


@pytest.mark.parametrize("sent", [b"", b"drain", b"GET / HTTP/1.1\r\n", b"drain \n"])
def test_other_words_begin_nothing(start: Start, sent: bytes) -> None:
    sidecar = start()
    (name,) = drain_sockets(sidecar.process.pid)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"\0{name[1:]}")
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(9) == b""
    assert is_ready(sidecar)
