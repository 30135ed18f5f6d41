"""Cost of the data path's own code: everything but the sockets, in one process, with fake transports.

    python tests/bench/path.py [--stripe] [--replay] [--profile]

Prints microseconds per accepted 1 KiB delivery, the best of several rounds, which is steadier than any measurement over
sockets. With --stripe the delivery is Stripe's, with three signatures of which the last one is right; with --replay the
route has `replay:`, and each delivery is a new one to remember. For comparisons between two versions of this code on one
machine; for comparisons with peers see compare.
"""

import asyncio
import cProfile
import functools
import hashlib
import hmac
import os
import pstats
import sys
import tempfile
import time

import uvloop
from uvicorn.server import ServerState

from sidecar.config import load_config
from sidecar.data_service import DataService
from sidecar.listeners import uvicorn_config
from sidecar.log import Log
from sidecar.metrics import REASON_AT, Metrics
from sidecar.protocol import DataProtocol
from sidecar.upstream import Connection

CONFIG = """
upstream: http://127.0.0.1:3000
log: {accepted: false}
routes:
  - {name: begini, path: /webhooks/begini, verify: %s, secrets: [{id: current, env: KEY}], allow: [127.0.0.0/8]}
""" % ("stripe" if "--stripe" in sys.argv else "begini")
KEY = b"bench-api-key-0123456789abcdef"
BODY = b"x" * 1024


def request(number: int) -> bytes:
    """A delivery that is like no other, so that replay protection has something to remember."""
    body = b"%016d" % number + BODY[16:]
    signature = b"X-Signature: " + hmac.new(KEY, body, hashlib.sha512).hexdigest().encode()
    if "--stripe" in sys.argv:
        stamp = int(time.time())
        keys = (b"a", b"b", KEY)
        macs = [hmac.new(key, b"%d.%b" % (stamp, body), hashlib.sha256).hexdigest().encode() for key in keys]
        signature = b"Stripe-Signature: t=%d,v1=%b,v1=%b,v1=%b" % (stamp, *macs)
    return (
        b"POST /webhooks/begini HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n%b\r\n"
        b"User-Agent: bench\r\nContent-Length: 1024\r\n\r\n%b" % (signature, body)
    )


ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 24 Nov 2026 04:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b'Content-Length: 15\r\nConnection: keep-alive\r\n\r\n{"status":"ok"}'
)


class Transport(asyncio.Transport):
    """Takes what is written and tells somebody."""

    def __init__(self, wrote) -> None:
        super().__init__()
        self.wrote = wrote

    def write(self, data):
        self.wrote(data)

    def writelines(self, data):
        self.wrote(b"".join(data))

    def is_closing(self):
        return False

    def get_write_buffer_size(self):
        return 0

    def get_extra_info(self, name, default=None):
        return {"peername": ("127.0.0.1", 4000), "sockname": ("127.0.0.1", 8080)}.get(name, default)


async def main() -> None:
    loop = asyncio.get_running_loop()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(CONFIG.replace("secrets:", "replay: 10m, secrets:") if "--replay" in sys.argv else CONFIG)
        file.flush()
        config = load_config(file.name, {"KEY": KEY.decode()})
    log = Log(config.log, loop)
    metrics = Metrics()
    service = DataService(config, loop, log=log, metrics=metrics)
    current = service.current
    make = functools.partial(DataProtocol, deadlines=service.deadlines, listener=service.listener)

    # All at once and beforehand: while they were made the connection below would be too long unused.
    requests = iter([request(number) for number in range(int(sys.argv[-1]) if "--count" in sys.argv else 40_000)])
    upstream = next(iter(current.site.upstreams.values()))
    connection = Connection(upstream)
    connection.connection_made(Transport(lambda data: loop.call_soon(connection.data_received, ANSWER)))
    upstream.put_back(connection)

    answered = asyncio.Event()
    config = uvicorn_config(service.proxy, make)
    config.load()
    protocol = make(config, ServerState(), {}, loop)
    protocol.connection_made(Transport(lambda data: answered.set()))

    async def deliver(count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            protocol.data_received(next(requests))
            await answered.wait()
            answered.clear()
            await asyncio.sleep(0)
        return (time.process_time() - began) / count * 1e6

    if "--count" in sys.argv:  # for instruction counts: run under callgrind with two counts and divide the difference
        await deliver(int(sys.argv[-1]))
        os._exit(0)
    await deliver(2000)
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.enable()
        await deliver(10000)
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
    else:
        print(f"{min([await deliver(2000) for _ in range(15)]):.1f} us per delivery (best of 15 x 2000)")
    assert metrics.routes["begini"].block[REASON_AT[None]] > 2000
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main())
