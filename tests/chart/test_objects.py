"""What values do to single objects."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, CI, HELMS, HelmError, containers, helm, objects, of_kind, template
from stub_api import stub_api

from sidecar.config.loader import load_config
from sidecar.config.settings import Config

ROUTE = {"path": "/hooks", "verify": "github", "secrets": [{"file": "/run/secrets/hooks/current"}]}
GATEWAY: dict[str, Any] = {
    "config": {"upstream": "http://receiver:3000", "routes": [ROUTE]},
    "existingSecrets": ["hooks"],
}


def ci(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / f"ci/{name}-values.yaml").read_text())
    return values


def pod_of(made: list[dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = of_kind(made, "Deployment")["spec"]["template"]
    return pod


def test_only_what_can_not_be_reloaded_replaces_the_pods() -> None:
    def pod(**config: Any) -> dict[str, Any]:
        return pod_of(template(GATEWAY | {"config": GATEWAY["config"] | config}))

    assert pod() == pod(drain="20s", log={"level": "debug"}, routes=[ROUTE | {"mode": "shadow"}])
    checksums = {
        json.dumps(pod(**config)["metadata"]["annotations"])
        for config in ({}, {"listen": "0.0.0.0:8081"}, {"admin": "0.0.0.0:9091"}, {"workers": 2})
    }
    assert len(checksums) == 4


def test_a_secret_that_may_be_absent_keeps_no_pod_from_starting() -> None:
    optional = {"file": "/run/secrets/old/previous", "optional": True}
    config = GATEWAY["config"] | {"routes": [ROUTE | {"secrets": [*ROUTE["secrets"], optional]}]}
    volumes = pod_of(template(GATEWAY | {"config": config, "existingSecrets": ["hooks", "old"]}))["spec"]["volumes"]
    secrets = [volume["secret"] for volume in volumes if "secret" in volume]
    assert secrets == [{"secretName": "hooks"}, {"secretName": "old", "optional": True}]


def test_the_sidecar_is_native_and_starts_first_and_the_receiver_waits_before_it_stops() -> None:
    spec = pod_of(template(ci("sidecar")))["spec"]
    assert [(each["name"], each.get("restartPolicy")) for each in spec["initContainers"]] == [
        ("webhook-sidecar", "Always")
    ]
    (receiver,) = spec["containers"]
    assert receiver["lifecycle"] == {"preStop": {"sleep": {"seconds": 10}}}
    assert spec["terminationGracePeriodSeconds"] == 60
    (older,) = pod_of(template(ci("sidecar"), version="1.29.0"))["spec"]["containers"]
    assert older["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "10"]}}}
    plain = pod_of(template(ci("sidecar") | {"nativeSidecar": False}))
    assert [each["name"] for each in containers(plain)] == ["receiver", "webhook-sidecar"]
    assert "restartPolicy" not in containers(plain)[1]


def test_the_receivers_port_is_open_to_nobody_but_the_gateway() -> None:
    for name, ports in (("sidecar", [8080, 9090]), ("gateway", ["hooks", "hooks-admin"])):
        made = template(ci(name))
        policy = of_kind(made, "NetworkPolicy", "-webhook-sidecar")["spec"]
        assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ports
    guard = of_kind(made, "NetworkPolicy", "-receiver")["spec"]
    assert guard["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "receiver"}
    ((peer,), ports) = (guard["ingress"][0]["from"], guard["ingress"][0]["ports"])
    assert peer["podSelector"]["matchLabels"].items() <= pod_of(made)["metadata"]["labels"].items()
    assert [port["port"] for port in ports] == [3000]


def test_the_tests_get_through_where_not_everybody_does() -> None:
    made = template(ci("gateway-full"))
    ours = {"podSelector": {"matchLabels": of_kind(made, "Pod", "-signed")["metadata"]["labels"]}}
    assert ours in of_kind(made, "NetworkPolicy", "hooks")["spec"]["ingress"][0]["from"]
    assert "from" not in of_kind(template(ci("gateway")), "NetworkPolicy", "-webhook-sidecar")["spec"]["ingress"][0]


def test_an_ingress_shows_no_open_route_and_nothing_shows_the_admin_listener() -> None:
    made = template(ci("gateway-full"))
    ingress, route = of_kind(made, "Ingress")["spec"], of_kind(made, "HTTPRoute")["spec"]
    paths = {(each["path"], each["pathType"]) for each in ingress["rules"][0]["http"]["paths"]}
    assert ("/webhooks/github", "Exact") in paths
    assert ("/partners/", "Prefix") in paths
    matches = [match["path"] for rule in route["rules"] for match in rule["matches"]]
    assert {(match["value"], {"Exact": "Exact", "PathPrefix": "Prefix"}[match["type"]]) for match in matches} == paths
    assert "/healthz" not in str(paths)
    assert all(len(rule["matches"]) <= 8 for rule in route["rules"])
    assert of_kind(made, "Service", "-admin")["spec"]["type"] == "ClusterIP"
    public = of_kind(made, "Service", "hooks")["spec"]
    assert [(port["port"], port["targetPort"]) for port in public["ports"]] == [(443, "hooks")]
    (container,) = pod_of(made)["spec"]["containers"]
    assert [(port["name"], port["containerPort"]) for port in container["ports"]] == [
        ("hooks", 8443),
        ("hooks-admin", 9999),
    ]


def test_rules_and_dashboards_are_those_of_the_files(tmp_path: Path) -> None:
    values = GATEWAY | {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}
    made = template(values)
    groups = [
        group
        for file in sorted((CHART / "rules").glob("*.yaml"))
        for group in yaml.safe_load(file.read_text())["groups"]
    ]
    assert of_kind(made, "PrometheusRule")["spec"]["groups"] == groups
    dashboards = of_kind(made, "ConfigMap", "-dashboards")
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboards["data"] == {file.name: file.read_text() for file in (CHART / "dashboards").glob("*.json")}

    shutil.copytree(CHART, tmp_path / "chart", ignore=shutil.ignore_patterns("dashboards", "rules"))
    bare = objects(helm("template", "release", tmp_path / "chart", "--values", "-", stdin=json.dumps(values)))
    assert of_kind(bare, "PrometheusRule")["spec"]["groups"] == []
    assert of_kind(bare, "ConfigMap", "-dashboards")["data"] == {}


def test_an_autoscaler_decides_the_number_of_pods() -> None:
    made = template(ci("gateway-full"))
    assert (
        of_kind(made, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
        == of_kind(made, "Deployment")["metadata"]["name"]
    )


def test_the_service_leads_to_old_and_new_pods_while_a_changed_port_is_rolled_out() -> None:
    """Each pod is reached at its own port, so Service and NetworkPolicy are the same before and after."""
    before, after = (
        template(GATEWAY | {"config": GATEWAY["config"] | {"listen": f"[::]:{port}"}}) for port in (8080, 8081)
    )
    assert pod_of(before)["spec"] != pod_of(after)["spec"]
    for kind in ("Service", "NetworkPolicy"):
        assert of_kind(before, kind, "-webhook-sidecar") == of_kind(after, kind, "-webhook-sidecar")


@pytest.mark.parametrize("tool", HELMS)
@pytest.mark.parametrize(("running", "replicas"), [(None, 2), (1, 1), (3, 3), (12, 12)])
def test_an_autoscaler_that_is_switched_on_takes_no_pod_away(
    running: int | None, replicas: int, tool: str, tmp_path: Path
) -> None:
    """Without `replicas` in the manifest Kubernetes would make it 1 until the autoscaler acts.

    Any other number than `lookup` finds could be a conflict in Helm 4: server-side apply respects what the autoscaler has set.
    """
    metadata = {
        "name": "release-webhook-sidecar",
        "namespace": "hooks",
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "release", "meta.helm.sh/release-namespace": "hooks"},
    }
    there = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": running}}
    values = json.dumps(GATEWAY | {"autoscaling": {"enabled": True}})
    options = ["--namespace", "hooks", "--dry-run=server", "--disable-openapi-validation", "--values", "-"]
    with stub_api([there] if running else [], tmp_path) as kubeconfig:
        made = objects(
            helm("template", "release", CHART, *options, "--kubeconfig", kubeconfig, tool=tool, stdin=values)
        )
    assert of_kind(made, "Deployment")["spec"]["replicas"] == replicas
    assert of_kind(template(GATEWAY | {"autoscaling": {"enabled": True}}), "Deployment")["spec"]["replicas"] == 2
    assert of_kind(template(GATEWAY | {"replicaCount": 3}), "Deployment")["spec"]["replicas"] == 3


def test_what_helm_test_sends() -> None:
    made = template(ci("sidecar"))
    arguments = {
        each["metadata"]["name"].rpartition("-")[2]: containers(each)[0]["args"]
        for each in made
        if each["kind"] == "Pod"
    }
    signed = [
        "send",
        "http://release-webhook-sidecar.hooks:80/webhooks/stripe",
        "--config=/etc/sidecar/config.yaml",
        "--route=webhooks-stripe",
    ]
    pods = "http://release-webhook-sidecar-test-pods.hooks:3000/"
    assert arguments == {
        "signed": [*signed, "--expect=2xx"],
        "forged": [*signed, "--forged", "--expect=4xx"],
        "bypass": ["send", pods, "--preset=github", "--secret=env:NONE", "--expect=none"],
    }
    assert all(each["metadata"]["annotations"]["helm.sh/hook"] == "test" for each in made if each["kind"] == "Pod")

    begini = [each for each in template(ci("begini")) if each["kind"] == "Pod"]
    tests = {
        each["metadata"]["name"].partition("-test-")[2]: [c["args"][-1] for c in containers(each)] for each in begini
    }
    assert tests == {
        "delivery-accepted": ["--expect=200"],
        "delivery-refused": ["--expect=422"],
        "bypass": ["--expect=none"],
    }

    library = ci("library")
    assert not [each for each in template(library) if each["kind"] == "Pod"]
    named = {"tests": {"url": "http://shop.shop:80", "podSelector": {"app": "shop"}}}
    tried = {
        each["metadata"]["name"].rpartition("-")[2]: containers(each)[0]["args"][1]
        for each in template(library | named)
        if each["kind"] == "Pod"
    }
    pods = "http://release-webhook-sidecar-test-pods.hooks:3000/"
    assert tried == {
        "signed": "http://shop.shop:80/webhooks/shopify",
        "forged": "http://shop.shop:80/webhooks/shopify",
        "bypass": pods,
    }


def test_helm_test_has_the_configuration_and_the_secrets_of_the_pods() -> None:
    for name in ("gateway-full", "own-scheme", "sidecar-socket"):
        made = template(ci(name))
        (sidecar,) = (each for each in containers(pod_of(made)) if each["name"] == "webhook-sidecar")
        for suffix in ("-signed", "-forged"):
            test = of_kind(made, "Pod", suffix)
            (container,) = containers(test)
            its = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert {mount["mountPath"]: mount["name"] for mount in sidecar["volumeMounts"]}.items() <= its.items()
            assert container.get("env") == sidecar.get("env")
            volumes = {volume["name"]: volume for volume in test["spec"]["volumes"]}
            theirs = {volume["name"]: volume for volume in pod_of(made)["spec"]["volumes"]}
            assert all(volumes[name] == theirs[name] for name in volumes if name != "test")
        assert of_kind(made, "ConfigMap", "-test")["data"].keys() <= {"api-key.yaml", "body"}


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ({}, "4xx"),
        ({"verify": "shopify"}, "4xx"),
        ({"verify": "xero", "reject": {"body": "no"}}, "4xx"),
        ({"verify": "xero", "reject": {"status": 404}}, "404"),
        ({"verify": {"preset": "begini", "reject": {"status": 400}}}, "400"),
        ({"verify": {"preset": "begini", "reject": {"status": 400}}, "reject": {"status": 401}}, "401"),
        ({"verify": "xero", "reject": "resend"}, None),
        ({"verify": "begini", "reject": "resend"}, None),
    ],
)
def test_the_test_expects_the_status_with_which_the_program_rejects(
    route: dict[str, Any], expected: str | None
) -> None:
    """With `reject: resend` only the program knows it, and nothing forged is sent."""
    made = template(GATEWAY | {"config": GATEWAY["config"] | {"routes": [ROUTE | route]}})
    pods = {each["metadata"]["name"].partition("-test-")[2]: each for each in made if each["kind"] == "Pod"}
    assert "signed" in pods
    assert ("forged" in pods) is (expected is not None)
    if expected is not None:
        assert f"--expect={expected}" in containers(pods["forged"])[0]["args"]
        (found,) = config_of(made).routes.routes
        assert str(found.rejection.status).startswith(expected.rstrip("x"))


def config_of(made: list[dict[str, Any]]) -> Config:
    """The release's configuration, as the program reads it."""
    text = of_kind(made, "ConfigMap", "-webhook-sidecar")["data"]["config.yaml"].encode()
    return load_config("config.yaml", {}, resolve_secrets=False, read=lambda name, size: text[:size])


