"""What `sidecar inject` makes of manifests, and what it says where they leave a question open."""

import io
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml
from chart import helm
from manifests import CONFIG, pod, read, service, workload, written

from sidecar.cli.main import main
from sidecar.inject.injection import inject
from sidecar.inject.manifest import ManifestError
from sidecar.inject.options import Options

SIDECAR = "webhook-sidecar"
OPTIONS = Options(config=CONFIG, config_file="hooks.yaml", secret=["stripe"])


class Ran(NamedTuple):
    status: int
    out: str
    err: str


class Command:
    """`command("--port", "3000", manifests=...)`, with hooks.yaml in the current directory."""

    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capfd, self.monkeypatch = capfd, monkeypatch

    def __call__(self, *arguments: str, manifests: str = "") -> Ran:
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(manifests.encode())))
        status = main(["inject", *arguments])
        sys.stdout.flush()
        return Ran(status, *self.capfd.readouterr())


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    Path("hooks.yaml").write_text(CONFIG)
    return Command(capfd, monkeypatch)


def injected(*objects: Any, **options: Any) -> list[dict[str, Any]]:
    return read(inject(written(*objects), Options(**vars(OPTIONS) | options), "web.yaml").text)


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = (each for each in objects if each["kind"] == kind)
    return found


def pod_of(found: dict[str, Any]) -> dict[str, Any]:
    spec = found["spec"]
    if found["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    made: dict[str, Any] = spec if found["kind"] == "Pod" else spec["template"]["spec"]
    return made


@pytest.mark.parametrize(
    "kind", ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod", "Rollout"]
)
def test_every_kind_with_a_pod_gets_a_native_sidecar_that_kubernetes_takes(kind: str) -> None:
    made = injected(workload(kind), service())
    spec = pod_of(made[0])
    (sidecar,) = spec["initContainers"]
    assert sidecar["name"] == SIDECAR
    assert sidecar["restartPolicy"] == "Always"
    assert of_kind(made, "Service")["spec"]["ports"] == [{"port": 80, "targetPort": 8080}]
    assert of_kind(made, "NetworkPolicy")["spec"]["podSelector"] == {"matchLabels": {"app": "shop"}}
    assert yaml.safe_load(of_kind(made, "ConfigMap")["data"]["config.yaml"])["upstream"] == "http://127.0.0.1:3000"
    for each in made:
        if each["kind"] != "Rollout":
            kubernetes_validate.validate(each, "1.37.0", strict=True)


def test_it_is_the_container_of_the_chart() -> None:
    values = {
        "mode": "sidecar",
        "config": yaml.safe_load(CONFIG),
        "existingSecrets": ["stripe"],
        "receiver": {"image": "registry.example/shop:1", "port": 3000},
    }
    rendered = helm("template", "shop", "helm", "--values", "-", stdin=json.dumps(values))
    spec = pod_of(next(each for each in read(rendered) if each["kind"] == "Deployment"))
    (theirs,) = spec["initContainers"]
    (ours,) = pod_of(injected(workload(), service())[0])["initContainers"]
    del theirs["imagePullPolicy"]
    assert ours == theirs


def test_the_receiver_keeps_its_probes_and_gets_time_to_stop() -> None:
    spec = pod_of(injected(workload(), service())[0])
    (receiver,) = spec["containers"]
    assert receiver["readinessProbe"] == {"httpGet": {"path": "/healthz", "port": "http"}}
    assert receiver["lifecycle"] == {"preStop": {"sleep": {"seconds": 10}}}
    assert spec["terminationGracePeriodSeconds"] == 45  # 10 waiting, 20 draining, 15 for the receiver's own stop


def test_a_receivers_own_stop_is_left_alone() -> None:
    given = pod(terminationGracePeriodSeconds=300)
    given["containers"][0]["lifecycle"] = {"preStop": {"exec": {"command": ["quit"]}}}
    assert pod_of(injected(workload(**given), service())[0])["containers"] == given["containers"]
    assert pod_of(injected(workload(**given), service())[0])["terminationGracePeriodSeconds"] == 300
    assert "lifecycle" not in pod_of(injected(workload(), service(), pre_stop=0)[0])["containers"][0]


def test_probes_of_a_receiver_on_loopback_go_through_an_open_route() -> None:
    given = pod()
    given["containers"][0]["livenessProbe"] = {"exec": {"command": ["alive"]}}
    given["containers"][0]["startupProbe"] = {"httpGet": {"path": "/healthz?deep=1", "port": 3000, "scheme": "HTTPS"}}
    (receiver,) = pod_of(injected(workload(**given), service(), loopback=True)[0])["containers"]
    assert receiver["readinessProbe"] == {"httpGet": {"path": "/healthz", "port": 8080}}
    assert receiver["livenessProbe"] == {"exec": {"command": ["alive"]}}
    assert receiver["startupProbe"] == {"httpGet": {"path": "/healthz?deep=1", "port": 8080, "scheme": "HTTP"}}


def test_only_the_service_ports_that_lead_to_the_receiver_are_moved() -> None:
    given = service()
    given["spec"]["ports"] = [
        {"name": "web", "port": 80, "targetPort": "http"},
        {"name": "same", "port": 3000},
        {"name": "metrics", "port": 9100, "targetPort": 9100},
        {"name": "dns", "port": 53, "targetPort": 3000, "protocol": "UDP"},
    ]
    made = injected(workload(), given, service("other", targetPort=3000))
    moved = [each["spec"]["ports"] for each in made if each["kind"] == "Service"]
    assert [port.get("targetPort") for port in moved[0]] == [8080, 8080, 9100, 3000]
    assert moved[1] == [{"port": 80, "targetPort": 3000}]


def test_a_service_of_another_namespace_is_not_taken() -> None:
    there, elsewhere = workload(), service()
    there["metadata"]["namespace"] = "shop"
    elsewhere["metadata"]["namespace"] = "other"
    made = injected(there, elsewhere)
    assert of_kind(made, "Service")["spec"]["ports"] == [{"port": 80, "targetPort": "http"}]
    assert {of_kind(made, kind)["metadata"]["namespace"] for kind in ("ConfigMap", "NetworkPolicy")} == {"shop"}


def test_the_policy_lets_in_whom_the_options_say() -> None:
    made = injected(
        workload(),
        service(),
        allow_from=["namespace:ingress", "10.0.0.0/8"],
        admin_from=["pods:app=prometheus,tier=ops"],
        keep_port=[9100],
    )
    assert of_kind(made, "NetworkPolicy")["spec"]["ingress"] == [
        {
            "from": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}},
                {"ipBlock": {"cidr": "10.0.0.0/8"}},
            ],
            "ports": [{"protocol": "TCP", "port": 8080}],
        },
        {
            "from": [{"podSelector": {"matchLabels": {"app": "prometheus", "tier": "ops"}}}],
            "ports": [{"protocol": "TCP", "port": 9090}],
        },
        {"ports": [{"protocol": "TCP", "port": 9100}]},
    ]


