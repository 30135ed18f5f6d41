"""The image runs with nothing but its configuration: no root, no capabilities, no writable file system."""

import contextlib
import hashlib
import hmac
import json
import re
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
from engine import build
from ports import free_ports

from sidecar import __version__
from sidecar.config.presets import preset_names

pytestmark = pytest.mark.image

KEY = "a-key-that-nobody-guesses"
COMMAND = "/opt/sidecar/bin/sidecar"
PYTHON = "/opt/sidecar/bin/python"
PAGE = (Path(__file__).parents[2] / "docs/image.md").read_text()
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


class Container:
    def __init__(self, engine: str, name: str, data: str, admin: str) -> None:
        self.engine, self.name, self.data, self.admin = engine, name, data, admin

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.engine, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def python(self, code: str) -> Any:
        """What `code` leaves in `found`, run inside by the image's own interpreter: there is no other program in it."""
        done = self("exec", self.name, PYTHON, "-c", f"{code}\nimport json; print(json.dumps(found))")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

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
    status = container.python("found = open('/proc/1/status').read()")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["Uid"].split() == ["65532"] * 4
    assert fields["Gid"].split() == ["65532"] * 4
    assert int(fields["CapEff"], 16) == 0
    assert int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


def test_it_writes_nothing_and_there_is_no_program_but_python(container: Container) -> None:
    found = container.python(
        "import os, stat\n"
        "files = [os.path.join(at, name) for at, _, names in os.walk('/', onerror=None) for name in names\n"
        "         if not at.startswith(('/proc', '/sys', '/dev'))]\n"
        "def runs(path):\n"
        "    mode = os.lstat(path).st_mode\n"
        "    return stat.S_ISREG(mode) and mode & 0o111 and not '.so' in path\n"
        "special = [path for path in files if os.lstat(path).st_mode & 0o6000]\n"
        "found = [sorted(path for path in files if runs(path)), special, os.statvfs('/').f_flag & os.ST_RDONLY]"
    )
    assert found == [[COMMAND, "/usr/bin/python3.13"], [], 1]


def test_its_health_check_asks_the_running_sidecar(container: Container, engine: str, image: str) -> None:
    settings = json.loads(container("image", "inspect", image).stdout)[0]
    check = settings["Config"]["Healthcheck"] if engine == "docker" else settings["Healthcheck"]
    assert check["Test"] == ["CMD", COMMAND, "healthcheck"]
    done = container("exec", container.name, COMMAND, "healthcheck")
    assert done.returncode == 0, done.stderr


def test_it_holds_what_its_bill_of_materials_and_the_documentation_say(container: Container) -> None:
    share = "/opt/sidecar/share"
    bill = container.python(f"import json; found = json.load(open('{share}/sbom.cdx.json'))")
    named = {each["name"] for each in bill["components"]}
    assert named == listed("Python packages")
    found = container.python("import os; found = os.listdir('/opt/sidecar/lib/python3.13/site-packages')")
    installed = {name.split("-")[0].lower() for name in found if name.endswith(".dist-info")}
    assert {name.replace("_", "-") for name in installed} == named | {"webhook-sidecar"}
    debian = container.python(f"found = open('{share}/debian-packages.txt').read()")
    assert {line.split()[0] for line in debian.splitlines()} == listed("Debian packages")
    assert set(container.python("import os; found = os.listdir('/var/lib/dpkg/status.d')")) == listed("Debian packages")
    programs = container.python("import os; found = os.listdir('/opt/sidecar/bin')")
    assert sorted(programs) == ["python", "python3", "python3.13", "sidecar"]


def listed(what: str) -> set[str]:
    match = re.search(rf"^{what}: (.*?)\.$", PAGE, re.MULTILINE | re.DOTALL)
    assert match
    return set(match[1].replace("\n", " ").split(", "))


def test_it_is_as_small_as_the_documentation_says(engine: str, image: str) -> None:
    size = int(Container(engine, "", "", "")("image", "inspect", "--format", "{{.Size}}", image).stdout)
    said = re.search(r"\*\*(\d+) MB\*\*", PAGE)
    assert said
    assert abs(size / 1e6 - int(said[1])) < 3


def test_it_knows_the_authorities_that_sign_certificates(container: Container) -> None:
    code = "import ssl; found = ssl.create_default_context().cert_store_stats()['x509_ca']"
    assert container.python(code) > 100


def test_all_presets_and_what_they_need_are_in_it(container: Container) -> None:
    code = (
        "import sys; sys.path.insert(0, '')\n"
        "import cryptography.hazmat.bindings._rust, opentelemetry.sdk.trace, redis.asyncio, uvloop\n"
        "from sidecar.config.presets import load_preset, preset_names\n"
        "found = [name for name in preset_names() if load_preset(name)]"
    )
    assert container.python(code) == list(preset_names())


def test_two_builds_give_the_same_bits(engine: str, image: str, tmp_path: Path) -> None:
    again = image + "-again"
    build(engine, again)
    run_engine = Container(engine, "", "", "")
    layers = [json.loads(run_engine("image", "inspect", each).stdout)[0]["RootFS"]["Layers"] for each in (image, again)]
    assert layers[0] == layers[1]
    if engine == "docker":
        ids = [run_engine("image", "inspect", "--format", "{{.Id}}", each).stdout for each in (image, again)]
    else:  # buildah writes its container's name into Docker's format, and a registry gets the other one
        ids = []
        for each in (image, again):
            at = tmp_path / each.rpartition(":")[2]
            assert run_engine("push", "-q", "--format", "oci", each, f"oci:{at}").returncode == 0
            ids.append(json.loads((at / "index.json").read_text())["manifests"][0]["digest"])
    run_engine("rmi", "-f", again)
    assert ids[0] == ids[1]


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
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in settings["Labels"].items()}
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == __version__
    assert re.fullmatch("[0-9a-f]{40}|unknown", labels["revision"])
    assert {"title", "description"} <= set(labels)


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
