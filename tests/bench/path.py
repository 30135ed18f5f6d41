"""The cost of the data path's own code: everything but the sockets, in one process, with fake transports. In each turn of the
event loop 32 connections are ready, as under load, so that the loop itself costs little.

    python tests/bench/path.py [--stripe] [--replay | --copies] [--tenants] [--question] [--wrong | --unsigned | --unknown]
                  [--published CASE] [--connections N] [--profile]

It prints microseconds per accepted 1 KiB delivery, the best of several rounds, which is steadier than any measurement over
sockets. With --stripe the delivery is Stripe's, with three signatures of which the last one is valid; with --replay the route
has `replay:`, and each delivery is a new one to remember; with --copies all but the first 32 are copies; with --tenants the
deliveries are those of 10,000 tenants in turn; with --question Envoy asks about the delivery, and nothing is forwarded; with
--wrong every signature is wrong, with --unsigned there is none, and with --unknown no route has the path. With --published
"RS256, new", or another case of published.py, the deliveries are signed with a key that the provider publishes and that has been
fetched. --connections has so many ready in each turn instead of 32, and the program's settings of the garbage collector, which
otherwise runs often among so many deliveries. --profile, which needs SIDECAR_PURE=1, shows which modules take the time (cProfile
makes small functions look more expensive than they are). --count LIBRARY, for instructions.py, measures nothing: the library
tells valgrind which deliveries to count. Use it to compare two versions of this code on one machine; for comparisons with peers
see bench.py.
"""

import asyncio
import cProfile
import ctypes
import functools
import hashlib
import hmac
import json
import os
import pstats
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import published
import uvloop

from sidecar import is_compiled
from sidecar.config.loader import load_config
from sidecar.http1.connection import DataProtocol
from sidecar.http1.upstream import Connection
from sidecar.outcomes import Outcome, Reason
from sidecar.process.data_plane import DataPlane, tune_process
from sidecar.telemetry.log_writer import LogWriter, open_log
from sidecar.telemetry.metrics import END_AT, QUESTION_AT, Metrics
from sidecar.verify.published import Document, KeySource

CONFIG = """
upstream: http://127.0.0.1:3000
log: {accepted: false}
timeouts: {idle: 10m}
routes:
  - {name: begini, path: /webhooks/begini, verify: %s, secrets: [{id: current, env: KEY}], allow: [127.0.0.0/8]}
""" % ("stripe" if "--stripe" in sys.argv else "begini")
QUESTION = "--question" in sys.argv
if QUESTION:
    CONFIG += "authorize: {listen: '127.0.0.1:8081'}\n"
KEY = b"bench-api-key-0123456789abcdef"
WRONG = "--wrong" in sys.argv
UNSIGNED = "--unsigned" in sys.argv
UNKNOWN = "--unknown" in sys.argv
COPIES = "--copies" in sys.argv
COUNTING = "--count" in sys.argv
PUBLISHED = sys.argv[sys.argv.index("--published") + 1] if "--published" in sys.argv else ""
CASE = published.cases(1024, only=PUBLISHED)[PUBLISHED] if PUBLISHED else None
TENANTS = 10_000 if "--tenants" in sys.argv else 0
CONNECTIONS = sys.argv[sys.argv.index("--connections") + 1] if "--connections" in sys.argv else ""
BATCH = int(CONNECTIONS or 32)
PARTS = ("receive", "judge and forward", "the receiver's answer", "answer and record")
BODY = b"x" * 1024
#: Deliveries that --count counts.
COUNTED = 5120 if CONNECTIONS else 1280


class Store:
    """The documents of a case, as a worker has them after they were fetched."""

    def __init__(self, case: published.Case) -> None:
        self._documents = {url: Document(case.pages[page], 0.0) for url, page in case.mirrors.items()}

    def get(self, source: KeySource) -> Document | None:
        return self._documents.get(source.url)

    def used(self, source: KeySource) -> None:
        """Nothing."""

    def confirm(self, route: str, url: str) -> bool:
        return False

    def is_current(self, source: KeySource) -> bool:
        return True

    async def refresh(self, source: KeySource, seconds: float = 0.0) -> bool:
        return False


def published_request(case: published.Case, number: int) -> bytes:
    headers = case.headers | ({"Authorization": case.tokens[number % len(case.tokens)]} if case.tokens else {})
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /webhooks/begini HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n{lines}User-Agent: bench\r\n"
    return f"{head}Content-Length: {len(case.body)}\r\n\r\n{case.body}".encode()


