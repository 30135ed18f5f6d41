"""The admin listener: probes, metrics, the status page, the masked configuration, reload, the delivery test."""

from typing import Protocol

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sidecar.admin_access import denied_to_change
from sidecar.admin_page import Paged, StatusPage
from sidecar.config import Config, ConfigError
from sidecar.delivery_test import run_delivery_test


class Running(Paged, Protocol):
    """What the admin listener shows and moves."""

    @property
    def processes(self) -> Collector: ...
    async def reload(self, cause: str) -> ConfigError | None:
        """Reads the configuration again. On any mistake nothing changes and the error is returned."""
        ...


def admin_app(running: Running) -> Starlette:
    """The Starlette application of the admin listener."""
    page = StatusPage(running)

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        return PlainTextResponse("ok\n") if running.serving else PlainTextResponse("draining\n", status_code=503)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        text = await running.exposition.scrape(encode, [running.processes])
        return Response(text, headers={"content-type": content_type})

    async def config(request: Request) -> Response:
        return JSONResponse(masked_config(running.config))

    async def reload(request: Request) -> Response:
        denied = denied_to_change(request, running.config.admin, running.config.admin_token)
        if denied is not None:
            return page.refuse(request, denied)
        error = await running.reload("POST /-/reload")
        if error is not None:
            return JSONResponse({"detail": [str(problem) for problem in error.problems]}, status_code=400)
        return JSONResponse({"detail": "reloaded"})

    async def delivery_test(request: Request) -> Response:
        status, answer = await run_delivery_test(running.config.accounts, request.headers.get("api-key"))
        return JSONResponse(answer, status_code=status)

    return Starlette(
        routes=[
            *page.routes,
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/-/config", page.seen(config)),
            Route("/-/reload", reload, methods=["POST"]),
            Route("/v1/webhooks-management/test", delivery_test, methods=["POST"]),
        ]
    )


def masked_config(config: Config) -> dict[str, object]:
    """The configuration as it works now. Secrets appear by id only: their values have no way into this."""
    return {
        "file": config.file,
        "listen": str(config.listen),
        "admin": str(config.admin),
        "admin_token": "<secret>" if config.admin_token is not None else None,
        "ip_ranges": {"refresh": config.ip_ranges.refresh, "sources": dict(config.ip_ranges.sources)},
        "client_ip_header": config.client_header.name,
        "proxy_protocol": config.proxy_protocol,
        "trusted_proxies": [*config.trusted_proxies.cidrs, *(["unix:"] if config.trust_unix else [])],
        "limits": {key: getattr(config.limits, key) for key in config.limits.__slots__}
        | {"refusals": str(config.limits.refusals) if config.limits.refusals is not None else None},
        "timeouts": {key: getattr(config.timeouts, key) for key in config.timeouts.__slots__},
        "drain": config.drain,
        "tracing": {"endpoint": config.tracing.endpoint, "sample": config.tracing.sample} if config.tracing else None,
        "replay_store": str(config.replay_store or "memory"),
        "workers": config.workers,
        "log": {key: getattr(config.log, key) for key in config.log.__slots__},
        "routes": [
            {
                "name": route.name,
                "path": route.pattern,
                "upstream": str(route.upstream),
                "verify": "open" if route.open else route.preset or ("scheme" if route.verifier else "none"),
                "secrets": [{"id": secret_id, "value": "<secret>"} for secret_id in route.secret_ids],
                "allow": list(route.allow.cidrs) if route.allow is not None else None,
                "methods": sorted(route.methods),
                "mode": "shadow" if route.shadow else "enforce",
                "body": route.body_limit,
                "sign": "standard-webhooks" if route.resigner is not None else None,
                "replay": route.replay.seconds if route.replay is not None else None,
                "reject": {"status": route.refusal.status, "body": route.refusal.body.decode()},
            }
            for route in config.routes.routes
        ],
        "delivery_test": {
            "accounts": [
                {"id": account.id, "api_key": "<secret>", "webhook_url": account.webhook_url or None}
                for account in config.accounts
            ]
        },
        "warnings": [str(warning) for warning in config.warnings],
    }
