"""Several worker processes behind one listener: together they do what one process does, and one that dies is replaced."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from client import Client
from craft import Craft
from receiver import Peer, Receiver, held
from sidecar_process import Sidecar, Start
from waiting import WaitUntil

CONFIG = {"workers": 2}
NEW = {"name": "new", "path": "/webhooks/new", "verify": "begini", "secrets": [{"env": "BEGINI_API_KEY"}]}


def worker_pids(sidecar: Sidecar) -> list[int]:
    """Process ids of the living workers."""
    me = sidecar.process.pid
    pids = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == me and fields[0] != "Z":
                pids.append(int(status.parent.name))
    return sorted(pids)


def gone(pids: Collection[int]) -> bool:
    """Whether these processes have ended; one that nobody waited for is left as a zombie."""

    def states() -> Iterator[str]:
        for pid in pids:
            with contextlib.suppress(OSError):
                yield Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]

    return set(states()) <= {"Z", "X"}


def accepted(sidecar: Sidecar) -> float:
    return sidecar.metric("deliveries_total", route="begini", outcome="accepted", reason="")


def whole_again(sidecar: Sidecar, wait_until: WaitUntil, without: int | None = None) -> None:
    """Waits until two workers serve, none of them `without`."""

    def whole() -> bool:
        return sidecar.metric("workers") == 2 and without not in worker_pids(sidecar) and len(worker_pids(sidecar)) == 2

    wait_until(whole, "two workers at work")


def serving_pid(sidecar: Sidecar, client: Client) -> int:
    """Which worker holds a connection."""
    port = client.socket.getsockname()[1]
    wanted = f":{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(wanted)}
    for pid in worker_pids(sidecar):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(fd) in inodes:
                    return pid
    raise AssertionError("no worker has it")


def test_every_worker_takes_deliveries_and_one_scrape_shows_them_all(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    before = accepted(sidecar)
    clients = [sidecar.connect() for _ in range(40)]
    for client in clients:
        assert client.send(craft.begini()).answer().status == 200
    holders = {serving_pid(sidecar, client) for client in clients}
    for client in clients:
        client.close()
    assert holders == set(worker_pids(sidecar))
    wait_until(lambda: accepted(sidecar) == before + 40, "40 accepted")
    assert sidecar.metric("secret_last_used_timestamp_seconds", route="begini", secret="current") > time.time() - 60


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_ends_is_replaced_and_its_counts_stay(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil, number: signal.Signals
) -> None:
    whole_again(sidecar, wait_until)
    exits, before = sidecar.metric("worker_exits_total"), accepted(sidecar)
    for _ in range(10):
        assert sidecar.ask(craft.begini()).status == 200
    pid = worker_pids(sidecar)[0]
    mark = sidecar.mark()
    os.kill(pid, number)
    line = sidecar.line(mark, event="worker_ended")
    assert line["how"] == ("exit status 0" if number == signal.SIGTERM else f"killed by {number.name}")
    whole_again(sidecar, wait_until, without=pid)
    assert sidecar.metric("worker_exits_total") == exits + 1
    assert accepted(sidecar) == before + 10
    for _ in range(10):
        assert sidecar.ask(craft.begini()).status == 200
    assert accepted(sidecar) == before + 20
    assert sidecar.admin("/readyz")[0] == 200


def test_what_a_dead_worker_held_is_held_no_longer(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    sidecar = start(CONFIG)
    receiver.then(lambda peer: peer.gone(10))
    raw = craft.begini()
    with sidecar.connect() as in_flight, sidecar.connect() as in_body:
        in_flight.send(raw)
        receiver.wait()
        in_body.send(raw[:-1])
        wait_until(lambda: sidecar.metric("in_flight") == 2, "two in flight")
        assert sidecar.metric("buffered_bytes") == 2 * len(craft.json_body) - 1
        for pid in worker_pids(sidecar):
            os.kill(pid, signal.SIGKILL)
        assert in_flight.answer_if_any() is None
        assert in_body.answer_if_any() is None
    whole_again(sidecar, wait_until)
    assert sidecar.metric("in_flight") == 0
    assert sidecar.metric("buffered_bytes") == 0
    assert sidecar.ask(craft.begini()).status == 200


def test_while_all_workers_are_dead_it_is_unready_and_connections_wait_for_the_next(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start(CONFIG)
    for pid in worker_pids(sidecar):
        os.kill(pid, signal.SIGKILL)
    sidecar.line(event="worker_ended", count=2)
    assert sidecar.admin("/readyz")[0] == 503
    assert sidecar.ask(craft.begini()).status == 200
    assert sidecar.admin("/readyz")[0] == 200


def test_the_limits_hold_for_all_workers_together(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    sidecar = start(CONFIG | {"limits": {"body": "600KiB", "buffer": "1MiB", "body_timeout": "9s"}})
    part = craft.request(headers=[(b"X-Signature", b"0" * 128), (b"Content-Length", b"600000")]) + bytes(90_000)
    holders = [sidecar.connect().send(part) for _ in range(14)]
    wait_until(lambda: sidecar.metric("buffered_bytes") > 700_000, "the budget being used")
    time.sleep(0.4)
    assert sidecar.metric("buffered_bytes") <= 1 << 20
    for _ in range(8):  # whichever worker takes it: it evicts a slow body of its own, or uses what is reserved for it
        assert sidecar.ask(craft.begini(bytes(100_000))).status == 200
        assert sidecar.metric("buffered_bytes") <= 1 << 20
    for holder in holders:
        holder.leave()
    sidecar.idle()


def test_a_reload_takes_effect_in_every_worker_and_in_those_that_come_later(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    try:
        sidecar.write(sidecar.config | {"routes": [*sidecar.config["routes"], NEW]})
        assert sidecar.admin("/-/reload", method="POST")[0] == 200
        assert [sidecar.ask(craft.begini(path=b"/webhooks/new")).status for _ in range(12)] == [200] * 12
        assert sidecar.metric("deliveries_total", route="new", outcome="accepted", reason="") == 12
        assert b'"new"' in sidecar.admin("/-/config")[1]

        # From now on the file is broken: what is at work stays, also in a worker that begins only now.
        sidecar.write("routes: [")
        previous = sidecar.directory / "previous"
        text = previous.read_text()
        previous.write_text("CANARY-SECRET-changed-but-not-loaded\n")
        status, problems = sidecar.admin("/-/reload", method="POST")
        assert (status, bool(json.loads(problems)["detail"])) == (400, True)
        assert sidecar.metric("config_last_reload_successful") == 0
        for pid in worker_pids(sidecar):
            os.kill(pid, signal.SIGKILL)
        whole_again(sidecar, wait_until)
        assert [sidecar.ask(craft.begini(path=b"/webhooks/new")).status for _ in range(12)] == [200] * 12
        assert sidecar.ask(craft.begini(secret=text.strip())).status == 200
        assert sidecar.ask(craft.begini(secret="CANARY-SECRET-changed-but-not-loaded")).status == 403
        previous.write_text(text)
    finally:
        sidecar.write(sidecar.config)
        mark = sidecar.mark()
        sidecar.send_signal(signal.SIGHUP)
        sidecar.line(mark, event="config_loaded")
    assert [sidecar.ask(craft.begini(path=b"/webhooks/new")).status for _ in range(12)] == [404] * 12
    # A route that is gone keeps its counts.
    assert sidecar.metric("deliveries_total", route="new", outcome="accepted", reason="") == 24


def test_a_worker_that_does_not_take_a_reload_is_replaced_by_one_that_has_it(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    """Here one that was stopped; ten seconds are what a worker has."""
    sidecar = start(CONFIG)
    stopped, other = worker_pids(sidecar)
    os.kill(stopped, signal.SIGSTOP)
    sidecar.write(sidecar.config | {"routes": [*sidecar.config["routes"], NEW]})
    mark = sidecar.mark()
    sidecar.send_signal(signal.SIGHUP)
    wait_until(lambda: any(line["event"] == "config_loaded" for line in sidecar.lines[mark:]), "the reload", 15)
    assert sidecar.line(mark, event="worker_ended")["how"] == "killed by SIGKILL"
    whole_again(sidecar, wait_until, without=stopped)
    assert other in worker_pids(sidecar)
    assert [sidecar.ask(craft.begini(path=b"/webhooks/new")).status for _ in range(12)] == [200] * 12


def test_the_number_of_workers_cannot_be_changed_by_a_reload(sidecar: Sidecar) -> None:
    try:
        sidecar.write(sidecar.config | {"workers": 3})
        status, body = sidecar.admin("/-/reload", method="POST")
        assert (status, b"workers" in body, b"restart" in body) == (400, True, True)
    finally:
        sidecar.write(sidecar.config)
        assert sidecar.admin("/-/reload", method="POST")[0] == 200


def test_on_sigterm_the_deliveries_in_flight_are_answered_by_every_worker(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    sidecar = start(CONFIG | {"drain": "4s"})
    release = threading.Event()

    receiver.then(*[held(release, craft.ok)] * 8)
    clients = [sidecar.connect() for _ in range(8)]
    for client in clients:
        client.send(craft.begini())
    receiver.wait(8)
    assert sidecar.metric("in_flight") == 8
    pids = worker_pids(sidecar)
    sidecar.send_signal(signal.SIGTERM)
    wait_until(lambda: sidecar.admin("/readyz")[0] == 503, "readyz 503", 1)
    answer = sidecar.ask(craft.begini())
    assert (answer.status, answer.values(b"connection")) == (200, [b"close"])
    release.set()
    for client in clients:
        answer = client.answer()
        assert (answer.status, answer.values(b"connection")) == (200, [b"close"])
        assert client.rest() == b""
        client.close()
    assert sidecar.exit_status(6) == 0
    sidecar.check_output()
    assert gone(pids)


@pytest.mark.parametrize(("second", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_all_workers_at_once(
    start: Start, receiver: Receiver, craft: type[Craft], second: signal.Signals, status: int
) -> None:
    sidecar = start(CONFIG | {"drain": "30s"})
    receiver.then(lambda peer: peer.gone(10))
    pids = worker_pids(sidecar)
    with sidecar.connect() as client:
        client.send(craft.begini())
        receiver.wait()
        sidecar.send_signal(signal.SIGTERM)
        sidecar.line(event="draining")
        sidecar.send_signal(second)
        assert sidecar.exit_status(4) == status
    assert sidecar.stderr == b""
    time.sleep(0.2)
    assert gone(pids)


def test_when_the_drain_is_over_what_is_in_flight_is_cut_and_the_exit_is_1(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start(CONFIG | {"drain": "1200ms", "timeouts": {"response": "20s", "total": "20s"}})
    receiver.then(lambda peer: peer.gone(10))
    with sidecar.connect() as client:
        client.send(craft.begini())
        receiver.wait()
        sidecar.send_signal(signal.SIGTERM)
        assert client.answer_if_any() is None
    assert sidecar.exit_status(4) == 1
    sidecar.check_output()
    line = sidecar.delivery()
    assert (line["outcome"], line["reason"]) == ("failed", "draining")
    assert sidecar.lines[-1]["detail"] == "cut off at the end of drain: 1 in flight"


def test_a_delivery_that_a_killed_worker_had_at_the_end_of_the_drain_counts_as_cut_off(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start(CONFIG | {"drain": "2s", "timeouts": {"response": "20s", "total": "20s"}})
    receiver.then(lambda peer: peer.gone(10))
    with sidecar.connect() as client:
        client.send(craft.begini())
        receiver.wait()
        busy = serving_pid(sidecar, client)
        os.kill(busy, signal.SIGSTOP)  # it can't even cut it off
        sidecar.send_signal(signal.SIGTERM)
    assert sidecar.exit_status(6) == 1
    assert sidecar.lines[-1]["detail"] == "cut off at the end of drain: 1 in flight"


@pytest.mark.parametrize("deaths", [1, 3])
def test_sigterm_while_a_worker_is_being_replaced_ends_it_with_0(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil, deaths: int
) -> None:
    """After one death its place is taken at once, so that SIGTERM meets one that starts; after three there is a pause."""

    def late(peer: Peer) -> None:
        peer.read_body()
        time.sleep(0.5)
        peer.send(craft.ok)

    sidecar = start(CONFIG | {"drain": "3s"})
    receiver.then(late)
    with sidecar.connect() as client:
        client.send(craft.begini())
        receiver.wait()
        busy = serving_pid(sidecar, client)
        for death in range(deaths):
            wait_until(lambda: len(worker_pids(sidecar)) == 2, "two workers")
            (victim,) = {*worker_pids(sidecar)} - {busy}
            os.kill(victim, signal.SIGKILL)
            sidecar.line(event="worker_ended", count=death + 1)
        sidecar.send_signal(signal.SIGTERM)
        assert client.answer().status == 200
    assert sidecar.exit_status(5) == 0
    sidecar.check_output()
    assert gone([busy])


def test_a_signal_to_the_whole_group_drains_once(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    """As a service manager sends it: every process gets it, the parent tells its workers too."""
    sidecar = start(CONFIG | {"drain": "2s"})
    for pid in [*worker_pids(sidecar), sidecar.process.pid]:
        os.kill(pid, signal.SIGTERM)
    assert sidecar.ask(craft.begini()).status == 200
    assert sidecar.exit_status(5) == 0
    sidecar.check_output()
    assert not [line for line in sidecar.lines if line["event"] == "worker_ended"]


def test_workers_end_when_their_parent_is_killed(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    sidecar = start(CONFIG | {"drain": "1s"})
    pids = worker_pids(sidecar)
    sidecar.process.kill()
    sidecar.exit_status()
    wait_until(lambda: gone(pids), "the end of the workers", 4)
    assert sidecar.stderr == b""


def test_lines_of_several_workers_never_mix(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    mark = sidecar.mark()

    def send() -> None:
        with sidecar.connect() as client:
            for _ in range(10):
                client.send(craft.request(b"/no/" + b"x" * 300) * 20)
                for _ in range(20):
                    client.answer()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sidecar.delivery(mark, 800, reason="no_route")


def test_a_start_that_no_worker_survives_ends_with_1(start: Start, tmp_path: Path) -> None:
    """Here for a module of the interpreter's start that ends each forked process."""
    (tmp_path / "sitecustomize.py").write_text("import os\nos.register_at_fork(after_in_child=lambda: os._exit(3))\n")
    sidecar = start(CONFIG, env={"PYTHONPATH": str(tmp_path)}, wait=False)
    assert sidecar.exit_status() == 1
    (ended,) = {
        line["how"] for line in sidecar.lines if line.get("event") == "worker_ended" and line["at"] == "its start"
    }
    assert ended == "exit status 3"


def test_without_descriptors_of_processes_workers_are_started_as_programs(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    """So that nothing is lost in a sandbox that lacks pidfd_open."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\ndef no(pid): raise OSError(38, 'not implemented')\nos.pidfd_open = no\n"
    )
    sidecar = start(CONFIG, env={"PYTHONPATH": str(tmp_path)})
    assert sidecar.metric("workers") == 2
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in worker_pids(sidecar)]
    assert all(b"sidecar.process.worker" in command for command in commands)
    with sidecar.connect() as client:
        assert client.send(craft.begini()).answer().status == 200


def test_a_forked_worker_holds_no_socket_but_its_own(sidecar: Sidecar) -> None:
    """A listener that a worker held for another one would take connections that nobody accepts after the drain."""
    listening = {
        f"socket:[{fields[9]}]"
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A"
    }
    held = []
    for pid in worker_pids(sidecar):
        targets = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        held.append([target for target in targets if target in listening])
    assert [len(each) for each in held] == [1, 1]
    assert held[0] != held[1]
