"""The sidecar beside proxies that do the same work, in one run: CPU for each delivery, latency, memory, time to start.

    make bench                       # installs what it needs on Debian as root: wrk, nginx, haproxy, Go
    make bench BENCH_ARGS="--rounds 7 --body 65536 --json figures.json"

The work: signed POSTs (hex HMAC-SHA512 of the body in X-Signature) to an nginx that answers at once. The proxy has one
core, the load generator and nginx the other. Rounds are paired: what is quoted is the median of the ratios within the
rounds, because these figures depend on the machine and on its mood, and their ratios much less so.

Peers: `go` (tests/bench/goproxy: httputil.ReverseProxy and the same check), `haproxy` (its own `hmac` converter).
"""

import argparse
import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
KEY = b"bench-api-key-0123456789abcdef"
PATH = "/webhooks/begini"
TICK = 1e6 / os.sysconf("SC_CLK_TCK")  # microseconds
PROXY_CORE, LOAD_CORE = "1", "0"

NGINX = """
worker_processes 1; daemon off; pid {work}/nginx.pid; error_log {work}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_max_body_size 64m; client_body_buffer_size 32m;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{{"status":"ok"}}'; }} }}
}}
"""
SIDECAR = """
listen: 127.0.0.1:{port}
admin: 127.0.0.1:{admin}
upstream: http://127.0.0.1:{upstream}
log: {{accepted: {logged}}}
limits: {{body: 32MiB}}
routes:
  - name: begini
    path: {path}
    verify: begini
    secrets: [{{id: current, env: BENCH_KEY}}]
    allow: [127.0.0.0/8]
"""
HAPROXY = """
global
  nbthread 1
  maxconn 4000
  tune.bufsize 1200000
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
frontend senders
  bind 127.0.0.1:{port}
  http-request wait-for-body time 5s
  http-request set-var(txn.key) str("{key}")
  http-request set-var(txn.mac) req.body,hmac(sha512,txn.key),hex
  http-request deny status 403 unless {{ req.hdr(x-signature),upper,strcmp(txn.mac) eq 0 }}
  default_backend receiver
backend receiver
  http-reuse always
  server receiver 127.0.0.1:{upstream}
"""