def test_a_port_replaces_an_address_of_the_configuration_but_not_a_socket() -> None:
    made = injected(workload(), service(), config="listen: 127.0.0.1:1\n" + CONFIG, listen_port=8000)
    assert of_kind(made, "ConfigMap")["data"]["config.yaml"].startswith("listen: '[::]:8000'\n")
    with pytest.raises(ManifestError) as caught:
        injected(workload(), service(), config="listen: {unix: /run/x}\n" + CONFIG, listen_port=8000)
    assert str(caught.value) == "hooks.yaml:1: listen: can't be changed to [::]:8000; remove it from the file"


def test_the_configuration_keeps_its_comments_and_takes_what_fits_the_pod() -> None:
    given = "# mine\nupstream: http://localhost:1 # there\nadmin: 0.0.0.0:9091\n" + CONFIG
    made = injected(workload(), service(), config=given, listen_port=8000)
    text = of_kind(made, "ConfigMap")["data"]["config.yaml"]
    assert text == given.replace("localhost:1 ", "localhost:3000 ") + "listen: '[::]:8000'\n"
    (sidecar,) = pod_of(made[0])["initContainers"]
    assert [port["containerPort"] for port in sidecar["ports"]] == [8000, 9091]
    assert sidecar["livenessProbe"]["httpGet"]["port"] == 9091


@pytest.mark.parametrize("kind", ["labels", "annotations"])
def test_several_workloads_are_marked_or_named(kind: str) -> None:
    marked = workload(name="a")
    marked["spec"]["template"]["metadata"].setdefault(kind, {})["webhook-sidecar/inject"] = "enabled"
    objects = [marked, workload("StatefulSet", name="b"), service("a"), service("b")]
    made = injected(*objects)
    assert ["initContainers" in pod_of(each) for each in made[:2]] == [True, False]
    made = injected(*objects, workload=["statefulset/b", "a"])
    assert ["initContainers" in pod_of(each) for each in made[:2]] == [True, True]
    assert [each["metadata"]["name"] for each in made if each["kind"] == "ConfigMap"] == [
        "b-webhook-sidecar",
        "a-webhook-sidecar",
    ]


def test_a_charts_test_is_not_taken_for_the_receiver() -> None:
    hook = workload("Pod", name="test")
    hook["metadata"]["annotations"] = {"helm.sh/hook": "test"}
    made = injected(hook, workload(), service())
    assert ["initContainers" in pod_of(each) for each in made[:2]] == [False, True]