def request(number: int) -> bytes:
    """A delivery unlike any other, so that replay protection has something to remember."""
    if CASE is not None:
        return published_request(CASE, number)
    body = b"%016d" % (number % BATCH if COPIES else number) + BODY[16:]
    key = b"another" if WRONG else KEY
    signature = b"X-Signature: " + hmac.new(key, body, hashlib.sha512).hexdigest().encode()
    if UNSIGNED:
        signature = b"X-Request-Id: %d" % number
    elif "--stripe" in sys.argv:
        stamp = int(time.time())
        keys = (b"a", b"b", KEY)
        first, second, right = [
            hmac.new(key, b"%d.%b" % (stamp, body), hashlib.sha256).hexdigest().encode() for key in keys
        ]
        signature = b"Stripe-Signature: t=%d,v1=%b,v1=%b,v1=%b" % (stamp, first, second, right)
    if QUESTION:  # what Envoy adds
        signature += b"\r\nX-Envoy-Internal: true\r\nX-Forwarded-For: 127.0.0.1\r\nX-Envoy-Expected-Rq-Timeout-Ms: 5000"
    path = (
        b"/webhooks/%05d" % (number % TENANTS) if TENANTS else b"/webhooks/nobody" if UNKNOWN else b"/webhooks/begini"
    )
    return (
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n%b\r\n"
        b"User-Agent: bench\r\nContent-Length: 1024\r\n\r\n%b" % (path, signature, body)
    )


ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 24 Nov 2026 04:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b'Content-Length: 15\r\nConnection: keep-alive\r\n\r\n{"status":"ok"}'
)


class Transport(asyncio.Transport):
    """Receives the writes, and reports them."""

    def __init__(self, wrote: Callable[[Any], object], **known: Any) -> None:
        super().__init__()
        self.wrote = wrote
        self.known = known

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.wrote(data)

    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.wrote(b"".join(data))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.known.get(name, default)


def configured(tenants: Path) -> str:
    """The configuration. `tenants` is a directory for their secrets."""
    text = CONFIG.replace("secrets:", "replay: 10m, secrets:") if COPIES or "--replay" in sys.argv else CONFIG
    secrets = "secrets: [{id: current, env: KEY}]"
    if TENANTS:
        text = text.replace("/webhooks/begini", "'/webhooks/{tenant}'").replace(secrets, f"secrets: {{dir: {tenants}}}")
        for number in range(TENANTS):
            (tenants / f"{number:05}").write_bytes(KEY)
    if CASE is not None:
        text = text.replace(f"verify: begini, {secrets}", f"verify: {json.dumps(CASE.verify)}")
    return text


