"""Stands in for kubectl and Helm where there is no cluster: a run of every step that shows slips in its flow, and nothing of Kubernetes.

Run as `kubectl`, `helm` or `helm3`, which import this so that it is compiled once. What was applied is kept in the folder
$PRETEND, with a log of the commands. Pods are Running at once, those that probe or load end when they should. $PRETEND/lost makes
each load report one lost delivery. A command that it does not know fails.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

STATE = Path(os.environ["PRETEND"])


def load_state() -> dict[str, Any]:
    file = STATE / "objects.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def save_state(state: dict[str, Any]) -> None:
    (STATE / "objects.json").write_text(json.dumps(state))


def pod_of(name: str, labels: dict[str, str], spec: dict[str, Any], phase: str = "Running") -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "uid": name},
        "spec": spec,
        "status": {"phase": phase, "podIP": "10.0.0.1"},
    }


def apply(text: str) -> None:
    import yaml  # noqa: PLC0415 - most commands need none

    state = load_state()
    for each in yaml.safe_load_all(text):
        if each:
            key = f"{each['kind'].lower()}/{each['metadata']['name']}"
            old = state.get(key, {})
            generation = old.get("metadata", {}).get("generation", 0) + (old.get("spec") != each.get("spec"))
            each["metadata"]["generation"] = generation
            if each["kind"] == "Pod":
                each["status"] = {
                    "phase": "Running" if "load" in each["metadata"]["name"] else "Succeeded",
                    "podIP": "10.0.0.1",
                }
            state[key] = each
            if each["kind"] == "Deployment" and old.get("spec") != each["spec"]:
                template = each["spec"]["template"]
                pod = json.loads(json.dumps(template["spec"]))
                if template["metadata"]["labels"].get("webhook-sidecar/inject") == "enabled":
                    pod["initContainers"] = [{"name": "webhook-sidecar"}]
                    pod["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 10}}}
                make_pods(state, each["metadata"]["name"], template["metadata"]["labels"], pod)
    save_state(state)


def make_pods(state: dict[str, Any], name: str, labels: dict[str, str], spec: dict[str, Any]) -> None:
    """Two new pods, in the place of the old ones."""
    old = [key for key in state if key.startswith(f"pod/{name}-") and "-test-" not in key]
    generation = int(old[0].split("-")[-2]) + 1 if old else 1
    for key in old:
        del state[key]
    for number in range(2):
        pod = f"{name}-{generation}-{number}"
        state[f"pod/{pod}"] = pod_of(pod, labels, spec)


def release(name: str, values: dict[str, Any]) -> int:
    if str(values.get("config", {}).get("drain")) == "soon":
        print("hooks failed", file=sys.stderr)
        return 1
    state = load_state()
    labels = {
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/name": "webhook-sidecar",
        "app.kubernetes.io/component": name,
    }
    state[f"configmap/{name}"] = {
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"config.yaml": "routes: []"},
    }
    running = state.get(f"deployment/{name}", {}).get("spec", {}).get("replicas", 2)
    replicas = running if values.get("autoscaling") else values.get("replicaCount", 2)
    state[f"deployment/{name}"] = {"kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": replicas}}
    budget = {"kind": "PodDisruptionBudget", "metadata": {"name": name}, "status": {"disruptionsAllowed": 1}}
    state[f"poddisruptionbudget/{name}"] = budget
    make_pods(state, name, labels, {})
    save_state(state)
    return 0


def helm(words: list[str]) -> int:
    import yaml  # noqa: PLC0415

    values = yaml.safe_load(sys.stdin.read()) if "--values" in words else {}
    words = words[2:] if words[0] == "--namespace" else words
    if words[0] == "test":
        state = load_state()
        for test in ("signed", "forged", "bypass"):
            phase = "Failed" if test == "bypass" and not (STATE / "enforces").exists() else "Succeeded"
            labels = {"app.kubernetes.io/instance": words[1]}
            state[f"pod/{words[1]}-test-{test}"] = pod_of(f"{words[1]}-test-{test}", labels, {}, phase)
        save_state(state)
        return 0
    if words[0] in ("upgrade", "install"):
        return release(next(word for word in words[1:] if not word.startswith("-")), values)
    return 0 if words[0] in ("rollback", "uninstall") else 1


def found(words: list[str], state: dict[str, Any]) -> list[dict[str, Any]]:
    kinds, *names = [word for word in words if not word.startswith("-")]
    selector = words[words.index("-l") + 1] if "-l" in words else ""
    names = [name for name in names if name not in (selector, "json", "name")]
    wanted = {key: value for key, _, value in (pair.partition("=") for pair in selector.split(",") if pair)}
    result = []
    for key, each in state.items():
        kind, _, name = key.partition("/")
        labels = each["metadata"].get("labels", {})
        fits = all(label in labels and value in ("", labels[label]) for label, value in wanted.items())
        if (
            kind in {word.rstrip("s").replace("networkpolicie", "networkpolicy") for word in kinds.split(",")}
            and fits
            and (not names or name in names)
        ):
            result.append(each)
    return result


def kubectl(words: list[str]) -> int:  # noqa: PLR0912 - a branch for each verb
    words = words[2:] if words[0] == "-n" else words
    verb, *rest = words
    state = load_state()
    if verb == "apply":
        apply(sys.stdin.read())
    elif verb == "version":
        print(json.dumps({"serverVersion": {"gitVersion": "v1.36.0", "minor": "36"}}))
    elif verb == "api-resources":
        print("mutatingadmissionpolicies.admissionregistration.k8s.io")
    elif verb == "api-versions":
        print("admissionregistration.k8s.io/v1\nv1")
    elif verb == "get":
        several = found(rest, state)
        if "name" in rest:
            print("\n".join(each["metadata"]["name"] for each in several))
        elif "-l" in rest:
            print(json.dumps({"items": several}))
        elif not several:
            print("not found", file=sys.stderr)
            return 1
        else:
            print(json.dumps(several[0]))
    elif verb == "delete":
        for each in found([word for word in rest if not word.startswith("--")], state):
            state.pop(f"{each['kind'].lower()}/{each['metadata']['name']}")
        save_state(state)
    elif verb == "exec":
        state[f"pod/{rest[0]}"]["status"]["phase"] = "Succeeded"
        save_state(state)
    elif verb == "logs":
        logs(rest, state)
    elif verb == "create":  # an eviction
        state.pop(f"pod/{json.loads(sys.stdin.read())['metadata']['name']}")
        save_state(state)
    elif verb == "kustomize":
        print(kustomized(Path(rest[0])))
    elif verb == "rollout":
        if rest[0] == "restart":
            name = rest[1].partition("/")[2]
            pods = [each for key, each in state.items() if key.startswith(f"pod/{name}-") and "-test-" not in key]
            make_pods(state, name, pods[0]["metadata"]["labels"], pods[0]["spec"])
            save_state(state)
    else:
        return 0 if verb == "patch" else 1
    return 0


def kustomized(folder: Path) -> str:
    """The application, whose pods tell which components they have."""
    import yaml  # noqa: PLC0415

    made = list(yaml.safe_load_all((folder / "app.yaml").read_text()))
    components = yaml.safe_load((folder / "kustomization.yaml").read_text())["components"]
    made[0]["spec"]["template"]["spec"]["pretended"] = [each for each in components if not each.endswith("traffic")]
    if components and not components[0].endswith("pods"):
        made.append({"kind": "NetworkPolicy", "metadata": {"name": "webhook-sidecar"}, "spec": {}})
        made[0]["spec"]["template"]["spec"]["pretended"] = [f"{components[0]}/pods"]
    return str(yaml.safe_dump_all(made))


def logs(words: list[str], state: dict[str, Any]) -> None:
    if words[0].startswith("load"):
        lost = {"RemoteDisconnected": 1} if (STATE / "lost").exists() else {}
        print(json.dumps({"sent": 1000, "outcomes": {"200": 1000} | lost, "first_after_seconds": {}}))
    elif words[0].startswith("job/"):
        print("drain: 'soon' is not a valid duration")
    elif words[0].startswith("probe"):
        closed = (STATE / "enforces").exists() and any(key.startswith("networkpolicy/") for key in state)
        print(f"http://10.0.0.1:3000/ accepts {'no connection' if closed else 'connections'}")
    else:
        events = ["config_loaded", "config_loaded", "config_loaded", "config_reload_failed", "drain_requested"]
        lines = [json.dumps({"event": event}) for event in events]
        lines.append(json.dumps({"event": "delivery", "secret": "current"}))
        prefix = "[pod/gateway-1-0/webhook-sidecar] " if "--prefix" in words else ""
        print("\n".join(prefix + line for line in lines))


def main() -> int:
    program = Path(sys.argv[0]).name
    with (STATE / "log").open("a") as log:
        log.write(json.dumps([program, *sys.argv[1:]]) + "\n")
    return kubectl(sys.argv[1:]) if program == "kubectl" else helm(sys.argv[1:])
