"""The Security dashboard: rejections, shadow mode, hints, clocks, lists of networks, and replay protection."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import (
    MATCHED,
    NOT_TRANSIENT,
    SELECTED,
    add_panels,
    count,
    gauge,
    lines,
    name_unmatched,
    new_dashboard,
    number,
    quantiles,
    rate,
)

DELIVERIES = "webhook_sidecar_deliveries_total"


def security() -> Dashboard:
    dashboard = new_dashboard(
        "Security", "Rejections and their reasons, would-be rejections in shadow mode, clocks, and lists of networks."
    )
    panels = [
        number(
            "Rejected",
            "Deliveries rejected in the selected time, excluding duplicates, copies in progress and drains. A sudden "
            "rise means an attack or a changed secret; the reasons below show which.",
            count(DELIVERIES, f'outcome="rejected", {NOT_TRANSIENT}'),
        ),
        number(
            "Signature mismatches",
            "Well-formed signatures that match no secret. From a provider's addresses, they mean a wrong secret or a "
            "changed body; see the hints below. From other addresses, they are forgeries.",
            count(DELIVERIES, 'reason="signature_mismatch"'),
        ),
        number(
            "Would be rejected",
            "Deliveries that routes in shadow mode forwarded but mode: enforce would reject. They reach your "
            "receiver unverified. Once this stays at zero under real traffic, set the route to mode: enforce.",
            count("webhook_sidecar_shadow_rejections_total"),
            levels=[(1, "orange")],
        ),
        number(
            "Duplicates",
            "Copies that arrived within the route's replay time; the sender gets 200, and nothing is forwarded. Many "
            "duplicates mean that a provider does not get your responses in time, or that someone replays "
            "recordings.",
            count(DELIVERIES, 'outcome="duplicate"'),
        ),
        number(
            "Turned away",
            "Deliveries that got 503 or 429 without being verified: overloaded, draining, rate_limited, or the "
            "replay store or the provider's keys are unavailable. Real deliveries may be among them; see the "
            "runbook.",
            count(
                DELIVERIES,
                'outcome="rejected", reason=~"overloaded|draining|rate_limited|replay_store_unavailable|key_unavailable"',
            ),
            levels=[(1, "orange")],
        ),
        number(
            "Oldest network list",
            "Age of the oldest list of a provider's networks. More than three days, with ip_ranges.refresh on, means "
            "that fetching fails: search the log for ip_ranges_failed. No data means that no route uses a list.",
            gauge("webhook_sidecar_ip_ranges_age_seconds", function="max"),
            unit="s",
            levels=[(3 * 86400, "orange"), (90 * 86400, "red")],
        ),
        lines(
            "Rejections by reason and route",
            "Rejections per second. signature_mismatch on one route: check its secret. ip_not_allowed on all routes: "
            "the load balancer's address is used as the sender's; set trusted_proxies. (no route) counts requests "
            "that no route matches.",
            (
                name_unmatched(rate(DELIVERIES, 'outcome="rejected"', by="route, reason") + " > 0"),
                "{{route}} {{reason}}",
            ),
            unit="reqps",
            stacked=True,
        ).span(12),
        lines(
            "Would-be rejections in shadow mode",
            "Deliveries that routes in shadow mode forwarded but would have rejected. Once you enforce, each of "
            "these is either a lost delivery or a stopped forgery. The client and hint in the log show which.",
            (
                rate("webhook_sidecar_shadow_rejections_total", by="route, reason") + " > 0",
                "{{route}} {{reason}}",
            ),
            unit="reqps",
            stacked=True,
        ).span(12),
        lines(
            "Hints",
            "Probable causes of signature mismatches. docs/troubleshooting.md has a fix for each. unknown is nearly "
            "always a different secret or a forgery.",
            (rate("webhook_sidecar_mismatch_hints_total", by="route, hint") + " > 0", "{{route}} {{hint}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Signature age",
            "The sidecar's clock minus the signed time. Below zero, the sender's clock is ahead. A rising median "
            "means a queue in between, or that the sidecar's clock is wrong. Beyond the tolerance (usually 300 s), "
            "deliveries are rejected.",
            *quantiles("webhook_sidecar_signature_age_seconds", (0.05, 0.5, 0.95)),
            unit="s",
            negative=True,
        ),
        lines(
            "Handshakes",
            "Requests with which providers check a webhook during setup. rejected: the token or the format is wrong, "
            "and the provider will not enable the webhook. If there are many while you set up no webhook, someone is "
            "probing.",
            (rate("webhook_sidecar_handshakes_total", by="route, result"), "{{route}} {{result}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Age of network lists",
            "Time since each provider's list was fetched or published. It should be a sawtooth below "
            "ip_ranges.refresh. If a line only rises, the list can't be fetched, and new networks of the provider "
            "are rejected.",
            (gauge("webhook_sidecar_ip_ranges_age_seconds", function="max", by="preset"), "{{preset}}"),
            unit="s",
        ),
        lines(
            "Failed fetches of network lists",
            "The last good list stays in use. If fetching keeps failing, check the NetworkPolicy, the proxy and the provider's page; the "
            "log event ip_ranges_failed has the cause.",
            (
                f"sum by (preset) (rate(webhook_sidecar_ip_ranges_fetch_failures_total{{{SELECTED}}}[$__rate_interval]))",
                "{{preset}}",
            ),
            unit="ops",
        ),
        lines(
            "Age of published keys",
            "Time since each provider's keys were fetched. It should be a sawtooth below one hour, or the provider's "
            "Cache-Control. If a line only rises, the key server can't be reached. A gap means that keys were never "
            "fetched and deliveries get 503.",
            (gauge("webhook_sidecar_keys_age_seconds", function="max", by="source"), "{{source}}"),
            unit="s",
        ),
        lines(
            "Fetches of published keys",
            "Fetches per second, by result. absent: strangers name keys that don't exist. If any other result than "
            "ok repeats, see WebhookSidecarKeysStale in the runbook; the log event keys_failed has the cause.",
            (
                f"sum by (source, result) (rate(webhook_sidecar_key_fetches_total{{{SELECTED}}}[$__rate_interval])) > 0",
                "{{source}} {{result}}",
            ),
            unit="ops",
        ),
        lines(
            "Replay store",
            "1 while every process can reach the shared replay store. At 0, deliveries to routes with replay get "
            "503, or are forwarded unchecked. No data means that the store is in memory.",
            (gauge("webhook_sidecar_replay_store_up", function="min", by="pod, instance"), "{{pod}} {{instance}}"),
        ),
        lines(
            "Missing replay protection",
            "Deliveries forwarded unchecked because the store was unavailable, and deliveries forgotten early "
            "because the memory store was full. Duplicates may have been forwarded: fix the store, or give it more "
            "memory.",
            (rate("webhook_sidecar_replay_unchecked_total", by="route"), "{{route}} unchecked"),
            (rate("webhook_sidecar_replay_evictions_total", by="route"), "{{route}} forgotten"),
            unit="ops",
        ),
        lines(
            "Duplicates by route",
            "Copies that got 200 without being forwarded. Peaks after a receiver outage are normal retries. A steady "
            "share means that the provider does not get your responses in time: let the receiver respond faster.",
            (rate(DELIVERIES, f'outcome="duplicate", {MATCHED}', by="route"), "{{route}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Requests without a route",
            "Requests for paths that no route matches, or that are not valid HTTP. This is mostly noise from the "
            "internet. But if a route goes silent while no_route rises, the URL has changed on one side.",
            (
                f'sum by (reason) (rate(webhook_sidecar_deliveries_total{{{SELECTED}, route=""}}[$__rate_interval])) > 0',
                "{{reason}}",
            ),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Verification duration, p99",
            "By route. Verifying a forgery costs as much as verifying a real delivery. If this rises during an "
            "attack, set limits.refusals, or a smaller limits.body for the route.",
            (
                f"histogram_quantile(0.99, {rate('webhook_sidecar_verify_duration_seconds_bucket', MATCHED, by='route, le')})",
                "{{route}}",
            ),
            unit="s",
        ),
    ]
    return add_panels(dashboard, panels)
