"""The admin listener: probes, metrics, status page, masked configuration, reload and delivery test."""

from typing import Protocol

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sidecar.admin.access import denied_to_change
from sidecar.admin.delivery_test import run_delivery_test
from sidecar.admin.pages import PageProgram, StatusPage
from sidecar.config.masked import masked_config
from sidecar.config.problems import ConfigError
from sidecar.telemetry.scrape import Scraper


class AdminProgram(PageProgram, Protocol):
    """The parts of the program that the admin listener shows and controls."""

    @property
    def scraper(self) -> Scraper: ...
    async def reload(self, cause: str) -> ConfigError | None:
        """Reads the configuration again. On any mistake nothing changes, and the error is returned."""
        ...


def admin_app(program: AdminProgram) -> Starlette:
    """The Starlette application of the admin listener."""
    page = StatusPage(program)

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        return PlainTextResponse("ok\n") if program.serving else PlainTextResponse("draining\n", status_code=503)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        text = await program.scraper.scrape(encode)
        return Response(text, headers={"content-type": content_type})

    async def config(request: Request) -> Response:
        return JSONResponse(masked_config(program.config))

    async def reload(request: Request) -> Response:
        settings = program.config
        denied = denied_to_change(request, settings.admin, settings.admin_hosts, settings.admin_token)
        if denied is not None:
            return page.deny(request, denied)
        error = await program.reload("POST /-/reload")
        if error is not None:
            return JSONResponse({"detail": [str(problem) for problem in error.problems]}, status_code=400)
        return JSONResponse({"detail": "reloaded"})

    async def delivery_test(request: Request) -> Response:
        status, content = await run_delivery_test(program.config.accounts, request.headers.get("api-key"))
        return JSONResponse(content, status_code=status)

    return Starlette(
        routes=[
            *page.routes,
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/-/config", page.check_access(config)),
            Route("/-/reload", reload, methods=["POST"]),
            Route("/v1/webhooks-management/test", delivery_test, methods=["POST"]),
        ]
    )
