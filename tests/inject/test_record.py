"""Manifests that were made to mislead `inject`: the record of its changes, and YAML that means more than it says."""

import json
import time
from typing import Any

import pytest
import yaml
from manifests import CONFIG, service, workload, written

from sidecar.inject.injection import inject
from sidecar.inject.manifest import ManifestError
from sidecar.inject.options import Options
from sidecar.inject.workload import RECORD

OPTIONS = Options(config=CONFIG, config_file="hooks.yaml", secret=["stripe"], loopback=True)
POD = ["spec", "template", "spec"]
SHOP = [*POD, "containers", "shop"]
OWN = ["metadata", "annotations", RECORD]

Changes = tuple[list[Any], list[Any]]


def with_record(found: dict[str, Any], added: list[Any], was: list[Any]) -> dict[str, Any]:
    found["metadata"]["annotations"] = {RECORD: json.dumps({"added": added, "was": was}), "owner": "shop"}
    return found


def deployment(**container: Any) -> dict[str, Any]:
    found = workload()
    found["spec"]["replicas"] = 2
    found["spec"]["template"]["spec"] |= {"volumes": [{"name": "data", "emptyDir": {}}], "serviceAccountName": "shop"}
    found["spec"]["template"]["spec"]["containers"][0] |= {
        "securityContext": {"runAsNonRoot": True},
        "lifecycle": {"preStop": {"exec": {"command": ["/flush"]}}},
        "env": [{"name": "A", "value": "b"}],
    } | container
    return found


@pytest.mark.parametrize("remove", [False, True])
@pytest.mark.parametrize(
    ("added", "was", "place"),
    [
        # what a record could take away
        ([[*SHOP, "securityContext"]], [], "spec.template.spec.containers.shop.securityContext"),
        ([[*SHOP, "securityContext", "runAsNonRoot"]], [], "...runAsNonRoot"),
        ([[*SHOP, "env"]], [], "...env"),
        ([[*SHOP, "readinessProbe"]], [], "...readinessProbe"),
        ([[*SHOP, "lifecycle", "preStop"]], [], "...lifecycle.preStop"),
        ([[*SHOP, "lifecycle"]], [], "...lifecycle"),
        ([SHOP], [], "...containers.shop"),
        ([[*POD, "containers"]], [], "...containers"),
        ([[*POD, "containers", 0]], [], "...containers.0"),
        ([[*POD, "volumes"]], [], "...volumes"),
        ([[*POD, "volumes", "data"]], [], "...volumes.data"),
        ([[*POD, "serviceAccountName"]], [], "...serviceAccountName"),
        ([["spec", "replicas"]], [], "spec.replicas"),
        ([["metadata", "annotations"]], [], "metadata.annotations"),
        ([["metadata", "annotations", "owner"]], [], "metadata.annotations.owner"),
        ([["metadata"]], [], "metadata"),
        ([["spec"]], [], "spec"),
        ([["kind"]], [], "kind"),
        # what it could write
        ([], [[[*SHOP, "image"], "evil.example/shop:2"]], "...image"),
        ([], [[["spec", "replicas"], "9"]], "spec.replicas"),
        ([], [[["kind"], "DaemonSet"]], "kind"),
        ([], [[[*POD, "terminationGracePeriodSeconds"], "1\n      hostPID: true"]], "...terminationGracePeriodSeconds"),
        ([], [[[*POD, "terminationGracePeriodSeconds"], "1, hostPID: true"]], "...terminationGracePeriodSeconds"),
        ([], [[[*SHOP, "readinessProbe", "httpGet", "port"], "1, host: evil.example"]], "...readinessProbe.httpGet.port"),
        ([], [[[*SHOP, "readinessProbe", "httpGet", "scheme"], "HTTP"]], "...readinessProbe.httpGet.scheme"),
        ([], [[[*SHOP, "readinessProbe", "httpGet", "path"], "/"]], "...readinessProbe.httpGet.path"),
        ([], [[[*POD, "volumes"], ""]], "...volumes"),
        ([], [[[*POD, "volumes"], "null"]], "...volumes"),
        ([], [[["metadata", "annotations"], "~"]], "metadata.annotations"),
        ([], [[[*SHOP, "lifecycle"], ""]], "...lifecycle"),
        ([], [[["metadata", "annotations", RECORD], "made"]], f"metadata.annotations.{RECORD}"),
        # the same place twice, and one within the other
        ([OWN, OWN], [], f"metadata.annotations.{RECORD}"),
        ([OWN], [[["metadata", "annotations"], ""]], "metadata.annotations"),
    ],
)  # fmt: skip
def test_a_record_of_what_inject_does_not_change_is_an_error(
    added: list[Any], was: list[Any], place: str, remove: bool
) -> None:
    text = written(with_record(deployment(), added, was), service())
    with pytest.raises(ManifestError) as caught:
        inject(text, Options(**vars(OPTIONS) | {"remove": remove}), "web.yaml")
    message = str(caught.value)
    assert message.startswith("web.yaml:")
    assert f"Deployment shop: the annotation {RECORD} records a change of " in message
    assert f"{place.removeprefix('...')} that inject does not make" in message


