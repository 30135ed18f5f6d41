"""The admin listener: probes, metrics, status page, masked configuration, reload and delivery test."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sidecar.admin.access import Denied, denied_to_change
from sidecar.admin.costly import CostlyText, json_text
from sidecar.admin.delivery_test import run_delivery_test
from sidecar.admin.pages import PageProgram, StatusPage
from sidecar.config.masked import masked_config
from sidecar.config.problems import ConfigError
from sidecar.telemetry.scrape import Scraper

NO_STORE = {"cache-control": "no-store"}


class AdminProgram(PageProgram, Protocol):
    """The parts of the program that the admin listener shows and controls."""

    @property
    def scraper(self) -> Scraper: ...
    async def captures(self) -> Sequence[Mapping[str, Any]]:
        """A description of each held rejected request, newest first; without the request itself."""
        ...

    async def capture(self, ident: str) -> tuple[Mapping[str, Any], bytes] | None:
        """One entry of `captures`, and its request; None if it is no longer held."""
        ...

    async def reload(self, cause: str) -> ConfigError | None:
        """Reads the configuration again. On any mistake nothing changes, and the error is returned."""
        ...


def admin_app(program: AdminProgram) -> Starlette:
    """The Starlette application of the admin listener."""
    page = StatusPage(program)
    shown = CostlyText()

    async def livez(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        return PlainTextResponse("ok\n") if program.serving else PlainTextResponse("draining\n", status_code=503)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        text = await program.scraper.scrape(encode)
        return Response(text, headers={"content-type": content_type})

    async def config(request: Request) -> Response:
        settings = program.config

        async def write() -> str:
            return await asyncio.to_thread(lambda: json_text(masked_config(settings)))

        return Response(await shown.get(settings, write), media_type="application/json")

    async def reload(request: Request) -> Response:
        settings = program.config
        denied = denied_to_change(request, settings.admin, settings.admin_hosts, settings.admin_token)
        if denied is not None:
            return page.deny(request, denied)
        error = await program.reload("POST /-/reload")
        if error is not None:
            return JSONResponse({"detail": [str(problem) for problem in error.problems]}, status_code=400)
        return JSONResponse({"detail": "reloaded"})

    def denied_to_see_bodies(request: Request) -> Response | None:
        settings = program.config
        if settings.admin_token is None:  # also on loopback: then no route captures anything
            return page.deny(request, Denied(403, "captures need admin_token; set it"))
        denied = denied_to_change(request, settings.admin, settings.admin_hosts, settings.admin_token)
        return page.deny(request, denied) if denied is not None else None

    async def captures(request: Request) -> Response:
        return denied_to_see_bodies(request) or JSONResponse({"captures": await program.captures()}, headers=NO_STORE)

    async def capture(request: Request) -> Response:
        if denied := denied_to_see_bodies(request):
            return denied
        found = await program.capture(request.path_params["id"])
        if found is None:
            return JSONResponse({"detail": "no such capture; captures expire, and a reload drops them"}, 404)
        about, raw = found
        described = {f"x-capture-{key}": str(about[key]) for key in ("at", "peer", "complete", "reason", "route")}
        name = {"content-disposition": 'attachment; filename="request.http"', "x-content-type-options": "nosniff"}
        return Response(raw, media_type="application/octet-stream", headers=NO_STORE | described | name)

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
            Route("/-/captures", captures),
            Route("/-/captures/{id}", capture),
            Route("/-/reload", reload, methods=["POST"]),
            Route("/v1/webhooks-management/test", delivery_test, methods=["POST"]),
        ]
    )
