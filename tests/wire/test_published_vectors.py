"""Every recorded delivery of senders that publish their keys, over sockets, with documents from a key server of the test's own.

One process for each moment at which deliveries were signed: its clock stands still then. Each sender, with its settings and
secrets, has a host of its own, so that its routes have the paths that it signed.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from key_server import KeyServer
from published_vectors import (
    SENDERS,
    Vector,
    body_of,
    every_vector,
    public_url_of,
    secrets_of,
    sender,
    target_of,
    verify_of,
)
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start

from sidecar.config.presets import Verify
from sidecar.outcomes import DEFAULT_REJECTION
from sidecar.verify.scheme import Scheme

#: What an invalid delivery may get besides the rejection of its route: it is not HTTP as we take it.
MALFORMED = 400


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeyServer]:
    made = KeyServer(tmp_path)
    yield made
    made.stop()


def mirrors(server: KeyServer) -> dict[str, str]:
    """Serves each document of each sender, and returns where the sidecar finds it. Traps are not served."""
    made: dict[str, str] = {}
    for name in SENDERS:
        for url, page in sender(name)["keys"].items():
            where, _, key_id = url.partition("#")
            if page.get("trap") or where.endswith("*") or key_id == "*":
                continue
            path = f"/{name}/{where.removeprefix('https://')}"
            server.serve(
                path + (f"#{key_id}" if key_id else ""),
                page["content"].encode(),
                status=page.get("status", 200),
                headers={"Content-Type": page.get("content_type", "application/json")},
            )
            made[where] = server.url + path
            if "/public_key/" in where:  # every other one is absent
                made[where.rpartition("/")[0] + "/"] = server.url + path.rpartition("/")[0] + "/"
    return made


class Batch:
    """The routes of deliveries that were signed at one moment."""

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self.hosts: dict[str, str] = {}  #: by sender, settings and secrets
        self.routes: dict[tuple[str, str], Config] = {}  #: by host and path

    def host_of(self, name: str, vector: Vector) -> str:
        """Adds a route for the delivery, if it has none; returns its host."""
        verify, url = verify_of(name, vector), public_url_of(name, vector)
        secrets = secrets_of(name, vector)
        host = self.hosts.setdefault(json.dumps([verify, url, secrets]), f"{name}-{len(self.hosts)}.test")
        path = urlsplit(target_of(vector)).path
        if (host, path) not in self.routes:
            names = [f"V{len(self.routes)}_{index}" for index in range(len(secrets))]
            self.env |= dict(zip(names, secrets.values(), strict=True))
            route: Config = {"hosts": [host], "path": path, "verify": verify, "public_url": url}
            route |= {"name": f"r{len(self.routes)}", "methods": ["POST", "GET", "PUT"]}
            listed = [{"id": key, "env": each} for key, each in zip(secrets, names, strict=True)]
            route |= {"secrets": listed} if names else {}
            self.routes[host, path] = route
        return host


def raw_of(vector: Vector, host: str) -> bytes:
    body = body_of(vector)
    fields = [(name, value) for name, value in vector["headers"] if name.lower() not in ("host", "content-length")]
    fields += [("Host", host), ("Content-Length", str(len(body)))]
    head = f"{vector['method']} {target_of(vector)} HTTP/1.1\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in fields
    )
    return head.encode("latin-1", "replace") + b"\r\n" + body


def status_of(name: str, vector: Vector) -> int:
    """Of the rejection that the provider requires."""
    scheme = Verify().read(verify_of(name, vector))
    assert isinstance(scheme, Scheme)
    return (scheme.reject or DEFAULT_REJECTION).status


def test_every_recorded_delivery_has_its_verdict_on_the_wire(
    start: Start, receiver: Receiver, server: KeyServer
) -> None:
    moments: defaultdict[float, list[tuple[str, Vector]]] = defaultdict(list)
    for name, vector in every_vector():
        moments[vector["now"]].append((name, vector))
    found = mirrors(server)
    wrong: list[Any] = []
    for moment, vectors in moments.items():
        batch = Batch()
        sent = [(name, vector, batch.host_of(name, vector)) for name, vector in vectors]
        config = {
            "listen": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "upstream": receiver.url,
            "drain": "100ms",
            "keys": {"mirrors": found, "ca": str(server.ca_file)},
            "routes": list(batch.routes.values()),
        }
        sidecar = start(text=json.dumps(config), env=batch.env, clock=moment)
        for name, vector, host in sent:
            receiver.forget()
            with sidecar.connect() as client:
                answer = client.send(raw_of(vector, host)).answer(vector["method"])
            seen = [request.body for request in receiver.requests]
            is_valid = answer.status == 200 and seen == [body_of(vector)]
            is_invalid = answer.status in (status_of(name, vector), MALFORMED) and not seen
            if vector["want"] not in ("either", "valid" if is_valid else "invalid") or not (is_valid or is_invalid):
                wrong.append((vector["id"], vector["case"], vector["want"], answer.status, seen))
        check_fetches(sidecar)
    assert not wrong


def check_fetches(sidecar: Sidecar) -> None:
    """Nothing was asked for that the senders' files do not have, and least of all a trap."""
    known = {url.partition("#")[0]: page for name in SENDERS for url, page in sender(name)["keys"].items()}
    for line in list(sidecar.lines):
        url = line.get("url")
        if url is None or line["event"] == "delivery":
            continue
        served = known.get(url) or next(
            (page for each, page in known.items() if each.endswith("*") and url.startswith(each[:-1])), None
        )
        assert served is not None, line
        assert not served.get("trap"), line
