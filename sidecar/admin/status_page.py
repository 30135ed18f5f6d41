"""The status page's HTML, in parts that can be replaced one by one while it is looked at.

    state       what runs, and how busy it is
    problems    why the configuration could not be read again, its warnings; empty if all is well
    route-N     one route: what it does, its counts by reason and their rates, its secrets
    refusals    the last deliveries that did not get through
    accounts    whose webhook the form can test

Pure: values in, `Markup` out. Nothing here has a secret's value, a signature or a body.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sidecar import __version__
from sidecar.admin.markup import Markup, joined, markup
from sidecar.config.problems import Problem
from sidecar.config.settings import Config
from sidecar.outcomes import outcome_of
from sidecar.routing.routes import Route
from sidecar.telemetry.metrics import LAST_USED, MATCHES, REASON_AT, SHADOW_AT, Block
from sidecar.telemetry.recent_rejections import RecentRejection


class State(NamedTuple):
    """What the program is doing. Sizes in bytes."""

    serving: bool
    draining: bool
    workers: int  #: that serve
    in_flight: int
    buffered: int
    connections: int
    loaded: float  #: when the configuration at work was read, unix time


def page(parts: Mapping[str, Markup], *, version: int, assets: str, form: Markup, result: Markup | None) -> Markup:
    """The whole page. `version` is what it shows, for the events that follow; `assets` makes its files' names unique."""
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
<p id="live">As it was at {now} UTC. <a href="/">Look again</a></p>
</header>
<main>
<section id="state">{state}</section>
<div id="problems">{problems}</div>
<section>
<h2>Routes</h2>
<div id="routes">{routes}</div>
</section>
<section>
<h2>The last that did not get through</h2>
<div id="refusals">{refusals}</div>
</section>
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
        routes=routes(parts),
        refusals=parts["refusals"],
        form=form,
        result=result or Markup(),
    )


def routes(parts: Mapping[str, Markup]) -> Markup:
    """All routes, each in an element that can be replaced."""
    return joined(
        markup('<article id="{name}">{part}</article>', name=name, part=part)
        for name, part in parts.items()
        if name.startswith("route-")
    )


def state(config: Config, now: State) -> Markup:
    word = "draining" if now.draining else "serving" if now.serving else "not serving"
    facts = [
        ("Deliveries are", markup('<b class="{mood}">{word}</b>', mood="good" if now.serving else "bad", word=word)),
        ("Configuration", config.file),
        ("read at", _time(now.loaded)),
        ("Workers", f"{now.workers} of {config.workers}"),
        ("In flight", now.in_flight),
        ("Bodies held", f"{_size(now.buffered)} of {_size(config.limits.buffer)}"),
        ("Connections", f"{now.connections} of {config.limits.connections}"),
        ("Listening on", config.listen),
    ]
    rows = (markup("<div><dt>{term}</dt><dd>{fact}</dd></div>", term=term, fact=fact) for term, fact in facts)
    return markup("<dl>{rows}</dl>", rows=joined(rows))


def problems(reload_error: Sequence[Problem], warnings: Sequence[Problem], loaded: float) -> Markup:
    failed = (
        markup(
            '<section class="alert" role="alert"><h2>The configuration could not be read again</h2>'
            "<p>That of {loaded} UTC is still at work.</p><ul>{problems}</ul></section>",
            loaded=_time(loaded),
            problems=_listed(reload_error),
        )
        if reload_error
        else Markup()
    )
    warned = (
        markup('<section class="warning"><h2>Warnings</h2><ul>{warnings}</ul></section>', warnings=_listed(warnings))
        if warnings
        else Markup()
    )
    return joined([failed, warned])


def route(it: Route, counted: Block, rates: Sequence[float], secrets: Mapping[str, Block]) -> Markup:
    """`counted` and `rates` are its counts in the order of a route's block; `secrets` those of its secrets, by id."""
    checks = "open" if it.open else it.preset or ("own scheme" if it.verifier else "address only")
    tags = [(checks, "preset")]
    if not it.open:
        tags.append(("shadow", "shadow") if it.shadow else ("enforce", "mode"))
    if it.replay is not None:
        tags.append((f"replay {_span(it.replay.seconds)}", "replay"))
    if it.allow is not None:
        tags.append((f"allow {len(it.allow.cidrs)}", "allow"))
    if it.upstream_signer is not None:
        tags.append(("signed anew", "sign"))
    return markup(
        '<h3>{name} <code>{path}</code></h3><p class="tags">{tags}</p><p class="to">to {upstream}</p>{counts}{secrets}',
        name=it.name,
        path=it.pattern,
        tags=joined(markup('<span class="{kind}">{tag}</span> ', kind=kind, tag=tag) for tag, kind in tags),
        upstream=it.upstream,
        counts=_counts(counted, rates),
        secrets=_secrets(it, secrets),
    )