async def main() -> None:
    loop = asyncio.get_running_loop()
    store = Store(CASE) if CASE is not None else None
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file, tempfile.TemporaryDirectory() as directory:
        file.write(configured(Path(directory)))
        file.flush()
        config = load_config(file.name, {"KEY": KEY.decode()}, published=store)
    log = open_log(config.log, loop, LogWriter())
    metrics = Metrics()
    service = DataPlane(config, loop, log=log, metrics=metrics, keys=store)
    current = service.current
    if CONNECTIONS:
        tune_process()

    # All are made in advance, because otherwise the connection below would be unused for too long.
    requests = iter([request(number) for number in range(2 * COUNTED if COUNTING else 54_400)])
    upstream = next(iter(current.snapshot.upstreams.values()))
    silent, other_end = socket.socketpair()  # the value that an unused connection asks for
    asked: list[Connection] = []  # connections that got a delivery in this turn
    connections = [Connection(upstream) for _ in range(BATCH)]
    for connection in connections:
        wrote = functools.partial(lambda it, data: asked.append(it), connection)
        connection.connection_made(Transport(wrote, socket=silent, other_end=other_end))
        upstream.put_back(connection)

    answered: list[bytes] = []
    deadlines, listener = service.deadlines, service.listener
    application = service.authorizer if QUESTION else service.proxy
    assert application is not None
    protocols = [
        DataProtocol(application, connections=set(), tasks=set(), deadlines=deadlines, listener=listener)
        for _ in range(BATCH)
    ]
    for protocol in protocols:
        protocol.connection_made(Transport(answered.append, peername=("127.0.0.1", 4000), sockname=("127.0.0.1", 8080)))

    async def deliver(count: int) -> list[float]:
        """Microseconds of each part of the path, for one delivery."""
        spent = [0.0] * len(PARTS)
        for _ in range(count // BATCH):
            sent = [next(requests) for _ in protocols]
            times = [time.perf_counter()]
            for protocol, data in zip(protocols, sent):
                protocol.data_received(data)
            times.append(time.perf_counter())
            await asyncio.sleep(0)
            times.append(time.perf_counter())
            for connection in asked:
                connection.data_received(ANSWER)
            asked.clear()
            times.append(time.perf_counter())
            await asyncio.sleep(0)
            times.append(time.perf_counter())
            assert len(answered) == BATCH
            answered.clear()
            spent = [total + after - before for total, before, after in zip(spent, times, times[1:])]
        return [total / (count // BATCH * BATCH) * 1e6 for total in spent]

    for route in config.routes.routes:  # a tenant's verifier is made with its first delivery
        if route.tenants is not None:
            for number in range(TENANTS):
                route.tenants.matcher(f"{number:05}")
    hints = service.proxy.recorder.hints
    if COUNTING:  # the few rejections that are diagnosed in each second are over before the rest is counted
        hints._monotonic = lambda: 0.0
    await deliver(COUNTED if COUNTING else 3200)
    await hints.finish()
    if COUNTING:
        library = ctypes.CDLL(sys.argv[sys.argv.index("--count") + 1])
        library.start_counting()
        await deliver(COUNTED)
        library.stop_counting()
    elif "--profile" in sys.argv:
        if is_compiled():
            raise SystemExit("a profiler of Python sees nothing of the compiled data path; set SIDECAR_PURE=1")
        profile = cProfile.Profile()
        profile.enable()
        await deliver(10000)
        profile.disable()
        stats = pstats.Stats(profile)
        stats.sort_stats("tottime").print_stats(40)
        for stage, share in sorted(shares(stats).items(), key=lambda item: -item[1]):
            print(f"{share:6.1%}  {stage}")
    else:
        best = min([await deliver(3200) for _ in range(12)], key=sum)
        parts = ", ".join(f"{name} {spent:.1f}" for name, spent in zip(PARTS, best))
        print(f"{sum(best):.1f} us per delivery (best of 12 x 3200): {parts}")
    reason = Reason.SIGNATURE_MISMATCH if WRONG else Reason.SIGNATURE_MISSING if UNSIGNED else None
    reason = Reason.NO_ROUTE if UNKNOWN else Reason.REPLAYED if COPIES else reason
    outcome = Outcome.ACCEPTED if reason is None else Outcome.DUPLICATE if COPIES else Outcome.REJECTED
    at = QUESTION_AT[reason] if QUESTION else END_AT[outcome, reason]
    assert metrics.routes["" if UNKNOWN else "begini"].block[at] > 2000, "the deliveries ended otherwise"
    os._exit(0)


#: Prefixes of paths below sidecar/, and the stage that their modules' time belongs to.
STAGES = {
    "http1/upstream": "forward",
    "http1/": "server: parse, respond, turns of the loop",
    "routing/": "client, route, allowlist",
    "delivery/body": "body",
    "verify/": "verify",
    "replay/": "replay",
    "delivery/upstream_head": "forward",
    "delivery/forward": "forward",
    "delivery/responses": "forward",
    "delivery/": "the straight line itself",
    "diagnosis/": "hints",
    "telemetry/": "record",
    "delivery/recorder": "record",
}


def shares(stats: pstats.Stats) -> dict[str, float]:
    """Each stage's share of the program's own time, including the foreign code that it calls (mostly C functions)."""

    def stage_of(file: str) -> str:
        """The stage of the longest prefix of the file's path."""
        path = file.rpartition("/sidecar/")[2]
        begins = max((begin for begin in STAGES if path.startswith(begin)), key=len, default="delivery/")
        return STAGES[begins]

    seconds = dict.fromkeys(STAGES.values(), 0.0)
    for (file, _, _), (_, _, own, _, callers) in stats.stats.items():  # type: ignore[attr-defined]  # typeshed leaves it out
        if "/sidecar/" in file:
            seconds[stage_of(file)] += own
            continue
        for (calling, _, _), called in callers.items():
            if "/sidecar/" in calling:
                seconds[stage_of(calling)] += called[2]
    return {stage: spent / sum(seconds.values()) for stage, spent in seconds.items() if spent}


if __name__ == "__main__":
    uvloop.run(main())
