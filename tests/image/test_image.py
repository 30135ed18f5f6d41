"""The image runs with nothing but its configuration: no root, no capabilities, no writable file system."""

import contextlib
import hashlib
import hmac
import json
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.image

KEY = "a-key-that-nobody-guesses"
COMMAND = "/opt/sidecar/bin/sidecar"
CONFINED = [
    "--network=host",
    "--user=65532:65532",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=128m",
]


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[int]:
    """The port of a receiver that answers 202."""
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Container:
    def __init__(self, engine: str, name: str, data: str, admin: str) -> None:
        self.engine, self.name, self.data, self.admin = engine, name, data, admin

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.engine, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    @property
    def log(self) -> str:
        done = self("logs", self.name)
        return done.stdout + done.stderr


@pytest.fixture
def container(engine: str, image: str, receiver: int, tmp_path: Path) -> Iterator[Container]:
    """A ready sidecar, confined as a cluster would."""
    data, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    config = {
        "listen": data,
        "admin": admin,
        "upstream": f"http://127.0.0.1:{receiver}",
        "routes": [{"path": "/hook", "verify": "begini", "secrets": [{"env": "KEY"}]}],
    }
    mounted = tmp_path / "config"
    mounted.mkdir()
    (mounted / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    for path in (mounted, mounted / "config.yaml"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    made = Container(engine, f"sidecar-{uuid.uuid4().hex}", f"http://{data}", f"http://{admin}")
    started = made(
        "run", "-d", "--name", made.name, *CONFINED, "-e", f"KEY={KEY}", "-v", f"{mounted}:/etc/sidecar:ro", image
    )
    try:
        assert started.returncode == 0, started.stderr
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(made.admin + "/readyz").status_code == 200:
                    break
            assert time.monotonic() < deadline, made.log
            time.sleep(0.05)
        yield made
    finally:
        made("rm", "-f", made.name)


def test_confined_it_answers_probes_and_lets_only_signed_deliveries_through(container: Container) -> None:
    assert httpx.get(container.admin + "/livez").status_code == 200
    assert httpx.post(container.data + "/hook", content=b"{}").status_code == 403
    signature = hmac.new(KEY.encode(), b"{}", hashlib.sha512).hexdigest()
    answer = httpx.post(container.data + "/hook", content=b"{}", headers={"X-Signature": signature})
    assert answer.status_code == 202


def test_its_process_has_no_root_and_no_capabilities(container: Container) -> None:
    status = container("exec", container.name, "cat", "/proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["Uid"].split() == ["65532"] * 4
    assert fields["Gid"].split() == ["65532"] * 4
    assert int(fields["CapEff"], 16) == 0
    assert int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


def test_its_health_check_asks_the_running_sidecar(container: Container, engine: str, image: str) -> None:
    settings = json.loads(container("image", "inspect", image).stdout)[0]
    check = settings["Config"]["Healthcheck"] if engine == "docker" else settings["Healthcheck"]
    assert check["Test"] == ["CMD", COMMAND, "healthcheck"]
    done = container("exec", container.name, COMMAND, "healthcheck")
    assert done.returncode == 0, done.stderr


def test_it_holds_what_its_bill_of_materials_and_the_documentation_say(container: Container) -> None:
    bill = json.loads(container("exec", container.name, "cat", "/opt/sidecar/share/sbom.cdx.json").stdout)
    named = {each["name"] for each in bill["components"]}
    page = (Path(__file__).parents[2] / "docs/image.md").read_text()
    assert named == set(re.search(r"^Python packages: (.*)\.$", page, re.MULTILINE)[1].split(", "))  # type: ignore[index]
    found = container("exec", container.name, "ls", "/opt/sidecar/lib/python3.13/site-packages").stdout.split()
    installed = {name.split("-")[0].lower() for name in found if name.endswith(".dist-info")}
    assert {name.replace("_", "-") for name in installed} == named | {"webhook-sidecar"}
    debian = container("exec", container.name, "cat", "/opt/sidecar/share/debian-packages.txt").stdout
    assert {"ca-certificates", "libc6", "python3"} <= {line.split()[0] for line in debian.splitlines()}
    assert "pip" not in debian
    assert sorted(container("exec", container.name, "ls", "/opt/sidecar/bin").stdout.split()) == sorted(
        ["python", "python3", "python3.13", "sidecar"]
    )


def test_it_stops_cleanly_on_sigterm(container: Container) -> None:
    container("stop", "-t", "30", container.name)
    assert container("inspect", "--format", "{{.State.ExitCode}}", container.name).stdout.strip() == "0", container.log


def test_without_a_configuration_it_says_what_is_missing(engine: str, image: str) -> None:
    done = Container(engine, "", "", "")("run", "--rm", *CONFINED, image)
    assert done.returncode == 1
    assert "/etc/sidecar/config.yaml" in done.stderr


def test_the_image_says_how_it_is_run(engine: str, image: str) -> None:
    settings = json.loads(Container(engine, "", "", "")("image", "inspect", image).stdout)[0]["Config"]
    assert settings["User"] == "65532:65532"
    assert settings["Entrypoint"] == [COMMAND]
    assert settings["Cmd"] == ["serve"]
    assert sorted(settings["ExposedPorts"]) == ["8080/tcp", "9090/tcp"]
    assert settings["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_it_has_no_package_installer_and_no_stale_bytecode(engine: str, image: str) -> None:
    find_stale = (
        "import pathlib, sys\n"
        "for pyc in pathlib.Path('/opt/sidecar/lib').rglob('*.pyc'):\n"
        "    if pyc.read_bytes()[4] != 1: sys.exit(f'{pyc} depends on file times')\n"
        "import sidecar, pathlib\n"
        "assert pathlib.Path(sidecar.__cached__).exists()\n"
        "import importlib.util as u; assert u.find_spec('pip') is None\n"
    )
    python = ["--entrypoint", "/opt/sidecar/bin/python", image, "-c", find_stale]
    done = Container(engine, "", "", "")("run", "--rm", *CONFINED, *python)
    assert done.returncode == 0, done.stderr
