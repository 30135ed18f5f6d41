"""What the cluster test puts into its namespace: a receiver, senders, Secrets, values for the chart."""

import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import yaml

SCRIPTS = Path(__file__).parent / "scripts"
PYTHON = "/opt/sidecar/bin/python"
OLD, NEW = "old-secret-of-the-cluster-test", "new-secret-of-the-cluster-test"
SECRET = "cluster-test-secret"
PATH = "/webhooks/github"
KUSTOMIZE = Path(__file__).parents[2] / "kustomize/sidecar"
INJECT = {"webhook-sidecar/inject": "enabled"}

#: The restricted Pod Security Standard, which the namespace enforces.
POD_SECURITY = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
RESOURCES = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}

Object = dict[str, Any]


def namespace(name: str) -> Object:
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def secret(current: str = OLD, previous: str | None = None, name: str = SECRET) -> Object:
    return _secret(name, {"current": current} | ({"previous": previous} if previous else {}))


def sender_secret(value: str = OLD) -> Object:
    """The senders' own copy: a provider is told of a new secret at another moment."""
    return _secret("sender", {"secret": value})


def _secret(name: str, content: dict[str, str]) -> Object:
    """By `data`: a key that `kubectl apply` takes out of `stringData` stays in the cluster."""
    data = {key: b64encode(value.encode()).decode() for key, value in content.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def scripts() -> Object:
    data = {file.name: file.read_text() for file in sorted(SCRIPTS.glob("*.py"))}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "scripts"}, "data": data}


def _pod(name: str, image: str, command: list[str], **more: Any) -> Object:
    """A pod's spec whose container runs a script with the image's own Python."""
    container = {
        "name": name,
        "image": image,
        "command": [PYTHON, *command],
        "resources": RESOURCES,
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "scripts", "mountPath": "/scripts"}, *more.pop("mounts", [])],
    } | more.pop("container", {})
    volumes = [{"name": "scripts", "configMap": {"name": "scripts"}}, *more.pop("volumes", [])]
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": volumes,
    }
    return spec | more


def application(
    name: str, image: str, labels: dict[str, str] | None = None, *, lingers: int = 0, replicas: int = 2
) -> list[Object]:
    """A receiver that knows nothing of the sidecar, and its Service.

    `lingers`: seconds that it still answers after SIGTERM, each time closing the connection. An application that its clients reach without a
    sidecar needs that, or its own rollouts refuse connections.
    """
    container = {
        "ports": [{"name": "http", "containerPort": 3000}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
    } | ({"env": [{"name": "LINGERS", "value": str(lingers)}]} if lingers else {})
    spec = _pod("receiver", image, ["/scripts/receiver.py"], container=container)
    template = {"metadata": {"labels": {"app": name} | (labels or {})}, "spec": spec}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "minReadySeconds": 3,
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": name}},
            "template": template,
        },
    }
    service = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    return [deployment, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service}]


def load_pod(name: str, image: str, url: str, *, rate: int, seconds: int, signed: bool = True) -> Object:
    """Sends to a URL until /tmp/stop exists, and prints what came of it."""
    command = ["/scripts/load.py", url, str(rate), str(seconds), "/tmp/stop", *(["/sender/secret"] if signed else [])]
    spec = _pod(
        "load",
        image,
        command,
        mounts=[{"name": "tmp", "mountPath": "/tmp"}, {"name": "sender", "mountPath": "/sender"}],
        volumes=[{"name": "tmp", "emptyDir": {}}, {"name": "sender", "secret": {"secretName": "sender"}}],
        restartPolicy="Never",
        activeDeadlineSeconds=seconds + 120,
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"cluster-test": "load"}},
        "spec": spec,
    }


def kustomization(
    folder: Path, objects: list[Object], *components: str, pre_stop: int = 10, **config_more: Any
) -> None:
    """Writes a kustomization of an application, as kustomize/example is one. It needs a Secret `webhook-sidecar`."""
    deployment, service = ({**each, "metadata": each["metadata"] | {"labels": INJECT}} for each in objects)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": pre_stop}}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.yaml").write_text(yaml.safe_dump_all([deployment, service]))
    content = config("http://127.0.0.1:3000", secret_name="webhook-sidecar", **config_more)
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    repository, at, digest = container["image"].partition("@")
    name, _, tag = repository.rpartition(":")
    image = {"newName": repository, "digest": digest} if at else {"newName": name, "newTag": tag}
    generator = {"name": "webhook-sidecar", "files": ["config.yaml"], "options": {"disableNameSuffixHash": True}}
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["app.yaml"],
        "components": [os.path.relpath(KUSTOMIZE / each, folder.resolve()) for each in components],
        "configMapGenerator": [generator] if components else [],
        "images": [{"name": "webhook-sidecar"} | image],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))


def config(upstream: str | None, *, secret_name: str = SECRET, **more: Any) -> dict[str, Any]:
    secrets = [
        {"id": "current", "file": f"/run/secrets/{secret_name}/current"},
        {"id": "previous", "file": f"/run/secrets/{secret_name}/previous", "optional": True},
    ]
    routes = [
        {"name": "github", "path": PATH, "verify": "github", "secrets": secrets},
        {"path": "/", "open": True, "methods": ["GET"]},
    ]
    return ({"upstream": upstream} if upstream else {}) | {"routes": routes} | more


def values(mode: str, image: str, **more: Any) -> dict[str, Any]:
    """Values of the chart; `config` in `more` is added to the configuration."""
    repository, at, digest = image.partition("@")
    name, _, tag = repository.rpartition(":")
    changes = more.pop("config", {})
    made: dict[str, Any] = {
        "mode": mode,
        "fullnameOverride": more.pop("name", mode),
        "image": {"repository": repository, "digest": digest} if at else {"repository": name, "tag": tag},
        "existingSecrets": [SECRET],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
    }
    if mode == "gateway":
        made["config"] = config("http://shop", **changes)
        made["receiver"] = {"podSelector": {"app": "shop"}, "ports": [3000]}
    elif mode == "sidecar":
        made["config"] = config(None, **changes)
        spec = _pod("receiver", image, ["/scripts/receiver.py"])
        (container,) = spec["containers"]
        made["receiver"] = {
            "image": image,
            "command": container["command"],
            "volumeMounts": container["volumeMounts"],
            # Without it a new pod gets deliveries before its receiver listens.
            "readinessProbe": {"httpGet": {"path": "/", "port": 3000}, "periodSeconds": 1},
            "resources": RESOURCES,
            "securityContext": CONTAINER_SECURITY
            | {"runAsUser": 65532, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        }
        made["extraVolumes"] = spec["volumes"]
    else:
        made["config"] = config("http://127.0.0.1:3000", **changes)
    return made | more
