"""A pod as `sidecar inject` makes it, run by podman: nginx on 127.0.0.1, which nobody changed, and the sidecar before it."""

import io
import json
import sys
import threading
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from deliveries import BODY, deliver, load, load_while_ready, taken, wait_for
from pods import Pod, mounted, played, put

from sidecar.cli.main import main
from sidecar.inject.objects import PROGRAM

pytestmark = pytest.mark.image

OLD, NEW, FORGED = (f"{word}-secret-that-nobody-guesses" for word in ("old", "new", "forged"))
MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
        - name: receiver
          image: receiver
          ports: [{{name: http, containerPort: 3000}}]  # on 127.0.0.1
          readinessProbe: {{httpGet: {{path: /healthz, port: http}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: http}}]
"""
CONFIG = """
drain: 8s
routes:
  - path: /hooks
    verify: github
    secrets:
      - {{id: current, file: /run/secrets/{secret}/current}}
      - {{id: previous, file: /run/secrets/{secret}/previous, optional: true}}
  - {{path: /healthz, open: true, methods: [GET]}}
"""


@contextmanager
def injected(image: str, receiver_image: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    """The pod, ready."""
    name = f"injected-{uuid.uuid4().hex[:8]}"
    (folder / "hooks.yaml").write_text(CONFIG.format(secret=f"{name}-secret"))
    (folder / "app.yaml").write_text(MANIFESTS.format(name=name))
    out = io.TextIOWrapper(io.BytesIO())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        options = ["--config", str(folder / "hooks.yaml"), "--secret", f"{name}-secret", "--loopback"]
        assert main(["inject", "-f", str(folder / "app.yaml"), *options]) == 0
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(out.buffer.getvalue()))
    data = {"current": b64encode(OLD.encode()).decode()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{name}-secret"}, "data": data}
    images = {"receiver": receiver_image, "webhook-sidecar:0.1.0": image}
    with played([secret, *objects], images, folder) as pod:
        wait_for(lambda: pod.status("/readyz") == 200 and pod.status("/healthz", 8080) == 200, pod)
        yield pod


@pytest.fixture(scope="module")
def pod(image: str, receiver_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with (
        pytest.MonkeyPatch.context() as patch,
        injected(image, receiver_image, tmp_path_factory.mktemp("injected"), patch) as made,
    ):
        yield made


def test_a_signed_delivery_is_accepted_and_a_forged_one_refused(pod: Pod) -> None:
    before = taken(pod)
    assert deliver(pod, OLD) == 200
    assert deliver(pod, FORGED) == 403
    assert deliver(pod, OLD, body=BODY + b" ") == 403
    assert taken(pod) == before + 1


def test_nobody_reaches_the_receiver_around_the_sidecar(pod: Pod) -> None:
    assert pod.status("/healthz", 3000) == 0
    assert pod.status("/healthz", 8080) == 200  # it is there: its probe's path comes through


def test_a_secret_is_exchanged_by_file_without_a_restart(pod: Pod) -> None:
    """And no delivery is refused meanwhile: the sender changes when both are known."""
    before = started(pod)
    folder = mounted(f"{pod.name}-secret")
    put(folder, {"current": NEW, "previous": OLD})
    wait_for(lambda: deliver(pod, NEW) == 200, pod)
    assert deliver(pod, OLD) == 200
    put(folder, {"current": NEW})
    wait_for(lambda: deliver(pod, OLD) == 403, pod)
    assert deliver(pod, NEW) == 200
    put(folder, {"current": OLD})
    wait_for(lambda: deliver(pod, OLD) == 200, pod)
    assert started(pod) == before


def started(pod: Pod) -> tuple[str, int]:
    state = json.loads(pod.inspect("webhook-sidecar"))[0]["State"]
    return state["StartedAt"], state["Pid"]


def test_it_runs_under_the_restricted_profile_with_a_limit_of_memory(pod: Pod) -> None:
    (inspected,) = json.loads(pod.inspect("webhook-sidecar"))
    assert inspected["HostConfig"]["ReadonlyRootfs"] is True
    assert inspected["HostConfig"]["Memory"] == 256 * 1024**2
    assert inspected["Config"]["User"] == "65532:65532"
    assert inspected["EffectiveCaps"] in ([], None)


def test_a_deleted_pod_loses_nothing(pod: Pod) -> None:
    """In a kubelet's order: preStop of the sidecar, senders hear of it a second late, the receiver waits and is stopped,
    then the sidecar. The hook's command works in the container as it is: read-only, and with a PID namespace of its own."""
    before, goes_on = taken(pod), threading.Event()
    with load(pod, OLD, goes_on) as answers:
        assert "is draining" in pod.pre_stop("webhook-sidecar", [PROGRAM, "drain"])
        assert pod.status("/readyz") == 503
        time.sleep(1)
        goes_on.clear()
        time.sleep(1)
        pod.stop("receiver")
        assert pod.stop("webhook-sidecar") == 0
    assert answers[200] > 50
    assert set(answers) == {200}
    assert taken(pod) == before + answers[200]


def test_sigterm_under_load_loses_nothing(
    image: str, receiver_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with injected(image, receiver_image, tmp_path, monkeypatch) as pod:
        with load_while_ready(pod, OLD) as answers:
            assert pod.stop("webhook-sidecar") == 0
        assert answers[200] > 50
        assert set(answers) == {200}
        assert taken(pod) == answers[200]
