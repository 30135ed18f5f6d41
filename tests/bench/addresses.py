"""The cost of ten thousand networks and a thousand routes for a delivery, compared with one of each.

python tests/bench/addresses.py [--deliveries 20000]

In process: finding the route and looking up the client's address, nanoseconds a delivery. On the wire: the sidecar's own CPU time
a delivery, in turns, so that a busy machine slows down both.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import timeit
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import uvloop

from sidecar.http1.upstream import UpstreamAddress
from sidecar.outcomes import DEFAULT_REJECTION
from sidecar.routing.access import check_address
from sidecar.routing.client_ip import Client
from sidecar.routing.networks import Networks, parse_address
from sidecar.routing.routes import Route, RouteTable

sys.path.insert(0, str(Path(__file__).parents[1] / "load"))

from rig import OK, Sidecar, read_answer, signed

UPSTREAM = UpstreamAddress("http", "127.0.0.1", 3000, "")
CONNECTIONS = 8
BODY = bytes(1024)


def networks(count: int) -> list[IPv4Network]:
    """Networks with gaps between them, so that none can be merged; the last one contains 127.0.0.1."""
    apart = [IPv4Network((0x10000000 + 512 * number, 24)) for number in range(count - 1)]
    return [*apart, IPv4Network("127.0.0.0/30")]


def in_process(routes: int, count: int) -> float:
    made = [
        Route(
            name=f"r{number}",
            path=b"/hooks/r%d" % number,
            prefix=False,
            methods=frozenset({"POST"}),
            upstream=UPSTREAM,
            body_limit=1,
            rejection=DEFAULT_REJECTION,
            verifier=None,
            allow=Networks(networks(count)) if number == routes - 1 else None,
        )
        for number in range(routes)
    ]
    table = RouteTable(made)
    path = b"/hooks/r%d" % (routes - 1)
    route = table.find(path)
    assert isinstance(route, Route)
    client = Client(parse_address("127.0.0.1"), "127.0.0.1", False)
    loops = 200_000

    def step() -> None:
        table.find(path)
        check_address(route, client)

    seconds = min(timeit.repeat(step, number=loops, repeat=5))
    return seconds / loops * 1e9


async def receiver() -> int:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(len(BODY))
                writer.write(OK)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    return port


async def started(port: int, routes: int, count: int) -> tuple[Sidecar, bytes]:
    route = {"verify": "begini", "secrets": [{"id": "current", "env": "LOAD_KEY"}]}
    listed: list[dict[str, Any]] = [
        {"name": f"r{number}", "path": f"/hooks/r{number}"} | route for number in range(routes)
    ]
    listed[-1]["allow"] = [str(network) for network in networks(count)]
    sidecar = await Sidecar(port, routes=listed, drain="500ms").serving()
    return sidecar, signed(BODY, path=f"/hooks/r{routes - 1}")


def cpu(sidecar: Sidecar) -> float:
    fields = Path(f"/proc/{sidecar.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def deliver(sidecar: Sidecar, raw: bytes, count: int) -> float:
    async def one() -> None:
        reader, writer = await asyncio.open_connection(*sidecar.address)
        for _ in range(count // CONNECTIONS):
            writer.write(raw)
            assert await read_answer(reader) == (200, True)
        writer.close()

    before = cpu(sidecar)
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return (cpu(sidecar) - before) / count * 1e6


async def on_the_wire(deliveries: int) -> list[float]:
    port = await receiver()
    both = [await started(port, 1, 1), await started(port, 1000, 10_000)]
    figures: list[list[float]] = [[], []]
    for turn in range(6):
        for index, (sidecar, raw) in enumerate(both):
            figure = await deliver(sidecar, raw, deliveries)
            if turn:  # the first round warms up
                figures[index].append(figure)
    for sidecar, _ in both:
        sidecar.stop()
    return [min(each) for each in figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deliveries", type=int, default=20_000)
    chosen = parser.parse_args()
    small, large = in_process(1, 1), in_process(1000, 10_000)
    print(f"route and address: {small:.0f} ns with 1 and 1, {large:.0f} ns with 1,000 routes and 10,000 networks")
    small, large = uvloop.run(on_the_wire(chosen.deliveries))
    print(f"a delivery's CPU:  {small:.1f} us with 1 and 1, {large:.1f} us with 1,000 routes and 10,000 networks")


if __name__ == "__main__":
    main()
