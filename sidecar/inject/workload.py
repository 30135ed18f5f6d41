"""Finds the workload, the receiver among its containers, the receiver's port, and the Services that lead there.

Each question that the manifests leave open is an error that lists the possible answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from sidecar.inject.manifest import Document, ManifestError, Steps, objects

#: A label or annotation of a workload or its pod template; `enabled` selects the workload.
SELECT = "webhook-sidecar/inject"
#: An annotation of objects that Helm runs once, such as a chart's tests.
HOOK = "helm.sh/hook"
#: The annotation that records what inject changed in an object; `made` if inject added the object.
RECORD = "webhook-sidecar/injected"

_TEMPLATES: tuple[Steps, ...] = (("spec", "template"), ("spec", "jobTemplate", "spec", "template"))


@dataclass(eq=False)
class KubernetesObject:
    """An object in the manifests. `template` is the path to its pod's `metadata` and `spec`, if it has a pod."""

    document: Document
    node: yaml.Node
    template: Steps | None
    changed: bool = False

    def value(self, *steps: str | int) -> Any:
        return self.document.value(self.node, *steps)

    def items(self, *steps: str | int) -> list[yaml.Node]:
        return self.document.items(self.node, *steps)

    def fail(self, message: str, *steps: str | int) -> NoReturn:
        self.document.fail(self.document.get(self.node, *steps) or self.node, f"{self}: {message}")

    @property
    def spec(self) -> Steps:
        assert self.template is not None
        return (*self.template, "spec")

    @property
    def kind(self) -> str:
        return str(self.value("kind"))

    @property
    def name(self) -> str:
        return str(self.value("metadata", "name") or "")

    @property
    def namespace(self) -> str | None:
        found = self.value("metadata", "namespace")
        return None if found is None else str(found)

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its pods."""
        found = self.value(*(self.template or ()), "metadata", "labels")
        return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}

    @property
    def selector(self) -> dict[str, str]:
        """The labels by which a policy selects its pods."""
        found = self.value("spec", "selector", "matchLabels")
        return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else self.labels

    def __str__(self) -> str:
        return describe_object(self.kind, self.namespace, self.name)


def describe_object(kind: str, namespace: str | None, name: str) -> str:
    """An object in messages."""
    return f"{kind} {f'{namespace}/' if namespace else ''}{name}"


def find_all(documents: Sequence[Document]) -> list[KubernetesObject]:
    found = []
    for document in documents:
        for node in objects(document):
            steps: Steps | None = () if document.value(node, "kind") == "Pod" else None
            for template in _TEMPLATES:
                if document.items(node, *template, "spec", "containers"):
                    steps = template
            if steps == () and not document.items(node, "spec", "containers"):
                steps = None
            found.append(KubernetesObject(document, node, steps))
    return found


def choose_workloads(everything: Sequence[KubernetesObject], named: Sequence[str], file: str) -> list[KubernetesObject]:
    """The named workloads (`NAME` or `KIND/NAME`), otherwise those marked, otherwise the only one that is not a Helm hook."""
    workloads = [each for each in everything if each.template is not None]
    there = ", ".join(f"{each.kind.lower()}/{each.name}" for each in workloads)
    if not workloads:
        raise ManifestError(
            f"{file}: no workload found: nothing has containers in spec.template.spec, and there is no Pod; "
            "add the manifest of the receiver's Deployment, StatefulSet or similar"
        )
    if named:
        picked = []
        for name in named:
            kind, _, bare = name.rpartition("/")
            matching = [each for each in workloads if each.name == bare and kind.lower() in ("", each.kind.lower())]
            if len(matching) != 1:
                problem = "appears several times; use KIND/NAME" if matching else "is not in the manifests"
                raise ManifestError(f"{file}: --workload {name} {problem}; found: {there}")
            picked += [each for each in matching if each not in picked]
        return picked
    marked = [each for each in workloads if _is_marked(each)]
    if marked:
        return marked
    lasting = [each for each in workloads if each.value("metadata", "annotations", HOOK) is None] or workloads
    if len(lasting) > 1:
        raise ManifestError(
            f"{file}: found several workloads: {there}; choose with --workload, or with the label {SELECT}: enabled"
        )
    return lasting


def _is_marked(workload: KubernetesObject) -> bool:
    places = [
        (*at, "metadata", kind, SELECT) for at in ((), workload.template or ()) for kind in ("annotations", "labels")
    ]
    return any(workload.value(*place) == "enabled" for place in places)


def receiver_of(workload: KubernetesObject, named: str | None) -> Steps:
    """The path to the receiver's container."""
    containers = (*workload.spec, "containers")
    names = [str(workload.document.value(item, "name")) for item in workload.items(*containers)]
    if named is not None and named not in names:
        workload.fail(f"has no container {named}; found: {', '.join(names)}", *containers)
    if named is None and len(names) > 1:
        workload.fail(f"has several containers: {', '.join(names)}; choose the receiver with --container", *containers)
    return (*containers, named or names[0])


