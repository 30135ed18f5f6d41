"""Draws the HTML of the status page, in parts that can be replaced one by one while the page is open.

    state       the state of the program and its load
    problems    why the last reload failed, and warnings; empty if there are none
    route-N     one route: its settings, its counts with rates, its secrets
    `refusals`  recent rejections and failures
    keys        the keys that providers publish; empty if no route needs any
    accounts    the accounts whose webhook the form can test

Pure functions from values to `Markup`. No secret, signature or body is among the values.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sidecar import __version__
from sidecar.admin.markup import Markup, join, markup
from sidecar.config.problems import Problem
from sidecar.config.settings import Config
from sidecar.routing.routes import Route
from sidecar.secret import mask_url
from sidecar.telemetry.keys_view import KeysView
from sidecar.telemetry.metrics import ACCEPTED_AT, END_AT, LAST_USED, MATCHES, QUESTION_AT, SHADOW_AT, Block
from sidecar.telemetry.recent_rejections import RecentRejection


class State(NamedTuple):
    """The state of the program. Sizes are in bytes."""

    serving: bool
    draining: bool
    workers: int  #: that accept deliveries
    in_flight: int
    buffered: int
    connections: int
    loaded: float  #: when the configuration was loaded, unix time


def draw_page(parts: Mapping[str, Markup], *, version: int, assets: str, form: Markup, result: Markup | None) -> Markup:
    """The whole page. Events continue from `version`; `assets` makes the URLs of its files unique to their content."""
    return markup(
        """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Webhook Sidecar</title>
