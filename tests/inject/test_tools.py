"""Real Helm 3 and 4 and real kubectl run the command as their users do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from chart import ROOT, TOOLS
from manifests import CONFIG, read, service, workload, written
from needs import needs

from sidecar import __version__

KINDS = ["ConfigMap", "Deployment", "NetworkPolicy", "Service"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a chart, a kustomization and the configuration."""
    for directory in ("chart/templates", "bin"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "hooks.yaml").write_text(CONFIG)
    (tmp_path / "chart/Chart.yaml").write_text(written({"apiVersion": "v2", "name": "shop", "version": "1.0.0"}))
    (tmp_path / "chart/templates/shop.yaml").write_text(written(workload(), service()))
    hook = workload("Pod", name="test")
    hook["metadata"]["annotations"] = {"helm.sh/hook": "test"}
    (tmp_path / "chart/templates/test.yaml").write_text(written(hook))
    (tmp_path / "shop.yaml").write_text(written(workload(), service()))
    return tmp_path


def run(place: Path, *command: str, **env: str) -> str:
    """Standard output; `sidecar` is on the PATH, and the tools see no settings of the user's."""
    homes = {f"HELM_{name}_HOME": str(place / command[0] / name) for name in ("DATA", "CONFIG", "CACHE")}
    path = os.pathsep.join([str(ROOT / ".venv/bin"), os.environ["PATH"]])
    done = subprocess.run(
        [needs(TOOLS / command[0]), *command[1:]],
        cwd=place,
        env=os.environ | homes | {"PATH": path} | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check(text: str) -> None:
    """All objects are there, and the workload has the sidecar; a chart's test is left alone."""
    made = sorted((each for each in read(text) if each["kind"] != "Pod"), key=lambda each: str(each["kind"]))
    assert text.count("name: webhook-sidecar\n") == 1
    assert [each["kind"] for each in made] == KINDS
    assert made[1]["spec"]["template"]["spec"]["initContainers"][0]["name"] == "webhook-sidecar"
    assert made[3]["spec"]["ports"][0]["targetPort"] == 8080


def test_helm_3_takes_it_as_a_post_renderer(place: Path) -> None:
    arguments = [f"--post-renderer-args={each}" for each in ("inject", "--config=hooks.yaml", "--secret=stripe")]
    check(run(place, "helm3", "template", "shop", "chart", "--post-renderer", "sidecar", *arguments))


def test_helm_4_takes_the_plugin_that_is_shipped(place: Path) -> None:
    run(place, "helm", "plugin", "install", str(ROOT / "plugins/helm"))
    arguments = [f"--post-renderer-args={each}" for each in ("--config=hooks.yaml", "--secret=stripe")]
    check(run(place, "helm", "template", "shop", "chart", "--post-renderer", "webhook-sidecar", *arguments))


def test_the_plugin_has_the_version_of_the_program() -> None:
    assert yaml.safe_load((ROOT / "plugins/helm/plugin.yaml").read_text())["version"] == __version__


def test_kubectl_takes_the_kustomize_plugin_that_is_shipped(place: Path) -> None:
    kustomization = {"resources": ["shop.yaml"], "transformers": ["inject.yaml"], "namespace": "hooks"}
    (place / "kustomization.yaml").write_text(written(kustomization))
    settings = {"apiVersion": "webhook-sidecar/v1", "kind": "Inject", "metadata": {"name": "inject"}}
    (place / "inject.yaml").write_text(written(settings | {"spec": {"config": CONFIG, "secret": ["stripe"]}}))
    text = run(
        place,
        "kubectl",
        "kustomize",
        "--enable-alpha-plugins",
        ".",
        KUSTOMIZE_PLUGIN_HOME=str(ROOT / "plugins/kustomize"),
    )
    check(text)
    assert "kustomize.config.k8s.io" not in text
    assert {each["metadata"]["namespace"] for each in read(text)} == {"hooks"}


def test_output_of_kubectl_is_taken_as_it_comes(place: Path) -> None:
    (place / "kustomization.yaml").write_text(written({"resources": ["shop.yaml"]}))
    text = run(place, "kubectl", "kustomize", ".")
    command = [
        str(shutil.which("sidecar", path=ROOT / ".venv/bin")),
        "inject",
        "--config",
        "hooks.yaml",
        "--secret",
        "stripe",
    ]
    check(subprocess.run(command, input=text, capture_output=True, text=True, cwd=place, timeout=60, check=True).stdout)


def test_the_same_file_is_a_function_of_kustomize(place: Path) -> None:
    """By the protocol: the manifests and the settings come in one ResourceList, and a ResourceList goes out."""
    resources = {"apiVersion": "config.kubernetes.io/v1", "kind": "ResourceList", "items": [workload(), service()]}
    settings = {"apiVersion": "webhook-sidecar/v1", "kind": "Inject", "spec": {"config": CONFIG, "secret": ["stripe"]}}
    done = subprocess.run(
        [ROOT / "plugins/kustomize/webhook-sidecar/v1/inject/Inject"],
        input=written(resources | {"functionConfig": settings}),
        env=os.environ | {"PATH": os.pathsep.join([str(ROOT / ".venv/bin"), os.environ["PATH"]])},
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (made,) = read(done.stdout)
    assert made["kind"] == "ResourceList"
    check(written(*made["items"]))
