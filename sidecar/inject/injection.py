"""Adds the sidecar to manifests, and removes it again.

(1) undo an earlier run, so that running twice changes nothing and changed options take effect
(2) find the workload, its receiver, the receiver's port and the Services that lead there
(3) adapt the configuration to them, and check it as `sidecar check` does
(4) give the receiver's pod the container, volumes, and time to stop; point the Services at the sidecar
(5) add a ConfigMap and a NetworkPolicy
(6) report what was removed from the manifests, because `kubectl apply` leaves it in the cluster
With `--step pods` the Services stay as they are and there is no policy; with `--step traffic` the policy leaves the receiver's
port open, because nodes learn of a Service's new port later than of a policy. So clients never see a refused connection.
Every change is recorded in an annotation of the object, and undone from that record alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from math import ceil
from typing import Any, NamedTuple

from sidecar.config.settings import Config
from sidecar.inject.configuration import adapt_config
from sidecar.inject.manifest import ADDED, Document, ManifestError, Record, Steps, dump, parse
from sidecar.inject.objects import CONTAINER, config_map, container, marker, network_policy, volumes
from sidecar.inject.options import Options, make_options
from sidecar.inject.paths import unrouted_paths
from sidecar.inject.record import check_added, read_record
from sidecar.inject.workload import (
    RECORD,
    KubernetesObject,
    choose_workloads,
    describe_object,
    find_all,
    port_of,
    ports_of,
    receiver_of,
    service_ports,
    services_of,
)


class ObjectName(NamedTuple):
    kind: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        return describe_object(self.kind, self.namespace, self.name)

    @property
    def manifest(self) -> dict[str, Any]:
        """The fields that `kubectl delete -f` needs."""
        api = "networking.k8s.io/v1" if self.kind == "NetworkPolicy" else "v1"
        place = {"namespace": self.namespace} if self.namespace else {}
        return {"apiVersion": api, "kind": self.kind, "metadata": {"name": self.name} | place}


@dataclass
class InjectionResult:
    text: str
    notes: list[str] = field(default_factory=list)  #: for the user: what the manifests alone don't show
    gone: list[ObjectName] = field(default_factory=list)  #: objects that an earlier run added and that are gone now


def inject(text: str, options: Options, file: str) -> InjectionResult:
    """Raises `ManifestError`, or `ConfigError` for a configuration that is not valid."""
    documents = parse(text, file)
    if (
        documents and documents[0].value(documents[0].root, "kind") == "ResourceList"
    ):  # the input of a kustomize function
        spec = documents[0].value(documents[0].root, "functionConfig", "spec")
        options = make_options(spec if isinstance(spec, dict) else {}, "functionConfig")
    # (1)
    before = _added(documents)
    clean = _remove(documents, keep_pods=options.remove and options.step == "traffic")
    notes: list[str] = []
    if not options.remove:
        documents = parse(clean, file)
        everything = find_all(documents)
        for workload in choose_workloads(everything, options.workload, file):
            _Injection(workload, everything, documents, options, notes).run()
        clean = "".join(document.render() for document in documents)
    # (6)
    after = _added(parse(clean, file)) if before else []
    gone = [each for each in before if each not in after]
    return InjectionResult(clean, [*notes, *_say_gone(gone)], gone)


def _added(documents: Sequence[Document]) -> list[ObjectName]:
    found = [each for each in find_all(documents) if each.value("metadata", "annotations", RECORD) == ADDED]
    # A policy first: while it exists, it keeps everyone away from the receiver's port.
    found.sort(key=lambda each: each.kind != "NetworkPolicy")
    return [ObjectName(each.kind, each.namespace, each.name) for each in found]


def _say_gone(gone: Sequence[ObjectName]) -> Iterator[str]:
    """Notes the commands that delete what `kubectl apply` leaves in the cluster. Helm deletes it by itself."""
    when = {
        "NetworkPolicy": "kubectl apply leaves it in the cluster, where it blocks the receiver's port. Delete it first",
        "ConfigMap": "kubectl apply leaves it in the cluster. Delete it after the rollout",
    }
    for each in gone:
        place = f" -n {each.namespace}" if each.namespace else ""
        yield f"{each}: {when[each.kind]}: kubectl delete{place} {each.kind.lower()}/{each.name}"


class _Injection:
    """Steps (2) to (5) for one workload."""

    def __init__(
        self,
        workload: KubernetesObject,
        everything: list[KubernetesObject],
        documents: list[Document],
        options: Options,
        notes: list[str],
    ) -> None:
        self.workload, self.everything, self.documents, self.options = workload, everything, documents, options
        self.notes = notes
        self.record = Record()

    def run(self) -> None:
        # (2)
        workload, options = self.workload, self.options
        for kind in ("initContainers", "containers"):
            if workload.value(*workload.spec, kind, CONTAINER) is not None:
                at = (*workload.spec, kind, CONTAINER)
                workload.fail(f"has a container {CONTAINER} that inject did not add; remove or rename it", *at)
        self.receiver = receiver_of(workload, options.container)
        self.services = services_of(workload, self.everything)
        self.port = port_of(workload, self.receiver, options.port, self.services)
        # (3)
        self._adapt_configuration()
        # (4)
        self._change_pod()
        for service in self.services:
            self._redirect_service(service)
        self._say_step()
        if not self.services:
            self._note(f"no Service in these manifests selects it; send deliveries to its port {self.listen}")
        # (5)
        if self.config is not None:
            self._add(config_map(self._metadata(), self.config_text))
        if not options.no_network_policy and options.step != "pods":
            self._add_policy()

    def _say_step(self) -> None:
        if self.options.step == "pods":
            self._note("the Services still point to the receiver; once the rollout is complete, use --step traffic")
        elif self.options.step == "traffic" and not self.options.no_network_policy:
            self._note(f"the receiver's port {self.port} is still open; to close it, run this again without --step")

    def _note(self, message: str) -> None:
        self.notes.append(f"{self.workload}: {message}")

    def _adapt_configuration(self) -> None:
        workload, options = self.workload, self.options
        if (options.config is None) == (options.config_map is None):
            workload.fail("needs a configuration; use --config FILE, or --config-map NAME for an existing ConfigMap")
        self.config: Config | None = None
        self.listen, self.admin, self.drain = options.listen_port or 8080, options.admin_port or 9090, 20.0
        if options.config is not None:
            adapted = adapt_config(
                options.config,
                options.config_file,
                port=self.port,
                listen_port=options.listen_port,
                admin_port=options.admin_port,
                secrets=options.secret,
            )
            self.config, self.config_text = adapted.config, adapted.text
            config = adapted.config
            self.listen, self.admin, self.drain = config.listen.port, config.admin.port, config.drain
            if adapted.kept_upstream is not None:
                self._note(
                    f"upstream: {adapted.kept_upstream} is not changed, because it is not on this pod's loopback"
                )
        else:
            self._note(
                f"the ConfigMap {options.config_map} needs a key config.yaml with upstream: http://127.0.0.1:{self.port}, "
                f"listen: '[::]:{self.listen}' and admin: '[::]:{self.admin}'"
            )
        taken = self._declared_ports() | {self.port}
        for port, option in ((self.listen, "listen"), (self.admin, "admin")):
            if port in taken:
                free = next(each for each in range(port + 1, 65536) if each not in taken | {self.listen, self.admin})
                workload.fail(
                    f"port {port} is used by the pod's own containers; choose another for the sidecar: --{option}-port {free}",
                    *self.receiver,
                )

    def _declared_ports(self) -> set[int]:
        """The ports that the pod's containers declare."""
        containers = (*self.workload.spec, "containers")
        count = len(self.workload.items(*containers))
        return {port for index in range(count) for port in ports_of(self.workload, (*containers, index))}

    def _change_pod(self) -> None:
        workload, options = self.workload, self.options
        document, node, spec = workload.document, workload.node, workload.spec
        name = options.config_map or self._metadata()["name"]
        sidecar = container(
            image=options.image,
            listen=self.listen,
            admin=self.admin,
            secrets=options.secret,
        )
        document.add(node, (*spec, "initContainers"), [sidecar], self.record)
        document.add(node, (*spec, "volumes"), volumes(name, options.secret), self.record)
        if options.pre_stop and workload.value(*self.receiver, "lifecycle", "preStop") is None:
            document.add(
                node, (*self.receiver, "lifecycle", "preStop"), {"sleep": {"seconds": options.pre_stop}}, self.record
            )
        grace, needed = (*spec, "terminationGracePeriodSeconds"), options.pre_stop + ceil(self.drain) + 15
        if (given := workload.value(*grace)) is None and needed > 30:
            document.add(node, grace, needed, self.record)
        elif isinstance(given, int) and given < needed:
            document.change(node, grace, str(needed), self.record)
        if options.loopback:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                self._redirect_probe(probe)
        if workload.value(*spec, "hostNetwork") == "true":
            self._note(
                "hostNetwork: NetworkPolicies don't apply to it, so clients can bypass the sidecar; remove hostNetwork if you can"
            )
        self._write_record(workload, self.record)

    def _redirect_probe(self, probe: str) -> None:
        """The kubelet can't reach a receiver on loopback, so its probe goes through an open route of the sidecar."""
        workload, at = self.workload, (*self.receiver, probe)
        if workload.value(*at) is None or workload.value(*at, "exec") is not None:
            return
        if workload.value(*at, "httpGet") is None:
            workload.fail(
                f"{probe} connects to the receiver's port, which the kubelet can't reach on loopback; "
                "use httpGet, which goes through the sidecar, or exec",
                *at,
            )
        path = str(workload.value(*at, "httpGet", "path") or "/").partition("?")[0]
        if self.config is None:
            self._note(
                f"{probe} requests {path} through the sidecar: the configuration needs the route {{path: {path}, open: true}}"
            )
        else:
            route = self.config.routes.look_up(path.encode())
            if route is None or not route.open or "GET" not in route.methods:
                raise ManifestError(
                    f"{self.options.config_file}: {probe} of {workload} requests {path}, which must go through the "
                    f"sidecar to a receiver on loopback; add below routes: - {{path: {path}, open: true}}"
                )
        workload.document.change(workload.node, (*at, "httpGet", "port"), str(self.listen), self.record)
        if workload.value(*at, "httpGet", "scheme") == "HTTPS":
            workload.document.change(workload.node, (*at, "httpGet", "scheme"), "HTTP", self.record)

    def _redirect_service(self, service: KubernetesObject) -> None:
        targets = dict(service_ports(service, self.workload))
        moved = [index for index, number in targets.items() if number == self.port]
        if not moved:
            leads = ", ".join(str(number) if number else "an unknown name" for number in targets.values()) or "none"
            self._note(f"{service} does not lead to port {self.port} (it leads to {leads}) and is not changed")
            return
        if service.value("spec", "clusterIP") == "None":
            self._note(f"{service} is headless: its clients choose the port, and must use {self.listen}")
        ports = [service.value("spec", "ports", index) for index in moved]
        for sentence in unrouted_paths(self.everything, service, ports, self.config):
            self._note(sentence)
        if self.options.step == "pods":
            return
        record = Record()
        for index in moved:
            at: Steps = ("spec", "ports", index, "targetPort")
            if service.value(*at) is None:
                service.document.add(service.node, at, self.listen, record)
            else:
                service.document.change(service.node, at, str(self.listen), record)
        self._write_record(service, record)

    def _write_record(self, found: KubernetesObject, record: Record) -> None:
        if found.changed:
            found.fail("selects two workloads that get a sidecar; use different selectors, or inject only one of them")
        found.changed = True
        found.document.add(found.node, ("metadata", "annotations", RECORD), record.text, record)

    def _metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": f"{self.workload.name}-{CONTAINER}"}
        metadata |= {"namespace": self.workload.namespace} if self.workload.namespace else {}
        return metadata | {"labels": marker(self.workload.name)}

    def _add_policy(self) -> None:
        workload, options = self.workload, self.options
        if not workload.selector:
            workload.fail(
                "has no labels that a NetworkPolicy could select; add labels to its pods, or use --no-network-policy"
            )
        if closed := sorted(self._declared_ports() - {self.port, *options.keep_port}):
            ports = " ".join(f"--keep-port {port}" for port in closed)
            self._note(f"the NetworkPolicy also closes {', '.join(map(str, closed))}; to keep them open, add {ports}")
        policy = network_policy(
            self._metadata(),
            workload.selector,
            listen=self.listen,
            admin=self.admin,
            senders=[_peer(each) for each in options.allow_from],
            observers=[_peer(each) for each in options.admin_from],
            kept=[*options.keep_port, self.port] if options.step == "traffic" else options.keep_port,
        )
        self._add(policy)

    def _add(self, added: dict[str, Any]) -> None:
        """Adds an object: at the end of the list that has the workload, otherwise as the last document."""
        added["metadata"] |= {"annotations": {RECORD: ADDED}}
        document = self.workload.document
        root = document.root
        assert root is not None
        if self.workload.node is not root:
            items = document.get(root, "items")
            assert items is not None
            document.append(items, added)
            return
        newline, last = document.newline, self.documents[-1]
        text = f"---\n{dump(added)}".replace("\n", newline)
        if not last.text.endswith("\n"):  # the stream's last line has no newline; keep it so
            text = newline + text.removesuffix(newline)
        self.documents.append(Document(text, newline=newline))


