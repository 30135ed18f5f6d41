"""The steps of `make cluster-test`, in their order. Each returns a figure for the table, or raises `StepError` with what did not hold."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import workloads
import yaml
from cluster import CHART, LABEL, ROOT, Cluster, NotApplicableError, StepError, say

RATE = 50
#: Names of helm programs in .venv/kubernetes: Helm 4 and Helm 3.
HELMS = ("helm", "helm3")


def chart_pods(instance: str) -> str:
    """Labels of the pods of the chart's Deployment."""
    return f"app.kubernetes.io/name=webhook-sidecar,app.kubernetes.io/instance={instance}"


class Steps:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.enforces: bool | None = None  #: whether a policy agent enforces NetworkPolicies
        self._loads = 0

    # Load

    @contextlib.contextmanager
    def load(self, url: str, *, seconds: int = 400, signed: bool = True) -> Iterator[dict[str, Any]]:
        """Sends 50 a second, half on kept and half on new connections, while the block runs; the report is filled in at its end.

        Raises `StepError` if one of them was not answered 200.
        """
        cluster = self.cluster
        report: dict[str, Any] = {}
        self._loads += 1
        name = f"load-{self._loads}"
        cluster.apply([workloads.load_pod(name, cluster.image, url, rate=RATE, seconds=seconds, signed=signed)])
        cluster.wait(f"the senders of {name} run", lambda: self._phase(name) == "Running", 120)
        self.cluster.sleep(5)
        try:
            yield report
            self.cluster.sleep(5)  # what comes after the change counts too
        finally:
            cluster.kubectl("exec", name, "--", workloads.PYTHON, "-c", "open('/tmp/stop', 'w').close()", check=False)
        cluster.wait(
            f"the senders of {name} finish what they sent", lambda: self._phase(name) in ("Succeeded", "Failed"), 120
        )
        report |= json.loads(cluster.kubectl("logs", name).splitlines()[-1])
        cluster.kubectl("delete", "pod", name, "--wait=false")
        outcomes: Mapping[str, int] = report["outcomes"]
        if set(outcomes) != {"200"} or report["sent"] < 5 * RATE:
            raise StepError(
                f"of {report['sent']} sent: {outcomes}; first after seconds: {report['first_after_seconds']}"
            )

    def _phase(self, pod: str) -> str:
        return str(self.cluster.get("pod", pod)["status"].get("phase"))

    @staticmethod
    def taken(report: Mapping[str, Any]) -> str:
        return f"{report['sent']} of {report['sent']} answered 200"

    # Before everything

    def prepare(self) -> str:
        cluster = self.cluster
        version = json.loads(cluster.run("kubectl", "version", "-o", "json"))["serverVersion"]
        cluster.run("kubectl", "apply", "-f", "-", stdin=yaml.safe_dump(workloads.namespace(cluster.namespace)))
        cluster.apply([workloads.scripts(), workloads.secret(), workloads.sender_secret()])
        cluster.apply(workloads.application("shop", cluster.image))
        cluster.rolled_out(
            f"the receiver runs: the cluster can pull {cluster.image}, and its pods are restricted", "deployment/shop"
        )
        self.minor = int(str(version["minor"]).rstrip("+"))
        return f"Kubernetes {version['gitVersion']}"

    def policy_agent(self) -> str:
        """Whether NetworkPolicies are enforced decides what the attempts to bypass must find."""
        cluster = self.cluster
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "nobody"},
            "spec": {"podSelector": {"matchLabels": {"app": "shop"}}, "policyTypes": ["Ingress"]},
        }
        if not self.connects(self._pod_address("app=shop"), 3000):
            raise StepError("a pod can't reach another one even without a policy")
        cluster.apply([policy])
        self.cluster.sleep(10)
        self.enforces = not self.connects(self._pod_address("app=shop"), 3000)
        cluster.kubectl("delete", "networkpolicy", "nobody")
        self.cluster.sleep(5)
        return "NetworkPolicies are enforced" if self.enforces else "no agent enforces NetworkPolicies"

    def _pod(self, selector: str) -> Any:
        """A pod with these labels that is not ending."""
        pods = [
            each
            for each in self.cluster.get("pods", "-l", selector)["items"]
            if "deletionTimestamp" not in each["metadata"]
        ]
        if not pods:
            raise StepError(f"no pod has the labels {selector}")
        return pods[0]

    def _pod_address(self, selector: str) -> str:
        return str(self._pod(selector)["status"]["podIP"])

    def connects(self, address: str, port: int) -> bool:
        """Whether a pod of the namespace can open a connection."""
        self._loads += 1
        name = f"probe-{self._loads}"
        url = f"http://{f'[{address}]' if ':' in address else address}:{port}/"
        pod = workloads.load_pod(name, self.cluster.image, url, rate=1, seconds=1)
        (container,) = pod["spec"]["containers"]
        del container["command"]
        container["args"] = ["send", url, "--preset=github", "--secret=env:NONE", "--expect=none"]
        self.cluster.apply([pod])
        self.cluster.wait(
            f"{name} has tried to connect to port {port}", lambda: self._phase(name) in ("Succeeded", "Failed"), 90
        )
        said = self.cluster.kubectl("logs", name)
        self.cluster.kubectl("delete", "pod", name, "--wait=false")
        if "accepts" not in said:
            raise StepError(f"{name} could not try: {said}")
        return "accepts connections" in said

    def bypass(self, selector: str) -> str:
        open_port = self.connects(self._pod_address(selector), 3000)
        if open_port and self.enforces:
            raise StepError("the receiver's port is open, though policies are enforced")
        return "open, because nothing enforces policies" if open_port else "closed"

    # The chart

    def install(self, tool: str, mode: str, **more: Any) -> str:
        self.cluster.helm(
            tool,
            "upgrade",
            "--install",
            mode,
            CHART,
            "--wait",
            "--timeout",
            "4m",
            values=workloads.values(mode, self.cluster.image, **more),
        )
        return ""

    def helm_test(self, tool: str, mode: str, red: tuple[str, ...] = ()) -> str:
        """Every test runs, and those in `red` are the ones that fail."""
        self.cluster.run(
            tool, "--namespace", self.cluster.namespace, "test", mode, "--timeout", "3m", seconds=240, check=False
        )
        pods = self.cluster.get("pods", "-l", f"app.kubernetes.io/instance={mode}")["items"]
        phases = {
            each["metadata"]["name"].partition("-test-")[2]: each["status"]["phase"]
            for each in pods
            if "-test-" in each["metadata"]["name"]
        }
        wanted = {name: "Failed" if name in red else "Succeeded" for name in ("signed", "forged", "bypass")}
        if phases != wanted:
            raise StepError(f"{phases}, expected {wanted}")
        return ", ".join(f"{name} {phase}" for name, phase in phases.items())

    def gateway(self) -> str:
        self.install("helm", "gateway")
        return self.helm_test("helm", "gateway", () if self.enforces else ("bypass",))

    def _pods_of(self, selector: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.cluster.get("pods", "-l", selector)["items"]}

    @contextlib.contextmanager
    def replaced(self, workload: str, selector: str) -> Iterator[None]:
        """Waits for what the block began: new pods run, and the old ones are gone; those that are ending must lose nothing either."""
        old = self._pods_of(selector)
        yield
        self.cluster.rolled_out(f"{workload} has new pods, under load", workload)
        self.cluster.wait(
            f"the old pods of {workload} have ended, under load", lambda: not old & self._pods_of(selector), 120
        )

    def restart_under_load(self, url: str, workload: str, selector: str) -> str:
        with self.load(url) as report, self.replaced(workload, selector):
            self.cluster.kubectl("rollout", "restart", workload)
        return self.taken(report)

    def gateway_rollout(self) -> str:
        return self.restart_under_load(f"http://gateway{workloads.PATH}", "deployment/gateway", chart_pods("gateway"))

    def changed_port(self) -> str:
        with self.load(f"http://gateway{workloads.PATH}") as report:
            for changes in ({"config": {"listen": "[::]:8081"}}, {}):
                with self.replaced("deployment/gateway", chart_pods("gateway")):
                    self.install("helm", "gateway", **changes)
        return self.taken(report)

    def rotation(self) -> str:
        cluster = self.cluster
        uids = self._uids("gateway")
        with self.load(f"http://gateway{workloads.PATH}", seconds=600) as report:
            cluster.apply([workloads.secret(workloads.NEW, workloads.OLD)])
            cluster.wait(
                "every gateway has loaded the new secret (kubelets update mounted Secrets once a minute or so)",
                self._loaded(2),
                180,
            )
            cluster.apply([workloads.sender_secret(workloads.NEW)])
            cluster.wait("the senders use the new one", self._matches("current"), 180)
            cluster.apply([workloads.secret(workloads.NEW)])
            cluster.wait("every gateway has loaded the Secret without the old one", self._loaded(3), 180)
        if self._uids("gateway") != uids:
            raise StepError("pods were replaced")
        return self.taken(report)

    def _uids(self, instance: str) -> set[str]:
        pods = self.cluster.get("pods", "-l", chart_pods(instance))["items"]
        return {each["metadata"]["uid"] for each in pods if "deletionTimestamp" not in each["metadata"]}

    def _log(self, instance: str) -> dict[str, list[dict[str, Any]]]:
        """The log of every pod, by its name."""
        words = ("logs", "-l", chart_pods(instance), "-c", "webhook-sidecar", "--tail=-1", "--prefix")
        text = self.cluster.kubectl(*words, check=False)  # a pod may just have gone
        found: dict[str, list[dict[str, Any]]] = {}
        for line in text.splitlines():
            prefix, _, rest = line.partition(" {")
            found.setdefault(prefix, []).append(json.loads("{" + rest) if rest else {})
        return found

    def _loaded(self, times: int) -> Callable[[], bool]:
        def condition() -> bool:
            pods = self._log("gateway")
            return bool(pods) and all(
                sum(line.get("event") == "config_loaded" for line in lines) >= times for lines in pods.values()
            )

        return condition

    def _matches(self, secret: str) -> Callable[[], bool]:
        def condition() -> bool:
            lines = [line for each in self._log("gateway").values() for line in each if line.get("event") == "delivery"]
            return bool(lines) and lines[-1].get("secret") == secret

        return condition

    def eviction(self) -> str:
        """As `kubectl drain` does it, which respects the disruption budget."""
        cluster = self.cluster
        with self.load(f"http://gateway{workloads.PATH}") as report:
            cluster.wait(
                "the disruption budget lets a pod go",
                lambda: int(cluster.get("poddisruptionbudget", "gateway")["status"].get("disruptionsAllowed", 0)) > 0,
                60,
            )
            name = self._pod(chart_pods("gateway"))["metadata"]["name"]
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": name, "namespace": cluster.namespace},
            }
            path = f"/api/v1/namespaces/{cluster.namespace}/pods/{name}/eviction"
            cluster.run("kubectl", "create", "--raw", path, "-f", "-", stdin=json.dumps(body))
            cluster.wait("the evicted pod is gone", lambda: not cluster.exists("pod", name), 90)
            cluster.rolled_out("another one has taken its place", "deployment/gateway")
        return self.taken(report)

    def autoscaler(self) -> str:
        cluster = self.cluster
        self.install("helm", "gateway", replicaCount=3)
        self.install("helm", "gateway", autoscaling={"enabled": True, "minReplicas": 2, "maxReplicas": 5})
        say("watching for 10 s how many pods are wanted")
        fewest = 3
        for _ in range(10):
            fewest = min(fewest, int(cluster.get("deployment", "gateway")["spec"]["replicas"]))
            self.cluster.sleep(1)
        if fewest < 3:
            raise StepError(f"of three pods {fewest} were wanted for a while")
        self.install("helm", "gateway")
        return f"never fewer than {fewest} pods wanted"

    def bad_configuration(self) -> str:
        """By `helm install`, `helm upgrade`, and by hand: nothing is made of it, and the good one stays in force."""
        cluster = self.cluster
        bad = workloads.values("gateway", cluster.image)
        bad["config"] = workloads.config("http://shop", drain="soon")
        before = cluster.get("configmap", "gateway")["data"]
        with self.load(f"http://gateway{workloads.PATH}") as report:
            for tool in HELMS:
                self._refuses(tool, "upgrade", "gateway", bad)
                if cluster.get("configmap", "gateway")["data"] != before:
                    raise StepError(f"{tool} replaced the configuration though its check failed")
                self._refuses(tool, "install", "bad", bad | {"fullnameOverride": "bad"})
                if cluster.exists("deployment", "bad") or cluster.exists("configmap", "bad"):
                    raise StepError(f"{tool} installed something though its check failed")
                cluster.run(tool, "--namespace", cluster.namespace, "uninstall", "bad")
            patch = json.dumps({"data": {"config.yaml": before["config.yaml"] + "\ndrain: soon\n"}})
            cluster.kubectl("patch", "configmap", "gateway", "--type=merge", "-p", patch)
            cluster.wait("every gateway has refused it", self._refused, 180)
        cluster.kubectl("patch", "configmap", "gateway", "--type=merge", "-p", json.dumps({"data": before}))
        return self.taken(report)

    def _refuses(self, tool: str, verb: str, name: str, values: Mapping[str, Any]) -> None:
        """Helm ends because of the Job, whose log has the mistake."""
        try:
            self.cluster.helm(tool, verb, name, CHART, "--timeout", "3m", values=values)
        except StepError as error:
            say(f"{tool} {verb} refused: {str(error)[-200:]}")
        else:
            raise StepError(f"{tool} {verb} took a configuration that is not valid")
        said = self.cluster.kubectl("logs", f"job/{name}-check")
        if "drain: 'soon' is not a valid duration" not in said:
            raise StepError(f"{tool} {verb} failed for another reason; the log of its check: {said}")

    def _refused(self) -> bool:
        pods = self._log("gateway")
        return bool(pods) and all(
            any(line.get("event") == "config_reload_failed" for line in lines) for lines in pods.values()
        )

    def sidecar(self) -> str:
        self.install("helm3", "sidecar")
        return self.helm_test("helm3", "sidecar", () if self.enforces else ("bypass",))

    def sidecar_rollout(self) -> str:
        return self.restart_under_load(f"http://sidecar{workloads.PATH}", "deployment/sidecar", chart_pods("sidecar"))

    def drain_order(self) -> str:
        """The pod's log shows that the sidecar heard of the end before its receiver was gone."""
        cluster = self.cluster
        pod = self._pod(chart_pods("sidecar"))["metadata"]["name"]
        events: list[str] = []

        def gone() -> bool:
            text = cluster.kubectl("logs", pod, "-c", "webhook-sidecar", check=False)
            found = [json.loads(line).get("event") for line in text.splitlines() if line.startswith("{")]
            events[:] = [event for event in found if event != "delivery"] or events
            return not cluster.exists("pod", pod)

        with self.load(f"http://sidecar{workloads.PATH}") as report:
            cluster.kubectl("delete", "pod", pod, "--wait=false")
            cluster.wait("a deleted pod ends: preStop, the receiver, then the sidecar", gone, 90)
        if "drain_requested" not in events:
            raise StepError(f"the sidecar was not told: {events}")
        if "draining" in events and events.index("draining") < events.index("drain_requested"):
            raise StepError(f"SIGTERM came before preStop: {events}")
        return self.taken(report)

    # Inject

    def _inject(self, *options: str, remove: bool = False) -> str:
        """Manifests as `sidecar inject` writes them."""
        (folder := ROOT / ".venv/cluster-test").mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(workloads.config("http://127.0.0.1:3000")))
        manifests = yaml.safe_dump_all(self._application())
        arguments = ["-m", "sidecar", "inject"]
        if remove:
            manifests = self._inject()
            arguments.append("--remove")
        else:
            arguments += [
                "--config",
                str(folder / "config.yaml"),
                "--secret",
                workloads.SECRET,
                "--image",
                self.cluster.image,
            ]
        return self.cluster.run(sys.executable, *arguments, *options, stdin=manifests)

    def _application(self) -> list[dict[str, Any]]:
        """One whose own rollouts lose nothing."""
        return workloads.application("app", self.cluster.image, lingers=10)

    def alone(self) -> str:
        """Without this, what is lost later could be the application's own doing."""
        self.cluster.apply(self._application())
        self.cluster.rolled_out("the application runs without a sidecar", "deployment/app")
        with self.load("http://app/", signed=False) as report, self.replaced("deployment/app", "app=app"):
            self.cluster.kubectl("rollout", "restart", "deployment/app")
        return self.taken(report)

    def inject(self) -> str:
        """The application answers at every moment: first without the sidecar, then through it."""
        cluster = self.cluster
        cluster.apply(self._application())
        cluster.rolled_out("the application runs without a sidecar", "deployment/app")
        with self.load("http://app/", signed=False) as report:
            with self.replaced("deployment/app", "app=app"):
                cluster.apply(self._inject("--step", "pods"))
            cluster.apply(self._inject("--step", "traffic"))
            self.cluster.sleep(15)
            cluster.apply(self._inject())
            self.cluster.sleep(10)
        return self.taken(report)

    def inject_again(self) -> str:
        cluster = self.cluster
        before = cluster.get("deployment", "app")["metadata"]["generation"]
        cluster.apply(self._inject())
        if (after := cluster.get("deployment", "app")["metadata"]["generation"]) != before:
            raise StepError(f"a second inject changed the Deployment: generation {before}, then {after}")
        return "nothing changed"

    def injected_rollout(self) -> str:
        return self.restart_under_load(f"http://app{workloads.PATH}", "deployment/app", "app=app")

    def remove(self) -> str:
        cluster = self.cluster
        with self.load("http://app/", signed=False) as report:
            cluster.kubectl("delete", "networkpolicy", "-l", "webhook-sidecar/injected=app")
            self.cluster.sleep(10)
            cluster.apply(self._inject("--step", "traffic", remove=True))
            self.cluster.sleep(15)
            with self.replaced("deployment/app", "app=app"):
                cluster.apply(self._inject(remove=True))
            cluster.kubectl("delete", "configmap", "-l", "webhook-sidecar/injected=app")
        left = cluster.get("networkpolicies,configmaps", "-l", "webhook-sidecar/injected")["items"]
        if left:
            raise StepError(f"left behind: {[each['metadata']['name'] for each in left]}")
        return self.taken(report)

    def kustomize(self) -> str:
        """The component in its steps, and back again."""
        cluster = self.cluster
        folder = ROOT / ".venv/cluster-test/kustomize"
        application = workloads.application("kustomized", cluster.image, lingers=10)

        def build(*components: str) -> str:
            workloads.kustomization(folder, application, *components)
            return cluster.run("kubectl", "kustomize", folder)

        without = build()
        cluster.apply([workloads.secret(name="webhook-sidecar")])
        cluster.apply(without)
        cluster.rolled_out("the application runs without a sidecar", "deployment/kustomized")
        with self.load("http://kustomized/", signed=False) as report:
            with self.replaced("deployment/kustomized", "app=kustomized"):
                cluster.apply(build("pods"))
            cluster.apply(build("pods", "traffic"))
            self.cluster.sleep(15)
            cluster.apply(build("."))
            self.cluster.sleep(10)
            if self.connects(self._pod_address("app=kustomized"), 3000) and self.enforces:
                raise StepError("the receiver's port is open, though policies are enforced")
            cluster.kubectl("delete", "networkpolicy", "webhook-sidecar")
            self.cluster.sleep(10)
            cluster.apply(build("pods"))
            self.cluster.sleep(15)
            with self.replaced("deployment/kustomized", "app=kustomized"):
                cluster.apply(without)
        cluster.kubectl("delete", "configmap", "webhook-sidecar")
        return self.taken(report)

    # The admission policy

    def admission_policy(self) -> str:
        cluster = self.cluster
        apis = cluster.run("kubectl", "api-resources", "--api-group=admissionregistration.k8s.io", "-o", "name")
        served = cluster.run("kubectl", "api-versions")
        if (
            "mutatingadmissionpolicies" not in apis
            or "admissionregistration.k8s.io/v1\n" not in served
            or self.minor < 36
        ):
            raise NotApplicableError("this API server has no MutatingAdmissionPolicy of v1")
        self.install("helm", "library", admissionPolicy={"enabled": True}, commonLabels={LABEL: cluster.namespace})
        self.cluster.sleep(10)  # the API server compiles it
        application = workloads.application("policy", cluster.image, {"webhook-sidecar/inject": "enabled"})
        application[1]["spec"]["ports"][0]["targetPort"] = 8080
        cluster.apply(application)
        cluster.rolled_out("pods with the label run", "deployment/policy")
        spec = self._pod("app=policy")["spec"]
        if [each["name"] for each in spec.get("initContainers", [])] != ["webhook-sidecar"]:
            raise StepError("the pods have no sidecar")
        if spec["containers"][0].get("lifecycle", {}).get("preStop") != {"sleep": {"seconds": 10}}:
            raise StepError(f"the receiver has no preStop: {spec['containers'][0].get('lifecycle')}")
        return "pods with the label get the sidecar, and their receiver a preStop"

    def policy_rollout(self) -> str:
        if not self.cluster.exists("deployment", "policy"):
            raise NotApplicableError("no pods under an admission policy")
        return self.restart_under_load(f"http://policy{workloads.PATH}", "deployment/policy", "app=policy")

    def deleted_under_policy(self) -> str:
        cluster = self.cluster
        if not cluster.exists("deployment", "policy"):
            raise NotApplicableError("no pods under an admission policy")
        with self.load(f"http://policy{workloads.PATH}") as report:
            name = self._pod("app=policy")["metadata"]["name"]
            cluster.kubectl("delete", "pod", name, "--wait=false")
            cluster.wait("one pod of two is gone", lambda: not cluster.exists("pod", name), 90)
        return self.taken(report)

    # Every file of helm/ci

    def example(self, tool: str, file: Path) -> str:
        """Installs, upgrades, rolls back and uninstalls the values of a file; its images can't be pulled, so nothing waits for pods."""
        cluster = self.cluster
        values: dict[str, Any] = yaml.safe_load(file.read_text())
        name = f"ci-{tool}"
        for secret in values.get("existingSecrets", []):
            made = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": secret, "labels": {"cluster-test": "ci"}},
            }
            cluster.apply([made])
        known = cluster.run("kubectl", "api-resources", "-o", "name")
        gateways = values.get("authorizer", {})
        for holder, value, resources in (
            (values, "serviceMonitor", ["servicemonitors.monitoring"]),
            (values, "podMonitor", ["podmonitors.monitoring"]),
            (values, "prometheusRule", ["prometheusrules.monitoring"]),
            (values, "httpRoute", ["httproutes.gateway"]),
            (gateways, "envoyGateway", ["securitypolicies.gateway.envoyproxy", "referencegrants.gateway"]),
            (gateways, "istio", ["authorizationpolicies.security.istio"]),
            (gateways, "traefik", ["middlewares.traefik.io"]),
        ):
            if holder.get(value, {}).get("enabled") and not all(each in known for each in resources):
                holder[value] = {"enabled": False}
            elif "namespace" in holder.get(value, {}):  # everything is made in the namespace of the test
                holder[value]["namespace"] = ""
        own = workloads.values("gateway", cluster.image)["image"]
        values |= {
            "image": own | {"pullPolicy": "IfNotPresent"},
            "fullnameOverride": name,
            "nodeSelector": {},
            "priorityClassName": "",
        }
        values.get("service", {}).pop("nodePort", None)
        cluster.helm(tool, "install", name, CHART, "--timeout", "3m", values=values)
        cluster.helm(tool, "upgrade", name, CHART, "--timeout", "3m", values=values | {"podLabels": {"again": "yes"}})
        cluster.run(tool, "--namespace", cluster.namespace, "rollback", name, "1", "--timeout", "3m", seconds=200)
        # A cloud may take minutes to give a load balancer back.
        cluster.run(tool, "--namespace", cluster.namespace, "uninstall", name, "--wait", "--timeout", "4m", seconds=270)
        cluster.kubectl("delete", "secret", "-l", "cluster-test=ci")
        return ""
