"""`sidecar demo`: a receiver, a real sidecar process in front of it, and five deliveries, one of which must arrive.

The demo plays three parts that would run on three machines: the sender, the trusted proxy that adds X-Forwarded-For, and
the receiver. The sidecar is real: `sidecar serve` with the configuration shown.
"""

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from sidecar.config.presets import load_preset
from sidecar.secret import Secret
from sidecar.verify.sign import sign

CONFIG = """\
listen: 127.0.0.1:0
admin: 127.0.0.1:0
upstream: http://127.0.0.1:{receiver}
trusted_proxies: [127.0.0.1/32]
routes:
  - path: /webhooks/begini
    verify: begini
    secrets: [{{id: current, env: DEMO_BEGINI_KEY}}]
    allow: [203.0.113.0/24]
    replay: 10m
  - path: /webhooks/slack
    verify: slack
    secrets: [{{id: current, env: DEMO_SLACK_SECRET}}]
"""
#: Documentation addresses (RFC 5737): the provider's, and a stranger's.
PROVIDER = "203.0.113.7"
STRANGER = "198.51.100.66"
BODY = b'{"event":"score.ready","id":"622056dce007dc805c741751","score":712}'
START_SECONDS = 10.0
COUNTED_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="keep it running, and print commands to try")


def run(arguments: argparse.Namespace) -> int:
    try:
        return run_demo(keep=arguments.keep)
    except DemoError as error:
        print(f"sidecar demo: {error}", file=sys.stderr)
        return 1


class DemoError(Exception):
    """The demo could not run; the message says why."""


@dataclass
class Step:
    """One delivery, and how it must end."""

    title: str
    path: str
    body: bytes
    headers: list[tuple[str, str]]
    expect_status: int
    expect_outcome: str  #: of the counter that must have been incremented
    expect_reason: str  #: of the same counter; empty for accepted
    why: str


