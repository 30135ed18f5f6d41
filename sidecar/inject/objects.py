"""The objects that `inject` adds: the container, its volumes, the ConfigMap, the NetworkPolicy. Plain values, no I/O."""

from collections.abc import Sequence
from typing import Any

CONTAINER = "webhook-sidecar"
#: The program in the image.
PROGRAM = "/opt/sidecar/bin/sidecar"
#: The label of objects that are added, with the name of their workload.
MARKER = "webhook-sidecar/injected"
CONFIG_VOLUME = "webhook-sidecar-config"
#: The prefix of the names of the Secrets' volumes.
SECRET_VOLUME = "webhook-sidecar-secret-"  # noqa: S105 - a name
CONFIG_DIRECTORY = "/etc/sidecar"
#: The key of the ConfigMap, and so the name of the file.
CONFIG_KEY = "config.yaml"
#: Each Secret is mounted below it, never at it: the service account's mount point /run/secrets/kubernetes.io could not be
#: created in a read-only volume.
SECRETS_DIRECTORY = "/run/secrets"


def container(*, image: str, listen: int, admin: int, secrets: Sequence[str]) -> dict[str, Any]:
    """The sidecar's container. Ports are given by number: before Kubernetes 1.32 names don't resolve in native sidecars."""

    def probe(path: str, period: int, failures: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": admin}, "periodSeconds": period, "failureThreshold": failures}

    return {
        "name": CONTAINER,
        "image": image,
        "restartPolicy": "Always",  # in initContainers: starts before the receiver and stops after it
        "args": ["serve"],
        "ports": [
            {"name": "hooks", "containerPort": listen, "protocol": "TCP"},
            {"name": "hooks-admin", "containerPort": admin, "protocol": "TCP"},
        ],
        # SIGTERM comes after the receiver has ended; this announces the end of the pod before that.
        "lifecycle": {"preStop": {"exec": {"command": [PROGRAM, "drain"]}}},
        "startupProbe": probe("/readyz", 1, 60),
        "readinessProbe": probe("/readyz", 5, 2),
        "livenessProbe": probe("/livez", 10, 3) | {"timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsGroup": 65532,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": CONFIG_VOLUME, "mountPath": CONFIG_DIRECTORY, "readOnly": True},
            *(
                {"name": secret_volume(name), "mountPath": f"{SECRETS_DIRECTORY}/{name}", "readOnly": True}
                for name in secrets
            ),
        ],
    }


def secret_volume(secret: str) -> str:
    """A volume's name is a label of at most 63 characters; a Secret's name may be longer and contain dots."""
    return f"{SECRET_VOLUME}{secret.replace('.', '-')}"[:63].rstrip("-")


def volumes(config_map: str, secrets: Sequence[str]) -> list[dict[str, Any]]:
    """Whole directories, because files mounted by subPath are never updated."""
    return [
        {"name": CONFIG_VOLUME, "configMap": {"name": config_map}},
        *({"name": secret_volume(name), "secret": {"secretName": name}} for name in secrets),
    ]


def marker(workload: str) -> dict[str, str]:
    """The label of all objects that are added for a workload, to select them: kubectl delete -l."""
    return {MARKER: workload[:63].rstrip("-.")}


def config_map(metadata: dict[str, Any], config: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {CONFIG_KEY: config}}


def network_policy(
    metadata: dict[str, Any],
    labels: dict[str, str],
    *,
    listen: int,
    admin: int,
    senders: Sequence[dict[str, Any]],
    observers: Sequence[dict[str, Any]],
    kept: Sequence[int],
) -> dict[str, Any]:
    """Lets senders reach the data port, observers the admin port, and anyone the ports that are kept open.

    The receiver's own port is not among them. Policies don't apply to the pod's node, so the kubelet's probes work.
    """

    def rule(peers: Sequence[dict[str, Any]], ports: Sequence[int]) -> dict[str, Any]:
        return ({"from": list(peers)} if peers else {}) | {
            "ports": [{"protocol": "TCP", "port": port} for port in ports]
        }

    rules = [rule(senders, [listen]), rule(observers, [admin])]
    if kept:
        rules.append(rule((), kept))
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": rules},
    }
