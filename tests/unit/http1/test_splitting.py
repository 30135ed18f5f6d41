"""However a request is cut into segments, the listener understands the same: every vector and every hostile request, whole and
byte by byte."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fake_server import Server, read, respond
from hostile_cases import CASES, Case

from sidecar.http1.incoming import Incoming

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "vectors.json").read_text(encoding="utf-8"))["vectors"]


@dataclass
class Understood:
    """What the listener made of the bytes."""

    accepted: list[
        tuple[str, bytes, list[tuple[bytes, bytes]], bytes]
    ]  #: method, target, fields and body of each request
    status: int  #: of the first response
    closed: bool


def understand(segments: list[bytes], *, half_close: bool = False) -> Understood:
    """`half_close`: the sender ends its side after the last segment. Then a minute passes."""
    server = Server()
    accepted = []

    async def accept(incoming: Incoming) -> None:
        body = await read(incoming)
        accepted.append((incoming.head.method, incoming.head.target, list(incoming.head.headers), body))
        respond(incoming)

    server.behaviour = accept
    peer = server.connect()
    responses = b""
    for segment in segments:
        if peer.transport.eof or peer.transport.closed:
            break  # what is sent now is read and dropped, or not read
        responses += peer.send(segment)
    if half_close and not peer.transport.closed:
        peer.protocol.eof_received()
    responses += peer.wait(60)
    status = int(responses.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")[9:12] or 0)
    return Understood(accepted, status, peer.transport.closed or peer.transport.eof)


def raw_of(vector: dict[str, Any]) -> bytes:
    url = urlsplit(vector["url"])
    target = (url.path or "/") + ("?" + url.query if url.query else "")
    body = vector["body"].encode()
    fields = [*vector["headers"], ["Host", url.netloc], ["Content-Length", str(len(body))]]
    head = f"{vector['method']} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
    return b"%b\r\n%b" % (head.encode(), body)


def single_bytes(raw: bytes) -> list[bytes]:
    """Of more than 2 KiB the first and the last, with larger segments between them."""
    at = min(len(raw), 1024)
    end = max(len(raw) - 1024, at)
    middle = [raw[start : min(start + 97, end)] for start in range(at, end, 97)]
    return [*(raw[:at][i : i + 1] for i in range(at)), *middle, *(raw[i : i + 1] for i in range(end, len(raw)))]


def test_every_vector_is_the_same_request_byte_by_byte() -> None:
    for vector in VECTORS:
        raw = raw_of(vector)
        whole = understand([raw])
        assert [each[3] for each in whole.accepted] == [vector["body"].encode()], vector["id"]
        assert understand(single_bytes(raw)) == whole, vector["id"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_hostile_request_is_the_same_byte_by_byte(case: Case) -> None:
    whole = understand([case.raw], half_close=case.half_close)
    assert understand(single_bytes(case.raw), half_close=case.half_close) == whole
