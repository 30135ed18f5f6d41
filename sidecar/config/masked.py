"""The configuration as the admin listener shows it: without secrets.

The view is made from the settings themselves, so that a new setting appears without further work, and a `Secret` is masked
wherever it is. This module names only the settings whose form in a file differs from the program's.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from sidecar.config.settings import Config
from sidecar.routing.networks import Networks
from sidecar.routing.receiver_headers import ReceiverHeaders
from sidecar.routing.routes import Route
from sidecar.secret import Secret, mask_url

MASK = "<secret>"

#: Keys of the file that are not fields of `Config`.
_FILE_KEYS: Mapping[str, Callable[[Config], Any]] = {
    "client_ip_header": lambda config: config.client_header.name,
    "trusted_proxies": lambda config: [*config.trusted_proxies.cidrs, *(["unix:"] if config.trust_unix else [])],
    "replay_store": lambda config: str(config.replay_store or "memory"),
    "routes": lambda config: [_mask_route(route) for route in config.routes.routes],
    "delivery_test": lambda config: {
        "accounts": [
            mask(account) | {"webhook_url": mask_url(account.webhook_url) or None} for account in config.accounts
        ]
    },
    "warnings": lambda config: [str(warning) for warning in config.warnings],
}
#: Fields of `Config` that the keys above show, or that aren't settings.
_FILE_REST = frozenset(
    {
        "client_header",
        "trust_unix",
        "replay_password",
        "sentinel_password",
        "ranges",
        "accounts",
        "tenant_directories",
        "key_authorities",
        "key_clients",
    }
)


def _upstream(route: Route) -> Any:
    """The receiver's URL, or a mapping if there is more to say. For a certificate, it shows only that there is one."""
    url, pool = str(route.upstream), route.pool
    if pool is None or (pool.tls is None and pool.connections is None and not route.host):
        return url
    tls = pool.tls
    return {
        "url": url,
        "host": route.host.decode() or None,
        "connections": pool.connections,
        "tls": {"server_name": tls.server_name or None, "client_cert": tls.presents_certificate} if tls else None,
    }


def _replay(route: Route) -> Any:
    if route.replay is None or not route.replay.by_id:
        return route.replay.seconds if route.replay is not None else None
    return {"for": route.replay.seconds, "by": "delivery_id"}


def _secrets(route: Route) -> Any:
    """The ids of the secrets, or the directory of those of the tenants and their number."""
    if route.tenants is not None:
        header = route.tenants.header.decode()
        return {"dir": route.tenants.directory, "tenants": len(route.tenants.store), "header": header or None}
    return [{"id": ident, "value": MASK} for ident in route.secret_ids]


def _headers(headers: ReceiverHeaders | None) -> Any:
    """Names and values that are set, and names that are removed; secrets are masked."""
    if headers is None:
        return None
    return {
        "set": {each.name: each.text + (MASK if each.secret is not None else "") for each in headers.set},
        "remove": list(headers.remove),
    }


def _timeouts(route: Route) -> dict[str, float] | None:
    """The limits that the receiver has on this route, in seconds."""
    if route.pool is None:
        return None
    timeouts = route.pool.timeouts
    return {"connect": timeouts.connect, "response": timeouts.response, "total": timeouts.total}


#: Keys of a route that are not fields of `Route`.
_ROUTE_KEYS: Mapping[str, Callable[[Route], Any]] = {
    "path": lambda route: route.pattern,
    "hosts": lambda route: [host.decode() for host in route.hosts],
    "verify": lambda route: "open" if route.open else route.preset or ("scheme" if route.verifier else "none"),
    "secrets": _secrets,
    "methods": lambda route: sorted(route.methods),
    "mode": lambda route: "shadow" if route.shadow else "enforce",
    "body": lambda route: route.body_limit,
    "upstream": _upstream,
    "timeouts": _timeouts,
    "headers": lambda route: _headers(route.headers),
    "capture": lambda route: (
        {"rejected": route.capture.rejected, "for": route.capture.seconds} if route.capture else None
    ),
    "client_certificate": lambda route: route.client_certificate._asdict() if route.client_certificate else None,
    "sign": lambda route: route.upstream_signer.name if route.upstream_signer is not None else None,
    "replay": _replay,
    "reject": lambda route: {"status": route.rejection.status, "body": route.rejection.body.decode()},
}
#: Fields of `Route` that the keys above show.
_ROUTE_REST = frozenset(
    {
        "prefix",
        "verifier",
        "preset",
        "open",
        "shadow",
        "body_limit",
        "rejection",
        "handshakes",
        "upstream_signer",
        "pool",
        "tenants",
        "segments",
        "host",
    }
)


def masked_config(config: Config) -> dict[str, Any]:
    """The configuration as it works now. Secrets appear by id only."""
    return _mask_fields(config, _FILE_KEYS, _FILE_REST)


def mask(value: Any) -> Any:
    """`value` as JSON can hold it. Raises `TypeError` for a kind of value that it does not know."""
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, str) and "://" in value:
        return mask_url(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Networks):
        return list(value.cidrs)
    if isinstance(value, Mapping):
        return {key: mask(item) for key, item in value.items()}
    if is_dataclass(value):
        return {each.name: mask(getattr(value, each.name)) for each in fields(value)}
    if hasattr(value, "_fields") and "__str__" in vars(type(value)):  # an address or a rate, as it is written
        return mask(str(value))
    if isinstance(value, tuple | list):
        return [mask(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no masked form")


def _mask_route(route: Route) -> dict[str, Any]:
    return _mask_fields(route, _ROUTE_KEYS, _ROUTE_REST)


def _mask_fields(value: Any, keys: Mapping[str, Callable[[Any], Any]], rest: frozenset[str]) -> dict[str, Any]:
    plain = [each.name for each in fields(value) if each.name not in keys and each.name not in rest]
    return {name: mask(getattr(value, name)) for name in plain} | {key: show(value) for key, show in keys.items()}
