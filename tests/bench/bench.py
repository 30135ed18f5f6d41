"""The sidecar beside proxies that do the same work, in one run: CPU for each delivery, latency, memory, time to start.

    make bench                                                # everything, about twenty minutes
    make bench BENCH_ARGS="peers refusals --rounds 7"         # these parts only

The work: signed POSTs (hex HMAC-SHA512 of the body in X-Signature) to an nginx that responds at once. The proxy has one core, the
load generator and nginx have the other. Rounds are paired: the quoted figure is the median of the ratios within the rounds,
because the figures depend on the machine and its state, and their ratios much less so. The measurements and a description of the
machine go to --json, which plots.py draws.

Parts:
    peers       accepted 1 KiB deliveries on 32 connections, the sidecar compared with every peer
    sizes       64 KiB, 1 MiB and 10 MiB, compared with peers that verify (HAProxy's bodies end at its buffer)
    latency     1, 32 and 256 connections, compared with the receiver itself
    refusals    accepted, wrong signature, no signature, unknown path; also without a log line for each
    settings    routes and networks, each compared with the plain sidecar
    replay      replay protection off, in memory, in a Redis on the load generator's core
    published   a published key that was fetched before: a token that was seen before, one that is new each time (both RS256
                and ES256), a certificate; each beside a shared secret
    workers     one and two, not held to a core
    bodies      fifty of 10 MiB at once within limits.buffer 128MiB: the peak of memory
"""

import argparse
import contextlib
import hashlib
import hmac
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import published
from measure import (
    KEY,
    LOAD_CORE,
    PATH,
    PROXY_CORE,
    Load,
    free_port,
    lua,
    lua_of,
    lua_of_many,
    lua_of_tokens,
    macs_of_many,
    process_tree,
    pss_mb,
    running,
    wrk,
)
from peers import PEERS, VERIFYING, Proxies

from sidecar import is_compiled

PARTS = ("peers", "sizes", "latency", "refusals", "settings", "replay", "published", "workers", "bodies")
#: Deliveries that are all different, for replay protection: more than a round needs.
DIFFERENT = 150_000


@dataclass
class Figures:
    """One case in one round."""

    load: Load
    idle_mb: float
    loaded_mb: float
    start_s: float


