"""The Overview dashboard: accepted, rejected and failed deliveries, durations, and limits."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import (
    MATCHED,
    NOT_TRANSIENT,
    SELECTED,
    add_panels,
    gauge,
    lines,
    map_values,
    name_unmatched,
    new_dashboard,
    number,
    quantiles,
    rate,
)

DELIVERIES = "webhook_sidecar_deliveries_total"


def overview() -> Dashboard:
    rejected_labels = f'outcome="rejected", {NOT_TRANSIENT}'
    every, rejected = rate(DELIVERIES), rate(DELIVERIES, rejected_labels)
    failed = rate(DELIVERIES, 'outcome="failed"')
    dashboard = new_dashboard(
        "Overview", "Accepted, rejected and failed deliveries, their durations, and the use of the limits."
    )
    panels = [
        number(
            "Accepted",
            "Verified deliveries with a response from the receiver. If this is zero while the provider sends, check "
            "the rejection and failure ratios next to it. If those are zero too, nothing arrives: see "
            "WebhookSidecarRouteSilent in the runbook.",
            rate(DELIVERIES, 'outcome="accepted"'),
            unit="reqps",
        ),
        number(
            "Rejection ratio",
            "Share of deliveries that were rejected, excluding duplicates, copies in progress and drains. If it "
            "exceeds 10%, check the reasons on the Security dashboard. The alert is "
            "WebhookSidecarRejectionRatioHigh.",
            f"{rejected} / {every}",
            unit="percentunit",
            levels=[(0.05, "orange"), (0.1, "red")],
        ),
        number(
            "Failure ratio",
            "Share of deliveries that were verified but not delivered. If it is above zero, the receiver is down, "
            "slow or crashing. The reasons are below; see WebhookSidecarUpstreamFailing in the runbook.",
            f"{failed} / {every}",
            unit="percentunit",
            levels=[(0.01, "orange"), (0.05, "red")],
        ),
        number(
            "In flight now",
            "Deliveries in progress on all pods. If this stays high, the receiver is slow, or many slow senders are "
            "connected. At limits.connections new deliveries get a 503 response.",
            gauge("webhook_sidecar_in_flight"),
        ),
        number(
            "Configuration",
            "FAILED: at least one pod could not load the configuration file. The last good configuration is still in "
            "use, but a restart would fail. The log event config_reload_failed has the line and the fix.",
            gauge("webhook_sidecar_config_last_reload_successful", function="min"),
            mappings=map_values(OK="green", FAILED="red"),
        ),
        number(
            "Running",
            "Scraped processes, usually one per pod. If there are fewer than expected, check for pods that don't "
            "start and for failing scrapes (NetworkPolicy, ServiceMonitor labels).",
            gauge("webhook_sidecar_build_info", function="count"),
            levels=[],
        ),
        lines(
            "Deliveries by outcome",
            "accepted: the receiver responded. duplicate: delivered before; the sidecar responded with 200. "
            "rejected: see the reasons on the right. failed: verified but not delivered; check the receiver.",
            (rate(DELIVERIES, by="outcome"), "{{outcome}}"),
            unit="reqps",
            stacked=True,
            colours={"accepted": "green", "duplicate": "blue", "rejected": "orange", "failed": "red"},
        ),
        lines(
            "Rejected by reason",
            "signature_mismatch and timestamp reasons from real senders need action. signature_missing, no_route and malformed_request "
            "are mostly noise from the internet. docs/reasons.md explains each reason.",
            (rate(DELIVERIES, 'outcome="rejected"', by="reason") + " > 0", "{{reason}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Rejection ratio by route",
            "Share of each route's deliveries that were rejected. Above the line an alert is about to fire. For a "
            "single route, check its secret and its provider's networks. For all routes, check the clock or the "
            "proxy in front.",
            (
                f"{rate(DELIVERIES, f'{rejected_labels}, {MATCHED}', by='route')} / {rate(DELIVERIES, MATCHED, by='route')}",
                "{{route}}",
            ),
            unit="percentunit",
            bad=0.1,
        ),
        lines(
            "Failed by reason",
            "unreachable: the receiver doesn't listen. timeout: it has the delivery but is slow. broke: it crashed "
            "or cut the response short. client_disconnected: the sender did not wait. draining: cut off at shutdown; "
            "raise drain. internal_error: a bug; please report it.",
            (rate(DELIVERIES, 'outcome="failed"', by="reason"), "{{reason}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Receiver responses",
            "Status codes of the receiver, by class. 5xx: receiver errors, which most providers retry. 4xx: the "
            "receiver rejects verified deliveries; often it checks signatures too, with a different secret.",
            (rate("webhook_sidecar_upstream_responses_total", by="code"), "{{code}}"),
            unit="reqps",
            stacked=True,
            colours={"1xx": "purple", "2xx": "green", "3xx": "blue", "4xx": "orange", "5xx": "red"},
        ),
        lines(
            "Deliveries by route",
            "All deliveries of each route. If a route drops to zero, check whether its provider still sends. (no "
            "route) counts requests that no route matches.",
            (name_unmatched(rate(DELIVERIES, by="route")), "{{route}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Delivery duration",
            "Time from the request head to the end of the response. If it rises together with the receiver duration, "
            "the receiver is slow. If it rises alone, senders are slow or the sidecar needs more CPU.",
            *quantiles("webhook_sidecar_delivery_duration_seconds"),
            unit="s",
        ),
        lines(
            "Receiver duration",
            "Time from connecting to the receiver to the end of its response. Near timeouts.response, deliveries "
            "start to fail: scale the receiver, or let it respond first and do the work later.",
            *quantiles("webhook_sidecar_upstream_duration_seconds"),
            unit="s",
        ),
        lines(
            "Verification duration",
            "Time to compute and compare signatures. Milliseconds mean large bodies, many secrets or public keys. If "
            "it rises while traffic is constant, the sidecar needs more CPU.",
            *quantiles("webhook_sidecar_verify_duration_seconds"),
            unit="s",
        ),
        lines(
            "Body sizes",
            "Size of the part of bodies that was read. If p99 approaches limits.body, real deliveries will soon be "
            "rejected as body_too_large: raise the limit of the route.",
            *quantiles("webhook_sidecar_body_bytes"),
            unit="bytes",
        ),
        lines(
            "In flight",
            "Deliveries in progress, by pod. If one pod is far above the others, its receiver hangs. If all pods are "
            "high, the receiver or its database is slow. See WebhookSidecarOverloaded in the runbook.",
            (gauge("webhook_sidecar_in_flight", by="pod, instance"), "{{pod}} {{instance}}"),
        ),
        lines(
            "Buffered",
            "Bytes of bodies in memory, by pod. At limits.buffer (default 64 MiB) further bodies get a 503 response: "
            "the receiver is slow, or deliveries are larger than expected.",
            (gauge("webhook_sidecar_buffered_bytes", by="pod, instance"), "{{pod}} {{instance}}"),
            unit="bytes",
        ),
        lines(
            "Memory, ratio to the limit",
            "Resident memory as a share of the container's limit. Above the line an alert is about to fire, and at "
            "100% the process is killed: lower limits.buffer or raise the memory limit.",
            (
                f"process_resident_memory_bytes{{{SELECTED}}} / webhook_sidecar_memory_limit_bytes{{{SELECTED}}}",
                "{{pod}} {{instance}}",
            ),
            unit="percentunit",
            bad=0.85,
        ),
        lines(
            "Configuration age",
            "Time since each pod last loaded its configuration. After a change, all curves fall to zero. If one "
            "doesn't, its pod did not get the change or could not load it.",
            (
                f"time() - {gauge('webhook_sidecar_config_last_reload_success_timestamp_seconds', function='min', by='pod, instance')}",
                "{{pod}} {{instance}}",
            ),
            unit="s",
        ),
        lines(
            "Workers",
            "Processes that accept deliveries, and unexpected exits within the last 15 minutes. If exits repeat, "
            "search the log for worker_ended; SIGKILL usually means that the memory limit was reached.",
            (gauge("webhook_sidecar_workers", by="pod, instance"), "{{pod}} {{instance}}"),
            (
                f"sum by (pod, instance) (increase(webhook_sidecar_worker_exits_total{{{SELECTED}}}[15m]))",
                "{{pod}} {{instance}} exited",
            ),
        ),
    ]
    return add_panels(dashboard, panels)