@dataclass
class Receiver:
    """A receiver that can't be changed: it responds 200 to everything, and remembers what it got."""

    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Serves on a free loopback port, and yields the port."""
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                seen.append((self.path, dict(self.headers), body))
                content = b'{"status":"ok"}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()


def run_demo(*, keep: bool) -> int:
    """Runs the demo; returns 0 if every step went as expected."""
    keys = {"DEMO_BEGINI_KEY": secrets.token_hex(20), "DEMO_SLACK_SECRET": secrets.token_hex(16)}
    receiver = Receiver()
    with receiver.running() as port, _sidecar(CONFIG.format(receiver=port), keys) as (data, admin):
        print(_bold("Webhook Sidecar: five deliveries, one of which must arrive\n"))
        print(f"  sender --> sidecar http://{data} --> receiver http://127.0.0.1:{port}\n")
        print(_indent(CONFIG.format(receiver=port)))
        failures = [problem for step in _steps(keys) for problem in _run(step, receiver, data, admin)]
        if failures:
            print(_bold("\nNot as expected:"))
            for failure in failures:
                print(f"  {failure}")
            return 1
        print(
            _bold("\nAll as expected: the genuine delivery arrived byte for byte; the receiver never saw the others.")
        )
        if keep:
            _stay(keys, data, admin)
    return 0


def _steps(keys: dict[str, str]) -> list[Step]:
    now = time.time()
    begini = sign(load_preset("begini"), Secret("demo", keys["DEMO_BEGINI_KEY"].encode()), body=BODY, now=now)
    recorded = sign(load_preset("slack"), Secret("demo", keys["DEMO_SLACK_SECRET"].encode()), body=BODY, now=now - 3600)
    return [
        Step(
            title="a genuine delivery from the provider's address",
            path="/webhooks/begini",
            body=BODY,
            headers=[*begini, ("X-Forwarded-For", PROVIDER)],
            expect_status=200,
            expect_outcome="accepted",
            expect_reason="",
            why="signature and address are valid: forwarded",
        ),
        Step(
            title="the same delivery with one byte of the body changed",
            path="/webhooks/begini",
            body=BODY.replace(b"712", b"912"),
            headers=[*begini, ("X-Forwarded-For", PROVIDER)],
            expect_status=403,
            expect_outcome="rejected",
            expect_reason="signature_mismatch",
            why="the HMAC belongs to a different body",
        ),
        Step(
            title="a valid signature, but from a stranger who put the provider's address in X-Forwarded-For",
            path="/webhooks/begini",
            body=BODY,
            headers=[*begini, ("X-Forwarded-For", f"{PROVIDER}, {STRANGER}")],
            expect_status=403,
            expect_outcome="rejected",
            expect_reason="ip_not_allowed",
            why=f"X-Forwarded-For is read from the right, and the trusted proxy appended {STRANGER}",
        ),
        Step(
            title="the genuine delivery again",
            path="/webhooks/begini",
            body=BODY,
            headers=[*begini, ("X-Forwarded-For", PROVIDER)],
            expect_status=200,
            expect_outcome="duplicate",
            expect_reason="replayed",
            why="the receiver accepted it within the last 10 minutes: 200 tells the sender not to retry",
        ),
        Step(
            title="a genuine Slack delivery, recorded an hour ago and sent again",
            path="/webhooks/slack",
            body=BODY,
            headers=[*recorded, ("X-Forwarded-For", PROVIDER)],
            expect_status=403,
            expect_outcome="rejected",
            expect_reason="timestamp_too_old",
            why="the signature is valid, but the signed time is outside the tolerance (5 minutes)",
        ),
    ]


def _run(step: Step, receiver: Receiver, data: str, admin: str) -> list[str]:
    """Sends one delivery and shows what happened; returns the differences from the expected end."""
    before = _deliveries(admin)
    receiver.seen.clear()
    response = httpx.post(f"http://{data}{step.path}", content=step.body, headers=step.headers, trust_env=False)
    moved = _moved(admin, before)

    print(_bold(f"* {step.title}"))
    print(f"  sent      POST {step.path}  {step.body.decode()}")
    for name, value in step.headers:
        print(f"            {name}: {value if len(value) <= 60 else value[:24] + '...'}")
    print(f"  response  {response.status_code} {response.text}")
    if receiver.seen:
        _, headers, body = receiver.seen[0]
        print(f"  receiver  saw {body.decode()}")
        print(f"            X-Webhook-Verified: {headers.get('X-Webhook-Verified')}")
    else:
        print("  receiver  saw nothing")
    for (route, outcome, reason), count in moved.items():
        print(f'  metrics   deliveries_total{{route="{route}",outcome="{outcome}",reason="{reason}"}} +{count:.0f}')
    print(f"  because   {step.why}\n")

    problems = []
    if response.status_code != step.expect_status:
        problems.append(f"{step.title}: status {response.status_code} instead of {step.expect_status}")
    forwarded = [body for _, _, body in receiver.seen]
    if forwarded != ([] if step.expect_reason else [step.body]):
        problems.append(f"{step.title}: the receiver saw {len(forwarded)} deliveries, or a different body")
    if {key[1:]: count for key, count in moved.items()} != {(step.expect_outcome, step.expect_reason): 1}:
        problems.append(f"{step.title}: unexpected counters: {moved}")
    return problems


def _moved(admin: str, before: dict[tuple[str, str, str], float]) -> dict[tuple[str, str, str], float]:
    """The counters that were incremented: a rejection is counted when it has been diagnosed, shortly after its response."""
    deadline = time.monotonic() + COUNTED_SECONDS
    while True:
        moved = {key: count - before[key] for key, count in _deliveries(admin).items() if count != before[key]}
        if moved or time.monotonic() > deadline:
            return moved
        time.sleep(0.01)


def _deliveries(admin: str) -> dict[tuple[str, str, str], float]:
    text = httpx.get(f"http://{admin}/metrics", trust_env=False).text
    return {
        (sample.labels["route"], sample.labels["outcome"], sample.labels["reason"]): sample.value
        for family in text_string_to_metric_families(text)
        if family.name == "webhook_sidecar_deliveries"
        for sample in family.samples
    }


@contextlib.contextmanager
def _sidecar(config: str, keys: dict[str, str]) -> Iterator[tuple[str, str]]:
    """A real sidecar process; gives the addresses of its two listeners."""
    with tempfile.TemporaryDirectory(prefix="sidecar-demo-") as directory:
        file = Path(directory, "sidecar.yaml")
        file.write_text(config)
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "serve", "--config", str(file)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | keys,
        )
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            serving: dict[str, str] = {}
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "serving":
                    serving = event
                    break
            watchdog.cancel()
            if not serving:
                raise DemoError("the sidecar did not start; its messages are above")
            # No more lines are needed, but an unread pipe would fill up and stop the sidecar.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield serving["listen"], serving["admin"]
        finally:
            watchdog.cancel()
            process.send_signal(signal.SIGINT)
            process.wait()


def _stay(keys: dict[str, str], data: str, admin: str) -> None:
    print("\nIt keeps running until you press Ctrl-C. Try:\n")
    print(f"  KEY={keys['DEMO_BEGINI_KEY']}")
    print(f"  BODY='{BODY.replace(b'712', b'713').decode()}'")
    print("""  SIGNATURE=$(printf %s "$BODY" | openssl dgst -sha512 -hmac "$KEY" | sed 's/^.* //')""")
    print(
        f"""  curl -i http://{data}/webhooks/begini -H "X-Signature: $SIGNATURE" -H "X-Forwarded-For: {PROVIDER}" -d "$BODY" """
    )
    print(
        f"""  curl -i http://{data}/webhooks/begini -H "X-Signature: $SIGNATURE" -H "X-Forwarded-For: {PROVIDER}" -d "$BODY!" """
    )
    print(f"  curl -s http://{admin}/metrics | grep deliveries_total | grep -v ' 0.0'")
    print(f"\nThe status page is at http://{admin}/.")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def _bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


def _indent(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
