"""Draws docs/pictures/ from the dashboards, over a Prometheus that scraped real sidecars under eight minutes of made-up traffic.

    (cd tools/pictures && npm install) && .venv/bin/python tools/pictures/draw.py [--minutes 8]

Run it by hand, not in CI: Grafana's components take 470 MB. It needs node with npm, chromium, prometheus, redis-server and
pngquant. Grafana's own panels are not published as a package; page.jsx combines the components that they are made of.

The timeline, in twelfths of the time: from the 4th on the receiver of shop is slow and fails, from the 6th on somebody forges
deliveries, from the 8th on begini signs with the new secret.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sidecar.config.presets import load_preset
from sidecar.secret import Secret
from sidecar.verify.sign import sign

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PICTURES = ROOT / "docs/pictures"
KEYS = {
    name: f"not-a-secret-but-long-enough-{name.lower()}" for name in ("NEW", "OLD", "SHOP", "SLACK", "META", "TOKEN")
}
CONFIG = """
listen: 127.0.0.1:0
admin: 127.0.0.1:0
upstream: {upstream}
timeouts: {{response: 2s}}
log: {{accepted: false}}
replay_store: redis://{store}/0
trusted_proxies: [127.0.0.0/8]
routes:
  - name: begini
    path: /begini
    verify: begini
    secrets: [{{id: current, env: NEW}}, {{id: previous, env: OLD, retire_by: "{retire_by}"}}]
    allow: ["203.0.113.0/24"]
  - {{name: shop, path: /shop, verify: shopify, secrets: [{{id: shop, env: SHOP}}], replay: 10m}}
  - {{name: slack, path: /slack, verify: slack, secrets: [{{id: signing, env: SLACK}}]}}
  - {{name: meta, path: /meta, verify: meta, secrets: [{{id: app, env: META}}], verify_token: {{env: TOKEN}}}}
  - {{name: github, path: /github, verify: github, secrets: [{{id: app, env: META}}], mode: shadow, allow: ["preset:github"]}}
"""
PATHS = {"begini": "begini", "shop": "shopify", "slack": "slack", "meta": "meta", "github": "github"}


class Story:
    """The timeline. `share` is the part of the time that is over."""

    share = 0.0

    @classmethod
    def failing(cls) -> bool:
        return 4 / 12 < cls.share < 5.5 / 12

    @classmethod
    def attacked(cls) -> bool:
        return 6 / 12 < cls.share < 7.5 / 12

    @classmethod
    def rotated(cls) -> bool:
        return cls.share > 8 / 12


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        bad = self.path == "/shop" and Story.failing()
        time.sleep(random.lognormvariate(-4.2, 0.5) * (20 if bad else 1))
        if bad and random.random() < 0.15:
            self.close_connection = True  # without a response
            return
        self.send_response(500 if bad and random.random() < 0.3 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class Page(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments, directory=str(HERE / "made"))  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        """Icons and fonts are in Grafana's package."""
        icons = HERE / "node_modules/@grafana/ui/dist"
        return (
            str(icons / path.lstrip("/").replace("public/build", "public"))
            if path.startswith("/public/")
            else super().translate_path(path)
        )

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{made.server_port}"
    made.shutdown()


@contextlib.contextmanager
def process(*command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        yield running
    finally:
        running.terminate()
        running.wait(30)


@contextlib.contextmanager
def sidecar(directory: Path, upstream: str, store: str) -> Iterator[tuple[str, str]]:
    """Addresses of the data and the admin listener."""
    retire_by = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 5 * 86400))
    file = directory / "sidecar.yaml"
    file.write_text(CONFIG.format(upstream=f"http://{upstream}", store=store, retire_by=retire_by))
    command = [sys.executable, "-m", "sidecar", "serve", "--config", str(file)]
    with process(*command, stdout=subprocess.PIPE, env=os.environ | KEYS) as running:
        assert running.stdout is not None
        for line in running.stdout:
            event = json.loads(line)
            if event.get("event") == "serving":
                break
        threading.Thread(target=running.stdout.read, daemon=True).start()
        yield event["listen"], event["admin"]


def deliver(address: str, route: str, *, key: str = "", body: bytes, age: float = 0, forged: bool = False) -> None:
    headers = {"X-Forwarded-For": "198.51.100.7" if forged else "203.0.113.9"}
    if key:
        headers |= dict(
            sign(load_preset(PATHS[route]), Secret("s", KEYS[key].encode()), body=body, now=time.time() - age)
        )
    ask(address, "POST", f"/{route}", body.replace(b"more", b"less") if forged else body, headers)


