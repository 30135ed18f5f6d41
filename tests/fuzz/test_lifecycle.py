"""Reloads, traffic and faults in a random order, by a seed, against a real process and a model of what must come of it.

In each round a crowd of senders delivers, good and bad, to a receiver that does as each delivery says; in many rounds the
configuration changes meanwhile: keys are rotated, routes come and go, or the new file is wrong and the last good one must hold on.
The model knows which keys and routes the configuration before and after the round has. A delivery that both would take must
arrive, once, and be answered as the receiver answered; one that neither would take must not.
"""

import asyncio
import hmac
import json
import os
import random
import re
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import leak_watch
from hostile_wire import Sidecar, running, send

ROUNDS = 14
#: Other orders: FUZZ_SEED=7 make test PYTEST_ARGS=tests/fuzz/test_lifecycle.py
SEED = int(os.environ.get("FUZZ_SEED", "1"))
CROWD = 24
KEYS = ["CANARY-SECRET-one-33c1", "CANARY-SECRET-two-33c1", "CANARY-SECRET-three-33c1"]
leak_watch.marker(*(key.encode() for key in KEYS))
#: What a receiver does, and the responses that may come of it.
DEEDS = {
    "answer": {200},
    "refuse": {418},
    "reset": {502},
    "close": {502},
    "garbage": {502},
    "hang": {504},
    "cut": {200},
}


@dataclass(frozen=True)
class Model:
    """A configuration, as far as deliveries are concerned."""

    keys: frozenset[int]
    routes: frozenset[str]

    def takes(self, key: int | None, route: str) -> bool:
        return route in self.routes and key in self.keys

    def written(self, receiver: int) -> dict[str, object]:
        secrets = [{"id": f"k{key}", "env": f"KEY{key}"} for key in sorted(self.keys)]
        return {
            "listen": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "upstream": f"http://127.0.0.1:{receiver}",
            "timeouts": {"connect": "500ms", "response": "700ms", "total": "1500ms", "idle": "1s"},
            "limits": {"header_timeout": "1s", "body_timeout": "1s"},
            "drain": "500ms",
            "routes": [
                {"name": route, "path": f"/{route}", "verify": "begini", "secrets": secrets}
                for route in sorted(self.routes)
            ],
        }


