"""Serves the status page over HTTP: the page, its files, its event stream, and the form for delivery tests."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sidecar import SHIPPED, __version__
from sidecar.admin import status_page
from sidecar.admin.access import (
    OTHER_ORIGIN,
    Denied,
    denied_to_change,
    denied_to_view,
    is_of_another_origin,
    may_change,
)
from sidecar.admin.costly import CostlyText, json_text
from sidecar.admin.delivery_test import deliver
from sidecar.admin.events import Events
from sidecar.admin.live_page import LivePage, ProgramView
from sidecar.admin.markup import Markup
from sidecar.admin.tenants_page import draw_tenants, tenants_json
from sidecar.telemetry.tenant_uses import TenantUse

#: The page may load, run and request only our own files, and can't be framed.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer browsers would omit the form's origin
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "page.svg": "image/svg+xml"}
#: Size limit of a submitted form in bytes, and the time limit for its arrival in seconds.
MAX_FORM = 8 * 1024
FORM_SECONDS = 10.0
#: How many characters of a receiver's response the page shows.
MAX_RESPONSE_SHOWN = 500


class PageProgram(ProgramView, Protocol):
    """The parts of the program that the status page shows and controls."""

    @property
    def live_page(self) -> LivePage: ...
    async def tenant_uses(self) -> Sequence[TenantUse]:
        """Tenants with two secrets, and when they last used each."""
        ...


class StatusPage:
    """The admin listener serves its `routes`."""

    def __init__(self, program: PageProgram) -> None:
        self._program = program
        self._tenants_page, self._tenants_json = CostlyText(), CostlyText()
        assets = {name: (SHIPPED / "admin/static" / name).read_bytes() for name in ASSETS}
        self._assets = hashlib.sha256(b"".join(assets.values())).hexdigest()[:8]
        self.routes = [
            Route("/", self.check_access(self.index)),
            Route("/-/tenants", self.check_access(self.tenants)),
            Route("/-/events", self.check_access(self.events)),
            Route("/-/delivery-test", self.test, methods=["POST"]),
            *(Route(f"/-/{name}", _asset(content, ASSETS[name])) for name, content in assets.items()),
        ]

    def check_access(self, handler: Callable[[Request], Awaitable[ASGIApp]]) -> Callable[[Request], Awaitable[ASGIApp]]:
        """Wraps a handler so that requests without permission to view are denied."""

        async def checked(request: Request) -> ASGIApp:
            denied = denied_to_view(request, self._program.config.admin, self._program.config.admin_hosts)
            return self.deny(request, denied) if denied is not None else await handler(request)

        return checked

    def deny(self, request: Request, denied: Denied) -> Response:
        """Logs a denied request and returns the response to it."""
        client = request.client.host if request.client is not None else "unix:"
        self._program.log.admin_refused(denied.status, denied.detail, request.url.path, client)
        headers = {"www-authenticate": 'Bearer realm="webhook-sidecar"'} if denied.status == 401 else None
        return JSONResponse({"detail": denied.detail}, denied.status, headers)

    async def index(self, request: Request) -> Response:
        """The page for browsers, and JSON for all other clients."""
        if "text/html" in request.headers.get("accept", ""):
            return await self._page()
        program = self._program
        error = program.reload_error
        config = {
            "file": program.config.file,
            "loaded": program.loaded_at,
            "reload_error": [str(problem) for problem in error.problems] if error is not None else None,
        }
        about = {"name": "webhook-sidecar", "version": __version__, "ready": program.serving, "config": config}
        rejections = await program.recent_rejections()
        keys = [document._asdict() for document in program.published_keys]
        return JSONResponse(about | {"refusals": [rejection._asdict() for rejection in rejections], "keys": keys})

    async def tenants(self, request: Request) -> Response:
        """Tenants in rotation: a page for browsers, and JSON for all other clients."""
        program, config = self._program, self._program.config

        def page(uses: Sequence[TenantUse]) -> str:
            return draw_tenants(config, uses, self._assets)

        def text(uses: Sequence[TenantUse]) -> str:
            return json_text(tenants_json(config, uses))

        async def write(form: Callable[[Sequence[TenantUse]], str]) -> str:
            return await asyncio.to_thread(form, await program.tenant_uses())

        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(await self._tenants_page.get(config, lambda: write(page)), 200, PAGE_HEADERS)
        return Response(await self._tenants_json.get(config, lambda: write(text)), media_type="application/json")

    async def events(self, request: Request) -> ASGIApp:
        if is_of_another_origin(request):  # it could not read the events, but could take all places
            return self.deny(request, OTHER_ORIGIN)
        version = request.headers.get("last-event-id") or request.query_params.get("since", "")
        return Events(
            self._program.live_page,
            int(version) if version.isascii() and version.isdecimal() and len(version) < 20 else 0,
        )

    async def test(self, request: Request) -> Response:
        """Sends the test delivery that the form requests."""
        config = self._program.config
        form = await _read_form(request)
        denied = denied_to_change(request, config.admin, config.admin_hosts, config.admin_token, form.get("token", ""))
        if denied is not None:
            response = self.deny(request, denied)
            if denied.status == 401:  # a mistyped token: show the page again
                return await self._page(status_page.draw_result(401, "", denied.detail), 401)
            return response
        account = next((account for account in config.accounts if account.id == form.get("account")), None)
        if account is None:
            return await self._page(status_page.draw_result(400, "", "choose an account"), 400)
        status, content = await deliver(account)
        return await self._page(status_page.draw_result(status, account.id, _summarize(content["detail"])))

    async def _page(self, result: Markup | None = None, status: int = 200) -> Response:
        live_page, config = self._program.live_page, self._program.config
        await live_page.draw()
        form = status_page.draw_form(
            live_page.parts["accounts"],
            allowed=may_change(config.admin, config.admin_token),
            needs_token=config.admin_token is not None,
        )
        page = status_page.draw_page(
            live_page.parts, version=live_page.version, assets=self._assets, form=form, result=result
        )
        return HTMLResponse(page, status, PAGE_HEADERS)


def _asset(content: bytes, content_type: str) -> Callable[[Request], Awaitable[Response]]:
    headers = PAGE_HEADERS | {"cache-control": "max-age=86400", "content-type": content_type}

    async def asset(request: Request) -> Response:
        return Response(content, headers=headers)

    return asset


async def _read_form(request: Request) -> dict[str, str]:
    """The fields of a form; none if it is too large, too slow or malformed."""
    body = b""
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_FORM:
                    return {}
    except (TimeoutError, ClientDisconnect):
        return {}
    return dict(parse_qsl(body.decode("latin-1"), max_num_fields=10)) if body.count(b"&") < 10 else {}


def _summarize(detail: object) -> str:
    """The receiver's response, cut to a length that fits the page."""
    if not isinstance(detail, dict):
        return str(detail)
    body = detail["webhook_receiver_body_content"]
    if len(body) > MAX_RESPONSE_SHOWN:
        body = body[:MAX_RESPONSE_SHOWN] + "..."
    return f"the receiver responded {detail['webhook_receiver_status_code']}, {json.dumps(body, ensure_ascii=False)}"
