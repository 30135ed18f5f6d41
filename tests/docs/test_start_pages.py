"""The Start and How-to pages do what they say: their files are loaded, and their commands run, with the real programs."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from client import Client
from gateways import ENGINES, Gateway, envoy
from needs import needs
from pages import NAMES, ROOT, Fence, fences, read
from ports import free_ports
from waiting import until
from walking import answer, environment, running

from sidecar.cli.main import main
from sidecar.config.loader import load_config

#: Each console of these pages is run by a test, or says why it can't be.
PAGES = ("docker-compose", "systemd", "cloud-run-and-ecs", "behind-a-proxy", "shadow", "protect", "queue")
CONFIGS = ("compose/sidecar/config.yaml", "systemd/config.yaml", "cloud/config.yaml", "queue/sidecar.yaml")
SECRET = "it-is-a-secret-to-everybody"


def fence(page: str, mark: str) -> str:
    return next(each.text for each in fences(read(f"docs/{page}.md")) if each.mark == mark)


def section(page: str, heading: str, kind: str) -> str:
    """The last block of a kind below a heading."""
    part = read(f"docs/{page}.md").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [each.text for each in fences(part) if each.kind == kind][-1]


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console, with what the page says that each prints."""
    parts = re.split(r"^\$ ", text.replace("\\\n", ""), flags=re.M)[1:]
    return [(command, printed.strip()) for command, _, printed in (part.partition("\n") for part in parts)]


