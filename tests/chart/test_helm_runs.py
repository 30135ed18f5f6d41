"""Helm itself installs, upgrades, rolls back and uninstalls the chart, against an API server that keeps what it is given.

What kubelets and controllers make of it is shown by `make cluster-test`.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chart import CHART, CI, HELMS, TOOLS
from needs import needs
from object_api import ObjectApi, Write, object_api

ROUTE = {"path": "/hooks", "verify": "github", "secrets": [{"file": "/run/secrets/hooks/current"}]}
GATEWAY: dict[str, Any] = {
    "fullnameOverride": "hooks",
    "config": {"upstream": "http://receiver:3000", "routes": [ROUTE]},
    "existingSecrets": ["hooks"],
}
BAD = GATEWAY | {"config": GATEWAY["config"] | {"drain": "soon"}}
#: What Kubernetes takes for all of a Secret's content.
MAX_SECRET = 1 << 20


class Helm:
    def __init__(self, tool: str, folder: Path, kubeconfig: Path) -> None:
        homes = {f"HELM_{name}_HOME": str(folder / name.lower()) for name in ("DATA", "CONFIG", "CACHE")}
        self.program, self.env = needs(TOOLS / tool), os.environ | homes | {"KUBECONFIG": str(kubeconfig)}

    def __call__(
        self, *arguments: str | Path, values: dict[str, Any] | None = None
    ) -> subprocess.CompletedProcess[str]:
        given = ["--values", "-"] if values is not None else []
        return subprocess.run(
            [self.program, "--namespace", "hooks", *arguments, *given, "--timeout", "30s"],
            input=json.dumps(values) if values is not None else None,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture(params=HELMS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Helm, ObjectApi]]:
    with object_api(tmp_path) as (api, kubeconfig):
        yield Helm(request.param, tmp_path, kubeconfig), api


def changes(api: ObjectApi) -> list[Write]:
    """What was changed since the last call, but for Helm's own Secrets."""
    found = [each for each in api.writes if each.kind != "Secret"]
    api.writes.clear()
    return found


def left(api: ObjectApi) -> set[tuple[str, str]]:
    return {(each["kind"], each["metadata"]["name"]) for each in api.objects.values() if each["kind"] != "Secret"}


def is_check(change: Write) -> bool:
    return change.name.endswith("-check")


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem.removesuffix("-values"))
def test_every_example_is_installed_upgraded_rolled_back_and_uninstalled(
    values: Path, cluster: tuple[Helm, ObjectApi]
) -> None:
    helm, api = cluster
    for verb in ("install", "upgrade"):
        done = helm(verb, "release", CHART, "-f", values)
        assert done.returncode == 0, done.stderr
        made = changes(api)
        assert [(method, kind) for method, kind, _ in made[:4]] == [
            ("POST", "ConfigMap"), ("POST", "Job"), ("DELETE", "Job"), ("DELETE", "ConfigMap")
        ]  # fmt: skip
        assert all(map(is_check, made[:4]))
        assert not any(map(is_check, made[4:]))
    assert ("ConfigMap", "webhook-sidecar/config") in {
        (each["kind"], label) for each in api.objects.values() for label in each["metadata"].get("labels", {})
    }
    for secret in (each for each in api.objects.values() if each["kind"] == "Secret"):
        assert len(secret["data"]["release"]) * 3 // 4 < MAX_SECRET / 4
    done = helm("rollback", "release", "1")
    assert done.returncode == 0, done.stderr
    done = helm("uninstall", "release", "--wait")
    assert done.returncode == 0, done.stderr
    assert left(api) == set()


def test_a_bad_configuration_installs_nothing_and_replaces_nothing(cluster: tuple[Helm, ObjectApi]) -> None:
    helm, api = cluster
    check = {("Job", "hooks-check")}  # with the log that has the mistake
    assert helm("install", "hooks", CHART, values=BAD).returncode == 1
    assert left(api) == check
    # The Job that failed is replaced, and takes nothing with it.
    assert helm("upgrade", "--install", "hooks", CHART, values=GATEWAY).returncode == 0
    good = {at: each for at, each in api.objects.items() if each["kind"] != "Secret"}
    assert ("Deployment", "hooks") in left(api)
    assert not left(api) & check
    changes(api)
    done = helm("upgrade", "hooks", CHART, values=BAD)
    assert done.returncode == 1
    assert "pre-upgrade hooks failed" in done.stderr
    assert all(map(is_check, changes(api)))
    assert {at: each for at, each in api.objects.items() if at in good} == good
    assert helm("upgrade", "hooks", CHART, values=GATEWAY).returncode == 0
    assert not left(api) & check


def test_an_autoscaler_keeps_the_pods_that_run(cluster: tuple[Helm, ObjectApi]) -> None:
    helm, api = cluster
    scaled = GATEWAY | {"autoscaling": {"enabled": True}}
    for values, wanted in ((GATEWAY | {"replicaCount": 3}, 3), (scaled, 3), (scaled, 7)):
        deployment = api.get("Deployment", "hooks")
        if wanted == 7 and deployment is not None:
            deployment["spec"]["replicas"] = 7  # as the autoscaler does
        assert helm("upgrade", "--install", "hooks", CHART, values=values).returncode == 0
        deployment = api.get("Deployment", "hooks")
        assert deployment is not None
        assert deployment["spec"]["replicas"] == wanted