@pytest.mark.parametrize(
    "record",
    [
        "[]", "{}", '{"added":[]}', '{"added":[[]],"was":[]}', '{"added":[[1.5]],"was":[]}', '{"added":[[true]],"was":[]}',
        '{"added":[],"was":[[["kind"],1]]}', '{"added":"kind","was":[]}'.replace('"kind"', "7"), "made ", "[" * 100_000,
        '{"added":[[' + "9" * 5000 + ']],"was":[]}',
    ],
)  # fmt: skip
def test_an_unreadable_record_is_an_error(record: str) -> None:
    found = deployment()
    found["metadata"]["annotations"] = {RECORD: record}
    with pytest.raises(ManifestError, match=f"the annotation {RECORD} was changed; undo the injection by hand"):
        inject(written(found), OPTIONS, "web.yaml")


@pytest.mark.parametrize(
    ("added", "was"),
    [
        ([["spec", "selector"]], []),
        ([["spec", "type"]], []),
        ([["spec", "ports"]], []),
        ([["spec", "ports", 0]], []),
        ([["spec", "ports", 0, "targetPort"]], []),  # a name, which inject does not write
        ([], [[["spec", "ports", 0, "port"], "22"]]),
        ([], [[["spec", "selector", "app"], "admin"]]),
        ([], [[["spec", "ports", 0, "targetPort"], "1\n  externalIPs: [192.0.2.1]"]]),
    ],
)
def test_a_record_of_a_service_changes_its_target_ports_alone(added: list[Any], was: list[Any]) -> None:
    with pytest.raises(ManifestError, match=f"Service shop: the annotation {RECORD} records a change of"):
        inject(written(workload(), with_record(service(), added, was)), OPTIONS, "web.yaml")


@pytest.mark.parametrize("kind", ["ClusterRole", "Secret", "ConfigMap"])
def test_a_record_of_another_object_changes_nothing_but_its_annotation(kind: str) -> None:
    found = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}, "data": {"a": "b"}, "spec": {"volumes": []}}
    for added in ([["data"]], [["data", "a"]], [["spec", "volumes"]]):
        with pytest.raises(ManifestError, match="that inject does not make"):
            inject(written(workload(), with_record(found, added, [])), OPTIONS, "web.yaml")


POLICY: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "shop-webhook-sidecar"},
    "spec": {"podSelector": {"matchLabels": {"app": "shop"}}, "policyTypes": ["Ingress"], "ingress": []},
}


