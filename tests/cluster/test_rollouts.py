"""Rollouts of what the chart, `inject` and the admission policy make, as local processes in a kubelet's order: no delivery is lost.

50 a second, half on kept and half on new connections, with the hooks, probes and grace periods of the manifests. The times are shorter than the
defaults, by values of the chart and options of `inject`. `make cluster-test` does the same on a real cluster.
"""

import asyncio
import copy
import json
import subprocess
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import workloads
import yaml
from cel import evaluate
from chart import TOOLS, objects, of_kind, template
from kubelet import SCRIPTS, LocalPod, Service, replace_pods
from needs import needs
from preloaded import run_text

IMAGE = "registry.example/webhook-sidecar:0.1.0"
DRAIN, PRE_STOP, STOP, MIN_READY = "6s", 3, 6, 1.0
#: A gateway has no hook: it accepts deliveries for a quarter of this, and hears of its end a second before the senders do.
GATEWAY_DRAIN = "12s"


class Shape(NamedTuple):
    pod: dict[str, Any]  #: the template of the pods
    target: int | str  #: the Service's targetPort
    volumes: dict[str, dict[str, str]]


def shape(objects: list[dict[str, Any]], pod: dict[str, Any], service: dict[str, Any]) -> Shape:
    volumes = {f"configmap/{each['metadata']['name']}": each["data"] for each in objects if each["kind"] == "ConfigMap"}
    secret = {key: b64decode(value).decode() for key, value in workloads.secret()["data"].items()}
    volumes |= {f"secret/{name}": secret for name in (workloads.SECRET, "webhook-sidecar")}
    return Shape(pod, service["spec"]["ports"][0]["targetPort"], volumes)


def rendered(mode: str, drain: str = DRAIN, **more: Any) -> list[dict[str, Any]]:
    values = workloads.values(mode, IMAGE, config={"drain": drain}, **more)
    values["receiver"] = values.get("receiver", {}) | {"preStopSeconds": PRE_STOP, "stopSeconds": STOP}
    return template(values, name=mode)


def gateway(folder: Path) -> Shape:
    made = rendered("gateway", GATEWAY_DRAIN)
    return shape(made, of_kind(made, "Deployment")["spec"]["template"], of_kind(made, "Service", "gateway"))


def sidecar(folder: Path) -> Shape:
    made = rendered("sidecar")
    return shape(made, of_kind(made, "Deployment")["spec"]["template"], of_kind(made, "Service", "sidecar"))


def inject(folder: Path, text: str, *options: str) -> str:
    (folder / "hooks.yaml").write_text(yaml.safe_dump(workloads.config("http://127.0.0.1:3000", drain=DRAIN)))
    if "--remove" not in options:
        file = str(folder / "hooks.yaml")
        options += ("--config", file, "--secret", workloads.SECRET, "--image", IMAGE, "--pre-stop", str(PRE_STOP))
    done = run_text("inject", *options, stdin=text)
    done.check_returncode()
    return done.stdout


def injected(folder: Path) -> Shape:
    made = objects(inject(folder, yaml.safe_dump_all(workloads.application("app", IMAGE))))
    return shape(made, of_kind(made, "Deployment")["spec"]["template"], of_kind(made, "Service"))


def under_policy(folder: Path) -> Shape:
    made = rendered("library", admissionPolicy={"enabled": True})
    application, service = workloads.application("policy", IMAGE, {"webhook-sidecar/inject": "enabled"})
    service["spec"]["ports"][0]["targetPort"] = 8080
    return shape(made, admitted(made, application["spec"]["template"]), service)


def admitted(made: list[dict[str, Any]], pod: dict[str, Any]) -> dict[str, Any]:
    """A pod as the API server makes it under the policy among these objects."""
    spec = of_kind(made, "MutatingAdmissionPolicy")["spec"]
    scope = {"object": pod}
    if not all(evaluate(each["expression"], scope) for each in spec["matchConditions"]):
        return pod
    result = copy.deepcopy(pod)
    for operation in evaluate(spec["mutations"][0]["jsonPatch"]["expression"], scope):
        assert operation["op"] == "add"
        *steps, last = (each.replace("~1", "/").replace("~0", "~") for each in operation["path"].split("/")[1:])
        holder: Any = result
        for step in steps:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        if isinstance(holder, list):
            assert last == "-"
            holder.append(operation["value"])
        else:
            holder[last] = operation["value"]
    return result


# -- the policy --


@pytest.fixture(scope="module")
def policy() -> list[dict[str, Any]]:
    return rendered("library", admissionPolicy={"enabled": True})


