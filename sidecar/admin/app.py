"""The admin listener: probes, metrics, the status page, the masked configuration, reload, the delivery test."""

from typing import Protocol

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sidecar.admin.access import denied_to_change
from sidecar.admin.delivery_test import run_delivery_test
from sidecar.admin.pages import PageProgram, StatusPage
from sidecar.config.masked import masked_config
from sidecar.config.problems import ConfigError


class AdminProgram(PageProgram, Protocol):
    """What the admin listener shows and moves."""

    @property
    def processes(self) -> Collector: ...
    async def reload(self, cause: str) -> ConfigError | None:
        """Reads the configuration again. On any mistake nothing changes and the error is returned."""
        ...


def admin_app(running: AdminProgram) -> Starlette:
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
