"""Who is refused and why, what shadow mode would refuse, and how fresh clocks and networks are."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import (
    COUNTED,
    EVERYWHERE,
    FOUND,
    begun,
    count,
    filled,
    gauge,
    lines,
    named,
    number,
    quantiles,
    rate,
)


def security() -> Dashboard:
    made = begun(
        "Security", "Who is refused and why, what shadow mode would refuse, and how fresh clocks and networks are."
    )
    panels = [
        number(
            "Refused",
            "What was refused in the chosen time, copies and drains aside. A sudden rise is an attack, or a changed secret: "
            "the reasons below tell which.",
            count("deliveries_total", f'outcome="rejected", {COUNTED}'),
        ),
        number(
            "Signature mismatches",
            "Well-formed signatures that no secret makes. From a provider's addresses: a wrong secret or a changed body, see the hints. "
            "From others: forgeries.",
            count("deliveries_total", 'reason="signature_mismatch"'),
        ),
        number(
            "Would be refused",
            "Forwarded by routes in shadow mode that enforcing would refuse. When it stays at zero under real traffic, set the route to "
            "mode: enforce; until then these reach your receiver unverified.",
            count("shadow_rejections_total"),
            levels=[(1, "orange")],
        ),
        number(
            "Copies refused",
            "Deliveries that came again within the route's replay time and were not forwarded. Many: a provider that does not see your "
            "answers, or somebody who plays recordings.",
            count("deliveries_total", 'reason="replayed"'),
        ),
        number(
            "Turned away",
            "Answered 503 or 429 before anything was verified: overloaded, draining, rate_limited, or the replay store can't be "
            "asked. Real deliveries may be among them; see the runbook.",
            count("deliveries_total", 'reason=~"overloaded|draining|rate_limited|replay_store_unavailable"'),
            levels=[(1, "orange")],
        ),
        number(
            "Oldest network list",
            "Age of the oldest list of a provider's networks. More than three days with ip_ranges.refresh on: it can't be fetched, see "
            "ip_ranges_failed in the log. No data: no route uses one.",
            gauge("ip_ranges_age_seconds", function="max"),
            unit="s",
            levels=[(3 * 86400, "orange"), (90 * 86400, "red")],
        ),
        lines(
            "Rejections by reason and route",
            "Refusals per second. One route and signature_mismatch: its secret. All routes and ip_not_allowed: the load balancer's "
            "address is taken for the sender's, set trusted_proxies. (no route): requests that no route takes.",
            (
                named(rate("deliveries_total", 'outcome="rejected"', by="route, reason") + " > 0"),
                "{{route}} {{reason}}",
            ),
            unit="reqps",
            stacked=True,
        ).span(12),
        lines(
            "Would-be rejections in shadow mode",
            "What routes in shadow mode forwarded although it would be refused. Each reason here is a real delivery lost, or a forgery "
            "stopped, on the day you enforce: find out which by the log's client and hint.",
            (rate("shadow_rejections_total", by="route, reason") + " > 0", "{{route}} {{reason}}"),
            unit="reqps",
            stacked=True,
        ).span(12),
        lines(
            "Hints",
            "Why signatures did not match, as far as it could be found. Each is a mistake with a remedy in docs/troubleshooting.md; "
            "unknown is nearly always another secret, or a forgery.",
            (rate("mismatch_hints_total", by="route, hint") + " > 0", "{{route}} {{hint}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Signature age",
            "Our clock minus the signed time. Below zero the sender's clock is ahead; a rising median is a queue on the way or our own "
            "clock. Past the tolerance (mostly 300 s) deliveries are refused.",
            *quantiles("signature_age_seconds", (0.05, 0.5, 0.95)),
            unit="s",
            negative=True,
        ),
        lines(
            "Handshakes",
            "What providers ask when a webhook is set up. refused: the token or the form is wrong, and the provider will not turn the "
            "webhook on; many of them without you setting one up: somebody tries.",
            (rate("handshakes_total", by="route, result"), "{{route}} {{result}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Age of network lists",
            "Since each provider's list was fetched, or published. It should be a sawtooth below ip_ranges.refresh; a straight line "
            "upwards is a list that can't be fetched, and new networks of the provider are refused.",
            (gauge("ip_ranges_age_seconds", function="max", by="preset"), "{{preset}}"),
            unit="s",
        ),
        lines(
            "Network lists that could not be fetched",
            "Failed fetches. The last good list stays at work. If they go on: NetworkPolicy, a proxy, or the provider's page; "
            "ip_ranges_failed in the log says which.",
            (
                f"sum by (preset) (rate(webhook_sidecar_ip_ranges_fetch_failures_total{{{EVERYWHERE}}}[$__rate_interval]))",
                "{{preset}}",
            ),
            unit="ops",
        ),
        lines(
            "Replay store",
            "1 while the shared replay store answers. 0: deliveries of routes with replay are answered 503, or forwarded unchecked. "
            "No data: the store is memory.",
            (gauge("replay_store_up", function="min", by="pod, instance"), "{{pod}} {{instance}}"),
        ),
        lines(
            "Replay protection that was not given",
            "Forwarded unchecked because the store could not be asked, and deliveries forgotten early because the memory store is full. "
            "Mend the store, or give it more room: copies came through meanwhile.",
            (rate("replay_unchecked_total", by="route"), "{{route}} unchecked"),
            (rate("replay_evictions_total", by="route"), "{{route}} forgotten"),
            unit="ops",
        ),
        lines(
            "What finds no route",
            "Requests for paths that no route takes, or that are no proper HTTP. Background noise of the internet; but if a route falls "
            "silent while no_route rises, a URL was changed at one end.",
            (
                f'sum by (reason) (rate(webhook_sidecar_deliveries_total{{{EVERYWHERE}, route=""}}[$__rate_interval])) > 0',
                "{{reason}}",
            ),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Cost of verifying, p99",
            "By route. Forgeries cost as much as real deliveries; if this rises under an attack, set limits.refusals or a smaller "
            "limits.body for the route.",
            (f"histogram_quantile(0.99, {rate('verify_duration_seconds_bucket', FOUND, by='route, le')})", "{{route}}"),
            unit="s",
        ),
    ]
    return filled(made, panels)
