"""Start, stop and everything between: exit statuses, drain, signals."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from craft import Craft
from receiver import Peer, Receiver, held
from sidecar_process import Sidecar, Start
from waiting import WaitUntil

NEW_INTERPRETER = True
LATE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"


def hang(peer: Peer) -> None:
    peer.read_body()
    peer.gone(15)
    peer.close()


def finished(sidecar: Sidecar, patience: float = 10) -> int:
    status = sidecar.exit_status(patience)
    sidecar.check_leaks()
    return status


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param(
            "upstream: http://127.0.0.1:1\ndrian: 5s\nroutes:\n- path: /a\n- path: /b\n  verify: beginy\n"
            "  secrets: [{env: NOPE}]\n"
            "- path: /c\n  verify: begini\n  secrets: [{env: ABSENT}]\n  allow: [10.0.0.1/8]\n",
            ["drian", "verifies nothing", "beginy", "ABSENT is not set", "use '10.0.0.0/8'"],
            id="many mistakes",
        ),
        pytest.param("", ["no configuration"], id="empty"),
        pytest.param("routes: [", ["is not valid YAML"], id="no YAML"),
        pytest.param(
            "upstream: http://127.0.0.1:1\nupstream: http://127.0.0.1:2\nroutes: []\n", ["upstream"], id="duplicate key"
        ),
    ],
)
def test_a_broken_configuration_ends_at_once_with_every_mistake(start: Start, text: str, problems: list[str]) -> None:
    sidecar = start(text=text or "\n", wait=False)
    assert sidecar.exit_status() == 1
    for problem in problems:
        assert problem.encode() in sidecar.stderr, sidecar.stderr
    assert b"Traceback" not in sidecar.stderr
    assert b"sidecar.yaml:" in sidecar.stderr
    assert sidecar.stdout == []


def test_an_empty_secret_ends_the_start(start: Start) -> None:
    sidecar = start(env={"BEGINI_API_KEY": ""}, wait=False)
    assert sidecar.exit_status() == 1
    assert b"BEGINI_API_KEY is empty" in sidecar.stderr


@pytest.mark.parametrize("which", ["listen", "admin"])
def test_a_port_that_is_taken_ends_the_start_with_a_sentence(start: Start, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sidecar = start({which: f"127.0.0.1:{taken.getsockname()[1]}"}, wait=False)
        assert sidecar.exit_status() == 1
        assert b"can't listen on" in sidecar.stderr
        assert sidecar.stderr.count(b"\n") == 1


def test_sigterm_on_an_idle_process_ends_it_with_0(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    sidecar = start()
    with sidecar.connect() as idle:
        assert idle.send(craft.begini()).answer().status == 200
        sidecar.send_signal(signal.SIGTERM)
        assert finished(sidecar) == 0
        assert idle.rest() == b""
    assert sidecar.stderr == b""
    assert [line["event"] for line in sidecar.lines if line["event"] != "delivery"][-2:] == ["draining", "stopped"]


def test_on_sigterm_the_delivery_in_flight_is_answered(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    sidecar = start({"drain": "6s"})
    release = threading.Event()
    receiver.then(held(release, LATE))
    with sidecar.connect() as client:
        client.send(craft.begini())
        receiver.wait()
        sidecar.send_signal(signal.SIGTERM)
        # unready at once, alive all the time, still taking what is on its way
        wait_until(lambda: sidecar.admin("/readyz")[0] == 503, "readyz 503", 1)
        assert sidecar.admin("/livez")[0] == 200
        assert sidecar.admin("/metrics")[0] == 200
        assert sidecar.ask(craft.begini()).status == 200
        # then the data listener closes, and what is in flight is waited for
        time.sleep(1.7)
        with pytest.raises(OSError, match=r"refused|reset"):
            sidecar.connect()
        assert sidecar.admin("/readyz")[0] == 503
        release.set()
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"late")
        assert client.rest() == b""
    assert finished(sidecar, 3) == 0
    assert not sidecar.bugs()
    assert sidecar.stderr == b""


def test_during_the_drain_a_kept_connection_is_closed_after_its_answer(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start({"drain": "3s"})
    release = threading.Event()
    receiver.then(held(release, LATE))
    with sidecar.connect() as client:
        client.send(craft.begini())
        receiver.wait()
        sidecar.send_signal(signal.SIGINT)
        time.sleep(0.3)
        release.set()
        answer = client.answer()
        assert answer.status == 200
        assert answer.values(b"connection") == [b"close"]
        assert client.rest() == b""
    assert finished(sidecar, 3) == 0


def test_a_body_still_on_its_way_at_sigterm_is_taken_and_answered(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start({"drain": "3s"})
    raw = craft.begini()
    with sidecar.connect() as client:
        client.send(raw[:-10])
        time.sleep(0.1)
        sidecar.send_signal(signal.SIGINT)
        time.sleep(0.2)
        client.send(raw[-10:])
        assert client.answer().status == 200
    assert finished(sidecar, 3) == 0


def test_sigint_ends_an_idle_process_quickly(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    sidecar = start({"drain": "20s"})
    began = time.monotonic()
    sidecar.send_signal(signal.SIGINT)
    assert finished(sidecar, 4) == 0
    assert time.monotonic() - began < 3
    assert sidecar.stderr == b""


@pytest.mark.parametrize(("second", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(
    start: Start, receiver: Receiver, craft: type[Craft], second: signal.Signals, status: int
) -> None:
    sidecar = start({"drain": "30s"})
    receiver.then(hang)
    with sidecar.connect() as client:
        client.send(craft.begini())
        receiver.wait()
        sidecar.send_signal(signal.SIGTERM)
        sidecar.line(event="draining")
        began = time.monotonic()
        sidecar.send_signal(second)
        assert finished(sidecar, 4) == status
        assert time.monotonic() - began < 2
    assert sidecar.stderr == b""
    assert sidecar.lines[-1]["event"] == "stopped"


def test_when_the_drain_is_over_what_is_in_flight_is_cut_and_the_exit_is_1(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start({"drain": "1200ms", "timeouts": {"response": "20s", "total": "20s"}})
    receiver.then(hang)
    with sidecar.connect() as client:
        client.send(craft.begini())
        receiver.wait()
        began = time.monotonic()
        sidecar.send_signal(signal.SIGTERM)
        assert client.answer_if_any() is None
        assert finished(sidecar) == 1
        assert 0.5 < time.monotonic() - began < 4
    assert sidecar.stderr == b""
    line = sidecar.delivery()
    assert (line["outcome"], line["reason"]) == ("failed", "draining")
    stopped = sidecar.lines[-1]
    assert (stopped["event"], stopped["level"]) == ("stopped", "error")
    assert stopped["detail"] == "cut off at the end of drain: 1 in flight"
    assert not sidecar.bugs()


def test_a_sender_that_drips_its_body_does_not_hold_the_drain(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start({"drain": "1200ms", "limits": {"body_timeout": "20s", "header_timeout": "20s"}})
    with sidecar.connect() as head, sidecar.connect() as body:
        head.send(b"POST /webhooks/be")
        body.send(craft.begini()[:-5])
        time.sleep(0.1)
        sidecar.send_signal(signal.SIGTERM)
        assert (
            finished(sidecar, 5) == 0
        )  # what was never whole is no delivery lost: strangers don't decide the exit status
    assert sidecar.stderr == b""
    assert receiver.bytes_seen == 0
    line = sidecar.delivery()
    assert (line["outcome"], line["reason"]) == ("rejected", "draining")


def test_an_open_scrape_does_not_hold_the_drain(start: Start, receiver: Receiver) -> None:
    sidecar = start()
    with socket.create_connection(("127.0.0.1", int(sidecar.admin_address.rsplit(":", 1)[1]))) as scrape:
        scrape.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert scrape.recv(100)
        sidecar.send_signal(signal.SIGTERM)
        assert finished(sidecar, 5) == 0
    assert sidecar.stderr == b""


def test_the_address_is_free_again_at_once(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    first = start()
    assert first.ask(craft.begini()).status == 200
    address = first.address
    first.stop()
    second = start({"listen": address})
    assert second.ask(craft.begini()).status == 200


def test_the_configuration_may_be_named_by_the_environment(start: Start, receiver: Receiver) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "SIDECAR_CONFIG"}
    ended = subprocess.run(
        [sys.executable, "-m", "sidecar", "serve"], env=environment, capture_output=True, check=False
    )
    assert ended.returncode == 2
    assert b"SIDECAR_CONFIG" in ended.stderr
    environment["SIDECAR_CONFIG"] = "/nonexistent/sidecar.yaml"
    ended = subprocess.run(
        [sys.executable, "-m", "sidecar", "serve"], env=environment, capture_output=True, check=False
    )
    assert ended.returncode == 1
    assert b"/nonexistent/sidecar.yaml" in ended.stderr