def test_the_policy_makes_of_a_pod_what_inject_makes_of_it(policy: list[dict[str, Any]], tmp_path: Path) -> None:
    pod = admitted(policy, workloads.application("app", IMAGE)[0]["spec"]["template"])["spec"]
    other = injected(tmp_path).pod["spec"]
    # inject leaves a period alone that is long enough, and 30 s is what a pod has without one.
    assert set(pod) - {"terminationGracePeriodSeconds"} == set(other)
    for key in ("containers", "securityContext"):
        assert pod[key] == other[key]
    assert pod["initContainers"] == [other["initContainers"][0] | {"imagePullPolicy": "IfNotPresent", "image": IMAGE,
        "resources": pod["initContainers"][0]["resources"]}]  # fmt: skip
    names = [each["name"] for each in other["volumes"]]
    assert [each["name"] for each in pod["volumes"]] == names


def test_the_policy_leaves_hooks_and_longer_grace_periods_as_they_are(policy: list[dict[str, Any]]) -> None:
    own = {"preStop": {"exec": {"command": ["/bin/bye"]}}}
    started = {"postStart": {"exec": {"command": ["/bin/hello"]}}}
    containers = [{"name": "a"}, {"name": "b", "lifecycle": own}, {"name": "c", "lifecycle": started}]
    containers += [{"name": f"more-{number}"} for number in range(20)]
    given = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 500, "initContainers": [{"name": "init"}]},
    }
    made = admitted(policy, given)
    waits = {"preStop": {"sleep": {"seconds": PRE_STOP}}}
    assert [each.get("lifecycle") for each in made["spec"]["containers"]] == [
        waits,
        own,
        started | waits,
        *[waits] * 20,
    ]
    assert made["spec"]["terminationGracePeriodSeconds"] == 500
    assert [each["name"] for each in made["spec"]["initContainers"]] == ["init", "webhook-sidecar"]
    assert made["metadata"]["labels"] == {"app": "a", "webhook-sidecar/pod": "library"}
    assert admitted(policy, made) == made  # it has the sidecar already


# -- rollouts --


@pytest.mark.parametrize("made", [gateway, sidecar, injected, under_policy])
def test_a_rollout_loses_no_delivery(made: Callable[[Path], Shape], tmp_path: Path) -> None:
    found = made(tmp_path)
    report, pods = asyncio.run(rollout(found, tmp_path, behind_gateway=made is gateway))
    assert set(report["outcomes"]) == {"200"}, report
    assert report["sent"] > 100  # 50 a second are offered; a busy machine sends fewer
    for pod in pods:
        assert not any(each.killed for each in pod.containers)
    for pod in pods[:2]:  # the old ones
        (log,) = ("".join(each.log) for each in pod.containers if each.name == "webhook-sidecar")
        events = [json.loads(line)["event"] for line in log.splitlines()]
        assert events.index("draining") > events.index("config_loaded")
        if made is not gateway:
            assert events.index("drain_requested") < events.index("draining")
        assert "delivery" in events[: events.index("draining")]


@pytest.mark.parametrize("hook", ["sidecar", "receiver"])
def test_a_rollout_without_a_hook_of_either_loses_deliveries(hook: str, tmp_path: Path) -> None:
    """So the test before would find a hook that is missing."""
    found = sidecar(tmp_path)
    spec = found.pod["spec"]
    (holder,) = spec["initContainers"] if hook == "sidecar" else spec["containers"]
    del holder["lifecycle"]
    report, _ = asyncio.run(rollout(found, tmp_path, behind_gateway=False))
    assert set(report["outcomes"]) > {"200"}, report


@asynccontextmanager
async def load(service: Service, folder: Path, path: str, secret: str | None = None) -> AsyncIterator[dict[str, Any]]:
    """50 deliveries a second while the block runs; the senders' report is there at its end."""
    words = [
        sys.executable,
        SCRIPTS / "load.py",
        f"http://127.0.0.1:{service.port}{path}",
        "50",
        "120",
        folder / "stop",
    ]
    if secret is not None:
        (folder / "sender").write_text(secret)
        words.append(folder / "sender")
    sending = await asyncio.create_subprocess_exec(*map(str, words), stdout=asyncio.subprocess.PIPE)
    report: dict[str, Any] = {}
    await asyncio.sleep(2)
    yield report
    await asyncio.sleep(1)
    (folder / "stop").touch()
    out, _ = await asyncio.wait_for(sending.communicate(), 90)
    report |= json.loads(out)


@asynccontextmanager
async def running(pods: list[LocalPod], target: int | str) -> AsyncIterator[Service]:
    """A Service before pods that are ready. At the end nothing runs any more."""
    service = Service(target)
    service.pods = pods
    try:
        await asyncio.gather(*(each.start() for each in pods))
        await service.start()
        await service.knows(len(pods))
        yield service
    finally:
        await service.stop()
        for each in service.pods:
            await each.kill()


