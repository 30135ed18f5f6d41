"""Does a stranger who tries to block the sidecar take more from others than the stranger's own work and bytes justify?

python tests/load/jams.py [--seconds 5] [--senders 4] [--attackers 4] [--questions] [ATTACK ...]

Each attack gets a new sidecar with default limits. `--senders` senders send genuine deliveries one after another, each on its own
connection: first alone, then at the same time as `--attackers` attackers in another process, which together send at most
`--megabits` a second, each as fast as it gets responses. It passes if no genuine delivery fails, if their rate stays above a
third of the calm one (with --questions: the rate of genuine questions to the authorize listener, which the attackers ask too),
and if the process stays within the formula of docs/reliability.md.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import uvloop
from rig import KEY, Address, Receiver, Sidecar, deliver, signed, split_address, verdict

MEBIBYTE = 1 << 20
#: 40 MB, 1.1 times the buffer, and the most that a thousand connections may hold; see docs/reliability.md.
MOST = 40e6 + 1.1 * 64 * MEBIBYTE + 1000 * 20e3 + 20e6
HOST = "Host: h\r\n"


class Attacker:
    """One thread of the attacking process."""

    def __init__(self, data: Address, admin: Address, bytes_per_second: float) -> None:
        self.data = data
        self.admin = admin
        self._seconds_per_byte = 1 / bytes_per_second
        self._free_at = time.monotonic()

    def send(self, connection: socket.socket, raw: bytes) -> None:
        """Sends in pieces, none before it is due."""
        for at in range(0, len(raw), 1 << 16):
            piece = raw[at : at + (1 << 16)]
            time.sleep(max(self._free_at - time.monotonic(), 0))
            self._free_at = max(self._free_at, time.monotonic()) + len(piece) * self._seconds_per_byte
            connection.sendall(piece)

    def ask(self, *raw: bytes) -> None:
        """Sends requests in turn on one connection, repeatedly, each after the response to the previous one."""
        for connection in self.connections():
            for each in itertools.cycle(raw):
                self.send(connection, each)
                if not connection.recv(1 << 16):
                    break

    def connections(self, to: Address | None = None, *, window: int = 0):  # type: ignore[no-untyped-def]
        """Opens a new connection whenever the previous one has ended."""
        while True:
            with contextlib.suppress(OSError), socket.socket() as connection:
                if window:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
                connection.settimeout(10)
                connection.connect(to or self.data)
                yield connection
            time.sleep(0.001)

    def hold(self, number: int, raw: bytes, more: bytes = b"") -> None:
        """Keeps `number` connections that have sent `raw` and send `more` each second; replaces those that are closed."""
        held: list[socket.socket] = []
        while True:
            while len(held) < number:
                with contextlib.suppress(OSError):
                    connection = socket.create_connection(self.data, 10)
                    held.append(connection)
                    self.send(connection, raw)
            time.sleep(1)
            for connection in list(held):
                try:
                    connection.setblocking(False)
                    if more:
                        connection.send(more)
                    if not connection.recv(1 << 16):
                        raise ConnectionResetError
                except BlockingIOError:
                    continue
                except OSError:
                    connection.close()
                    held.remove(connection)


def request(path: str, *fields: str, body: bytes = b"", length: int | None = None) -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    size = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\n{HOST}{lines}Content-Length: {size}\r\n\r\n".encode() + body


def get(path: str, *fields: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\n{HOST}{''.join(f'{field}{chr(13)}{chr(10)}' for field in fields)}\r\n".encode()


FORGED = "X-Signature: " + "0" * 128
JSON, FORM = "Content-Type: application/json", "Content-Type: application/x-www-form-urlencoded"
TWILIO = "X-Twilio-Signature: " + "A" * 27 + "="
NAMES = ",".join(map("".join, itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=3)))[:60_000]
MAILGUN = b'{"signature":{"timestamp":"1","token":"t","signature":"' + b"0" * 64 + b'"},"x":[%b0]}'


def keep_busy(attacker: Attacker) -> None:
    """Many connections, each with a small request every fifth of a second, so that none is unused for long."""
    held: list[socket.socket] = []
    while True:
        began = time.monotonic()
        while len(held) < 300:
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(attacker.data, 10))
        for connection in list(held):
            try:
                attacker.send(connection, get("/nowhere"))
                if not connection.recv(1 << 16):
                    raise ConnectionResetError
            except OSError:
                connection.close()
                held.remove(connection)
        time.sleep(max(began + 0.2 - time.monotonic(), 0))


def pipeline(attacker: Attacker) -> None:
    """Endless requests, whose responses are never read."""
    for connection in attacker.connections(window=2048):
        with contextlib.suppress(OSError):
            while True:
                attacker.send(connection, get("/") * 1000)


def endless_head(attacker: Attacker) -> None:
    for connection in attacker.connections(attacker.admin):
        with contextlib.suppress(OSError):
            attacker.send(connection, f"GET /livez HTTP/1.1\r\n{HOST}X: ".encode())
            while True:
                attacker.send(connection, b"a" * MEBIBYTE)


ATTACKS: dict[str, Callable[[Attacker], None]] = {
    "bodies announced, none sent": lambda it: it.hold(250, request("/webhooks/begini", FORGED, length=5 * MEBIBYTE)),
    "bodies of 4 MiB that stop": lambda it: it.hold(
        20, request("/webhooks/begini", FORGED, body=bytes(4 * MEBIBYTE), length=5 * MEBIBYTE), b"x"
    ),
    "connections kept busy": keep_busy,
    "slow heads": lambda it: it.hold(300, f"POST / HTTP/1.1\r\n{HOST}".encode(), b"a: b\r\n"),
    "nested JSON to diagnose": lambda it: it.ask(
        request("/webhooks/begini", FORGED, JSON, body=b"[" * 900 + b"0," * 4000 + b"0" + b"]" * 900)
    ),
    "250 KiB to diagnose": lambda it: it.ask(request("/webhooks/begini", FORGED, body=b"a=%41&" * 40_000)),
    "1 MiB, ten secrets": lambda it: it.ask(request("/webhooks/ten", FORGED, body=b"x" * MEBIBYTE)),
    "1 MiB of JSON": lambda it: it.ask(
        request("/webhooks/mailgun", JSON, body=MAILGUN % (b"[" * 300 + b"]" * 300 + b"," + b" " * 3000) * 280)
    ),
    "5 MiB of escapes": lambda it: it.ask(request("/webhooks/twilio", FORM, TWILIO, body=b"a=" + b"%41" * 1_700_000)),
    "slashes": lambda it: it.ask(get("/" * 16_000), get("/hooks" + "/b;c" * 4000)),
    "60,000 fields": lambda it: it.ask(get("/", *["b:"] * 16_000), get("/", *(f"{n:x}:" for n in range(9000)))),
    "names in Connection": lambda it: it.ask(request("/webhooks/open", "X-Id: 2", f"Connection: {NAMES}")),
    "no such path": lambda it: it.ask(get("/nowhere")),
    "pipelined, read": lambda it: it.ask(get("/a") * 5000),
    "pipelined, not read": pipeline,
    "endless head to the admin listener": endless_head,
}


def attack(arguments: argparse.Namespace) -> None:
    """The attacking process, until it is killed."""
    data, admin = map(split_address, arguments.against)
    for _ in range(arguments.attackers):
        attacker = Attacker(data, admin, arguments.megabits * 125_000 / arguments.attackers)
        threading.Thread(target=ATTACKS[arguments.attacks[0]], args=(attacker,)).start()


async def rate(sidecar: Sidecar, seconds: float, senders: int, answers: Counter[int | None]) -> float:
    """Genuine deliveries a second."""
    ends = time.monotonic() + seconds
    done = 0

    async def send() -> None:
        nonlocal done
        raw = signed(b"{}", ident="1")
        while time.monotonic() < ends:
            answers[await deliver(sidecar.address, raw)] += 1
            done += 1

    await asyncio.gather(*(send() for _ in range(senders)))
    return done / seconds


async def play(name: str, receiver: Receiver, arguments: argparse.Namespace) -> list[str]:
    secrets = [{"id": "current", "env": "LOAD_KEY"}]
    ten = [{"id": f"s{number}", "env": f"LOAD_KEY_{number}"} for number in range(10)]
    os.environ.update({each["env"]: f"{KEY} {each['id']}" for each in ten})
    routes = [
        {"path": "/webhooks/begini", "verify": "begini", "secrets": secrets},
        {"path": "/webhooks/ten", "verify": "begini", "secrets": ten},
        {"path": "/webhooks/mailgun", "verify": "mailgun", "secrets": secrets},
        {"path": "/webhooks/twilio", "verify": "twilio", "secrets": secrets},
        {"path": "/webhooks/open", "open": True},
        {"path": "/hooks/*", "verify": "begini", "secrets": secrets},
    ]
    more: dict[str, Any] = {"authorize": {"listen": "127.0.0.1:0"}} if arguments.questions else {}
    sidecar = await Sidecar(receiver.port, routes=routes, public_url="https://hooks.example.com", **more).serving()
    if arguments.questions:
        sidecar.address = sidecar.authorize_address
    answers = Counter[int | None]()
    calm = await rate(sidecar, arguments.seconds, arguments.senders, answers)
    addresses = [f"{host}:{port}" for host, port in (sidecar.address, sidecar.admin)]
    options = ["--attackers", str(arguments.attackers), "--megabits", str(arguments.megabits)]
    own = [sys.executable, __file__, *options, "--against", *addresses, name]
    attackers = subprocess.Popen(own)
    try:
        await asyncio.sleep(1)
        under = await rate(sidecar, arguments.seconds, arguments.senders, answers)
    finally:
        attackers.kill()
        attackers.wait()
    peak = sidecar.peak()
    print(f"| {name} | {calm:.0f} | {under:.0f} | {under / calm:.2f} | {peak / 1e6:.0f} MB |", flush=True)
    sidecar.stop()
    problems = []
    if set(answers) != {200}:
        problems.append(f"{name}: {dict(answers)}")
    if under * 3 < calm:
        problems.append(f"{name}: less than a third of the calm rate")
    if peak > MOST:
        problems.append(f"{name}: more than {MOST / 1e6:.0f} MB")
    return problems


async def main(arguments: argparse.Namespace) -> int:
    receiver = await Receiver().start()
    sent = "questions" if arguments.questions else "deliveries"
    print(f"| attack | {sent} a second, calm | beside the attack | ratio | most memory |\n|---|---|---|---|---|")
    problems = []
    for name in arguments.attacks or ATTACKS:
        problems += await play(name, receiver, arguments)
    return verdict(problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--attackers", type=int, default=4)
    parser.add_argument("--megabits", type=float, default=100)
    parser.add_argument("--questions", action="store_true")
    parser.add_argument("--against", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK")
    given = parser.parse_args()
    if given.against:
        attack(given)
    else:
        sys.exit(uvloop.run(main(given)))
