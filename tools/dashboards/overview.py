"""What arrives, what is refused, what can't be delivered, and how long it takes."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import (
    COUNTED,
    EVERYWHERE,
    FOUND,
    begun,
    filled,
    gauge,
    lines,
    named,
    number,
    quantiles,
    rate,
    words,
)


def overview() -> Dashboard:
    rejected = f'outcome="rejected", {COUNTED}'
    every, refused = rate("deliveries_total"), rate("deliveries_total", rejected)
    failed = rate("deliveries_total", 'outcome="failed"')
    made = begun("Overview", "What arrives, what is refused, what can't be delivered, and how long it takes.")
    panels = [
        number(
            "Accepted",
            "Deliveries that were verified and that the receiver answered. Zero while the provider sends: look at Refused and Failed "
            "beside it. Zero and nothing refused: nothing arrives, see the runbook, WebhookSidecarRouteSilent.",
            rate("deliveries_total", 'outcome="accepted"'),
            unit="reqps",
        ),
        number(
            "Refused, share",
            "Refused deliveries of all; copies and drains are left out. Above a tenth: open the dashboard Security, and look which "
            "reason it is. It goes with the alert WebhookSidecarRejectionRatioHigh.",
            f"{refused} / {every}",
            unit="percentunit",
            levels=[(0.05, "orange"), (0.1, "red")],
        ),
        number(
            "Failed, share",
            "Verified deliveries that could not be handed over. Anything but zero: the receiver is down, slow or crashing. "
            "The reasons are below; the runbook has what to do under WebhookSidecarUpstreamFailing.",
            f"{failed} / {every}",
            unit="percentunit",
            levels=[(0.01, "orange"), (0.05, "red")],
        ),
        number(
            "In flight now",
            "Deliveries being worked on, in all pods. If it stays high, the receiver has become slow, or many slow senders are "
            "connected; at limits.connections new ones are answered 503.",
            gauge("in_flight"),
        ),
        number(
            "Configuration",
            "FAILED: at one pod at least the file on disk is wrong. The last good one is at work, but a restart would fail. "
            "The log line config_reload_failed has the line and the remedy.",
            gauge("config_last_reload_successful", function="min"),
            mappings=words(OK="green", FAILED="red"),
        ),
        number(
            "Running",
            "Processes that are scraped: pods, usually. Fewer than you run: look for pods that don't start, or for scraping that fails.",
            gauge("build_info", function="count"),
            levels=[],
        ),
        lines(
            "Deliveries by outcome",
            "Accepted, refused here, or verified but not delivered. When refusals rise, see the reasons on the right; when failures "
            "rise, look at the receiver.",
            (rate("deliveries_total", by="outcome"), "{{outcome}}"),
            unit="reqps",
            stacked=True,
            colours={"accepted": "green", "rejected": "orange", "failed": "red"},
        ),
        lines(
            "Rejected by reason",
            "Why deliveries were refused. signature_mismatch and timestamp reasons of real senders need you; signature_missing, "
            "no_route and malformed_request are mostly strangers. docs/reasons.md has each of them.",
            (rate("deliveries_total", 'outcome="rejected"', by="reason") + " > 0", "{{reason}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Rejection ratio by route",
            "Refused of all deliveries of each route. Above the line an alert is near. One route: its secret, its provider's "
            "networks. All routes: a clock, or the proxy in front.",
            (
                f"{rate('deliveries_total', f'{rejected}, {FOUND}', by='route')} / {rate('deliveries_total', FOUND, by='route')}",
                "{{route}}",
            ),
            unit="percentunit",
            bad=0.1,
        ),
        lines(
            "Failed, by reason",
            "unreachable: nothing listens there. timeout: it has the delivery and is slow. broke: it crashed or cut the answer. "
            "client_disconnected: the sender did not wait; look at the times below. internal_error: a bug, please report it.",
            (rate("deliveries_total", 'outcome="failed"', by="reason"), "{{reason}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Receiver's answers",
            "Status codes of the receiver, by class. 5xx: its own errors, providers send those again. 4xx: it refuses what the sidecar "
            "verified; often it checks signatures too, with another secret.",
            (rate("upstream_responses_total", by="code"), "{{code}}"),
            unit="reqps",
            stacked=True,
            colours={"1xx": "purple", "2xx": "green", "3xx": "blue", "4xx": "orange", "5xx": "red"},
        ),
        lines(
            "Deliveries by route",
            "Everything that arrives for each route. A route that falls to nothing: does its provider still send? (no route) is "
            "what no route takes.",
            (named(rate("deliveries_total", by="route")), "{{route}}"),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Time of a delivery",
            "From the request's head to the end of the answer. If it rises together with the receiver's time, the receiver is slow; "
            "if it rises alone, senders are slow or the sidecar lacks CPU.",
            *quantiles("delivery_duration_seconds"),
            unit="s",
        ),
        lines(
            "Time of the receiver",
            "From connecting to the receiver to the end of its answer. Near timeouts.response deliveries begin to fail: scale the "
            "receiver, or let it answer first and work later.",
            *quantiles("upstream_duration_seconds"),
            unit="s",
        ),
        lines(
            "Time of verifying",
            "Computing and comparing signatures. Milliseconds mean large bodies, many secrets or public keys; if it rises with the "
            "same traffic, the sidecar lacks CPU.",
            *quantiles("verify_duration_seconds"),
            unit="s",
        ),
        lines(
            "Body sizes",
            "Bodies as far as they were read. If p99 nears limits.body, real deliveries are about to be refused as body_too_large: "
            "raise the limit of the route.",
            *quantiles("body_bytes"),
            unit="bytes",
        ),
        lines(
            "In flight",
            "Deliveries being worked on, by pod. One pod far above the others: its receiver hangs. All of them: the receiver or its "
            "database is slow. See the runbook, WebhookSidecarOverloaded.",
            (gauge("in_flight", by="pod, instance"), "{{pod}} {{instance}}"),
        ),
        lines(
            "Buffered",
            "Bytes of bodies in memory, by pod. At limits.buffer (64 MiB unless you set it) further bodies are answered 503: slow "
            "receiver, or larger deliveries than planned.",
            (gauge("buffered_bytes", by="pod, instance"), "{{pod}} {{instance}}"),
            unit="bytes",
        ),
        lines(
            "Memory, share of the limit",
            "Resident memory against what the container may have. Above the line an alert is near, and at 1 the process is killed: "
            "lower limits.buffer or raise the memory limit.",
            (
                f"process_resident_memory_bytes{{{EVERYWHERE}}} / webhook_sidecar_memory_limit_bytes{{{EVERYWHERE}}}",
                "{{pod}} {{instance}}",
            ),
            unit="percentunit",
            bad=0.85,
        ),
        lines(
            "Configuration's age",
            "Since each pod last loaded its configuration. After a change all curves fall to zero; one that doesn't belongs to a pod "
            "that did not get it, or could not use it.",
            (
                f"time() - {gauge('config_last_reload_success_timestamp_seconds', function='min', by='pod, instance')}",
                "{{pod}} {{instance}}",
            ),
            unit="s",
        ),
        lines(
            "Workers",
            "Processes that take deliveries, and those that ended unasked in the last quarter of an hour. Ends that repeat: look for "
            "worker_ended in the log; a status of -9 is mostly the memory limit.",
            (gauge("workers", by="pod, instance"), "{{pod}} {{instance}}"),
            (
                f"sum by (pod, instance) (increase(webhook_sidecar_worker_exits_total{{{EVERYWHERE}}}[15m]))",
                "{{pod}} {{instance}} ended",
            ),
        ),
    ]
    return filled(made, panels)