async def rollout(found: Shape, folder: Path, *, behind_gateway: bool) -> tuple[dict[str, Any], list[LocalPod]]:
    """Two pods are replaced by two of the same template, under load."""
    async with AsyncExitStack() as stack:
        if behind_gateway:
            application = workloads.application("shop", IMAGE)[0]["spec"]["template"]
            receiver = LocalPod("shop", application, {}, folder)
            await stack.enter_async_context(running([receiver], "http"))
            text = json.dumps(found.volumes).replace("http://shop", f"http://127.0.0.1:{receiver.port(3000)}")
            found = found._replace(volumes=json.loads(text))
        pods = [LocalPod(f"pod-{number}", found.pod, found.volumes, folder) for number in range(4)]
        service = await stack.enter_async_context(running(pods[:2], found.target))
        async with load(service, folder, workloads.PATH, workloads.OLD) as report:
            await replace_pods(service, pods[2:], MIN_READY)
    return report, pods


# -- inject and remove --


class Application:
    """One that runs, whose clients must reach it at every moment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.text = yaml.safe_dump_all(workloads.application("app", IMAGE, lingers=4))
        self.service: Service

    def pods(self, made: list[dict[str, Any]]) -> list[LocalPod]:
        found = shape(made, of_kind(made, "Deployment")["spec"]["template"], of_kind(made, "Service"))
        self.count += 2
        return [LocalPod(f"app-{self.count + each}", found.pod, found.volumes, self.folder) for each in range(2)]

    @asynccontextmanager
    async def loaded(self) -> AsyncIterator[dict[str, Any]]:
        """It runs, and is under load."""
        async with (
            running(self.pods(objects(self.text)), "http") as self.service,
            load(self.service, self.folder, "/") as report,
        ):
            yield report

    def apply_rest(self, made: list[dict[str, Any]]) -> None:
        """The Service and the NetworkPolicy."""
        self.service.apply(of_kind(made, "Service")["spec"]["ports"][0]["targetPort"])
        for policy in (each for each in made if each["kind"] == "NetworkPolicy"):
            rules = policy["spec"]["ingress"]
            self.service.policy = {port["port"] for rule in rules for port in rule["ports"]}

    async def apply(self, text: str, *, replaces: bool) -> None:
        made = objects(text)
        self.apply_rest(made)
        if replaces:
            await replace_pods(self.service, self.pods(made), MIN_READY)
        await asyncio.sleep(1.5)


class Steps(NamedTuple):
    """Manifests: the sidecar in the pods, then traffic to it, then the policy; and without traffic, and without the sidecar."""

    pods: str
    traffic: str
    whole: str
    not_traffic: str
    nothing: str


def of_inject(app: Application) -> Steps:
    """As docs/inject.md has them."""
    pods, traffic = (inject(app.folder, app.text, "--step", step) for step in ("pods", "traffic"))
    whole = inject(app.folder, app.text)
    back = inject(app.folder, whole, "--remove", "--step", "traffic")
    return Steps(pods, traffic, whole, back, inject(app.folder, whole, "--remove"))


def of_kustomize(app: Application) -> Steps:
    """As kustomize/sidecar has them."""
    folder = app.folder / "kustomize"

    def built(*components: str) -> str:
        application = workloads.application("app", IMAGE, lingers=4)
        workloads.kustomization(folder, application, *components, pre_stop=PRE_STOP, drain=DRAIN)
        words = [needs(TOOLS / "kubectl"), "kustomize", str(folder)]
        return str(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    pods = built("pods")
    return Steps(pods, built("pods", "traffic"), built("."), pods, built())


async def in_steps(app: Application, steps: Steps) -> dict[str, Any]:
    async with app.loaded() as report:
        await app.apply(steps.pods, replaces=True)
        await app.apply(steps.traffic, replaces=False)
        await app.apply(steps.whole, replaces=False)
        assert app.service.policy is not None
        app.service.policy = None
        await app.apply(steps.not_traffic, replaces=False)
        await app.apply(steps.nothing, replaces=True)
    return report


async def at_once(app: Application) -> dict[str, Any]:
    async with app.loaded() as report:
        await app.apply(inject(app.folder, app.text), replaces=True)
    return report


@pytest.mark.parametrize("way", [of_inject, of_kustomize])
def test_the_steps_there_and_back_refuse_no_connection(way: Callable[[Application], Steps], tmp_path: Path) -> None:
    app = Application(tmp_path)
    report = asyncio.run(in_steps(app, way(app)))
    assert set(report["outcomes"]) == {"200"}, report
    assert report["sent"] > 200


def test_inject_at_once_refuses_connections_so_the_steps_are_needed(tmp_path: Path) -> None:
    report = asyncio.run(at_once(Application(tmp_path)))
    assert set(report["outcomes"]) > {"200"}, report
