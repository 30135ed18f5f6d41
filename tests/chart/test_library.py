"""The same container for everybody: the modes of the chart, other people's charts, the kustomize component."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chart import CHART, HELMS, ROOT, TOOLS, helm, objects, of_kind, template
from needs import needs

from sidecar.config.loader import load_config

PARENT = Path(__file__).parent / "parent"


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A chart with this one as a dependency."""
    shutil.copytree(PARENT, tmp_path / "shop")
    shutil.copytree(CHART, tmp_path / "shop/charts/webhook-sidecar")
    return tmp_path / "shop"


def without_release(value: Any) -> Any:
    """Names begin with the release's; the rest must be the same."""
    return str(value).replace("release-webhook-sidecar", "NAME")


@pytest.mark.parametrize("tool", HELMS)
def test_a_chart_of_ones_own_gets_the_container_that_the_sidecar_mode_has(parent: Path, tool: str) -> None:
    made = objects(helm("template", "release", parent, tool=tool))
    assert {each["kind"] for each in made} == {"Deployment", "Service", "ConfigMap", "NetworkPolicy", "Job"}
    labels = of_kind(made, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind(made, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    pod = of_kind(made, "Deployment")["spec"]["template"]["spec"]
    config = of_kind(made, "ConfigMap", "-sidecar")
    (container,) = pod["initContainers"]
    assert container["restartPolicy"] == "Always"
    assert {"name": "webhook-sidecar-config", "configMap": {"name": config["metadata"]["name"]}} in pod["volumes"]
    assert of_kind(made, "Service")["spec"]["ports"][0]["targetPort"] == 8080
    assert pod["terminationGracePeriodSeconds"] == 60

    route = {"path": "/webhooks/shopify", "verify": "shopify", "secrets": [{"file": "/run/secrets/shopify/secret"}]}
    values = {
        "mode": "sidecar",
        "config": {"routes": [route]},
        "existingSecrets": ["shopify"],
        "receiver": {"image": "shop:1"},
    }
    own = of_kind(template(values, tool=tool), "Deployment")["spec"]["template"]["spec"]
    assert without_release(own["initContainers"]) == without_release([container])
    assert without_release(own["volumes"]) == without_release(pod["volumes"])


def test_a_dependency_that_is_switched_off_leaves_nothing(parent: Path) -> None:
    (parent / "templates/deployment.yaml").unlink()
    assert helm("template", "release", parent, "--set", "webhook-sidecar.enabled=false").strip() == ""


def test_a_parent_gets_the_errors_in_its_values(parent: Path) -> None:
    with pytest.raises(
        Exception, match=r"secrets\[0\]\.file: '/run/secrets/shopify/secret' is in a Secret that is not mounted"
    ):
        helm("template", "release", parent, "--set", "webhook-sidecar.existingSecrets={other}")


@pytest.mark.parametrize("version", ["1.36.0", "1.37.0"])
def test_the_admission_policy_adds_the_container_of_the_chart(parent: Path, version: str) -> None:
    values = yaml.safe_load((CHART / "ci/library-values.yaml").read_text())
    made = template(values | {"admissionPolicy": {"enabled": True}}, version=version)
    policy, binding = (of_kind(made, f"MutatingAdmissionPolicy{suffix}") for suffix in ("", "Binding"))
    for each in (policy, binding):
        kubernetes_validate.validate(each, version, strict=True)
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    (mutation,) = policy["spec"]["mutations"]
    expression = mutation["jsonPatch"]["expression"]
    added = [json.loads(re.sub(r"dyn\(|\)", "", each)) for each in re.findall(r"-\", value: (\{.*\})\}\]", expression)]
    pod = of_kind(objects(helm("template", "release", parent, "--kube-version", version)), "Deployment")["spec"][
        "template"
    ]
    assert added == [*pod["spec"]["initContainers"], *pod["spec"]["volumes"]]
    assert f"value: {pod['spec']['terminationGracePeriodSeconds']}}}" in expression
    assert of_kind(made, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]["webhook-sidecar/pod"] in expression


def expression(**values: Any) -> str:
    given = yaml.safe_load((CHART / "ci/library-values.yaml").read_text())
    policy = of_kind(template(given | {"admissionPolicy": {"enabled": True}} | values), "MutatingAdmissionPolicy")
    return str(policy["spec"]["mutations"][0]["jsonPatch"]["expression"])


def test_the_admission_policy_lets_receivers_without_a_pre_stop_wait_as_the_chart_does() -> None:
    waits = 'dyn({"preStop": dyn({"sleep": dyn({"seconds": dyn(7)})})})'
    text = expression(receiver={"preStopSeconds": 7})
    assert f'"/spec/containers/" + string(i) + "/lifecycle", value: {waits}' in text
    assert "transformList(i, c, !(has(c.lifecycle) && has(c.lifecycle.preStop)), " in text
    assert "/spec/containers/" not in expression(receiver={"preStopSeconds": 0})


PRE_STOP = {"preStop": {"exec": {"command": ["/opt/sidecar/bin/sidecar", "drain"]}}}


def test_a_sidecar_hears_of_its_pods_end_and_a_gateway_gets_sigterm_at_once() -> None:
    for name in ("sidecar", "sidecar-loopback"):
        pod = of_kind(template(CHART / f"ci/{name}-values.yaml"), "Deployment")["spec"]["template"]["spec"]
        assert pod["initContainers"][0]["lifecycle"] == PRE_STOP
    pod = of_kind(template(CHART / "ci/gateway-values.yaml"), "Deployment")["spec"]["template"]["spec"]
    assert "lifecycle" not in pod["containers"][0]
    assert "/opt/sidecar/bin/sidecar" in (ROOT / "Dockerfile").read_text()


def test_the_kustomize_component_has_the_container_of_the_chart() -> None:
    built = subprocess.run(
        [needs(TOOLS / "kubectl"), "kustomize", ROOT / "kustomize/example"], capture_output=True, text=True, check=True
    )
    made = objects(built.stdout)
    pod = of_kind(made, "Deployment")["spec"]["template"]
    config = of_kind(made, "ConfigMap")["data"]["config.yaml"]
    values = {
        "mode": "sidecar",
        "fullnameOverride": "webhook-sidecar",
        "image": {"repository": "registry.example/webhook-sidecar"},
        "config": yaml.safe_load(config) | {"upstream": "http://127.0.0.1:3000"},
        "existingSecrets": ["webhook-sidecar"],
        "receiver": {"image": "registry.example/shop:1.2"},
    }
    chart = template(values)
    own = of_kind(chart, "Deployment")["spec"]["template"]
    for key in ("initContainers", "volumes", "terminationGracePeriodSeconds"):
        assert pod["spec"][key] == own["spec"][key]
    policy = of_kind(made, "NetworkPolicy")["spec"]
    assert policy["ingress"] == of_kind(chart, "NetworkPolicy")["spec"]["ingress"]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert of_kind(made, "Service")["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080}]


def kustomized(tmp_path: Path, *components: str) -> list[dict[str, Any]]:
    """The example with other components."""
    if not (tmp_path / "kustomize").exists():
        shutil.copytree(ROOT / "kustomize", tmp_path / "kustomize")
    file = tmp_path / "kustomize/example/kustomization.yaml"
    kustomization = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(kustomization | {"components": [f"../sidecar{each}" for each in components]}))
    built = subprocess.run(
        [needs(TOOLS / "kubectl"), "kustomize", file.parent], capture_output=True, text=True, check=True
    )
    return objects(built.stdout)


def test_the_steps_of_the_kustomize_component_close_and_move_nothing_too_early(tmp_path: Path) -> None:
    """As `sidecar inject --step`: the pods, then the Service, and last the policy; a port that is in use stays open."""
    receiver = objects((ROOT / "kustomize/example/receiver.yaml").read_text())
    pods = kustomized(tmp_path, "/pods")
    traffic = kustomized(tmp_path, "/pods", "/traffic")
    whole = kustomized(tmp_path, "")
    kinds = {"ConfigMap", "Deployment", "Service"}
    assert {each["kind"] for each in pods} == {each["kind"] for each in traffic} == kinds
    assert {each["kind"] for each in whole} == kinds | {"NetworkPolicy"}
    assert of_kind(pods, "Deployment") == of_kind(traffic, "Deployment") == of_kind(whole, "Deployment")
    assert len(of_kind(pods, "Deployment")["spec"]["template"]["spec"]["initContainers"]) == 1
    assert of_kind(pods, "Service") == of_kind(receiver, "Service")
    assert of_kind(traffic, "Service") == of_kind(whole, "Service")
    assert of_kind(traffic, "Service")["spec"]["ports"][0]["targetPort"] == 8080


def test_pods_of_the_kustomize_example_are_as_the_restricted_standard_wants_them(tmp_path: Path) -> None:
    for made in (objects((ROOT / "kustomize/example/receiver.yaml").read_text()), kustomized(tmp_path, "")):
        spec = of_kind(made, "Deployment")["spec"]["template"]["spec"]
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_configuration_of_the_kustomize_example_is_right() -> None:
    assert load_config(str(ROOT / "kustomize/example/config.yaml"), {}, resolve_secrets=False).routes.routes