def test_a_route_with_tenants_is_rendered_and_an_ingress_leads_to_all_of_them() -> None:
    tenants = {
        "path": "/hooks/github/{tenant}",
        "verify": "github",
        "secrets": {"dir": "/run/secrets/tenants", "name": "{tenant}"},
    }
    values = GATEWAY | {
        "config": GATEWAY["config"] | {"routes": [tenants, ROUTE | {"path": "/x"}]},
        "existingSecrets": ["tenants", "hooks"],
        "ingress": {"enabled": True, "hosts": ["a.example"]},
    }
    made = template(values)
    paths = of_kind(made, "Ingress")["spec"]["rules"][0]["http"]["paths"]
    assert [(each["path"], each["pathType"]) for each in paths] == [("/hooks/github/", "Prefix"), ("/x", "Exact")]
    assert "--route=x" in containers(of_kind(made, "Pod", "-signed"))[0]["args"]
    assert len(config_of(made).routes.routes) == 2
    with pytest.raises(
        HelmError,
        match="'/run/secrets/tenants' is in a Secret that is not mounted; add its name: existingSecrets: \\[tenants\\]",
    ):
        template(values | {"existingSecrets": ["hooks"]})


def test_a_red_bypass_keeps_no_other_test_from_running() -> None:
    """Helm runs tests by weight, and stops at the first one that fails."""
    values = ci("begini")
    values["config"]["routes"].append(ROUTE)
    values["existingSecrets"].append("hooks")
    weights = {
        each["metadata"]["name"].partition("-test-")[2]: int(each["metadata"]["annotations"]["helm.sh/hook-weight"])
        for each in template(values)
        if each["kind"] == "Pod"
    }
    assert sorted(weights, key=lambda name: weights[name])[:2] == ["signed", "forged"]
    assert max(weights, key=lambda name: weights[name]) == "bypass"
    assert {"delivery-accepted", "delivery-refused"} < weights.keys()
    assert sorted(weights.values())[-2:] != [9, 9]


