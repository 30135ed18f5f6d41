"""The chart's pods as they are rendered, run by podman: a receiver that is nginx, a real sidecar, a real network."""

import re
import uuid
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from chart import template
from deliveries import BODY, deliver, load_while_ready, taken, wait_for
from pods import Pod, mounted, played, put

pytestmark = pytest.mark.image

OLD, NEW, FORGED = (f"{word}-secret-that-nobody-guesses" for word in ("old", "new", "forged"))


class Running(NamedTuple):
    pod: Pod
    objects: list[dict[str, Any]]
    image: str
    receiver: Pod
    secret: str

    def deliver(self, key: str, body: bytes = BODY) -> int:
        return deliver(self.pod, key, body)

    def taken(self) -> int:
        return taken(self.receiver)


def values(mode: str, name: str, **more: Any) -> dict[str, Any]:
    """A route for GitHub and one for Begini's delivery test, in either mode."""
    files = f"/run/secrets/{name}-secret"
    github = {
        "path": "/hooks",
        "verify": "github",
        "secrets": [
            {"id": "current", "file": f"{files}/current"},
            {"id": "previous", "file": f"{files}/previous", "optional": True},
        ],
    }
    begini = {"path": "/begini", "verify": "begini", "secrets": [{"file": f"{files}/begini"}], "allow": ["127.0.0.1"]}
    url = "http://127.0.0.1:8080/begini"
    accounts = [{"id": key, "api_key": {"file": f"{files}/{key}"}, "webhook_url": url} for key in ("begini", "forged")]
    config = {"routes": [github, begini], "delivery_test": {"accounts": accounts}, "drain": "8s"}
    return {
        "mode": mode,
        "fullnameOverride": name,
        "config": config | more.pop("config", {}),
        "existingSecrets": [f"{name}-secret"],
        "tests": {"accepted": ["begini"], "refused": ["forged"]},
    } | more


def secret(name: str) -> dict[str, Any]:
    data = {"current": OLD, "begini": "a-key-of-begini-0123456789", "forged": FORGED}
    encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{name}-secret"}, "data": encoded}


def without_tests(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in objects if "helm.sh/hook" not in each["metadata"].get("annotations", {})]


@pytest.fixture(scope="module", params=["sidecar", "gateway"])
def running(
    request: pytest.FixtureRequest, image: str, receiver_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    name = f"{request.param}-{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp(request.param)
    images = {"receiver": receiver_image, "webhook-sidecar:0.1.0": image}
    if request.param == "sidecar":
        receiver = {"image": "receiver", "port": 3000, "loopback": True, "resources": {"limits": {"memory": "64Mi"}}}
        objects = template(values("sidecar", name, receiver=receiver))
        with played([secret(name), *without_tests(objects)], images, folder) as pod:
            wait_for(lambda: pod.status("/readyz") == 200, pod)
            yield Running(pod, objects, image, pod, f"{name}-secret")
        return
    # A receiver of somebody else's: a pod that answers everybody.
    container = {"name": "receiver", "image": "receiver", "env": [{"name": "ADDRESS", "value": "3000"}]}
    there = {
        "kind": "Pod",
        "metadata": {"name": f"{name}-app"},
        "spec": {"containers": [container], "volumes": [], "securityContext": {}},
    }
    with played([there], images, folder) as app:
        objects = template(values("gateway", name, config={"upstream": f"http://{app.address}:3000"}))
        with played([secret(name), *without_tests(objects)], images, folder) as pod:
            wait_for(lambda: pod.status("/readyz") == 200, pod)
            yield Running(pod, objects, image, app, f"{name}-secret")


def test_a_signed_delivery_is_accepted_and_a_forged_one_refused(running: Running) -> None:
    before = running.taken()
    assert running.deliver(OLD) == 200
    assert running.deliver(FORGED) == 403
    assert running.deliver(OLD, body=BODY + b" ") == 403
    assert running.taken() == before + 1


def test_helm_test_is_green_but_for_a_receiver_that_can_be_gone_around(running: Running, tmp_path: Path) -> None:
    """Each test's own command, with addresses for the names that only a cluster knows. podman enforces no NetworkPolicy: the
    gateway's receiver answers everybody, and the test must say so."""
    for each in running.objects:
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].endswith("-test"):
            for name, content in each["data"].items():
                (tmp_path / name).write_text(content)
    tmp_path.chmod(0o755)
    config = mounted(running.secret.removesuffix("-secret"))
    mounts = {
        "/etc/sidecar-test": tmp_path,
        "/etc/sidecar": config,
        f"/run/secrets/{running.secret}": mounted(running.secret),
    }
    results = {}
    for each in running.objects:
        if each["kind"] == "Pod":
            for container in each["spec"]["containers"]:
                arguments = [
                    re.sub(r"http://[a-z0-9-]+\.hooks:80/", f"http://{running.pod.address}:8080/", word)
                    for word in container["args"]
                ]
                arguments = [
                    re.sub(r"http://[a-z0-9-]+\.hooks:", f"http://{running.pod.address}:", word) for word in arguments
                ]
                results[container["name"]] = running.pod.command(running.image, arguments, mounts)
    open_to_all = running.receiver is not running.pod
    expected = {"signed": 0, "forged": 0, "accepted-0": 0, "refused-0": 0, "bypass-0": int(open_to_all)}
    assert {name: status for name, (status, _) in results.items()} == expected, results


def test_a_secret_is_exchanged_by_file_without_a_restart(running: Running) -> None:
    """And no delivery is refused meanwhile: the sender changes when both are known."""
    started = re.findall(r'"event": "serving"', running.pod.log("webhook-sidecar"))
    folder = mounted(running.secret)
    rest = {name: (folder / name).read_text() for name in ("begini", "forged")}
    put(folder, {"current": NEW, "previous": OLD} | rest)
    wait_for(lambda: running.deliver(NEW) == 200, running.pod)
    assert running.deliver(OLD) == 200
    put(folder, {"current": NEW} | rest)
    wait_for(lambda: running.deliver(OLD) == 403, running.pod)
    assert running.deliver(NEW) == 200
    assert re.findall(r'"event": "serving"', running.pod.log("webhook-sidecar")) == started
    put(folder, {"current": OLD} | rest)
    wait_for(lambda: running.deliver(OLD) == 200, running.pod)


def test_a_pod_runs_under_the_restricted_profile_with_a_limit_of_memory(running: Running) -> None:
    (inspected,) = yaml.safe_load(running.pod.inspect("webhook-sidecar"))
    assert inspected["HostConfig"]["ReadonlyRootfs"] is True
    assert inspected["HostConfig"]["Memory"] == 256 * 1024**2
    assert inspected["Config"]["User"].split(":")[0] == "65532"
    assert inspected["EffectiveCaps"] in ([], None)


def test_a_stop_under_load_loses_nothing(running: Running) -> None:
    """Senders go on until the pod says that it is not ready, as a load balancer does; the last of this module's tests."""
    before = running.taken()
    with load_while_ready(running.pod, OLD) as answers:
        assert running.pod.stop("webhook-sidecar") == 0
    assert answers[200] > 50
    assert set(answers) == {200}
    assert running.taken() == before + answers[200]