def ports_of(workload: KubernetesObject, container: Steps) -> dict[int, str | None]:
    """The TCP ports that a container declares, with their names."""
    found = {}
    for item in workload.items(*container, "ports"):
        port = workload.document.value(item)
        if (
            isinstance(port, dict)
            and isinstance(port.get("containerPort"), int)
            and port.get("protocol") in (None, "TCP")
        ):
            found[port["containerPort"]] = port.get("name")
    return found


def same_namespace(one: str | None, other: str | None) -> bool:
    """Whether two namespaces may be the same: manifests may leave it to kubectl in one object and name it in another."""
    return one is None or other is None or one == other


def services_of(workload: KubernetesObject, everything: Sequence[KubernetesObject]) -> list[KubernetesObject]:
    """The Services that select the workload's pods."""
    labels, namespace = workload.labels, workload.namespace
    found = []
    for each in everything:
        selector = each.value("spec", "selector")
        if each.kind != "Service" or each.value("apiVersion") != "v1" or not isinstance(selector, dict) or not selector:
            continue
        selected = all(labels.get(key) == str(value) for key, value in selector.items())
        if selected and same_namespace(namespace, each.namespace):
            found.append(each)
    return found


def service_ports(service: KubernetesObject, workload: KubernetesObject) -> Iterator[tuple[int, int | None]]:
    """The index of each TCP port, and the port number it leads to; None for a name that no container declares."""
    names: dict[str, int] = {}
    for index in range(len(workload.items(*workload.spec, "containers"))):
        ports = ports_of(workload, (*workload.spec, "containers", index))
        names |= {name: port for port, name in ports.items() if name is not None}
    for index in range(len(service.items("spec", "ports"))):
        port = service.value("spec", "ports", index)
        if isinstance(port, dict) and port.get("protocol") in (None, "TCP"):
            target = str(port.get("targetPort") or port.get("port"))
            yield index, int(target) if target.isdecimal() else names.get(target)


def port_of(
    workload: KubernetesObject, container: Steps, named: str | None, services: Sequence[KubernetesObject]
) -> int:
    """The receiver's port: the named one, or the only one that Services lead to, or the only one declared."""
    declared = ports_of(workload, container)
    shown = ", ".join(f"{port} ({name})" if name else str(port) for port, name in declared.items())
    if named is not None:
        by_name = {name: port for port, name in declared.items() if name}
        number = by_name.get(named) or (int(named) if named.isdecimal() and len(named) < 6 else 0)
        if not 0 < number < 65536:
            workload.fail(
                f"container {container[-1]} has no port {named}; {f'found: {shown}' if shown else 'use its number'}",
                *container,
            )
        return number
    targets = {number for each in services for _, number in service_ports(each, workload) if number is not None}
    candidates = targets & set(declared) or (targets if not declared else set(declared))
    if not candidates:
        workload.fail(
            f"container {container[-1]} declares no port; name the one that it listens on with --port", *container
        )
    if len(candidates) > 1:
        workload.fail(
            f"container {container[-1]} has several ports: {shown}; choose the one for deliveries with --port",
            *container,
        )
    return candidates.pop()