class Receiver:
    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await reader.readexactly(int(re.search(r"Content-Length: (\d+)", head)[1]))  # type: ignore[index]
                name, deed = re.search(r"X-Name: (\S+)\r\nX-Deed: (\S+)", head).groups()  # type: ignore[union-attr]
                self.seen[name] += 1
                if deed == "reset":
                    connection = writer.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                if deed in ("reset", "close"):
                    return
                if deed == "hang":
                    await reader.read()
                    return
                status, length = (418 if deed == "refuse" else 200), len(name) + (9 if deed == "cut" else 0)
                answer = f"HTTP/1.1 {status} So\r\nContent-Length: {length}\r\n\r\n{name}"
                writer.write(b"\x16\x03garbage\r\n\r\n" if deed == "garbage" else answer.encode())
                if deed in ("garbage", "cut"):
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@dataclass(frozen=True)
class Delivery:
    name: str
    route: str
    key: int | None  #: None: signed with a key that nobody has
    deed: str
    manner: str  #: whole, in pieces, or left in the middle

    def segments(self) -> list[bytes]:
        body = b'{"name":"%b"}' % self.name.encode() * 20
        secret = KEYS[self.key] if self.key is not None else "nobody's key"
        made = hmac.new(secret.encode(), body, "sha512").hexdigest()
        leak_watch.signature(made.encode())
        head = (
            f"POST /{self.route} HTTP/1.1\r\nHost: a\r\nX-Name: {self.name}\r\nX-Deed: {self.deed}\r\nConnection: close\r\n"
            f"X-Signature: {made}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        raw = head.encode() + body
        if self.manner == "whole":
            return [raw]
        third = len(raw) // 3
        return [raw[:third], raw[third : -third or None], raw[-third:]][: 2 if self.manner == "left" else 3]


def judge(delivery: Delivery, status: int, body: bytes, seen: int, models: tuple[Model, ...]) -> str:
    takes = {model.takes(delivery.key, delivery.route) for model in models}
    if delivery.manner == "left":
        return "" if seen == 0 else "an unfinished delivery was forwarded"
    if seen > 1:
        return f"forwarded {seen} times"
    if seen and takes == {False}:
        return "forwarded, though no configuration takes it"
    if not seen and takes == {True}:
        return f"not forwarded, though it was valid throughout: {status}"
    wanted = DEEDS[delivery.deed] if seen else {403, 404}
    if status not in wanted:
        return f"answered {status}, must be {sorted(wanted)}"
    if seen and delivery.deed in ("answer", "refuse") and body != delivery.name.encode():
        return f"got the answer of another: {body[:60]!r}"
    return ""


def test_no_delivery_is_lost_or_mixed_up_while_everything_changes(tmp_path: Path) -> None:
    assert asyncio.run(_run(tmp_path, random.Random(SEED))) == []


async def _run(directory: Path, choose: random.Random) -> list[str]:
    receiver = Receiver()
    server = await receiver.start()
    model = Model(frozenset({0, 1}), frozenset({"a", "b"}))
    problems: list[str] = []
    env = {f"KEY{number}": key for number, key in enumerate(KEYS)}
    with running(model.written(receiver.port), directory, env=env) as sidecar:
        await sidecar.wait_serving()
        await sidecar.scrape()
        descriptors = sidecar.descriptors()
        for turn in range(ROUNDS):
            after = _changed(choose, model) if choose.random() < 0.6 else model
            deliveries = [_any_delivery(choose, f"{turn}-{number}") for number in range(CROWD)]
            tasks = [asyncio.create_task(_deliver(sidecar, each)) for each in deliveries]
            await asyncio.sleep(choose.random() * 0.05)
            if after is not model:
                problems += await _reload(sidecar, after.written(receiver.port), right=True)
            elif choose.random() < 0.5:
                wrong = choose.choice(["", "routes: [", '{"routes": []}', "a: &a [*a]", "\0", json.dumps({"x": 1})])
                problems += await _reload(sidecar, wrong, right=False)
            for delivery, (status, body) in zip(deliveries, await asyncio.gather(*tasks), strict=True):
                problem = judge(delivery, status, body, receiver.seen[delivery.name], (model, after))
                if problem:
                    problems.append(f"round {turn}: {delivery}: {problem}; {model} then {after}")
            model = after
        await sidecar.back_to_start(descriptors)
        await sidecar.stop()
    server.close()
    return problems


def _changed(choose: random.Random, model: Model) -> Model:
    keys = frozenset(choose.sample(range(len(KEYS)), choose.randrange(1, 3)))
    routes = frozenset(choose.sample(["a", "b", "c"], choose.randrange(1, 4)))
    return Model(keys, model.routes) if choose.random() < 0.5 else Model(model.keys, routes)


def _any_delivery(choose: random.Random, name: str) -> Delivery:
    deed = choose.choice(["answer"] * 6 + list(DEEDS))
    manner = choose.choice(["whole"] * 4 + ["pieces", "left"])
    return Delivery(name, choose.choice("abc"), choose.choice([0, 1, 2, None]), deed, manner)


async def _deliver(sidecar: Sidecar, delivery: Delivery) -> tuple[int, bytes]:
    got = await send(sidecar, delivery.segments(), number=1, half_close=delivery.manner == "left", pause=0.02)
    return (got.statuses or [0])[0], got.raw.partition(b"\r\n\r\n")[2]


async def _reload(sidecar: Sidecar, settings: object, *, right: bool) -> list[str]:
    sidecar.file.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    reader, writer = await asyncio.open_connection(*sidecar.admin)
    writer.write(b"POST /-/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    leak_watch.shown("/-/reload", answer)
    gauge = "webhook_sidecar_config_last_reload_successful " + ("1.0" if right else "0.0")
    taken = answer.startswith(b"HTTP/1.1 200") and gauge in await sidecar.scrape()
    refused = not answer.startswith(b"HTTP/1.1 2") and gauge in await sidecar.scrape()
    return [] if (taken if right else refused) else [f"reload of {settings!r}: {answer!r}"]
