"""What `helm test` runs, as it is rendered, against a real sidecar and a real receiver on this machine."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import ROOT, containers, of_kind, template
from ports import free_port
from preloaded import run_text

RECEIVER = ROOT / "tests/cluster/scripts/receiver.py"
#: A shared secret, a secret that is sent itself, a URL that is signed, and a scheme of one's own with its own rejection.
ROUTES: dict[str, dict[str, Any]] = {
    "github": {"verify": "github"},
    "gitlab": {"verify": "gitlab"},
    "twilio": {"verify": "twilio", "public_url": "https://hooks.example.com"},
    "own": {"verify": {"signature": {"header": "X-Own"}, "signed": "{body}"}, "reject": {"status": 401}},
}


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"{url} does not answer")


@pytest.mark.parametrize("name", ROUTES)
def test_the_signed_delivery_is_accepted_and_the_forged_one_rejected(name: str, tmp_path: Path) -> None:
    listen, admin, upstream = free_port(), free_port(), free_port()
    route = {"path": f"/{name}", "secrets": [{"file": "/run/secrets/hooks/key"}]} | ROUTES[name]
    values = {"config": {"upstream": "http://receiver:3000", "routes": [route]}, "existingSecrets": ["hooks"]}
    made = template(values)
    config = yaml.safe_load(of_kind(made, "ConfigMap", "-webhook-sidecar")["data"]["config.yaml"])
    config |= {
        "listen": f"127.0.0.1:{listen}",
        "admin": f"127.0.0.1:{admin}",
        "upstream": f"http://127.0.0.1:{upstream}",
        "drain": "100ms",
    }
    (tmp_path / "key").write_text("a-secret-that-nobody-guesses")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config).replace("/run/secrets/hooks", str(tmp_path)))
    environment = os.environ | {"PORT": str(upstream), "ADDRESS": "127.0.0.1"}
    command = [sys.executable, "-m", "sidecar"]
    with (
        subprocess.Popen([sys.executable, RECEIVER], env=environment) as receiver,
        subprocess.Popen([*command, "serve", "--config", file], stdout=subprocess.DEVNULL) as sidecar,
    ):
        try:
            wait_for(f"http://127.0.0.1:{admin}/readyz")
            wait_for(f"http://127.0.0.1:{upstream}/")
            for test in ("signed", "forged"):
                arguments = containers(of_kind(made, "Pod", f"-{test}"))[0]["args"]
                here = [re.sub("^http://[^/]+", f"http://127.0.0.1:{listen}", word) for word in arguments]
                here = [word.replace("/etc/sidecar/config.yaml", str(file)) for word in here]
                done = run_text(*here)
                assert done.returncode == 0, (test, done.stdout, done.stderr)
        finally:
            sidecar.terminate()
            receiver.terminate()
