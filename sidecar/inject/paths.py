"""Which paths an Ingress or HTTPRoute sends to an injected Service, and which of them have no route and get 404.

Rules that rewrite paths are left out, because their results can't be read from the manifests.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sidecar.config.settings import Config
from sidecar.inject.workload import KubernetesObject, same_namespace
from sidecar.routing.routes import Route

#: Annotations with this word make a controller rewrite paths, for example nginx.ingress.kubernetes.io/rewrite-target.
_REWRITES = "rewrite"
MAX_SHOWN = 5


class _Rule(NamedTuple):
    path: str
    prefix: bool
    exact_form: bool  #: False for a regular expression, or another form that only the controller understands


def unrouted_paths(
    everything: Sequence[KubernetesObject],
    service: KubernetesObject,
    ports: Sequence[Mapping[str, Any]],
    config: Config | None,
) -> Iterator[str]:
    """Sentences about paths that lead to one of these ports of the Service and to no route. `config`: None if it is not known."""
    for each in everything:
        if each.kind in ("Ingress", "HTTPRoute"):
            rules = _of_ingress if each.kind == "Ingress" else _of_http_route
            for rule in dict.fromkeys(rules(each, service, ports)):
                if sentence := _judge(rule, config):
                    yield f"{each} leads {rule.path}{' and all below it' if rule.prefix else ''} to {service}, {sentence}"


def _judge(rule: _Rule, config: Config | None) -> str:
    """What happens to such a path; empty if every one has a route."""
    if config is None:
        return "so the configuration needs a route for that; other paths get 404"
    if not rule.exact_form:
        return "by a pattern; paths without a route get 404"
    routes = config.routes.routes
    if not rule.prefix:
        taken = config.routes.look_up(rule.path.encode()) is not None
        return "" if taken else "but no route has this path, so it gets 404"
    below = rule.path.rstrip("/").encode() + b"/"
    if any(route.prefix and below.startswith(route.path) for route in routes):
        return ""
    found = [route for route in routes if route.path.startswith(below) or route.path == below[:-1]]
    return f"but {_name(found)} there, so everything else gets 404"


def _name(routes: Sequence[Route]) -> str:
    if not routes:
        return "no route is"
    shown = ", ".join(route.pattern for route in routes[:MAX_SHOWN]) + (", ..." if len(routes) > MAX_SHOWN else "")
    return f"only {shown} {'is' if len(routes) == 1 else 'are'}"


def _of_ingress(
    found: KubernetesObject, service: KubernetesObject, ports: Sequence[Mapping[str, Any]]
) -> Iterator[_Rule]:
    annotations = found.value("metadata", "annotations")
    if isinstance(annotations, dict) and any(_REWRITES in key for key in annotations):
        return
    spec = _mapping(found.value("spec"))
    if not same_namespace(found.namespace, service.namespace):
        return
    if _is_backend(_mapping(_mapping(spec.get("defaultBackend")).get("service")), service, ports):
        yield _Rule("/", True, True)
    for rule in _list(spec.get("rules")):
        for path in _list(_mapping(_mapping(rule).get("http")).get("paths")):
            if _is_backend(_mapping(_mapping(_mapping(path).get("backend")).get("service")), service, ports):
                kind = path.get("pathType")
                yield _Rule(str(path.get("path") or "/"), kind != "Exact", kind in ("Exact", "Prefix"))


def _is_backend(backend: Mapping[str, Any], service: KubernetesObject, ports: Sequence[Mapping[str, Any]]) -> bool:
    port = _mapping(backend.get("port"))
    return backend.get("name") == service.name and any(
        port.get("number") == each.get("port") or (port.get("name") and port["name"] == each.get("name"))
        for each in ports
    )


def _of_http_route(
    found: KubernetesObject, service: KubernetesObject, ports: Sequence[Mapping[str, Any]]
) -> Iterator[_Rule]:
    for rule in _list(_mapping(found.value("spec")).get("rules")):
        backends = _list(_mapping(rule).get("backendRefs"))
        if any(_mapping(each).get("type") == "URLRewrite" for each in _list(_mapping(rule).get("filters"))):
            continue
        if not any(_is_reference(_mapping(each), found, service, ports) for each in backends):
            continue
        for match in _list(rule.get("matches")) or [{}]:
            path = _mapping(_mapping(match).get("path"))
            kind = path.get("type", "PathPrefix")
            yield _Rule(str(path.get("value") or "/"), kind == "PathPrefix", kind in ("PathPrefix", "Exact"))


def _is_reference(
    backend: Mapping[str, Any], found: KubernetesObject, service: KubernetesObject, ports: Sequence[Mapping[str, Any]]
) -> bool:
    return (
        backend.get("kind", "Service") == "Service"
        and backend.get("name") == service.name
        and same_namespace(backend.get("namespace") or found.namespace, service.namespace)
        and any(backend.get("port") == each.get("port") for each in ports)
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
