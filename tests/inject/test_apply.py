"""`kubectl apply` of what `sidecar inject` writes, step by step and back again: what is in the cluster afterwards.

kubectl computes each change from what was applied before and from what is there; an API server that keeps what it is given
merges it.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import workloads
import yaml
from chart import TOOLS, objects
from needs import needs
from object_api import ObjectApi, object_api
from preloaded import run_text

IMAGE = "registry.example/webhook-sidecar:0.1.0"
APPLICATION = yaml.safe_dump_all(workloads.application("app", IMAGE))
#: What kubectl and an API server add to an object.
ADDED = {"annotations", "resourceVersion", "uid", "namespace"}

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Kubectl, ObjectApi]]:
    with object_api(tmp_path) as (api, kubeconfig):

        def kubectl(*arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
            program = [needs(TOOLS / "kubectl"), "--cache-dir", str(tmp_path / "cache"), "-n", "shop"]
            env = os.environ | {"KUBECONFIG": str(kubeconfig)}
            return subprocess.run(
                [*program, *arguments], input=stdin, env=env, capture_output=True, text=True, timeout=60, check=False
            )

        yield kubectl, api


def inject(folder: Path, text: str, *options: str) -> str:
    (folder / "hooks.yaml").write_text(yaml.safe_dump(workloads.config("http://127.0.0.1:3000")))
    if "--remove" not in options:
        options += ("--config", str(folder / "hooks.yaml"), "--secret", workloads.SECRET, "--image", IMAGE)
    done = run_text("inject", *options, stdin=text)
    done.check_returncode()
    return done.stdout


def comparable(given: dict[str, Any]) -> dict[str, Any]:
    """An object without what is added to it on the way; the order of lists that have keys does not count."""
    found: dict[str, Any] = json.loads(json.dumps(given))
    found["metadata"] = {key: value for key, value in found["metadata"].items() if key not in ADDED}
    return found


def assert_there(api: ObjectApi, text: str, *more: str) -> None:
    """Exactly these objects are in the cluster, and `more` kinds that an apply leaves there."""
    wanted = {(each["kind"], each["metadata"]["name"]): comparable(each) for each in objects(text)}
    there = {(each["kind"], each["metadata"]["name"]): comparable(each) for each in api.objects.values()}
    assert {kind for kind, _ in there.keys() - wanted.keys()} == set(more)
    for key, value in wanted.items():
        assert there[key] == value


def test_each_step_leaves_in_the_cluster_what_it_writes(cluster: tuple[Kubectl, ObjectApi], tmp_path: Path) -> None:
    kubectl, api = cluster

    def apply(text: str) -> str:
        done = kubectl("apply", "-f", "-", stdin=text)
        assert done.returncode == 0, done.stderr
        return text

    apply(APPLICATION)
    assert_there(api, APPLICATION)
    assert_there(api, apply(inject(tmp_path, APPLICATION, "--step", "pods")))
    assert_there(api, apply(inject(tmp_path, APPLICATION, "--step", "traffic")))
    whole = apply(inject(tmp_path, APPLICATION))
    assert_there(api, whole)
    api.writes.clear()
    apply(inject(tmp_path, whole))
    assert api.writes == []  # a second inject changes nothing
    # As docs/inject.md removes it.
    done = kubectl("delete", "networkpolicy", "-l", "webhook-sidecar/injected=app")
    assert done.returncode == 0, done.stderr
    assert_there(api, apply(inject(tmp_path, whole, "--remove", "--step", "traffic")))
    assert_there(api, apply(inject(tmp_path, whole, "--remove")), "ConfigMap")
    done = kubectl("delete", "configmap", "-l", "webhook-sidecar/injected=app")
    assert done.returncode == 0, done.stderr
    assert_there(api, APPLICATION)
