"""Every file of helm/ci, rendered by Helm 3 and 4 for every Kubernetes that the chart is for."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from chart import CHART, CI, HELMS, VERSIONS, containers, helm, of_kind, pods, template
from jsonschema import Draft202012Validator, ValidationError
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from sidecar.config.loader import load_config

#: Not Kubernetes' own; their schemas come with their operators.
FOREIGN = {"HTTPRoute", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
#: Gateways' own, which test_authorizer.py validates.
FOREIGN |= {"AuthorizationPolicy", "Middleware", "ReferenceGrant", "SecurityPolicy"}
#: Longer than any identifier, and nothing that a name or an address is made of.
SECRETS = re.compile(r"whsec_|-----BEGIN|(?i:password|api[-_]?key|token)\s*[:=]\s*['\"]?[A-Za-z0-9+/]{12}")

Objects = list[dict[str, Any]]
NAMES = [path.stem.removesuffix("-values") for path in CI]


@cache
def definitions(version: str) -> Resource[Any]:
    return Resource.from_contents(schema_contents(f"{folder(version)}/_definitions.json", version))


@cache
def validator(version: str, kind: str, api: str) -> Draft202012Validator:
    """As `kubernetes-validate --strict`, which reads all definitions again for each object."""
    group = re.sub(r"^([^./]*)(?:[.][^/]*)?/", r"\1-", api)  # apps/v1 → apps-v1
    schema = schema_contents(f"{folder(version)}/{kind.lower()}-{group}.json", version)
    registry: Registry[Any] = definitions(version) @ Registry()
    return Draft202012Validator(schema, registry=registry)


def folder(version: str) -> str:
    return f"kubernetes-json-schema/v{version}-local-strict"


@pytest.mark.parametrize("file", CI, ids=NAMES)
def test_every_kubernetes_takes_the_objects_and_both_helms_make_the_same(file: Path) -> None:
    for version in VERSIONS:
        made, other = (template(file, version=version, tool=tool) for tool in HELMS)
        assert made
        assert made == other
        for each in made:
            if each["kind"] not in FOREIGN:
                validator(version, each["kind"], each["apiVersion"]).validate(each)


def test_a_field_that_kubernetes_does_not_know_would_be_found() -> None:
    (service,) = (
        each for each in rendered(CHART / "ci/gateway-values.yaml") if each["metadata"]["name"].endswith("-admin")
    )
    service = service | {"spec": service["spec"] | {"externalTraficPolicy": "Local"}}
    with pytest.raises(ValidationError, match="externalTraficPolicy"):
        validator(VERSIONS[-1], "Service", "v1").validate(service)


@pytest.fixture(params=CI, ids=NAMES)
def newest(request: pytest.FixtureRequest) -> Objects:
    """The objects of a file for the newest Kubernetes."""
    return rendered(request.param)


@cache
def rendered(file: Path) -> Objects:
    return template(file)


def test_the_sidecar_takes_the_configuration(newest: Objects, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(next(each["data"]["config.yaml"] for each in newest if "config.yaml" in each.get("data", {})))
    assert load_config(str(file), {}, resolve_secrets=False).routes.routes


def test_pods_are_as_the_restricted_standard_wants_them(newest: Objects) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    for pod in pods(newest):
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        allowed = {"configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
        assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"])
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["runAsNonRoot"] is True
            assert context.get("runAsUser") != 0
            assert not context.get("privileged")
            assert not any("hostPort" in port for port in container.get("ports", []))
            if container["name"] == "webhook-sidecar":
                assert context["readOnlyRootFilesystem"] is True


def test_containers_have_requests_and_a_limit_of_memory(newest: Objects) -> None:
    for pod in pods(newest):
        for container in containers(pod):
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), container["name"]
            assert "memory" in container["resources"]["limits"], container["name"]


def test_volumes_are_whole_directories_and_each_mount_has_one(newest: Objects) -> None:
    assert "subPath" not in str(newest)
    for pod in pods(newest):
        volumes = [volume["name"] for volume in pod["spec"]["volumes"]]
        assert len(volumes) == len(set(volumes))
        assert {mount["name"] for each in containers(pod) for mount in each.get("volumeMounts", [])} <= set(volumes)


def test_ports_that_lead_to_pods_are_numbers_in_native_sidecars_and_names_elsewhere(newest: Objects) -> None:
    """Names don't resolve in native sidecars before Kubernetes 1.32. In a gateway they lead to each pod's own port."""
    gateway = any(
        each["kind"] == "Deployment" and "initContainers" not in each["spec"]["template"]["spec"] for each in newest
    )
    served = "hooks-authorize" if any(each["kind"] == "SecurityPolicy" for each in newest) else "hooks"
    named = {served, "hooks-admin"} if gateway else set()
    found = set()
    for each in newest:
        if each["kind"] == "Service" and not each["metadata"]["name"].endswith("-test-pods"):
            found |= {port.get("targetPort", port["port"]) for port in each["spec"]["ports"]}
        if each["kind"] == "NetworkPolicy" and not each["metadata"]["name"].endswith("-receiver"):
            rules = [*each["spec"].get("ingress", []), *each["spec"].get("egress", [])]
            found |= {port["port"] for rule in rules for port in rule.get("ports", [])}
    assert {port for port in found if isinstance(port, str)} == named
    assert not gateway or not {8080, 8081, 9090} & found
    for pod in pods(newest):
        for container in containers(pod):
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert isinstance(container.get(probe, {}).get("httpGet", {}).get("port", 0), int)


def test_services_and_selectors_find_the_pods(newest: Objects) -> None:
    for deployment in newest:
        if deployment["kind"] != "Deployment":
            continue
        pod = deployment["spec"]["template"]
        ports = {
            port[key] for each in containers(pod) for port in each.get("ports", []) for key in ("containerPort", "name")
        }
        spread = pod["spec"].get("topologySpreadConstraints", [])
        selectors = [
            deployment["spec"]["selector"]["matchLabels"],
            *(each["labelSelector"]["matchLabels"] for each in spread),
        ]
        for each in newest:
            if each["kind"] == "Service":
                selectors.append(each["spec"]["selector"])
                assert {port.get("targetPort") for port in each["spec"]["ports"]} <= ports
            if each["kind"] == "PodDisruptionBudget":
                selectors.append(each["spec"]["selector"]["matchLabels"])
        assert all(selector.items() <= pod["metadata"]["labels"].items() for selector in selectors)


def test_no_secret_is_in_a_config_map_and_none_is_made(newest: Objects) -> None:
    assert not [each for each in newest if each["kind"] == "Secret"]
    for each in newest:
        if each["kind"] == "ConfigMap":
            assert not SECRETS.search(str(each["data"])), each["metadata"]["name"]


def test_probes_ask_the_admin_listener(newest: Objects) -> None:
    for pod in pods(newest):
        for container in containers(pod):
            if container["name"] == "webhook-sidecar":
                (admin,) = (port["containerPort"] for port in container["ports"] if port["name"] == "hooks-admin")
                for probe, path in (
                    ("startupProbe", "/readyz"),
                    ("readinessProbe", "/readyz"),
                    ("livenessProbe", "/livez"),
                ):
                    assert container[probe]["httpGet"] == {"path": path, "port": admin}


def test_the_stop_is_longer_than_the_drain(newest: Objects, tmp_path: Path) -> None:
    """And longer than all that comes before it: the receiver's wait and its own stop."""
    for each in newest:
        if each["kind"] == "Deployment":
            file = tmp_path / "config.yaml"
            file.write_text(of_kind(newest, "ConfigMap", each["metadata"]["name"])["data"]["config.yaml"])
            drain = load_config(str(file), {}, resolve_secrets=False).drain
            spec = each["spec"]["template"]["spec"]
            waits = [
                c.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) for c in spec["containers"]
            ]
            assert spec["terminationGracePeriodSeconds"] > drain + sum(waits)


@pytest.mark.parametrize("tool", HELMS)
@pytest.mark.parametrize("values", CI, ids=NAMES)
def test_the_linter_has_no_complaint(values: Path, tool: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", "helm", "--values", values, tool=tool)