<link rel="icon" href="/-/page.svg?{assets}" type="image/svg+xml">
<link rel="stylesheet" href="/-/page.css?{assets}">
<script src="/-/page.js?{assets}" defer></script>
</head>
<body data-version="{version}">
<header>
<h1>Webhook Sidecar <small>{program}</small></h1>
<p id="live">As of {now} UTC. <a href="/">Reload</a></p>
</header>
<main>
<section id="state">{state}</section>
<div id="problems">{problems}</div>
<section>
<h2>Routes</h2>
<div id="routes">{routes}</div>
</section>
<section>
<h2>Recent rejections and failures</h2>
<div id="refusals">{refusals}</div>
</section>
<div id="keys">{keys}</div>
<section id="test">
<h2>Delivery test</h2>
{result}
{form}
</section>
</main>
<footer><a href="/metrics">metrics</a> <a href="/-/config">configuration</a></footer>
</body>
</html>
""",
        assets=assets,
        version=version,
        program=__version__,
        now=_clock(time.time()),
        state=parts["state"],
        problems=parts["problems"],
        routes=draw_routes(parts),
        refusals=parts["refusals"],
        keys=parts["keys"],
        form=form,
        result=result or Markup(),
    )


def draw_routes(parts: Mapping[str, Markup]) -> Markup:
    """All routes, each in its own element."""
    return join(
        markup('<article id="{name}">{part}</article>', name=name, part=part)
        for name, part in parts.items()
        if name.startswith("route-")
    )


def draw_state(config: Config, now: State) -> Markup:
    word = "draining" if now.draining else "serving" if now.serving else "not serving"
    facts = [
        ("Deliveries are", markup('<b class="{mood}">{word}</b>', mood="good" if now.serving else "bad", word=word)),
        ("Configuration", config.file),
        ("Loaded at", _time(now.loaded)),
        ("Workers", f"{now.workers} of {config.workers}"),
        ("In flight", now.in_flight),
        ("Buffered bodies", f"{_size(now.buffered)} of {_size(config.limits.buffer)}"),
        ("Connections", f"{now.connections} of {config.limits.connections}"),
        ("Listening on", config.listen),
    ]
    rows = (markup("<div><dt>{term}</dt><dd>{fact}</dd></div>", term=term, fact=fact) for term, fact in facts)
    return markup("<dl>{rows}</dl>", rows=join(rows))


def draw_problems(reload_error: Sequence[Problem], warnings: Sequence[Problem], loaded: float) -> Markup:
    failed = (
        markup(
            '<section class="alert" role="alert"><h2>The last configuration reload failed</h2>'
            "<p>The configuration of {loaded} UTC is still in use.</p><ul>{problems}</ul></section>",
            loaded=_time(loaded),
            problems=_list_problems(reload_error),
        )
        if reload_error
        else Markup()
    )
    warned = (
        markup(
            '<section class="warning"><h2>Warnings</h2><ul>{warnings}</ul></section>', warnings=_list_problems(warnings)
        )
        if warnings
        else Markup()
    )
    return join([failed, warned])


def draw_route(it: Route, counts: Block, rates: Sequence[float], secrets: Mapping[str, Block]) -> Markup:
    """One route. `counts` and `rates` are in the order of its block; `secrets` are the blocks of its secrets, by id."""
    checks = "open" if it.open else it.preset or ("custom scheme" if it.verifier else "address only")
    tags = [(checks, "preset")]
    if not it.open:
        tags.append(("shadow", "shadow") if it.shadow else ("enforce", "mode"))
    if it.replay is not None:
        tags.append((f"replay {_span(it.replay.seconds)}", "replay"))
    if it.allow is not None:
        tags.append((f"allow {len(it.allow.cidrs)}", "allow"))
    if it.capture is not None:
        tags.append((f"captures {it.capture.rejected} rejected for {_span(it.capture.seconds)}", "capture"))
    if it.tenants is not None:
        tags.append((f"{len(it.tenants.store)} tenants", "tenants"))
    if it.upstream_signer is not None:
        tags.append((f"signed as {it.upstream_signer.name}", "sign"))
    return markup(
        '<h3>{name} <code>{path}</code></h3><p class="tags">{tags}</p><p class="to">to {upstream}</p>{counts}{secrets}',
        name=it.name,
        path=it.place,
        tags=join(markup('<span class="{kind}">{tag}</span> ', kind=kind, tag=tag) for tag, kind in tags),
        upstream=it.upstream if it.forwards else "gateways that ask about it",
        counts=_draw_counts(counts, rates),
        secrets=_draw_secrets(it, secrets),
    )


def draw_no_route(counts: Block, rates: Sequence[float]) -> Markup:
    """Requests that no route matched."""
    return markup('<h3>no route</h3><p class="to">not forwarded</p>{counts}', counts=_draw_counts(counts, rates))


def draw_rejections(rejections: Sequence[RecentRejection]) -> Markup:
    if not rejections:
        return markup("<p>None since startup.</p>")
    return markup(
        '<table class="stack"><thead><tr><th>Time, UTC</th><th>Route</th><th>Reason</th><th>Client</th><th>Request</th>'
        "<th>Body</th><th>Response</th></tr></thead><tbody>{rows}</tbody></table>",
        rows=join(map(_draw_rejection, rejections)),
    )


def draw_keys(documents: Sequence[KeysView]) -> Markup:
    """The documents of published keys. Readiness does not depend on them, so missing ones are reported here."""
    if not documents:
        return Markup()
    missing = sorted({it.source for it in documents if not it.usable})
    warning = (
        markup(
            '<p class="warning">Deliveries that need the keys of {sources} get 503 until they can be fetched.</p>',
            sources=", ".join(missing),
        )
        if missing
        else Markup()
    )
    return markup(
        '<section><h2>Published keys</h2>{warning}<table class="stack"><thead><tr><th>Source</th><th>Document</th>'
        "<th>Keys</th><th>Fetched, UTC</th><th>Next fetch, UTC</th><th>Last result</th></tr></thead>"
        "<tbody>{rows}</tbody></table></section>",
        warning=warning,
        rows=join(map(_draw_keys, documents)),
    )


def draw_form(accounts: Markup, *, allowed: bool, needs_token: bool) -> Markup:
    """The form for delivery tests; `accounts` is its replaceable part."""
    if not allowed:
        return markup(
            "<p>Read-only: set <code>admin_token</code>, or bind the admin listener to loopback.</p>"
            '<div id="accounts" hidden></div>'
        )
    token = markup(
        '<input name="user" value="admin" autocomplete="username" hidden>'  # password managers need a user name
        '<label>Admin token <input type="password" name="token" required autocomplete="current-password"></label> '
        if needs_token
        else ""
    )
    return markup(
        '<form method="post" action="/-/delivery-test#test"><div id="accounts">{accounts}</div> {token}'
        "<button>Send a signed test delivery</button></form>",
        accounts=accounts,
        token=token,
    )


def draw_accounts(config: Config) -> Markup:
    if not config.accounts:
        return markup("<p>No accounts: add <code>delivery_test</code> to the configuration.</p>")
    options = (
        markup(
            '<option value="{id}">{id} → {url}</option>',
            id=account.id,
            url=mask_url(account.webhook_url) or "no webhook_url",
        )
        for account in config.accounts
    )
    return markup('<label>Account <select name="account">{options}</select></label>', options=join(options))


def draw_result(status: int, account: str, detail: str) -> Markup:
    """The result of a delivery test."""
    return markup(
        '<p class="{mood}" role="status"><b>{status}</b> {account} {detail}</p>',
        mood="done" if status == 200 else "alert",
        status=status,
        account=f"{account}:" if account else "",
        detail=detail,
    )


def _draw_counts(counts: Block, rates: Sequence[float]) -> Markup:
    """Accepted deliveries first, then every other end that occurred, most frequent first."""
    seen: list[tuple[float, float, str, str]] = []
    for (outcome, reason), place in END_AT.items():
        if reason is not None and counts[place]:
            seen.append((counts[place], rates[place], outcome, reason))
    for asked, place in QUESTION_AT.items():
        if counts[place]:
            kind = "rejected" if asked else "allowed"
            seen.append((counts[place], rates[place], kind, f"{asked or ''} (asked by gateways)".strip()))
    for shadowed, place in SHADOW_AT.items():
        if counts[place]:
            seen.append((counts[place], rates[place], "shadow", shadowed))
    rows = [(counts[ACCEPTED_AT], rates[ACCEPTED_AT], "accepted", ""), *sorted(seen, reverse=True)]
    return markup(
        '<table class="counts"><thead><tr><th>Deliveries</th><th class="n">total</th><th class="n">per minute</th>'
        "</tr></thead><tbody>{rows}</tbody></table>",
        rows=join(
            markup(
                '<tr><td><span class="{kind}">{kind}</span> {reason}</td><td class="n">{count}</td>'
                '<td class="n">{rate}</td></tr>',
                kind=kind,
                reason=reason,
                count=f"{int(count):,}",
                rate=_rate(rate),
            )
            for count, rate, kind, reason in rows
        ),
    )


def _draw_secrets(it: Route, blocks: Mapping[str, Block]) -> Markup:
    if it.verifier is None:
        return Markup()
    rows = (
        markup(
            '<tr><td>{id}{retire}</td><td class="n">{matches}</td><td>{last_used}</td></tr>',
            id=secret.id,
            retire=_draw_retire_by(secret.retire_by),
            matches=f"{int(block[MATCHES]):,}",
            last_used=_time(block[LAST_USED]) if block[LAST_USED] else "not since startup",
        )
        for secret in it.verifier.secrets
        if (block := blocks.get(secret.id)) is not None
    )
    return markup(
        '<table class="secrets"><thead><tr><th>Secret</th><th class="n">matched</th><th>last used, UTC</th></tr></thead>'
        "<tbody>{rows}</tbody></table>",
        rows=join(rows),
    )


def _draw_retire_by(by: float | None) -> Markup:
    if by is None:
        return Markup()
    day = time.strftime("%Y-%m-%d", time.gmtime(by - 1))  # `by` is the end of that day
    return markup('<br><small class="{mood}">retire by {day}</small>', mood="bad" if by < time.time() else "", day=day)


def _draw_rejection(it: RecentRejection) -> Markup:
    outcome = "shadow" if it.shadow else it.outcome
    hint = markup(' <span class="hint">{hint}</span>', hint=it.hint) if it.hint else Markup()
    detail = markup("<br><small>{detail}</small>", detail=it.detail) if it.detail else Markup()
    return markup(
        '<tr><td data-is="Time">{time}</td><td data-is="Route">{route}</td>'
        '<td data-is="Reason"><span class="{outcome}">{outcome}</span> {reason}{hint}{detail}</td>'
        '<td data-is="Client">{client}</td><td data-is="Request" class="long"><code>{method} {path}</code></td>'
        '<td data-is="Body" class="n">{body}</td><td data-is="Response" class="n">{status}</td></tr>',
        time=_time(it.time),
        route=it.route or "none",
        outcome=outcome,
        reason=it.reason,
        hint=hint,
        detail=detail,
        client=it.client,
        method=it.method,
        path=it.path,
        body=_size(it.request_bytes),
        status=it.status or "none",
    )


def _draw_keys(it: KeysView) -> Markup:
    mood = "bad" if not it.usable else ""
    failures = markup("<br><small>failures in a row: {count}</small>", count=it.failures) if it.failures else Markup()
    return markup(
        '<tr><td data-is="Source">{source}</td><td data-is="Document" class="long"><code>{url}</code></td>'
        '<td data-is="Keys" class="n">{keys}</td><td data-is="Fetched" class="{mood}">{fetched}</td>'
        '<td data-is="Next fetch">{next}</td><td data-is="Last result">{result}{failures}</td></tr>',
        source=it.source,
        url=it.url,
        keys=it.keys,
        mood=mood,
        fetched=markup("{time} ({age})", time=_time(it.fetched), age=_age(time.time() - it.fetched))
        if it.fetched is not None
        else "never",
        next=_time(it.next_fetch) if it.next_fetch is not None else "when a delivery needs it",
        result=it.result or "being fetched",
        failures=failures,
    )


def _age(seconds: float) -> str:
    """In whole minutes, so that this part of the page changes no more often."""
    minutes = int(max(seconds, 0) // 60)
    if minutes < 120:
        return f"{minutes} min ago"
    hours = minutes // 60
    return f"{hours} h ago" if hours < 72 else f"{hours // 24} days ago"


def _list_problems(problems: Iterable[Problem]) -> Markup:
    return join(
        markup(
            "<li><code>{file}:{line}</code> {path} {message}</li>",
            file=problem.file,
            line=problem.line,
            path=markup("<b>{path}</b>:", path=problem.path) if problem.path else "",
            message=problem.message,
        )
        for problem in problems
    )


def _time(unix: float) -> Markup:
    moment = time.gmtime(unix)
    machine = time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)
    return markup(
        '<time datetime="{machine}">{date} {clock}</time>', machine=machine, date=machine[:10], clock=_clock(unix)
    )


def _clock(unix: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(unix))


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count == int(count) else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _span(seconds: float) -> str:
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _rate(per_minute: float) -> str:
    return f"{per_minute:,.0f}" if per_minute >= 100 or per_minute == int(per_minute) else f"{per_minute:.1f}"