def test_the_command_pipes(command: Command) -> None:
    text = written(workload(), service())
    options = ("--config", "hooks.yaml", "--secret", "stripe")
    first = command(*options, manifests=text)
    assert (first.status, first.err) == (0, "")
    Path("web.yaml").write_text(first.out)
    assert command("-f", "web.yaml", *options) == first
    removed = command("-f", "web.yaml", "--remove")
    assert (removed.status, removed.out) == (0, text)


def test_a_kustomize_function_takes_its_settings_from_its_input(command: Command) -> None:
    spec = {"config": CONFIG, "secret": ["stripe"], "listenPort": 8001, "noNetworkPolicy": True, "loopback": False}
    resources = {
        "apiVersion": "config.kubernetes.io/v1",
        "kind": "ResourceList",
        "items": [workload(), service()],
        "functionConfig": {
            "apiVersion": "webhook-sidecar/v1",
            "kind": "Inject",
            "metadata": {"name": "x"},
            "spec": spec,
        },
    }
    ran = command(manifests=written(resources))
    assert ran.err == ""
    (made,) = read(ran.out)
    assert [each["kind"] for each in made["items"]] == ["Deployment", "Service", "ConfigMap"]
    assert made["items"][1]["spec"]["ports"][0]["targetPort"] == 8001
    resources["functionConfig"]["spec"] |= {"container": "x", "colour": "red"}  # type: ignore[index]
    assert command(manifests=written(resources)).err == (
        "sidecar inject: functionConfig: spec: unrecognized arguments: --colour=red; "
        "use the options of sidecar inject in camelCase\n"
    )


def test_notes_say_what_the_manifests_could_not(command: Command) -> None:
    given = pod()
    given["containers"][0]["ports"].append({"name": "metrics", "containerPort": 9100})
    ran = command("--config-map", "hooks", "--port", "http", manifests=written(workload(**given)))
    assert ran.status == 0
    assert ran.err == (
        "sidecar inject: note: Deployment shop: the ConfigMap hooks needs a key config.yaml with upstream: "
        "http://127.0.0.1:3000, listen: '[::]:8080' and admin: '[::]:9090'\n"
        "sidecar inject: note: Deployment shop: no Service in these manifests selects it; send deliveries to its port 8080\n"
        "sidecar inject: note: Deployment shop: the NetworkPolicy also closes 9100; to keep them open, add --keep-port 9100\n"
    )


