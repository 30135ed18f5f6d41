"""The status page over HTTP: the page, its files, its event stream, and the form that runs a delivery test."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sidecar import SHIPPED, __version__
from sidecar.admin import status_page
from sidecar.admin.access import OTHER_ORIGIN, Denied, denied_to_change, denied_to_see, is_of_another_origin, may_change
from sidecar.admin.delivery_test import deliver
from sidecar.admin.events import Events
from sidecar.admin.live_page import LivePage, ProgramView
from sidecar.admin.markup import Markup
from sidecar.telemetry.log import Level

#: Nothing but our own files may run, style, be shown or be asked by the page, and nobody may frame it.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer browsers would keep the form's origin from us
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "page.svg": "image/svg+xml"}
#: Bytes of a filled form, and seconds in which it must arrive.
MAX_FORM = 8 * 1024
FORM_SECONDS = 10.0
#: Characters of a receiver's answer that are shown.
MAX_ANSWER = 500


class PageProgram(ProgramView, Protocol):
    """What the page shows and moves."""

    @property
    def live_page(self) -> LivePage: ...


class StatusPage:
    """`routes` are to be served by the admin listener."""

    def __init__(self, running: PageProgram) -> None:
        self._running = running
        assets = {name: (SHIPPED / "admin/static" / name).read_bytes() for name in ASSETS}
        self._assets = hashlib.sha256(b"".join(assets.values())).hexdigest()[:8]
        self.routes = [
            Route("/", self.seen(self.index)),
            Route("/-/events", self.seen(self.events)),
            Route("/-/delivery-test", self.test, methods=["POST"]),
            *(Route(f"/-/{name}", _asset(content, ASSETS[name])) for name, content in assets.items()),
        ]

    def seen(self, handler: Callable[[Request], Awaitable[ASGIApp]]) -> Callable[[Request], Awaitable[ASGIApp]]:
        """A handler for those alone who may see what it shows."""

        async def checked(request: Request) -> ASGIApp:
            denied = denied_to_see(request, self._running.config.admin)
            return self.refuse(request, denied) if denied is not None else await handler(request)

        return checked

    def refuse(self, request: Request, denied: Denied) -> Response:
        """The answer to who may not, and a line in the log."""
        client = request.client.host if request.client is not None else "unix:"
        self._running.log.event(
            "admin_refused", Level.WARNING, path=request.url.path, client=client, **denied._asdict()
        )
        headers = {"www-authenticate": 'Bearer realm="webhook-sidecar"'} if denied.status == 401 else None
        return JSONResponse({"detail": denied.detail}, denied.status, headers)

    async def index(self, request: Request) -> Response:
        """The page for browsers, a little JSON for everybody else."""
        if "text/html" in request.headers.get("accept", ""):
            return await self._page()
        running = self._running
        error = running.reload_error
        config = {
            "file": running.config.file,
            "loaded": running.exposition.reload_success_time,
            "reload_error": [str(problem) for problem in error.problems] if error is not None else None,
        }
        about = {"name": "webhook-sidecar", "version": __version__, "ready": running.serving, "config": config}
        return JSONResponse(about | {"refusals": [refusal._asdict() for refusal in await running.refusals()]})

    async def events(self, request: Request) -> ASGIApp:
        if is_of_another_origin(request):  # which could read nothing, but take all places
            return self.refuse(request, OTHER_ORIGIN)
        known = request.headers.get("last-event-id") or request.query_params.get("since", "")
        return Events(
            self._running.live_page, int(known) if known.isascii() and known.isdecimal() and len(known) < 20 else 0
        )

    async def test(self, request: Request) -> Response:
        """Sends the delivery that the form asks for."""
        config = self._running.config
        form = await _form(request)
        denied = denied_to_change(request, config.admin, config.admin_token, form.get("token", ""))
        if denied is not None:
            refused = self.refuse(request, denied)  # for a mistyped token the page stays
            return (
                await self._page(status_page.result(401, "", denied.detail), 401) if denied.status == 401 else refused
            )
        account = next((account for account in config.accounts if account.id == form.get("account")), None)
        if account is None:
            return await self._page(status_page.result(400, "", "choose an account"), 400)
        status, answer = await deliver(account)
        return await self._page(status_page.result(status, account.id, _told(answer["detail"])))

    async def _page(self, result: Markup | None = None, status: int = 200) -> Response:
        live_page, config = self._running.live_page, self._running.config
        await live_page.draw()
        form = status_page.form(
            live_page.parts["accounts"],
            allowed=may_change(config.admin, config.admin_token),
            needs_token=config.admin_token is not None,
        )
        page = status_page.page(
            live_page.parts, version=live_page.version, assets=self._assets, form=form, result=result
        )
        return HTMLResponse(page, status, PAGE_HEADERS)


def _asset(content: bytes, content_type: str) -> Callable[[Request], Awaitable[Response]]:
    headers = PAGE_HEADERS | {"cache-control": "max-age=86400", "content-type": content_type}

    async def asset(request: Request) -> Response:
        return Response(content, headers=headers)

    return asset


async def _form(request: Request) -> dict[str, str]:
    """The fields; none of them if it is too large, too late or no form."""
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


def _told(detail: object) -> str:
    """What the receiver said, short enough for a page."""
    if not isinstance(detail, dict):
        return str(detail)
    answer = detail["webhook_receiver_body_content"]
    shown = answer if len(answer) <= MAX_ANSWER else answer[:MAX_ANSWER] + "..."
    return f"the receiver answered {detail['webhook_receiver_status_code']}, {json.dumps(shown, ensure_ascii=False)}"
