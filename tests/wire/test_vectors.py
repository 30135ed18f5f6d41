"""Providers' published examples over sockets: one process with a route for each, sent whole and in small pieces.

That byte by byte each is the same request is shown without sockets, in tests/unit/http1/test_splitting.py.

The clock of a process is the real one, so routes are given a tolerance of centuries, unless a vector is about its age.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from client import Response
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start

from sidecar.config.presets import load_preset
from sidecar.outcomes import DEFAULT_REJECTION

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))["vectors"]
#: Those whose message is composed; their cases say what else is wrong.
COMPOSED = json.loads((FOLDER / "messages.json").read_text(encoding="utf-8"))["vectors"]
#: Cases whose verdict is about the clock: refused by any clock of today.
ABOUT_AGE = {"old-timestamp", "old-timestamp-in-body", "future-timestamp", "expired"}
#: A secret that isn't a key of the scheme isn't even loaded, no request has a URL without a path, and what only the operator
#: knows is configured.
UNUSABLE = {"openai-03", "plivo-v2-01"}
REQUIRE = {"pusher-03": {"X-Pusher-Key": "foo"}}
CENTURIES = "5000000h"
#: Bytes of a piece: hardly a name or value of a head is whole in one.
SMALL = 7
#: The same in words: refused by any clock but that of the vector.
OUT_OF_TIME = re.compile("[0-9]+ s ahead|an hour ahead|timestamp in seconds")

selected = [vector for vector in [*VECTORS, *COMPOSED] if vector["id"] not in UNUSABLE]


def _route(number: int, vector: Any, preset: Any) -> dict[str, Any]:
    """Its own path where the URL isn't signed; else the vector's URL is configured whole, or is the route's path."""
    url = urlsplit(vector["url"])
    path = f"/v/{vector['id']}"
    if preset.uses_url and not url.query:
        path = url.path
    if preset.signature.path:
        path += "/*"
    verify = {"preset": vector["provider"]} | ({"require": REQUIRE[vector["id"]]} if vector["id"] in REQUIRE else {})
    clock = preset.timestamp
    about_age = vector["case"] in ABOUT_AGE or OUT_OF_TIME.search(vector["case"])
    if clock is not None and clock.tolerance is not None and not about_age:
        verify["timestamp"] = {"tolerance": CENTURIES}
    return {
        "name": vector["id"],
        "path": path,
        "methods": [vector["method"]],
        "verify": verify,
        "public_url": vector["url"] if url.query else f"{url.scheme}://{url.netloc}",
        "secrets": [{"id": f"s{index}", "env": f"V{number}_{index}"} for index in range(len(vector["secrets"]))],
    }


def _raw(vector: dict[str, Any], path: str) -> tuple[bytes, bytes]:
    url = urlsplit(vector["url"])
    if path.endswith("/*"):  # the token is the last segment
        path = path[:-1] + url.path.rpartition("/")[2]
    target = path + ("?" + url.query if url.query else "")
    body = vector["body"].encode()
    fields = [*vector["headers"], ["Host", url.netloc]] + ([["Content-Length", str(len(body))]] if body else [])
    head = f"{vector['method']} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
    return head.encode() + b"\r\n", body


@pytest.fixture(scope="module")
def serving(start_for_module: Start, receivers: Mapping[str, Receiver]) -> dict[str, tuple[Sidecar, Config]]:
    """Processes with every vector's route; several, because some vectors have one URL."""
    env: dict[str, str] = {}
    batches: list[list[Config]] = []
    places: dict[str, tuple[int, Config]] = {}
    for number, vector in enumerate(selected):
        route = _route(number, vector, load_preset(vector["provider"]))
        env |= {f"V{number}_{index}": secret for index, secret in enumerate(vector["secrets"])}
        free = [batch for batch in batches if route["path"] not in {other["path"] for other in batch}]
        if not free:
            batches.append([])
            free = batches[-1:]
        free[0].append(route)
        places[vector["id"]] = (batches.index(free[0]), route)
    made = []
    for batch in batches:
        config: Config = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "drain": "100ms"}
        config |= {"upstream": receivers["plain"].url, "routes": batch}
        made.append(start_for_module(text=json.dumps(config), env=env))
    return {name: (made[index], route) for name, (index, route) in places.items()}


def _sent(
    serving: dict[str, tuple[Sidecar, Config]], receiver: Receiver, piecewise: bool
) -> list[tuple[str, Response | None, list[bytes]]]:
    """Each vector whose answer, or what the receiver saw, is not as it must be."""
    wrong = []
    for vector in selected:
        sidecar, route = serving[vector["id"]]
        head, body = _raw(vector, route["path"])
        receiver.forget()
        with sidecar.connect() as client:
            raw = head + body
            step = SMALL if piecewise else len(raw)
            for at in range(0, len(raw), step):
                client.try_send(raw[at : at + step])
            answer = client.answer_if_any(vector["method"])
        valid = vector["expected"] == "valid"
        status = 200 if valid else (load_preset(vector["provider"]).reject or DEFAULT_REJECTION).status
        seen = [request.body for request in receiver.requests]
        if answer is None or answer.status != status or seen != ([body] if valid else []):
            wrong.append((vector["id"], answer, seen))
    return wrong


@pytest.mark.parametrize("piecewise", [False, True], ids=["whole", "in pieces"])
def test_every_vector_has_its_verdict_on_the_wire(
    serving: dict[str, tuple[Sidecar, Config]], receiver: Receiver, piecewise: bool
) -> None:
    assert _sent(serving, receiver, piecewise) == []