@pytest.mark.parametrize(
    ("routes", "tests", "tried"),
    [
        ([ROUTE], {}, "hooks"),
        ([ROUTE | {"name": "named"}], {}, "named"),
        ([ROUTE | {"path": f"/{'a' * 70}/b-"}], {}, "a" * 63),
        ([ROUTE | {"path": "/*"}], {}, "root"),
        ([ROUTE | {"path": "/x", "allow": ["192.0.2.1"]}, ROUTE], {}, "hooks"),
        ([ROUTE | {"path": "/x", "mode": "shadow"}, ROUTE], {}, "hooks"),
        ([ROUTE | {"path": "/x", "methods": ["PUT"]}, ROUTE], {}, "hooks"),
        ([{"path": "/x", "open": True}, {"path": "/y", "verify": "none", "allow": ["192.0.2.1"]}, ROUTE], {}, "hooks"),
        ([ROUTE, ROUTE | {"path": "/x"}], {"route": "x"}, "x"),
        ([ROUTE], {"route": "none"}, None),
        ([{"path": "/x", "open": True}], {}, None),
    ],
)
def test_the_route_that_is_tried(routes: list[dict[str, Any]], tests: dict[str, Any], tried: str | None) -> None:
    """By the name that the program gives it."""
    made = template(GATEWAY | {"config": GATEWAY["config"] | {"routes": routes}, "tests": tests})
    pods = {each["metadata"]["name"].partition("-test-")[2]: each for each in made if each["kind"] == "Pod"}
    if tried is None:
        assert set(pods) == {"bypass"}
        return
    for name in ("signed", "forged"):
        assert f"--route={tried}" in containers(pods[name])[0]["args"]
    assert tried in [route.name for route in config_of(made).routes.routes]


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem.removesuffix("-values"))
def test_the_notes_tell_how_to_send_a_first_delivery(values: Path) -> None:
    notes = helm("install", "release", CHART, "--values", values, "--dry-run=client").partition("NOTES:")[2]
    assert "<no value>" not in notes
    assert "%!" not in notes
    if "mode: library" in values.read_text():
        assert 'include "sidecar.container" (index .Subcharts "webhook-sidecar")' in notes
        assert "webhook-sidecar/inject: enabled" not in notes
    else:
        assert "rollout status deployment/" in notes
        assert (
            ("sidecar send http://127.0.0.1:8" in notes)
            or ("v1/webhooks-management/test" in notes)
            or ("No route can be tried" in notes)
        )