class Walk:
    """A page followed in a folder of its own, on other ports."""

    def __init__(self, where: Path, **secrets: str) -> None:
        self.where = where
        self.env = environment(**secrets)
        self.ports = dict(zip(("3000", "3001", "4222", "8080", "9090"), map(str, free_ports(5)), strict=True))

    def here(self, text: str) -> str:
        return re.sub(r"\b(3000|3001|4222|8080|9090)\b", lambda match: str(self.ports[match[1]]), text)

    def copy(self, name: str) -> None:
        """A file or folder of the project, with the ports replaced."""
        for file in [ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*"):
            if file.is_file() and file.suffix != ".pyc":
                to = self.where / file.relative_to(ROOT)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_text(self.here(file.read_text(encoding="utf-8")))

    def config(self, text: str) -> Path:
        """A configuration, which listens on loopback alone."""
        value = {"listen": "127.0.0.1:8080", "admin": "127.0.0.1:9090"} | yaml.safe_load(text)
        file = self.where / "sidecar.yaml"
        file.write_text(self.here(yaml.safe_dump(value)))
        return file

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", self.here(command)],
            cwd=self.where, env=self.env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def follow(self, console: str) -> None:
        """Runs the commands of a console; each must succeed and print what the page says."""
        for command, printed in commands(console):
            ran = self.run(command)
            assert ran.returncode == 0, ran
            assert ran.stdout.strip().startswith(printed), ran

    @contextlib.contextmanager
    def sidecar(self, file: Path | str) -> Iterator[None]:
        command = f"{sys.executable} -m sidecar serve --config {file}"
        with running(command, self.where, self.env):
            answer(f"http://127.0.0.1:{self.ports['9090']}/readyz")
            yield

    @contextlib.contextmanager
    def receiver(self, port: str = "3000") -> Iterator[None]:
        source = (ROOT / "config/quick-start/receiver.py").read_text(encoding="utf-8")
        (self.where / "receiver.py").write_text(source.replace("3000", self.ports[port]))
        with running(f"{sys.executable} receiver.py", self.where, self.env):
            listens(self.ports[port])
            yield

    @property
    def output(self) -> str:
        """What all programs of the walk have printed."""
        return (self.where / "output").read_text()

    def deliveries(self) -> list[dict[str, Any]]:
        """Of the sidecar's log."""
        lines = [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == "delivery"]


def listens(port: str) -> None:
    def can_connect() -> bool:
        return subprocess.run(["bash", "-c", f": </dev/tcp/127.0.0.1/{port}"], capture_output=True).returncode == 0  # noqa: PLW1510

    until(can_connect, f"port {port}", 30)


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    return Walk(tmp_path)


# -- all pages --


def unmarked(page: str) -> list[int]:
    """The lines of consoles that neither a test runs nor a reason excuses."""
    marks = re.compile(r"run: .+|not run: .{10,}")
    return [each.line for each in fences(page) if each.kind == "console" and not marks.fullmatch(each.mark)]


@pytest.mark.parametrize("page", PAGES)
def test_every_console_is_run_or_says_why_not(page: str) -> None:
    assert unmarked(read(f"docs/{page}.md")) == []


def test_every_mark_of_a_console_that_is_run_is_known_to_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    marks = {each.mark for page in PAGES for each in fences(read(f"docs/{page}.md")) if each.mark.startswith("run: ")}
    assert {mark for mark in marks if f'"{mark}"' not in source} == set()


def test_a_console_without_a_mark_is_found() -> None:
    assert unmarked(
        "```console\n$ a\n```\n<!-- run: b -->\n```console\n$ b\n```\n<!-- not run: -->\n```console\n```\n"
    ) == [2, 10]


FROM = [
    pytest.param(each, id=f"{name}:{each.line}")
    for name in NAMES
    for each in fences(read(name))
    if re.search(r"\bfrom \S+/\S+$", each.mark) and "ci/" not in each.mark
]


@pytest.mark.parametrize("shown", FROM)
def test_a_file_that_is_shown_is_that_file(shown: Fence) -> None:
    assert shown.text == (ROOT / shown.mark.rpartition("from ")[2]).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configurations_of_the_pages_have_no_mistake_and_no_warning(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--no-secrets", str(ROOT / "config" / name)]) == 0
    assert "warning" not in capsys.readouterr().err


# -- Docker Compose --


def test_the_programs_of_the_compose_file_run_as_it_says(walk: Walk) -> None:
    """Without containers, but with the commands, the files and the variables that they would have."""
    compose = yaml.safe_load((ROOT / "config/compose/compose.yaml").read_text(encoding="utf-8"))
    sidecar, receiver = compose["services"]["webhook-sidecar"], compose["services"]["receiver"]
    assert receiver["network_mode"] == "service:webhook-sidecar"
    assert "ports" not in receiver  # nothing goes around the sidecar
    assert (sidecar["read_only"], sidecar["cap_drop"]) == (True, ["ALL"])
    assert int(sidecar["stop_grace_period"].removesuffix("s")) > 20
    (mount,) = sidecar["volumes"]
    folder, inside, mode = mount.split(":")
    assert (inside, mode) == ("/etc/sidecar", "ro")
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "SIDECAR_CONFIG=/etc/sidecar/config.yaml" in image
    assert list(sidecar["environment"]) == ["GITHUB_SECRET"]
    config = load_config(str(ROOT / "config/compose" / folder / "config.yaml"), {"GITHUB_SECRET": SECRET})
    assert str(config.listen).endswith(":8080")
    assert str(config.admin).endswith(":9090")
    assert sidecar["ports"] == ["8080:8080", "127.0.0.1:9090:9090"]
    walk.config((ROOT / "config/compose" / folder / "config.yaml").read_text(encoding="utf-8"))
    (scripts,) = receiver["volumes"]
    walk.copy("config/quick-start")
    host = (walk.where / "config/compose" / scripts.split(":")[0]).resolve()
    program = [str(host / Path(word).name) if word.startswith("/receiver/") else word for word in receiver["command"]]
    console = next(each for each in fences(read("docs/docker-compose.md")) if "compose exec" in each.text).text
    console = re.sub(r"docker compose exec webhook-sidecar /opt/sidecar/bin/", "", console)
    with running(" ".join(program), walk.where, walk.env), walk.sidecar("sidecar.yaml"):
        listens(walk.ports["3000"])
        walk.follow(console)


# -- systemd --


def test_the_unit_is_one_that_systemd_takes_and_has_no_privileges(tmp_path: Path) -> None:
    analyze = needs("systemd-analyze")
    unit = (ROOT / "config/systemd/webhook-sidecar.service").read_text(encoding="utf-8")
    program = Path(sys.executable).with_name("sidecar")
    file = tmp_path / "webhook-sidecar.service"
    file.write_text(
        unit.replace("/opt/webhook-sidecar/bin/sidecar", str(program if program.exists() else sys.executable))
    )
    checked = subprocess.run([analyze, "verify", "--man=no", file], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    rated = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", file], capture_output=True, text=True, check=False
    )
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", rated.stdout)
    assert exposure is not None
    assert float(exposure[1]) < 2  # as the page says


def test_the_paths_of_the_page_are_those_of_the_unit_and_the_configuration() -> None:
    page, unit = read("docs/systemd.md"), read("config/systemd/webhook-sidecar.service")
    config = yaml.safe_load(read("config/systemd/config.yaml"))
    start = re.search(r"^ExecStart=(\S+) serve --config (\S+)$", unit, re.M)
    assert start is not None
    program, file = start.groups()
    assert f"python3 -m venv {Path(program).parents[1]}" in page
    assert f" {file}\n" in page
    for secret in config["routes"][0]["secrets"]:
        assert Path(secret["file"]).is_relative_to(Path(file).parent)
    assert f"/dev/stdin {config['routes'][0]['secrets'][0]['file']}\n" in page
    assert int(re.findall(r"^TimeoutStopSec=(\d+)", unit, re.M)[0]) > 20
    user = re.findall(r"^User=(\S+)", unit, re.M)[0]
    assert f"--no-create-home {user}\n" in page


# -- Cloud Run and ECS --


def test_the_check_of_the_configuration_for_the_cloud(walk: Walk) -> None:
    walk.copy("config/cloud")
    walk.follow(fence("cloud-run-and-ecs", "run: check"))


def test_cloud_run_gets_one_container_with_a_port_and_the_probes_of_the_sidecar() -> None:
    service = yaml.safe_load(read("config/cloud/cloud-run.yaml"))
    spec = service["spec"]["template"]
    containers = {each["name"]: each for each in spec["spec"]["containers"]}
    order = json.loads(spec["metadata"]["annotations"]["run.googleapis.com/container-dependencies"])
    assert order.keys() | {name for names in order.values() for name in names} == containers.keys()
    assert [name for name, each in containers.items() if "ports" in each] == ["webhook-sidecar"]
    config = load_config(str(ROOT / "config/cloud/config.yaml"), {"GITHUB_SECRET": SECRET})
    sidecar = containers["webhook-sidecar"]
    assert str(config.listen).endswith(f":{sidecar['ports'][0]['containerPort']}")
    probe = sidecar["startupProbe"]["httpGet"]
    assert str(config.admin).endswith(f":{probe['port']}")
    assert probe["path"] == "/readyz"
    assert [each["name"] for each in sidecar["env"]] == ["GITHUB_SECRET"]
    assert containers["receiver"]["startupProbe"]["tcpSocket"]["port"] == 3000
    copied = re.findall(r"^COPY config.yaml (\S+)", read("config/cloud/Dockerfile"), re.M)
    assert f"SIDECAR_CONFIG={copied[0]} " in read("Dockerfile")


def test_the_task_of_ecs_has_the_image_s_own_check_and_time_to_drain() -> None:
    task = json.loads(read("config/cloud/ecs-task.json"))
    sidecar, receiver = task["containerDefinitions"]
    command = re.search(r"HEALTHCHECK[^\[]*CMD (\[.*\])", read("Dockerfile"), re.S)
    assert command is not None
    assert sidecar["healthCheck"]["command"] == ["CMD", *json.loads(command[1].splitlines()[0])]
    assert sidecar["stopTimeout"] > 20
    assert sidecar["dependsOn"] == [{"containerName": receiver["name"], "condition": "START"}]
    assert sidecar["portMappings"] == [{"containerPort": 8080, "protocol": "tcp"}]
    assert "portMappings" not in receiver
    assert [each["name"] for each in sidecar["secrets"]] == ["GITHUB_SECRET"]


# -- behind a proxy --


def nginx(directory: Path, sidecar: str) -> Gateway:
    program = needs("nginx")
    gateway = Gateway(directory)
    server = section("behind-a-proxy", "nginx", "nginx")
    server = re.sub(r"^ *ssl_certificate.*\n", "", server, flags=re.M)
    server = server.replace("listen 443 ssl;", f"listen {gateway.address};").replace("127.0.0.1:8080", sidecar)
    temporary = " ".join(
        f"{name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main_part = f"user root; daemon off; error_log {directory}/error.log; pid {directory}/pid; events {{}}\n"
    file = directory / "nginx.conf"
    file.write_text(f"{main_part}http {{ access_log off; {temporary}\n{server}}}\n")
    return gateway.run(program, "-c", str(file), "-p", str(directory))


def traefik(directory: Path, sidecar: str) -> Gateway:
    program = needs(ENGINES / "traefik")
    gateway = Gateway(directory)
    shown = next(each for each in fences(read("docs/behind-a-proxy.md")) if each.mark.startswith("gateway traefik"))
    (directory / "routes.yml").write_text(shown.text.replace("127.0.0.1:8080", sidecar).replace(", tls: {}", ""))
    static = {
        "entryPoints": {"websecure": {"address": gateway.address}},
        "providers": {"file": {"filename": str(directory / "routes.yml")}},
        "log": {"level": "ERROR"},
    }
    (directory / "traefik.yml").write_text(json.dumps(static))
    gateway.run(program, f"--configFile={directory / 'traefik.yml'}")
    until(lambda: b"404 page not found" not in through(gateway, b"/webhooks/github", b"{}", ""), "Traefik's routes", 30)
    return gateway


def istio(directory: Path, sidecar: str) -> Gateway:
    """Envoy as Istio's gateway sets it up: it appends the client to X-Forwarded-For."""
    return envoy(directory, [], sidecar, asks=False)


def through(gateway: Gateway, target: bytes, body: bytes, signature: str) -> bytes:
    """The response to a delivery from 127.0.0.2, which claims to come from elsewhere."""
    head = (
        b"POST " + target + b" HTTP/1.1\r\nHost: hooks.example.com\r\nX-Forwarded-For: 203.0.113.9\r\n"
        b"X-Hub-Signature-256: " + signature.encode() + b"\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with Client(gateway.address, source="127.0.0.2") as client:
        return client.try_send(head + body).answer("POST").raw


@pytest.mark.parametrize(
    ("make", "heading"),
    [(nginx, "nginx"), (traefik, "Traefik"), (istio, "Istio and Envoy")],
    ids=["nginx", "traefik", "istio"],
)
def test_behind_a_real_proxy_the_sender_is_known_and_nothing_changes_on_the_way(
    make: Any, heading: str, walk: Walk, tmp_path: Path
) -> None:
    shown = section("behind-a-proxy", heading, "yaml")
    secrets = [{"id": "current", "env": "GITHUB_SECRET"}]
    routes = [{"path": "/webhooks/*", "verify": "github", "secrets": secrets, "allow": ["127.0.0.2/32"]}]
    config = {"upstream": "http://127.0.0.1:3000", "routes": routes} | yaml.safe_load(shown)
    if heading == "Istio and Envoy":
        config["trusted_proxies"] = ["127.0.0.1"]  # the page has the network of a cluster's pods
    file = walk.config(yaml.safe_dump(config))
    folder = tmp_path / "gateway"
    folder.mkdir()
    body = b'{"a": "' + b"x" * (1 << 20) + b'"}'  # above nginx's default limit
    signed = walk.run(f"sidecar sign --preset github --secret env:GITHUB_SECRET --body {_file(tmp_path, body)}").stdout
    signature = re.findall(r"^X-Hub-Signature-256: (\S+)", signed, re.M)[0]
    with walk.receiver(), walk.sidecar(file):
        gateway = make(folder, f"127.0.0.1:{walk.ports['8080']}")
        try:
            assert b" 200 " in through(gateway, b"/webhooks/a%20b?c=%2F", body, signature).partition(b"\r\n")[0]
        finally:
            gateway.stop()
    delivery = next(each for each in walk.deliveries() if each["outcome"] == "accepted")
    assert (delivery["client"], delivery["peer"]) == ("127.0.0.2", "127.0.0.1")
    assert "/webhooks/a%20b?c=%2F" in walk.output


def _file(folder: Path, content: bytes) -> Path:
    (folder / "body").write_bytes(content)
    return folder / "body"


# -- how-to --


def test_the_switch_from_shadow_to_enforce(walk: Walk) -> None:
    file = walk.config(fence("shadow", "run: shadow"))
    forged = commands(fence("shadow", "run: shadow try"))[1]
    with walk.receiver(), walk.sidecar(file):
        assert walk.run(forged[0].replace("403", "200")).returncode == 0  # shadow mode forwards it
        (seen,) = walk.deliveries()
        assert (seen["outcome"], seen["shadow_reason"]) == ("accepted", "signature_mismatch")
        file.write_text(file.read_text().replace("mode: shadow", "mode: enforce"))
        until(lambda: walk.run(forged[0]).returncode == 0, "the reload", 20)
        walk.follow(fence("shadow", "run: shadow try"))


def test_a_php_form_gets_only_what_twilio_signed(tmp_path: Path) -> None:
    needs("php")
    walk = Walk(tmp_path, TWILIO_SECRET=SECRET)
    walk.copy("config/protect")
    (php, _), (serve, _) = commands(fence("protect", "run: php"))
    with running(walk.here(php), walk.where, walk.env), walk.sidecar(serve.split()[-1]):
        listens(walk.ports["3000"])
        walk.follow(fence("protect", "run: php try"))
    assert walk.output.count("event: sidecar.test") == 1


# -- the queue --


def test_nats_keeps_a_delivery_until_the_receiver_is_back(walk: Walk) -> None:
    server, python = needs(ENGINES / "nats-server"), needs(ENGINES / "python")
    walk.copy("config/queue")
    (_, _), (start, _), (front, _), (back, _) = commands(fence("queue", "run: nats"))
    start = start.replace("nats-server", server, 1).replace("/var/lib/nats", str(walk.where / "store"))
    start += f" --addr 127.0.0.1 --port {walk.ports['4222']}"
    front, back = (walk.here(f"{line.replace('python3', python, 1)} nats://127.0.0.1:4222") for line in (front, back))
    file = walk.config((ROOT / "config/queue/sidecar.yaml").read_text(encoding="utf-8"))
    send = fence("queue", "run: nats send")
    with walk.sidecar(file):
        with running(start, walk.where, walk.env):
            listens(walk.ports["4222"])
            with running(front, walk.where, walk.env), running(back, walk.where, walk.env):
                listens(walk.ports["3000"])
                walk.follow(send)  # the receiver is down
                until(lambda: "failed" in walk.output, "a try", 30)
        with running(start, walk.where, walk.env):  # the server kept it on disk
            listens(walk.ports["4222"])
            with walk.receiver("3001"), running(back, walk.where, walk.env):
                until(lambda: "verified by webhooks-github" in walk.output, "the delivery", 90)
                time.sleep(1)
    assert walk.output.count("verified by webhooks-github") == 1
    assert walk.output.count('/webhooks/github {"event":"sidecar.test"') == 1


def test_what_nats_can_not_store_is_an_error_for_the_sender(walk: Walk) -> None:
    server, python = needs(ENGINES / "nats-server"), needs(ENGINES / "python")
    walk.copy("config/queue")
    address = f"--addr 127.0.0.1 --port {walk.ports['4222']}"
    front = walk.here(f"{python} config/queue/to_nats.py 3000 nats://127.0.0.1:4222")
    file = walk.config((ROOT / "config/queue/sidecar.yaml").read_text(encoding="utf-8"))
    send = commands(fence("queue", "run: nats send"))[0][0]
    with walk.sidecar(file), contextlib.ExitStack() as later:
        with running(f"{server} --jetstream --store_dir {walk.where}/store {address}", walk.where, walk.env):
            listens(walk.ports["4222"])
            later.enter_context(running(front, walk.where, walk.env))
            listens(walk.ports["3000"])
            large = _file(walk.where, b'{"a": "' + b"x" * (2 << 20) + b'"}')
            assert walk.run(f"{send} --body {large} --expect 503").returncode == 0
            assert "not stored: " in walk.output
            assert walk.run(send).returncode == 0
        assert walk.run(f"{send} --expect 503").returncode == 0


#: The keys that we use of each component of the Collector and of Vector, as docs/queue.md says where they were read.
KEYS = {
    "extensions.file_storage": {"directory", "create_directory", "fsync"},
    "receivers.webhook_event": {
        "endpoint", "path", "read_timeout", "write_timeout", "header_attribute_regex", "max_request_body_size",
    },
    "exporters.otlp_http": {"endpoint", "sending_queue", "retry_on_failure"},
    "sources.webhooks": {"type", "address", "path", "strict_path", "method", "framing", "decoding", "headers"},
    "sinks.receiver": {"type", "inputs", "uri", "method", "encoding", "framing", "batch", "buffer", "acknowledgements"},
}  # fmt: skip


@pytest.mark.parametrize("name", ["otel-collector", "vector"])
def test_the_other_queues_are_whole_pipelines_of_keys_that_there_are(name: str) -> None:
    """Neither program comes from a package index, so nothing of it runs here, as the page says."""
    config = yaml.safe_load(read(f"config/queue/{name}.yaml"))
    for place, keys in KEYS.items():
        kind, component = place.split(".")
        if kind in config:
            assert config[kind].keys() == {component}
            assert config[kind][component].keys() <= keys
    if name == "vector":
        assert config["sinks"]["receiver"]["inputs"] == list(config["sources"])
        assert config["sinks"]["receiver"]["buffer"]["type"] == "disk"
        # The response comes after the buffer.
        assert config["sinks"]["receiver"]["acknowledgements"] == {"enabled": True}
        assert config["sources"]["webhooks"]["framing"] == {"method": "bytes"}  # or a body is split at its newlines
        assert config["sources"]["webhooks"]["address"] == "127.0.0.1:3000"
        return
    pipeline = config["service"]["pipelines"]["logs"]
    assert (pipeline["receivers"], pipeline["exporters"]) == (list(config["receivers"]), list(config["exporters"]))
    assert config["exporters"]["otlp_http"]["sending_queue"]["storage"] in config["service"]["extensions"]
    assert config["receivers"]["webhook_event"]["endpoint"] == "127.0.0.1:3000"