@pytest.mark.parametrize(
    "found",
    [
        POLICY | {"metadata": {"name": "deny-all"}},
        POLICY | {"spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []}},
        POLICY | {"spec": POLICY["spec"] | {"policyTypes": ["Ingress", "Egress"]}},
        POLICY | {"spec": POLICY["spec"] | {"egress": []}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop"}, "data": {"config.yaml": ""}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "webhook-sidecar"}, "data": {"a": ""}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "webhook-sidecar"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "webhook-sidecar"}},
        workload(name="webhook-sidecar"),
    ],
)
def test_an_object_that_inject_does_not_add_is_not_removed(found: dict[str, Any]) -> None:
    marked = found | {"metadata": found["metadata"] | {"annotations": {RECORD: "made"}}}
    with pytest.raises(ManifestError, match=f"the annotation {RECORD}: made marks it as added by inject"):
        inject(written(workload(), marked), OPTIONS, "web.yaml")


@pytest.mark.parametrize("port", [{"targetPort": "http"}, {"targetPort": 3000}, {"targetPort": None, "port": 3000}])
@pytest.mark.parametrize("more", [{}, {"lifecycle": None}, {"lifecycle": {}}])
@pytest.mark.parametrize("pod", [{}, {"volumes": None, "initContainers": []}, {"terminationGracePeriodSeconds": 5}])
def test_every_record_that_inject_writes_is_undone(
    port: dict[str, Any], more: dict[str, Any], pod: dict[str, Any]
) -> None:
    found = deployment()
    del found["spec"]["template"]["spec"]["containers"][0]["lifecycle"]
    found["spec"]["template"]["spec"]["containers"][0] |= more
    found["spec"]["template"]["spec"] |= pod
    given = written(found, service(**port))
    made = inject(given, OPTIONS, "web.yaml").text
    assert inject(made, OPTIONS, "web.yaml").text == made
    assert inject(made, Options(remove=True), "web.yaml").text == given


# -- YAML --


def layered(layers: int, width: int, leaf: str = "x") -> str:
    """Aliases of aliases: `width` to the power of `layers`."""
    lines = [f"l0: &l0 [{leaf}]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * width)}]" for n in range(1, layers + 1)]
    return "".join(f"    {line}\n" for line in lines)


def refused(text: str) -> str:
    began = time.monotonic()
    with pytest.raises(ManifestError) as caught:
        inject(text, OPTIONS, "web.yaml")
    assert time.monotonic() - began < 5
    return str(caught.value)


LABELS = "kind: Deployment\nmetadata:\n  labels:\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LABELS + layered(30, 2), "web.yaml:1: aliases (*) repeat more than 100000 nodes; write them out"),
        (LABELS + layered(150, 3), "aliases (*) repeat more than"),
        (LABELS + layered(1, 2000, "y" * 100_000), "aliases (*) repeat more than"),
        ((LABELS + layered(3, 36) + "---\n") * 5, "web.yaml:9: aliases (*) repeat more than"),
        ("a: &a {b: *a}\n", "web.yaml:1: an alias (*) is part of what it refers to; write it out"),
        ("a: &a [x, *a]\n", "an alias (*) is part of what it refers to"),
        (LABELS + layered(25, 2) + "    ? *l25\n    : x\n", "a key is a list or a mapping"),
        ("a: " + "[" * 60_000, "web.yaml:1: nested deeper than 200 levels; check the indentation"),
        ("a: " + "{b: " * 60_000 + "}" * 60_000, "nested deeper than 200 levels"),
        ("- " * 60_000 + "a", "nested deeper than 200 levels"),
    ],
    ids=str,
)  # fmt: skip
def test_small_manifests_that_mean_much_are_an_error_at_once(text: str, message: str) -> None:
    found = refused(text)
    assert message in found


def test_a_few_aliases_are_fine() -> None:
    text = written(workload(), service()).replace("metadata:", "metadata: # x", 1)
    text = f"kind: ConfigMap\nmetadata: {{name: a}}\ndata: {{a: &a [1, 2], b: *a, c: *a}}\n---\n{text}"
    assert "*a, c: *a" in inject(text, OPTIONS, "web.yaml").text


def test_a_large_manifest_without_aliases_is_fine() -> None:
    large = {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {f"k{n}": "v" for n in range(20_000)}}
    made = list(yaml.load_all(inject(written(large, workload()), OPTIONS, "web.yaml").text, Loader=yaml.CSafeLoader))
    assert len(made[0]["data"]) == 20_000
