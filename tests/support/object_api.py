"""A Kubernetes API server that stores objects: enough for `kubectl apply`, and for Helm to install, upgrade, roll back and
uninstall a chart.

It checks no schema, runs no controller and admits everything. A Job is complete at once, or failed if its ConfigMap holds
`drain: soon`. `writes` has every change: the method, the kind and the name.
"""

import threading
import uuid
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import yaml
from stub_api import RESOURCES, JsonHandler, answer, plural, serve_api

#: Kinds that the chart makes besides Kubernetes' own.
CUSTOM = {
    "gateway.envoyproxy.io/v1alpha1": ["SecurityPolicy"],
    "gateway.networking.k8s.io/v1": ["HTTPRoute"],
    "gateway.networking.k8s.io/v1beta1": ["ReferenceGrant"],
    "monitoring.coreos.com/v1": ["PodMonitor", "PrometheusRule", "ServiceMonitor"],
    "security.istio.io/v1": ["AuthorizationPolicy"],
    "traefik.io/v1alpha1": ["Middleware"],
}
KINDS = RESOURCES | CUSTOM


class Write(NamedTuple):
    method: str
    kind: str
    name: str


class ObjectApi:
    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}  #: by their paths
        self.writes: list[Write] = []
        self.lock = threading.Lock()

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        found = [each for each in self.objects.values() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
        return found[0] if found else None

    def change(self, method: str, path: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """A POST to a collection; a PUT, a PATCH or a DELETE of an object."""
        with self.lock:
            if method == "POST":
                path = f"{path}/{given['metadata']['name']}"
                if path in self.objects:
                    return 409, status("AlreadyExists", 409)
            old = self.objects.get(path)
            if method == "DELETE":
                if old is None:
                    return 404, status("NotFound", 404)
                del self.objects[path]
                self.writes.append(Write(method, old["kind"], old["metadata"]["name"]))
                return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
            new = merged(old or {}, given) if method == "PATCH" else given
            new["metadata"] = (old or {}).get("metadata", {"uid": str(uuid.uuid4())}) | new["metadata"]
            new["metadata"]["resourceVersion"] = str(len(self.writes) + 1)
            if new["kind"] == "Job":
                new["status"] = self.end_of(new)
            self.objects[path] = new
            self.writes.append(Write("POST" if old is None else method, new["kind"], new["metadata"]["name"]))
            return 200 if old else 201, new

    def end_of(self, job: dict[str, Any]) -> dict[str, Any]:
        (volume,) = job["spec"]["template"]["spec"]["volumes"]
        config = self.get("ConfigMap", volume["configMap"]["name"])
        assert config is not None, "the Job's ConfigMap is not there"
        fails = "drain: soon" in config["data"]["config.yaml"]
        condition = {"type": "Failed" if fails else "Complete", "status": "True", "reason": "BackoffLimitExceeded"}
        return {"conditions": [condition], "failed" if fails else "succeeded": 1}

    def listed(self, path: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        wanted = dict(pair.split("=", 1) for pair in ",".join(query.get("labelSelector", [])).split(",") if "=" in pair)
        name = "".join(query.get("fieldSelector", [])).removeprefix("metadata.name=")
        with self.lock:
            return [
                each
                for at, each in self.objects.items()
                if at.rpartition("/")[0] == path
                and wanted.items() <= each["metadata"].get("labels", {}).items()
                and name in ("", each["metadata"]["name"])
            ]


def status(reason: str, code: int) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}


def merged(old: Any, new: Any) -> Any:
    """A strategic merge patch: lists of objects with a key are merged by that key, everything else by RFC 7396."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    result = dict(old)
    for key, value in new.items():
        if key.startswith(("$setElementOrder/", "$retainKeys")):
            continue
        if value is None:
            result.pop(key, None)
        elif isinstance(value, list) and (name := _key_of(key, value)) is not None:
            result[key] = _merged_lists(result.get(key) or [], value, name)
        else:
            result[key] = merged(result.get(key), value)
    return result


#: Lists of Kubernetes' own kinds that are merged, and the keys of their objects: `patchMergeKey` in k8s.io/api.
MERGED = {
    "containers": ("name",),
    "env": ("name",),
    "initContainers": ("name",),
    "ports": ("containerPort", "port"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}


def _key_of(name: str, items: list[Any]) -> str | None:
    return next((key for key in MERGED.get(name, ()) if all(key in each for each in items)), None)


def _merged_lists(old: list[Any], new: list[Any], name: str) -> list[Any]:
    result = {each[name]: each for each in old}
    for each in new:
        if each.get("$patch") == "delete":
            result.pop(each[name], None)
        else:
            result[each[name]] = merged(result.get(each[name], {}), each)
    return list(result.values())


def openapi(path: str) -> dict[str, Any] | None:
    """The minimum that clients request before they leave validation to the server."""
    places = {f"{'apis' if '/' in version else 'api'}/{version}": version for version in KINDS}
    if path == "/openapi/v3":
        return {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{place}"} for place in places}}
    place = path.removeprefix("/openapi/v3/")
    if place not in places:
        return None
    group, _, version = places[place].rpartition("/")
    parameters = [{"name": "fieldValidation", "in": "query"}, {"name": "dryRun", "in": "query"}]
    paths = {}
    for kind in KINDS[places[place]]:
        identity = {"group": group, "version": version, "kind": kind}
        patch = {"parameters": parameters, "responses": {}, "x-kubernetes-group-version-kind": identity}
        paths[f"/{place}/namespaces/{{namespace}}/{plural(kind)}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "1.36.0"}, "paths": paths}


#: The start of a body in Kubernetes' protobuf form. Helm writes its own Secrets in it, and options of deletions.
PROTOBUF = b"k8s\0"


def read_secret(content: bytes) -> dict[str, Any]:
    """A Secret of a release. Numbers of fields: generated.proto of k8s.io/api/core/v1 and apimachinery's runtime and meta/v1."""
    secret = _fields(_fields(content[len(PROTOBUF) :]).get(2, [b""])[0])
    metadata = _fields(secret.get(1, [b""])[0])
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": metadata.get(1, [b""])[0].decode(), "labels": _map(metadata.get(11, []))},
        "data": {key: b64encode(value.encode()).decode() for key, value in _map(secret.get(2, [])).items()},
        "type": secret.get(3, [b""])[0].decode(),
    }


def _map(entries: list[bytes]) -> dict[str, str]:
    pairs = [_fields(each) for each in entries]
    return {pair[1][0].decode(): pair[2][0].decode() for pair in pairs}


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """The fields of a protobuf message that have a length, by their numbers."""
    found: dict[int, list[bytes]] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, form = divmod(varint(), 8)
        if form == 0:
            varint()
            continue
        assert form == 2, form
        length = varint()
        found.setdefault(number, []).append(message[at : at + length])
        at += length
    return found


@contextmanager
def object_api(folder: Path) -> Iterator[tuple[ObjectApi, Path]]:
    """The API and a KUBECONFIG for it."""
    api = ObjectApi()

    class Handler(JsonHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            parts = urlsplit(self.path)
            path, query = parts.path.rstrip("/"), parse_qs(parts.query)
            if "sendInitialEvents" in query:
                self.respond(422, status("Invalid", 422))
            elif "watch" in query:
                self.close_connection = True
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                threading.Event().wait(0.1)  # nothing changes without a request
            elif (found := api.objects.get(path) or openapi(path) or answer(path, [], "1.36.0", KINDS)) is not None:
                self.respond(200, found)
            elif path.rpartition("/")[2] in COLLECTIONS:
                version, kind = COLLECTIONS[path.rpartition("/")[2]]
                items = api.listed(path, query)
                self.respond(
                    200,
                    {
                        "kind": f"{kind}List",
                        "apiVersion": version,
                        "metadata": {"resourceVersion": "1"},
                        "items": items,
                    },
                )
            else:
                self.respond(404, status("NotFound", 404))

        def change(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            given = read_secret(content) if content.startswith(PROTOBUF) else yaml.safe_load(content) if content else {}
            self.respond(*api.change(self.command, urlsplit(self.path).path, given))

        do_POST = do_PUT = do_PATCH = do_DELETE = change  # noqa: N815 - as above

    with serve_api(Handler, folder) as config:
        yield api, config


COLLECTIONS = {plural(kind): (version, kind) for version, kinds in KINDS.items() for kind in kinds}
