"""Routes as `load_config` makes them, for the modules that work on a finished one."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.config.presets import load_preset
from sidecar.http1.upstream import UpstreamAddress
from sidecar.outcomes import DEFAULT_REJECTION
from sidecar.routing.routes import Route
from sidecar.secret import Secret
from sidecar.verify.verifier import Verifier

RouteMaker = Callable[..., Route]


@pytest.fixture(scope="session")
def make_route() -> RouteMaker:
    """`make_route("/hooks/*", secrets=["a", "b"], name=..., any other field of Route)`; verified by the preset begini."""

    def make(pattern: str = "/hooks/acme", *, secrets: list[str] | None = None, **fields: Any) -> Route:
        ids = ["current"] if secrets is None else secrets
        keys = [Secret(id, b"key of " + id.encode()) for id in ids]
        defaults: dict[str, Any] = {
            "name": pattern.strip("/*").replace("/", "-") or "root",
            "path": pattern.removesuffix("*").encode(),
            "prefix": pattern.endswith("*"),
            "methods": frozenset({"POST"}),
            "upstream": UpstreamAddress("http", "127.0.0.1", 3000, ""),
            "body_limit": 1024,
            "rejection": DEFAULT_REJECTION,
            "verifier": Verifier(load_preset("begini"), keys) if keys else None,
        }
        return Route(**(defaults | fields))

    return make
