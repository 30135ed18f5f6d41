"""Before an install or upgrade changes anything, the program checks the new configuration: a bad one never replaces a good one.

On every path: Helm and Argo CD run the Job first and stop if it fails; `sidecar check --manifests -` finds the same in CI. A
ConfigMap that somebody edits by hand is refused by the running sidecars, which keep what they have (tests/wire/test_reload.py).
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, CI, HELMS, containers, helm, objects, of_kind, template

from sidecar.cli.main import main

ROUTE = {"path": "/hooks", "verify": "github", "secrets": [{"file": "/run/secrets/hooks/current"}]}
GATEWAY: dict[str, Any] = {
    "config": {"upstream": "http://receiver:3000", "routes": [ROUTE]},
    "existingSecrets": ["hooks"],
}


def hooks(made: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    """The hooks of an event, in the order in which Helm runs them: by weight, kind and name."""
    annotated = [(each["metadata"].get("annotations", {}), each) for each in made]
    found = [
        (int(annotations.get("helm.sh/hook-weight", "0")), each["kind"], each["metadata"]["name"], each)
        for annotations, each in annotated
        if event in annotations.get("helm.sh/hook", "").split(",")
    ]
    return [each for *_, each in sorted(found, key=lambda item: item[:3])]


def run_job(made: list[dict[str, Any]], folder: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Runs the Job's own command with what it has mounted; returns its exit status and what it prints on standard error."""
    config_map, job = hooks(made, "pre-upgrade")
    pod = job["spec"]["template"]
    (container,) = containers(pod)
    (volume,) = pod["spec"]["volumes"]
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    ((mount),) = container["volumeMounts"]
    for name, content in config_map["data"].items():
        (folder / name).write_text(content)
    arguments = [word.replace(mount["mountPath"], str(folder)) for word in container["args"]]
    status = main(arguments)
    return status, capfd.readouterr().err


@pytest.mark.parametrize("tool", HELMS)
@pytest.mark.parametrize("event", ["pre-install", "pre-upgrade"])
def test_the_job_runs_before_anything_is_changed_and_has_what_it_needs_before(event: str, tool: str) -> None:
    config_map, job = hooks(template(GATEWAY, tool=tool), event)
    assert (config_map["kind"], job["kind"]) == ("ConfigMap", "Job")
    for each in (config_map, job):
        policies = each["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")
        assert policies == ["before-hook-creation", "hook-succeeded"]  # a failed one stays, with its log
    assert job["metadata"]["annotations"]["helm.sh/hook-output-log-policy"] == "hook-failed"
    spec = job["spec"]
    assert spec["ttlSecondsAfterFinished"] == 24 * 3600
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")
    assert spec["activeDeadlineSeconds"] < 300  # Helm's own limit, whose message says less
    # Nothing that the release makes, and no Secret: one that is missing would keep the Job from ever starting.
    assert "serviceAccountName" not in spec["template"]["spec"]
    assert [set(volume) for volume in spec["template"]["spec"]["volumes"]] == [{"name", "configMap"}]


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem.removesuffix("-values"))
def test_it_checks_what_the_pods_will_read_with_the_same_image(
    values: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = template(values)
    config_map, job = hooks(made, "pre-upgrade")
    (released,) = (each for each in made if "webhook-sidecar/config" in each["metadata"].get("labels", {}))
    assert config_map["data"] == released["data"]
    assert released["metadata"]["name"] != config_map["metadata"]["name"]
    (container,) = containers(job["spec"]["template"])
    for deployment in (each for each in made if each["kind"] == "Deployment"):
        (sidecar,) = (each for each in containers(deployment["spec"]["template"]) if each["name"] == "webhook-sidecar")
        assert container["image"] == sidecar["image"]
        assert container["securityContext"] == sidecar["securityContext"]
    assert run_job(made, tmp_path, capfd) == (0, "")


def test_the_job_fails_for_a_configuration_that_the_program_would_not_take(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = GATEWAY | {"config": GATEWAY["config"] | {"routes": [ROUTE | {"verify": "gihub"}]}}
    status, said = run_job(template(values), tmp_path, capfd)
    assert status == 1
    assert "routes[0].verify: 'gihub' is not a preset; did you mean 'github'?" in said


def test_the_pods_of_the_job_are_no_part_of_any_service_policy_or_budget() -> None:
    made = template(GATEWAY)
    _, job = hooks(made, "pre-upgrade")
    labels = job["spec"]["template"]["metadata"]["labels"].items()
    for each in made:
        spec = each.get("spec", {})
        selector = spec.get("selector") if each["kind"] == "Service" else spec.get("selector", spec.get("podSelector"))
        if selector:
            assert not selector.get("matchLabels", selector).items() <= labels, each["kind"]


def test_an_account_that_is_there_already_runs_it_and_a_mesh_leaves_it_alone() -> None:
    """The account may have the secrets for pulling images. A mesh's proxy would not end, so the Job would not either."""
    for create in (True, False):
        values = GATEWAY | {"serviceAccount": {"create": create, "name": "there"}}
        pod = hooks(template(values), "pre-install")[1]["spec"]["template"]
        assert pod["spec"].get("serviceAccountName") == (None if create else "there")
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
        assert pod["metadata"]["annotations"] == {"linkerd.io/inject": "disabled"}


def test_it_can_be_switched_off() -> None:
    assert hooks(template(GATEWAY | {"check": {"enabled": False}}), "pre-upgrade") == []


def test_a_pull_secret_and_a_place_are_those_of_the_pods() -> None:
    values = GATEWAY | {
        "imagePullSecrets": [{"name": "pull"}],
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "priorityClassName": "high",
    }
    _, job = hooks(template(values), "pre-install")
    spec = job["spec"]["template"]["spec"]
    assert {key: spec[key] for key in values if key in spec} == {key: values[key] for key in values if key in spec}
    assert {"imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName"} <= set(spec)


@pytest.mark.parametrize("tool", HELMS)
def test_a_pipe_from_helm_finds_the_same_before_anything_reaches_a_cluster(
    tool: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def piped(**config: Any) -> int:
        values = json.dumps(GATEWAY | {"config": GATEWAY["config"] | config})
        text = helm("template", "release", CHART, "--namespace", "hooks", "--values", "-", tool=tool, stdin=values)
        assert len(objects(text)) > 5
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return main(["check", "--manifests", "-"])

    assert piped() == 0
    assert "ConfigMap hooks/release-webhook-sidecar: ok" in capfd.readouterr().out
    assert piped(drain="soon") == 1
    line = capfd.readouterr().err
    assert line.startswith("ConfigMap hooks/release-webhook-sidecar:1: drain: 'soon' is not a valid duration;")
    assert yaml.safe_load((CHART / "values.yaml").read_text())["check"] == {"enabled": True, "seconds": 240}
    assert of_kind(template(GATEWAY), "Job")