@dataclass
class Figures:
    """One proxy in one round. CPU is user and system time of its whole process tree."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    idle_mb: float
    loaded_mb: float
    start_s: float
    refused: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def process_tree(pid: int) -> list[int]:
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += process_tree(int(child))
    return found


def cpu_us(pid: int) -> float:
    ticks = 0
    for process in process_tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks * TICK


def pss_mb(pid: int) -> float:
    kib = 0
    for process in process_tree(pid):
        with contextlib.suppress(OSError):
            smaps = Path(f"/proc/{process}/smaps_rollup").read_text()
            kib += int(re.search(r"^Pss:\s+(\d+)", smaps, re.MULTILINE)[1])
    return kib / 1024


@contextlib.contextmanager
def running(command: list[str], port: int, core: str, work: Path, **env: str) -> Iterator[tuple[int, float]]:
    """A process that listens: its pid, and the seconds until it did."""
    began = time.perf_counter()
    with (work / "output.log").open("ab") as log:
        process = subprocess.Popen(["taskset", "-c", core, *command], env=os.environ | env, stdout=log, stderr=log)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.perf_counter() - began > 20:
                raise SystemExit(f"{command[0]} does not listen:\n{(work / 'output.log').read_text()[-2000:]}")
            time.sleep(0.005)
        yield process.pid, time.perf_counter() - began
    finally:
        for pid in process_tree(process.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


class Bench:
    def __init__(self, work: Path, arguments: argparse.Namespace) -> None:
        self.work = work
        self.arguments = arguments
        self.upstream = free_port()
        body = json.dumps({"event": "score.ready", "pad": "x" * max(0, arguments.body - 35)})
        mac = "0" * 128 if arguments.wrong else hmac.new(KEY, body.encode(), hashlib.sha512).hexdigest()
        self.script = self.write(
            "load.lua", f'wrk.method="POST"; wrk.headers["X-Signature"]="{mac}"; wrk.body=[==[{body}]==]'
        )

    def write(self, name: str, text: str) -> str:
        file = self.work / name
        file.write_text(text)
        return str(file)

    def command(self, name: str, port: int) -> tuple[list[str], dict[str, str]]:
        if name == "sidecar":
            logged = str(self.arguments.log).lower()
            config = SIDECAR.format(port=port, admin=free_port(), upstream=self.upstream, path=PATH, logged=logged)
            served = [sys.executable, "-m", "sidecar", "serve", "--config", self.write("sidecar.yaml", config)]
            return served, {"BENCH_KEY": KEY.decode()}
        if name == "haproxy":
            config = HAPROXY.format(port=port, upstream=self.upstream, key=b64encode(KEY).decode())
            return ["haproxy", "-db", "-f", self.write("haproxy.cfg", config)], {}
        made = self.work / "goproxy"
        if not made.exists():
            source = str(HERE / "goproxy" / "main.go")
            subprocess.run(["go", "build", "-o", made, source], check=True, env=os.environ | {"GO111MODULE": "off"})
        return [str(made), f"127.0.0.1:{port}", f"http://127.0.0.1:{self.upstream}", KEY.decode()], {"GOMAXPROCS": "1"}

    def measure(self, name: str) -> Figures:
        port = free_port()
        command, env = self.command(name, port)
        with running(command, port, PROXY_CORE, self.work, **env) as (pid, start):
            time.sleep(0.5)
            idle = pss_mb(pid)
            self.load(port, 1)
            before = cpu_us(pid)
            told = self.load(port, self.arguments.seconds)
            spent = cpu_us(pid) - before
            count = int(re.search(r"(\d+) requests in", told)[1])
            refused = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
            return Figures(
                cpu_us=spent / count,
                per_second=float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1]),
                p50_ms=latency_ms(told, "50"),
                p99_ms=latency_ms(told, "99"),
                idle_mb=idle,
                loaded_mb=pss_mb(pid),
                start_s=start,
                refused=int(refused[1]) if refused else 0,
            )

    def load(self, port: int, seconds: int) -> str:
        wrk = [
            "taskset",
            "-c",
            LOAD_CORE,
            "wrk",
            "-t1",
            f"-c{self.arguments.connections}",
            f"-d{seconds}s",
            "--latency",
        ]
        url = f"http://127.0.0.1:{port}{PATH}"
        return subprocess.run([*wrk, "-s", self.script, url], check=True, capture_output=True, text=True).stdout

    def run(self) -> dict[str, list[Figures]]:
        names = ["sidecar", *self.arguments.peers]
        rows: dict[str, list[Figures]] = {name: [] for name in names}
        nginx = self.write("nginx.conf", NGINX.format(work=self.work, port=self.upstream))
        with running(["nginx", "-c", nginx], self.upstream, LOAD_CORE, self.work):
            for number in range(self.arguments.rounds):
                for name in names:
                    rows[name].append(self.measure(name))
                    print(f"round {number + 1}: {name} {rows[name][-1].cpu_us:.1f} us", file=sys.stderr)
        return rows


def latency_ms(told: str, percentile: str) -> float:
    number, unit = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)", told).groups()
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def show(rows: dict[str, list[Figures]], arguments: argparse.Namespace) -> None:
    print(
        f"{arguments.body} bytes, {arguments.connections} connections, {arguments.rounds} rounds of {arguments.seconds} s"
    )
    print(
        f"{'':8} {'CPU us':>7} {'sidecar is':>21} {'p50 ms':>7} {'p99 ms':>7} {'idle MB':>8} {'start s':>8} {'refused':>8}"
    )
    for name, figures in rows.items():
        ratios = sorted(ours.cpu_us / theirs.cpu_us for ours, theirs in zip(rows["sidecar"], figures, strict=True))
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) times"
        middle = {key: statistics.median(asdict(one)[key] for one in figures) for key in asdict(figures[0])}
        print(
            f"{name:8} {middle['cpu_us']:7.1f} {ratio:>21} {middle['p50_ms']:7.2f} {middle['p99_ms']:7.2f} "
            f"{middle['idle_mb']:8.1f} {middle['start_s']:8.2f} {middle['refused']:8.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="*", choices=["go", "haproxy"], default=["go", "haproxy"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--body", type=int, default=1024, help="bytes")
    parser.add_argument("--wrong", action="store_true", help="a signature that does not match: what a refusal costs")
    parser.add_argument(
        "--log", action="store_true", help="the sidecar logs accepted deliveries, as it does by default"
    )
    parser.add_argument("--json", metavar="FILE", help="write every figure of every round")
    arguments = parser.parse_args()
    needed = ["wrk", "nginx", "taskset", *(["haproxy"] if "haproxy" in arguments.peers else [])]
    missing = [tool for tool in needed + (["go"] if "go" in arguments.peers else []) if not shutil.which(tool)]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}; `make bench` installs them on Debian")
    with tempfile.TemporaryDirectory() as work:
        rows = Bench(Path(work), arguments).run()
    show(rows, arguments)
    if arguments.json:
        figures = {name: [asdict(one) for one in found] for name, found in rows.items()}
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