def _peer(text: str) -> dict[str, Any]:
    """`10.0.0.0/8`, `namespace:monitoring`, `namespace:*`, or `pods:app=prometheus` in the workload's namespace."""
    kind, _, name = text.partition(":")
    if text == "namespace:*":
        return {"namespaceSelector": {}}
    if kind == "namespace" and name:
        return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
    if kind == "pods" and "=" in name:
        return {"podSelector": {"matchLabels": dict(pair.partition("=")[::2] for pair in name.split(","))}}
    try:
        return {"ipBlock": {"cidr": str(ip_network(text))}}
    except ValueError:
        raise ManifestError(
            f"{text!r} is not a valid peer; use a network (10.0.0.0/8), namespace:NAME, namespace:* or pods:LABEL=VALUE"
        ) from None


def _remove(documents: list[Document], *, keep_pods: bool) -> str:
    """The stream without any changes that inject made. With `keep_pods` the pods and their configuration stay as they are."""
    is_ours: list[bool] = []
    for document in documents:
        gone = Record()
        for found in find_all([document]):
            text = found.value("metadata", "annotations", RECORD)
            if keep_pods and (found.template is not None or found.kind == "ConfigMap"):
                continue
            if text == ADDED:
                check_added(found)
                items = document.items(document.root, "items")
                gone.added.append(("items", items.index(found.node)) if found.node in items else ())
            elif text is not None:
                document.undo(found.node, read_record(found, str(text)))
        is_ours.append(() in gone.added)
        if not is_ours[-1] and gone.added and document.root is not None:
            document.undo(document.root, gone)
    kept = [document.render() for document, ours in zip(documents, is_ours) if not ours]
    text = "".join(kept)
    if is_ours and is_ours[-1] and not documents[-1].text.endswith("\n"):
        text = text.removesuffix(documents[-1].newline)
    return text