def no_route(counted: Block, rates: Sequence[float]) -> Markup:
    """What no route took."""
    return markup('<h3>no route</h3><p class="to">not forwarded</p>{counts}', counts=_counts(counted, rates))


def refusals(last: Sequence[RecentRejection]) -> Markup:
    if not last:
        return markup("<p>None since the start.</p>")
    return markup(
        '<table class="stack"><thead><tr><th>Time, UTC</th><th>Route</th><th>Reason</th><th>Client</th><th>Request</th>'
        "<th>Body</th><th>Answer</th></tr></thead><tbody>{rows}</tbody></table>",
        rows=joined(map(_refusal, last)),
    )


def form(accounts: Markup, *, allowed: bool, needs_token: bool) -> Markup:
    """The form of the delivery test; `accounts` is its replaceable part."""
    if not allowed:
        return markup(
            "<p>Read-only: set <code>admin_token</code>, or let the admin listener be on loopback.</p>"
            '<div id="accounts" hidden></div>'
        )
    token = markup(
        '<input name="user" value="admin" autocomplete="username" hidden>'  # browsers want to know whose it is
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


def accounts(config: Config) -> Markup:
    if not config.accounts:
        return markup("<p>No accounts: add <code>delivery_test</code> to the configuration.</p>")
    options = (
        markup('<option value="{id}">{id} → {url}</option>', id=account.id, url=account.webhook_url or "no webhook_url")
        for account in config.accounts
    )
    return markup('<label>Account <select name="account">{options}</select></label>', options=joined(options))


def result(status: int, account: str, detail: str) -> Markup:
    """What became of a delivery test."""
    return markup(
        '<p class="{mood}" role="status"><b>{status}</b> {account} {detail}</p>',
        mood="done" if status == 200 else "alert",
        status=status,
        account=f"{account}:" if account else "",
        detail=detail,
    )


def _counts(counted: Block, rates: Sequence[float]) -> Markup:
    """Accepted first, then every reason that came up, most frequent first."""
    seen: list[tuple[float, float, str, str]] = []
    for reason, place in REASON_AT.items():
        if reason is not None and counted[place]:
            seen.append((counted[place], rates[place], outcome_of(reason), reason))
    for shadowed, place in SHADOW_AT.items():
        if counted[place]:
            seen.append((counted[place], rates[place], "shadow", shadowed))
    rows = [(counted[REASON_AT[None]], rates[REASON_AT[None]], "accepted", ""), *sorted(seen, reverse=True)]
    return markup(
        '<table class="counts"><thead><tr><th>Deliveries</th><th class="n">total</th><th class="n">per minute</th>'
        "</tr></thead><tbody>{rows}</tbody></table>",
        rows=joined(
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


def _secrets(it: Route, blocks: Mapping[str, Block]) -> Markup:
    if it.verifier is None:
        return Markup()
    rows = (
        markup(
            '<tr><td>{id}{retire}</td><td class="n">{matches}</td><td>{last_used}</td></tr>',
            id=secret.id,
            retire=_retire(secret.retire_by),
            matches=f"{int(block[MATCHES]):,}",
            last_used=_time(block[LAST_USED]) if block[LAST_USED] else "not since the start",
        )
        for secret in it.verifier.secrets
        if (block := blocks.get(secret.id)) is not None
    )
    return markup(
        '<table class="secrets"><thead><tr><th>Secret</th><th class="n">matched</th><th>last used, UTC</th></tr></thead>'
        "<tbody>{rows}</tbody></table>",
        rows=joined(rows),
    )


def _retire(by: float | None) -> Markup:
    if by is None:
        return Markup()
    day = time.strftime("%Y-%m-%d", time.gmtime(by - 1))  # `by` is when that day is over
    return markup('<br><small class="{mood}">retire by {day}</small>', mood="bad" if by < time.time() else "", day=day)


def _refusal(it: RecentRejection) -> Markup:
    outcome = "shadow" if it.shadow else it.outcome
    hint = markup(' <span class="hint">{hint}</span>', hint=it.hint) if it.hint else Markup()
    detail = markup("<br><small>{detail}</small>", detail=it.detail) if it.detail else Markup()
    return markup(
        '<tr><td data-is="Time">{time}</td><td data-is="Route">{route}</td>'
        '<td data-is="Reason"><span class="{outcome}">{outcome}</span> {reason}{hint}{detail}</td>'
        '<td data-is="Client">{client}</td><td data-is="Request" class="long"><code>{method} {path}</code></td>'
        '<td data-is="Body" class="n">{body}</td><td data-is="Answer" class="n">{status}</td></tr>',
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


def _listed(problems: Iterable[Problem]) -> Markup:
    return joined(
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
