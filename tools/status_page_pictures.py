"""Takes new screenshots of the status page: a real sidecar, deliveries of every kind, a real Chromium.

make pictures          (needs chromium and chromedriver, as the tests do)
"""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))

from browser import Browser, driver  # noqa: E402 - needs the line above

PICTURES = ROOT / "docs/pictures"
SECRETS = {
    "BEGINI_API_KEY": "an-example-of-a-secret-1",
    "BEGINI_PREVIOUS": "an-example-of-a-secret-2",
    "GITHUB_SECRET": "an-example-of-a-secret-3",
    "STRIPE_SECRET": "an-example-of-a-secret-4",
    "ACME_SECRET": "an-example-of-a-secret-5",
    "ANOTHER": "an-example-of-a-secret-6",
}
CONFIG = """\
listen: 127.0.0.1:{port}
admin: 127.0.0.1:0
upstream: http://127.0.0.1:{receiver}
trusted_proxies: [127.0.0.0/8]
routes:
  - path: /webhooks/begini
    name: begini
    verify: begini
    secrets:
      - {{id: current, env: BEGINI_API_KEY}}
      - {{id: previous, env: BEGINI_PREVIOUS}}
    allow: [203.0.113.0/24, 127.0.0.0/8]
    replay: 10m
  - path: /webhooks/github
    name: github
    verify: github
    secrets: [{{id: github, env: GITHUB_SECRET}}]
  - path: /webhooks/stripe
    name: stripe
    verify: stripe
    mode: shadow
    secrets: [{{id: endpoint, env: STRIPE_SECRET}}]
  - path: /webhooks/acme
    name: acme
    verify: {{signature: {{header: X-Acme-Signature}}}}
    secrets: [{{env: ACME_SECRET}}]
    upstream: http://127.0.0.1:{nobody}
  - {{path: /internal/*, name: office, verify: none, allow: [192.0.2.0/24]}}
  - {{path: /healthz, name: health, open: true}}
delivery_test:
  accounts:
    - {{id: 622056dce007dc805c741751, api_key: {{env: BEGINI_API_KEY}}, webhook_url: "http://127.0.0.1:{port}/webhooks/begini"}}
"""


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


def send(base: str, route: str, preset: str, secret: str, client: str, *more: str) -> None:
    """One delivery as its provider would sign it, as if from `client`."""
    signed = [
        sys.executable,
        "-m",
        "sidecar",
        "sign",
        "--preset",
        preset,
        "--secret",
        f"env:{secret}",
        "--body",
        "-",
        *more,
    ]
    body = json.dumps({"event": "score.ready", "number": time.time_ns()})
    fields = subprocess.run(
        signed, input=body, env=os.environ | SECRETS, capture_output=True, text=True, check=True
    ).stdout
    headers = dict(line.split(": ", 1) for line in fields.splitlines() if ": " in line)
    httpx.post(f"{base}/webhooks/{route}", headers=headers | {"X-Forwarded-For": client}, content=body)


def deliveries(base: str) -> None:
    for number in range(6):
        send(base, "begini", "begini", "BEGINI_API_KEY", f"203.0.113.{number}")
        send(base, "github", "github", "GITHUB_SECRET", "140.82.112.7")
    send(base, "begini", "begini", "BEGINI_PREVIOUS", "203.0.113.9")
    send(base, "begini", "begini", "ANOTHER", "203.0.113.9")
    send(base, "begini", "begini", "BEGINI_API_KEY", "198.51.100.23")
    send(base, "github", "github", "ANOTHER", "140.82.112.7")
    send(base, "stripe", "stripe", "STRIPE_SECRET", "3.18.12.63")
    send(base, "stripe", "stripe", "STRIPE_SECRET", "3.18.12.63", "--timestamp", "1700000000")
    send(base, "acme", "github", "ACME_SECRET", "192.0.2.77")
    httpx.post(f"{base}/internal/report", headers={"X-Forwarded-For": "198.51.100.80"}, content=b"{}")
    httpx.post(f"{base}/wp-login.php", headers={"X-Forwarded-For": "198.51.100.99"}, content=b"log=admin")
    httpx.post(f"{base}/webhooks/<script>alert(1)</script>", headers={"X-Forwarded-For": "198.51.100.99"})


def take(browser: Browser, name: str, height: int | None = None) -> None:
    file = PICTURES / f"{name}.{sys.argv[1] if len(sys.argv) > 1 else 'webp'}"
    browser.picture(file, height=height)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    port = free_port()
    directory = Path(tempfile.mkdtemp())
    file = directory / "sidecar.yaml"
    good = CONFIG.format(port=port, receiver=receiver.server_port, nobody=free_port())
    file.write_text(good)
    command = [sys.executable, "-m", "sidecar", "serve", "--config", "sidecar.yaml"]
    process = subprocess.Popen(command, cwd=directory, env=os.environ | SECRETS, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if '"serving"' in line)
        threading.Thread(target=process.stdout.read, daemon=True).start()
        admin = "http://" + line.partition(chr(34) + "admin" + chr(34) + ": " + chr(34))[2].partition(chr(34))[0] + "/"
        PICTURES.mkdir(exist_ok=True)
        deliveries(f"http://127.0.0.1:{port}")
        with driver() as chromium:
            with chromium.window() as browser:
                browser.open(admin)
                browser.wait(lambda: browser.text("#live") == "Live", "the event stream")
                for scheme in ("light", "dark"):
                    browser.color_scheme(scheme)
                    take(browser, f"status-page-{scheme}")
                browser.color_scheme("light")
                file.write_text(
                    good.replace("mode: shadow", "mode: shadows").replace("203.0.113.0/24", "203.0.113.1/24")
                )
                browser.wait(lambda: browser.find("#problems .alert"), "the failed reload")
                take(browser, "status-page-failed-reload", height=720)
            file.write_text(good)
            time.sleep(2)
            with chromium.window(phone=True) as browser:
                browser.open(admin)
                browser.wait(lambda: browser.text("#live") == "Live", "the event stream")
                take(browser, "status-page-phone", height=1400)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
