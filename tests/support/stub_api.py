"""A read-only Kubernetes API server: enough for Helm's `lookup` and for `kubectl get`.

It serves given objects over plain HTTP on loopback, and records the requests. It changes nothing.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
#: The kinds of each API group and version.
RESOURCES = {
    "v1": ["ConfigMap", "Namespace", "Pod", "Secret", "Service", "ServiceAccount"],
    "apps/v1": ["Deployment"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "batch/v1": ["Job"],
    "networking.k8s.io/v1": ["Ingress", "NetworkPolicy"],
    "policy/v1": ["PodDisruptionBudget"],
}


def plural(kind: str) -> str:
    if kind.endswith("y"):
        return kind.lower().removesuffix("y") + "ies"
    return kind.lower() + ("es" if kind.endswith("s") else "s")


class JsonHandler(BaseHTTPRequestHandler):
    """Responds with JSON, and logs nothing."""

    def respond(self, code: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serve_api(handler: type[JsonHandler], folder: Path) -> Iterator[Path]:
    """The path of a KUBECONFIG for an API server that handles requests like this."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kubeconfig(folder, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def stub_api(objects: Sequence[dict[str, Any]], folder: Path, version: str = "1.36.0") -> Iterator[Path]:
    """The path of a KUBECONFIG for it."""

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            found = answer(self.path.partition("?")[0].rstrip("/"), objects, version)
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            self.respond(200 if found is not None else 404, found if found is not None else missing)

    with serve_api(Handler, folder) as config:
        yield config


def kubeconfig(folder: Path, port: int) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stub",
        "clusters": [{"name": "stub", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
        "users": [{"name": "stub", "user": {}}],
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


def answer(
    path: str, objects: Sequence[dict[str, Any]], version: str, known: Mapping[str, Sequence[str]] = RESOURCES
) -> dict[str, Any] | None:
    """The object or list at a path; None if there is none."""
    if path == "/version":
        major, minor, _ = version.split(".")
        return {"major": major, "minor": minor, "gitVersion": f"v{version}"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        versions: dict[str, list[dict[str, str]]] = {}
        for api in known:
            group, _, number = api.rpartition("/")
            if group:
                versions.setdefault(group, []).append({"groupVersion": api, "version": number})
        groups = [{"name": group, "versions": each, "preferredVersion": each[0]} for group, each in versions.items()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    for api, kinds in known.items():
        root = f"/apis/{api}" if "/" in api else f"/api/{api}"
        if path == root:
            resources = [
                {"name": plural(kind), "kind": kind, "namespaced": kind != "Namespace", "verbs": VERBS}
                for kind in kinds
            ]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": resources}
        for each in objects:
            metadata = each["metadata"]
            place = f"{root}/namespaces/{metadata['namespace']}/{plural(each['kind'])}/{metadata['name']}"
            if each["kind"] in kinds and each["apiVersion"] == api and path == place:
                return each
    return None
