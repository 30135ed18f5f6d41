"""The page of tenants in rotation: which of them still use the old secret."""

import time
from collections.abc import Sequence
from typing import Any

from sidecar.admin.markup import Markup, join, markup
from sidecar.config.settings import Config
from sidecar.telemetry.tenant_uses import TenantUse

#: Tenants on the page; JSON has all.
MAX_SHOWN = 1000


def tenants_json(config: Config, uses: Sequence[TenantUse]) -> dict[str, Any]:
    """Every route with tenants, and those of them that have two secrets. Times are unix seconds, or null."""
    return {
        "routes": [
            {
                "route": route.name,
                "dir": route.tenants.directory,
                "tenants": len(route.tenants.store),
                "rotating": [
                    {
                        "tenant": use.tenant,
                        "previous_last_used": use.previous_used or None,
                        "current_last_used": use.current_used or None,
                    }
                    for use in uses
                    if use.route == route.name
                ],
            }
            for route in config.routes.routes
            if route.tenants is not None
        ]
    }


def draw_tenants(config: Config, uses: Sequence[TenantUse], assets: str) -> Markup:
    """The whole page."""
    routes = [route for route in config.routes.routes if route.tenants is not None]
    return markup(
        """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Tenants in rotation</title>
<link rel="icon" href="/-/page.svg?{assets}" type="image/svg+xml">
<link rel="stylesheet" href="/-/page.css?{assets}">
</head>
<body>
<header><h1>Tenants in rotation</h1><p><a href="/">Status</a></p></header>
<main>
{routes}
</main>
</body>
</html>
""",
        assets=assets,
        routes=join(
            _draw_route(route.name, len(route.tenants.store), [use for use in uses if use.route == route.name])
            for route in routes
            if route.tenants is not None
        )
        or markup("<p>No route has tenants.</p>"),
    )


def _draw_route(name: str, tenants: int, uses: Sequence[TenantUse]) -> Markup:
    rows = join(
        markup(
            "<tr><td>{tenant}</td><td>{previous}</td><td>{current}</td></tr>",
            tenant=use.tenant,
            previous=_when(use.previous_used),
            current=_when(use.current_used),
        )
        for use in uses[:MAX_SHOWN]
    )
    more = markup("<p>{count} more; JSON has all.</p>", count=len(uses) - MAX_SHOWN) if len(uses) > MAX_SHOWN else ""
    table = markup(
        '<table class="stack"><thead><tr><th>Tenant</th><th>Old secret last used, UTC</th><th>New secret last used, UTC</th>'
        "</tr></thead><tbody>{rows}</tbody></table>{more}",
        rows=rows,
        more=more,
    )
    return markup(
        "<section><h2>{name}</h2><p>{tenants} tenants, {count} of them with two secrets.</p>{table}</section>",
        name=name,
        tenants=tenants,
        count=len(uses),
        table=table if uses else Markup(),
    )


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment)) if moment else "not since the start"
