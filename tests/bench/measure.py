"""Processes to measure: started on their own core, with their CPU time and memory, under load by wrk."""

import contextlib
import hashlib
import hmac
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KEY = b"bench-api-key-0123456789abcdef"
PATH = "/webhooks/begini"
TICK = 1e6 / os.sysconf("SC_CLK_TCK")  # microseconds
PROXY_CORE, LOAD_CORE = "1", "0"


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


def cpu_us(pid: int) -> tuple[float, float]:
    """CPU time of the process and its children: user and system time together, and system time alone."""
    user = system = 0
    for process in process_tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
            user += int(fields[11])
            system += int(fields[12])
    return (user + system) * TICK, system * TICK


def pss_mb(pid: int) -> float:
    kib = 0
    for process in process_tree(pid):
        with contextlib.suppress(OSError):
            smaps = Path(f"/proc/{process}/smaps_rollup").read_text()
            kib += int(re.findall(r"^Pss:\s+(\d+)", smaps, re.MULTILINE)[0])
    return kib / 1024


@contextlib.contextmanager
def running(command: list[str], port: int, core: str, work: Path, **env: str) -> Iterator[tuple[int, float]]:
    """A listening process: its pid, and the seconds until it listened."""
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


@dataclass
class Load:
    """wrk's report of one run, and the proxy's cost: user and system time of its whole process tree."""

    cpu_us: float
    kernel_us: float  #: the kernel's part of it
    per_second: float
    p50_ms: float
    p99_ms: float
    refused: float  #: share of responses that were not 2xx


def wrk(pid: int, port: int, script: str, *, connections: int, seconds: int, path: str = PATH) -> Load:
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    url = f"http://127.0.0.1:{port}{path}"
    before = cpu_us(pid)
    run = subprocess.run([*command, "--latency", "-s", script, url], check=True, capture_output=True, text=True)
    told = run.stdout
    spent, in_kernel = (after - earlier for after, earlier in zip(cpu_us(pid), before))
    count = int(re.findall(r"(\d+) requests in", told)[0])
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    return Load(
        cpu_us=spent / max(count, 1),
        kernel_us=in_kernel / max(count, 1),
        per_second=float(re.findall(r"Requests/sec:\s+([\d.]+)", told)[0]),
        p50_ms=latency_ms(told, "50"),
        p99_ms=latency_ms(told, "99"),
        refused=int(refused[1]) / max(count, 1) if refused else 0.0,
    )


def latency_ms(told: str, percentile: str) -> float:
    number, unit = re.findall(rf"{percentile}%\s+([\d.]+)(us|ms|s)", told)[0]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def lua(size: int, signed: str = "right") -> str:
    """A script for wrk: one delivery of `size` bytes with a valid, wrong or missing (`none`) signature."""
    body = '{"event":"score.ready","pad":"' + "x" * max(0, size - 31) + '"}'
    macs = {}
    if signed != "none":
        for header, name in (("X-Signature", hashlib.sha512), ("X-Sig256", hashlib.sha256)):
            mac = hmac.new(KEY, body.encode(), name).hexdigest()
            macs[header] = mac if signed == "right" else "0" * len(mac)
    headers = "".join(f'wrk.headers["{header}"]="{mac}"; ' for header, mac in macs.items())
    return f'wrk.method="POST"; wrk.headers["Content-Type"]="application/json"; {headers}wrk.body=[==[{body}]==]'


def lua_of(headers: Mapping[str, str], body: str) -> str:
    """A script for wrk: one delivery."""
    lines = "".join(f'wrk.headers["{name}"]="{value}"; ' for name, value in headers.items())
    return f'wrk.method="POST"; {lines}wrk.body=[==[{body}]==]'


def lua_of_tokens(tokens: str, headers: Mapping[str, str], body: str) -> str:
    """A script for wrk: deliveries whose Authorization comes from the lines of the file `tokens`, over and over."""
    fixed = ", ".join(f'["{name}"]="{value}"' for name, value in headers.items() if name != "Authorization")
    return (
        f'local tokens, number = {{}}, 0\nfor line in io.lines("{tokens}") do tokens[#tokens + 1] = line end\n'
        f"function request()\n  local at = number % #tokens + 1\n  number = number + 1\n"
        f'  local headers = {{["Authorization"] = tokens[at], {fixed}}}\n'
        f'  return wrk.format("POST", nil, headers, [==[{body}]==])\nend\n'
    )


def lua_of_many(macs: str) -> str:
    """A script for wrk: 1 KiB deliveries that are all different; their signatures are the lines of the file `macs`."""
    return (
        f'local macs, number = {{}}, 0\nfor line in io.lines("{macs}") do macs[#macs + 1] = line end\n'
        f"function request()\n  local at = number % #macs + 1\n  number = number + 1\n"
        f'  local headers = {{["X-Signature"] = macs[at], ["Content-Type"] = "application/json"}}\n'
        f'  return wrk.format("POST", nil, headers, string.format("%016d", at) .. string.rep("x", 1008))\nend\n'
    )


def macs_of_many(count: int) -> str:
    """The signatures of `lua_of_many`."""
    rest = b"x" * 1008
    return "".join(hmac.digest(KEY, b"%016d" % at + rest, "sha512").hex() + "\n" for at in range(1, count + 1))