TWO_PORTS = pod()
TWO_PORTS["containers"][0]["ports"].append({"containerPort": 8080})
TWO_CONTAINERS = pod()
TWO_CONTAINERS["containers"].append({"name": "log", "image": "x"})
TAKEN = pod(initContainers=[{"name": SIDECAR, "image": "mine"}])
TCP_PROBE = pod()
TCP_PROBE["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 3000}}
ALIAS = """kind: Deployment
metadata: {name: shop}
spec:
  template:
    metadata: {labels: {app: shop}}
    spec: &pod
      containers: [{name: shop, ports: [{containerPort: 3000}]}]
  other: *pod
"""
GIVEN = ["--config", "hooks.yaml", "--secret", "stripe"]

MISTAKES = [
    (
        "kind: Service\n",
        GIVEN,
        (
            "no workload found: nothing has containers in spec.template.spec, and there is no Pod; "
            "add the manifest of the receiver's Deployment, StatefulSet or similar"
        ),
    ),
    (
        "a: b\n c: d\n",
        GIVEN,
        "2: is not valid YAML (mapping values are not allowed in this context); check quotes, colons and indentation",
    ),
    (
        written(workload()),
        [],
        (
            "1: Deployment shop: needs a configuration; use --config FILE, or --config-map NAME for an "
            "existing ConfigMap"
        ),
    ),
    (
        written(workload(name="a"), workload(name="b")),
        GIVEN,
        (
            "found several workloads: deployment/a, deployment/b; choose with "
            "--workload, or with the label webhook-sidecar/inject: enabled"
        ),
    ),
    (
        written(workload()),
        [*GIVEN, "--workload", "web"],
        "--workload web is not in the manifests; found: deployment/shop",
    ),
    (
        written(workload(**TWO_CONTAINERS)),
        GIVEN,
        ("15: Deployment shop: has several containers: shop, log; choose the receiver with --container"),
    ),
    (written(workload()), [*GIVEN, "--container", "web"], "15: Deployment shop: has no container web; found: shop"),
    (
        written(workload(**TWO_PORTS)),
        GIVEN,
        (
            "15: Deployment shop: container shop has several ports: 3000 (http), 8080; choose "
            "the one for deliveries with --port"
        ),
    ),
    (
        written(workload(**TWO_PORTS)),
        [*GIVEN, "--port", "3000"],
        (
            "15: Deployment shop: port 8080 is used by the pod's own "
            "containers; choose another for the sidecar: --listen-port 8081"
        ),
    ),
    (
        written(workload()),
        [*GIVEN, "--port", "web"],
        "15: Deployment shop: container shop has no port web; found: 3000 (http)",
    ),
    (
        written(workload(containers=[{"name": "shop"}])),
        GIVEN,
        ("15: Deployment shop: container shop declares no port; name the one that it listens on with --port"),
    ),
    (
        written(workload(**TAKEN)),
        GIVEN,
        ("25: Deployment shop: has a container webhook-sidecar that inject did not add; remove or rename it"),
    ),
    (
        written(workload(**TCP_PROBE)),
        [*GIVEN, "--loopback"],
        (
            "21: Deployment shop: readinessProbe connects to the receiver's port, "
            "which the kubelet can't reach on loopback; use httpGet, which goes through the sidecar, or exec"
        ),
    ),
    (
        written(workload()),
        ["--config", "hooks.yaml"],
        (
            "hooks.yaml:3: file: /run/secrets/stripe/secret is not in a mounted "
            "Secret; add --secret NAME, which mounts it at /run/secrets/NAME"
        ),
    ),
    (
        written(workload()),
        [*GIVEN, "--admin-from", "everybody"],
        (
            "'everybody' is not a valid peer; use a network (10.0.0.0/8), namespace:NAME, namespace:* or pods:LABEL=VALUE"
        ),
    ),
    (
        written(workload()).replace("spec:\n      containers", "spec:\n      volumes: none\n      containers"),
        GIVEN,
        "14: spec.template.spec.volumes is not of the type that Kubernetes expects",
    ),
    (ALIAS, GIVEN, "6: spec is shared by an alias (*), but must change in one place only; write it out"),
    (
        written(workload(), workload("StatefulSet"), service()),
        [*GIVEN, "--workload", "deployment/shop", "--workload", "statefulset/shop"],
        (
            "50: Service shop: selects two workloads that get a sidecar; use different selectors, or "
            "inject only one of them"
        ),
    ),
]


@pytest.mark.parametrize(("manifests", "options", "message"), MISTAKES, ids=[each[2][:40] for each in MISTAKES])
def test_a_mistake_is_shown_with_place_and_remedy(
    manifests: str, options: list[str], message: str, command: Command
) -> None:
    ran = command(*options, manifests=manifests)
    place = (
        "" if message.startswith(("hooks", "'")) else "standard input:" if message[0].isdigit() else "standard input: "
    )
    assert ran == Ran(1, "", f"sidecar inject: {place}{message}\n")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("routes: []\n", "hooks.yaml:1: routes: is an empty list"),
        (
            "listen: 127.0.0.1:8080\n" + CONFIG,
            "hooks.yaml: listen: 127.0.0.1:8080 can't be reached from outside the pod; use '[::]:8080'",
        ),
        (
            "admin: unix:/run/x\n" + CONFIG,
            "hooks.yaml: admin: unix:/run/x can't be reached from outside the pod; use '[::]:9090'",
        ),
        (
            CONFIG.replace("file: /run/secrets/stripe/secret", "env: KEY"),
            (
                "hooks.yaml:3: env: KEY is not set in the injected container; "
                "use a mounted Secret, which can change while it runs: file: /run/secrets/NAME/KEY "
                "with --secret NAME"
            ),
        ),
        (
            CONFIG.replace("/healthz", "/health"),
            (
                "hooks.yaml: readinessProbe of Deployment shop requests /healthz, which must go through "
                "the sidecar to a receiver on loopback; add below routes: - {path: /healthz, open: true}"
            ),
        ),
        (
            CONFIG.replace("open: true", "open: true, methods: [POST]"),
            "add below routes: - {path: /healthz, open: true}",
        ),
        ("", "hooks.yaml:1: is not a configuration; begin with upstream: and routes:"),
    ],
)
def test_a_configuration_that_would_not_work_is_refused(config: str, message: str, command: Command) -> None:
    Path("hooks.yaml").write_text(config)
    ran = command(*GIVEN, "--loopback", manifests=written(workload()))
    assert (ran.status, ran.out) == (1, "")
    assert message in ran.err


def test_a_file_that_is_not_there_is_named(command: Command) -> None:
    assert command("-f", "web.yaml") == Ran(
        2, "", "sidecar inject: web.yaml can't be read: No such file or directory; check its path and permissions\n"
    )
    Path("web.yaml").write_bytes(b"a: \xff\n")
    assert command("-f", "web.yaml") == Ran(
        2, "", "sidecar inject: web.yaml is not UTF-8 (at byte 3); save it as UTF-8\n"
    )