class Bench:
    def __init__(self, work: Path, proxies: Proxies, arguments: argparse.Namespace) -> None:
        self.work = work
        self.proxies = proxies
        self.arguments = arguments
        self.results: dict[str, dict[str, list[Figures]]] = {}

    @cached_property
    def published_cases(self) -> "dict[str, published.Case]":
        """Signed once for all rounds."""
        return published.cases(1024)

    def case(self, part: str, label: str, proxy: str, script: str, **options: Any) -> None:
        """Measures one case once; besides `connections`, `path` and `core`, `options` are the sidecar's."""
        connections = int(options.pop("connections", 32))
        path, core = str(options.pop("path", PATH)), str(options.pop("core", PROXY_CORE))
        port = free_port()
        self.proxies.check_receiver()
        command, env = self.proxies.command(proxy, port, **options)
        lua_file = self.proxies.write("load.lua", script)
        with running(command, port, core, self.work, **env) as (pid, start):
            time.sleep(0.4)
            idle = pss_mb(pid)
            if "replay" not in options:  # these deliveries may be sent only once
                wrk(pid, port, lua_file, connections=connections, seconds=1, path=path)
            load = wrk(pid, port, lua_file, connections=connections, seconds=self.arguments.seconds, path=path)
            made = Figures(load, idle, pss_mb(pid), start)
        self.results.setdefault(part, {}).setdefault(label, []).append(made)
        print(f"{part}: {label}: {load.cpu_us:.1f} us, {load.refused:.0%} not 2xx", file=sys.stderr)

    def peers(self) -> None:
        for name in ("sidecar", "sidecar, log on", *self.arguments.peers):
            self.case("peers", name, name, lua(1024))

    def sizes(self) -> None:
        for shown, size in (("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("10 MiB", 10 << 20)):
            for name in ("sidecar", *(peer for peer in VERIFYING if peer in self.arguments.peers)):
                if name != "haproxy" or size <= 1 << 20:
                    self.case(f"sizes, {shown}", name, name, lua(size), connections=8 if size > 1 << 20 else 32)

    def latency(self) -> None:
        for connections in (1, 32, 256):
            for name in ("sidecar", "direct", *(peer for peer in VERIFYING if peer in self.arguments.peers)):
                part = f"latency, {connections} connection{'s' if connections > 1 else ''}"
                self.case(part, name, name, lua(1024), connections=connections)

    def refusals(self) -> None:
        self.case("refusals", "accepted", "sidecar", lua(1024))
        self.case("refusals", "wrong signature", "sidecar", lua(1024, "wrong"))
        self.case("refusals", "no signature", "sidecar", lua(1024, "none"))
        self.case("refusals", "unknown path", "sidecar", lua(1024), path="/elsewhere")
        self.case("refusals", "wrong signature, not logged", "sidecar", lua(1024, "wrong"), level="error")
        self.case("refusals", "no signature, not logged", "sidecar", lua(1024, "none"), level="error")

    def settings(self) -> None:
        self.case("settings", "1 route, 1 network", "sidecar", lua(1024))
        for networks in (0, 100, 10_000):
            self.case("settings", f"{networks:,} networks", "sidecar", lua(1024), networks=networks)
        for routes in (100, 1000):
            self.case("settings", f"{routes:,} routes", "sidecar", lua(1024), routes=routes)

    def replay(self) -> None:
        macs = self.work / "macs.txt"
        if not macs.exists():
            macs.write_text(macs_of_many(DIFFERENT))
        different = lua_of_many(str(macs))
        port = free_port()
        redis = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
        with running(redis, port, LOAD_CORE, self.work):
            for label, store in (("off", ""), ("memory", "memory"), ("Redis", f"redis://127.0.0.1:{port}/0")):
                self.case("replay", label, "sidecar", different, replay=store)

    def published(self) -> None:
        self.case("published", "begini", "sidecar", lua(1024))
        for label, case in self.published_cases.items():
            server = published.serve(case.pages)
            mirrors = {url: f"http://127.0.0.1:{server.server_port}{path}" for url, path in case.mirrors.items()}
            script = lua_of(case.headers, case.body)
            if case.tokens:
                tokens = self.proxies.write("tokens.txt", "".join(f"{token}\n" for token in case.tokens))
                script = lua_of_tokens(tokens, case.headers, case.body)
            self.case("published", label, "sidecar", script, verify=case.verify, mirrors=mirrors)
            server.shutdown()

    def workers(self) -> None:
        for count in (1, 2):
            self.case("workers", str(count), "sidecar", lua(1024), workers=count, core="0,1")

    def bodies(self) -> None:
        """Fifty senders at once; `refused` is the share that was rejected with 503, to be sent again."""
        port = free_port()
        command, env = self.proxies.command("sidecar", port, buffer="128MiB")
        body = b"x" * (10 << 20)
        mac = hmac.new(KEY, body, hashlib.sha512).hexdigest()
        head = f"POST {PATH} HTTP/1.1\r\nHost: bench\r\nX-Signature: {mac}\r\nContent-Length: {len(body)}\r\n\r\n"
        answers: list[str] = []

        def send() -> None:
            with socket.create_connection(("127.0.0.1", port)) as sender:
                with contextlib.suppress(OSError):
                    sender.sendall(head.encode() + body)
                with contextlib.suppress(OSError):
                    answers.append(sender.recv(4096)[9:12].decode())

        with running(command, port, "0,1", self.work, **env) as (pid, start):
            time.sleep(0.4)
            idle = pss_mb(pid)
            senders = [threading.Thread(target=send) for _ in range(50)]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
            status = Path(f"/proc/{process_tree(pid)[0]}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
        print(f"bodies: {peak:.0f} MB at most, answers: {dict.fromkeys(sorted(answers))}", file=sys.stderr)
        refused = sum(answer != "200" for answer in answers) / len(senders)
        self.results.setdefault("bodies", {}).setdefault("50 x 10 MiB", []).append(
            Figures(Load(0, 0, 0, 0, 0, refused), idle, peak, start)
        )
        if len(answers) < len(senders):
            print(f"bodies: only {len(answers)} of {len(senders)} were answered", file=sys.stderr)


def median(figures: list[Figures], name: str) -> float:
    found: list[float] = [asdict(one.load).get(name, asdict(one).get(name, 0.0)) for one in figures]
    return statistics.median(found)


def ratio(ours: list[Figures], base: list[Figures], name: str = "cpu_us") -> str:
    pairs = [(getattr(one.load, name), getattr(other.load, name)) for one, other in zip(ours, base)]
    found = sorted(one / other for one, other in pairs if other)
    return f"{statistics.median(found):.2f} ({found[0]:.2f}-{found[-1]:.2f})" if found else ""


def added(ours: list[Figures], base: list[Figures], name: str) -> str:
    found = statistics.median(getattr(one.load, name) - getattr(other.load, name) for one, other in zip(ours, base))
    return f"{found:.2f}"


def table(results: dict[str, dict[str, list[Figures]]]) -> str:
    """Markdown. In parts with peers the ratio is the sidecar's to theirs, otherwise each case's to the first one."""
    lines = []
    for part, cases in results.items():
        first = next(iter(cases.values()))
        direct = cases.get("direct")
        heads = ["", "CPU µs", "of it kernel", "sidecar / it" if "sidecar" in cases else "it / first", "per second"]
        heads += ["p50 ms", "p99 ms", *(["added p50", "added p99"] if direct else [])]
        heads += ["idle MB", "loaded MB", "start s", "not 2xx"]
        lines += [f"\n**{part}**, medians of {len(first)} rounds\n", row(heads), "|---" * len(heads) + "|"]
        for label, figures in cases.items():
            cells = [label, *(f"{median(figures, name):.1f}" for name in ("cpu_us", "kernel_us"))]
            cells += [ratio(first, figures) if "sidecar" in cases else ratio(figures, first)]
            cells += [f"{median(figures, 'per_second'):.0f}"]
            cells += [f"{median(figures, name):.2f}" for name in ("p50_ms", "p99_ms")]
            cells += [added(figures, direct, name) for name in ("p50_ms", "p99_ms")] if direct else []
            cells += [f"{median(figures, name):.1f}" for name in ("idle_mb", "loaded_mb")]
            cells += [f"{median(figures, 'start_s'):.2f}", f"{median(figures, 'refused'):.0%}"]
            lines.append(row(cells))
        if "sidecar, log on" in cases:
            logged = cases["sidecar, log on"]
            beside = (f"{ratio(logged, cases[peer])} times {peer}" for peer in PEERS if peer in cases)
            lines.append(f"\nCPU with the log on: {', '.join(beside)}.")
    return "\n".join(lines)


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def circumstances() -> dict[str, object]:
    """The conditions that the figures depend on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "python": sys.version.split()[0],
        "data path": "compiled" if is_compiled() else "source",
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "version": subprocess.run(
            ["git", "describe", "--always", "--dirty"], check=False, capture_output=True, text=True
        ).stdout.strip(),
        "load_before": os.getloadavg()[0],  # load of other programs; above 0.2 the figures are less reliable
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument(
        "--installed", type=Path, default=Path(".venv/bench"), help="where Envoy, Caddy and Traefik are"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write every figure of every round")
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    needed = ["wrk", "nginx", "taskset", *(peer for peer in arguments.peers if peer in ("go", "haproxy"))]
    needed += ["redis-server"] if "replay" in parts else []
    if missing := [tool for tool in needed if not shutil.which(tool)]:
        raise SystemExit(f"not installed: {', '.join(missing)}; `make bench` installs them on Debian")
    found_at = circumstances()
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        proxies = Proxies(work, free_port(), arguments.installed)
        bench = Bench(work, proxies, arguments)
        with running(proxies.receiver(), proxies.upstream, LOAD_CORE, work):
            for part in parts:
                for _ in range(arguments.rounds):
                    getattr(bench, part)()
    print(table(bench.results))
    if arguments.json:
        figures = {
            part: {label: [asdict(one) for one in found] for label, found in cases.items()}
            for part, cases in bench.results.items()
        }
        arguments.json.write_text(json.dumps({"circumstances": found_at, "parts": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