def ask(address: str, method: str, target: str, body: bytes, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection(address, timeout=5)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request(method, target, body, headers)
        connection.getresponse().read()
    connection.close()


def traffic(address: str, until: float) -> None:
    """One sender, about ten deliveries a second."""
    chance, numbers = random.Random(address), itertools.count()
    while time.time() < until:
        time.sleep(chance.expovariate(12 + 4 * (Story.share * 12 % 3)))
        body = json.dumps({"n": next(numbers), "more": "x" * int(chance.lognormvariate(6, 1.2))}).encode()
        dice = chance.random()
        if dice < 0.40:
            late = Story.rotated() and chance.random() > max(0.0, 1 - (Story.share - 8 / 12) * 15)
            deliver(address, "begini", key="NEW" if late else "OLD", body=body)
        elif dice < 0.65:
            for _ in range(1 + (chance.random() < 0.05)):
                deliver(address, "shop", key="SHOP", body=body)
        elif dice < 0.80:
            deliver(address, "slack", key="SLACK", body=body, age=chance.expovariate(0.7))
        elif dice < 0.89:
            deliver(address, "meta", key="META", body=body)
        elif dice < 0.92:
            deliver(address, "github", key="META", body=body)
        elif dice < 0.93:
            token = KEYS["TOKEN"] if chance.random() < 0.6 else "guess"
            target = f"/meta?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={token}"
            ask(address, "GET", target, b"", {})
        elif dice < 0.95:
            deliver(address, "slack", key="SLACK", body=body, age=900)
        elif dice < 0.97:
            ask(address, "POST", "/wp-login.php", b"", {})
        elif dice < 0.98:
            compact = json.dumps(json.loads(body), separators=(",", ":")).encode()
            headers = dict(
                sign(load_preset("shopify"), Secret("s", KEYS["SHOP"].encode()), body=compact, now=time.time())
            )
            ask(address, "POST", "/shop", body, headers)
        if Story.attacked():
            for route, key in (("begini", ""), ("shop", ""), ("shop", "SLACK"), ("slack", "SLACK")):
                deliver(address, route, key="" if key == "SLACK" and route == "shop" else key, body=body, forged=True)


def watch(directory: Path, targets: list[str], address: str) -> contextlib.AbstractContextManager[object]:
    scrape = [
        {"targets": [target], "labels": {"namespace": "hooks", "pod": f"hooks-{index}"}}
        for index, target in enumerate(targets)
    ]
    config = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "5s"},
        "rule_files": [str(ROOT / "helm/rules/webhook-sidecar.yaml")],
        "scrape_configs": [{"job_name": "webhook-sidecar", "static_configs": scrape}],
    }
    (directory / "prometheus.json").write_text(json.dumps(config))  # JSON is YAML
    return process(
        "prometheus",
        f"--config.file={directory / 'prometheus.json'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    )


def draw(prometheus: str, begin: float, end: float) -> None:
    """A PNG for each dashboard."""
    PICTURES.mkdir(exist_ok=True)
    quiet = f"{int((end - begin) * 2 / 12)}s"
    variables = {
        "__rate_interval": "20s",
        "__range": f"{int(end - begin)}s",
        "namespace": ".*",
        "route": ".*",
        "quiet": quiet,
    }
    with server(Page) as pages:
        for file in sorted((ROOT / "helm/dashboards").glob("*.json")):
            dashboard = json.loads(file.read_text())
            picture = {
                "prometheus": f"http://{prometheus}",
                "dashboard": dashboard,
                "from": begin,
                "to": end,
                "variables": variables,
            }
            (HERE / f"made/{file.stem}.html").write_text(
                f'<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css"><div id="page"></div>'
                f"<script>window.PICTURE = {json.dumps(picture | {'dashboard': dashboard})}</script><script src='page.js'></script>"
            )
            height = 56 + 38 * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"]) + 8
            shot = HERE / f"made/{file.stem}.png"
            subprocess.run(
                ["node", "shoot.mjs", f"http://{pages}/{file.stem}.html", shot, "1552", str(height)],
                cwd=HERE,
                check=True,
            )
            drawn = PICTURES / shot.name
            subprocess.run(["pngquant", "--force", "--strip", "--output", drawn, "64", shot], check=True)
            print(drawn, drawn.stat().st_size)


def main() -> None:
    arguments = argparse.ArgumentParser(description="Draws the pictures of the dashboards.")
    arguments.add_argument("--minutes", type=float, default=8)
    minutes = arguments.parse_args().minutes
    for tool in ("prometheus", "redis-server", "chromium", "pngquant", "node", "npx"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not installed")
    bundle = ["npx", "esbuild", "page.jsx", "--bundle", "--outfile=made/page.js", "--log-level=error"]
    loaders = [f"--loader:.{ending}=dataurl" for ending in ("svg", "woff2", "ttf")]
    subprocess.run([*bundle, *loaders, '--define:process.env.NODE_ENV="production"'], cwd=HERE, check=True)
    prometheus = "127.0.0.1:19090"
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(server(Receiver))
        directories = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(3)]
        store = ["redis-server", "--bind", "127.0.0.1", "--port", "16379", "--save", "", "--logfile", "store.log"]
        stack.enter_context(process(*store, cwd=directories[2]))
        listeners = [
            stack.enter_context(sidecar(directory, receiver, "127.0.0.1:16379")) for directory in directories[:2]
        ]
        stack.enter_context(watch(directories[2], [admin for _, admin in listeners], prometheus))
        begin, seconds = time.time(), 60 * minutes
        senders = [threading.Thread(target=traffic, args=(data, begin + seconds)) for data, _ in listeners]
        for sender in senders:
            sender.start()
        while any(sender.is_alive() for sender in senders):
            Story.share = (time.time() - begin) / seconds
            time.sleep(0.1)
        draw(prometheus, begin + 10, time.time())


if __name__ == "__main__":
    main()
