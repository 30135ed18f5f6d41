"""The Rotation dashboard: which secret verifies, when each was last used, and whether the old one can be removed."""

from grafana_foundation_sdk.builders.dashboard import CustomVariable, Dashboard
from grafana_foundation_sdk.models.dashboard import VariableOption

from dashboards.panels import (
    MATCHED,
    SELECTED_ROUTES,
    add_panels,
    gauge,
    lines,
    map_values,
    new_dashboard,
    prop,
    rate,
    rows,
)


def rotation() -> Dashboard:
    dashboard = new_dashboard(
        "Rotation", "Which secret verifies, when each one was last used, and whether the old one can be removed."
    )
    dashboard.with_variable(
        CustomVariable("quiet")
        .label("Unused for")
        .description("How long a secret must have been unused. Choose a time longer than your providers' retries.")
        .values("1h,6h,1d,3d,7d,14d")
        .current(VariableOption(text="3d", value="3d"))
    )
    matches = f"webhook_sidecar_secret_matches_total{{{SELECTED_ROUTES}}}"
    each, within = "namespace, route, secret", f"increase({matches}[$quiet])"
    last = (
        f"max by ({each}) (max_over_time(webhook_sidecar_secret_last_used_timestamp_seconds{{{SELECTED_ROUTES}}}[30d]))"
    )
    # 1: used before, but no match in that time while the route verified deliveries. 2: the same, but never used at all.
    # 0: all others, and secrets that have not been observed for that long.
    verdict = (
        f"((sum by ({each}) ({within}) == bool 0)"
        f" * on (namespace, route) group_left () (sum by (namespace, route) ({within}) > bool 0)"
        f" * on ({each}) (1 + ({last} == bool 0))"
        f" and on ({each}) sum by ({each}) ({matches} offset $quiet))"
        f" or sum by ({each}) ({matches}) * 0"
    )
    ago = [prop("unit", "dateTimeFromNow")]
    panels = [
        rows(
            "Safe to remove?",
            "Safe to remove: the secret was in use, but has not matched for the selected time on any pod, while the "
            "route verified deliveries with another secret. Keep: it is in use, or was not observed long enough. Not "
            "used yet: the provider does not sign with it yet. If an old secret stays in use, some sender still has "
            "it: see docs/rotation.md, step 3.",
            [
                (
                    "Verdict",
                    verdict,
                    [
                        prop("mappings", map_values(Not_used_yet="blue", Safe_to_remove="green", Keep="text")),
                        prop("custom.cellOptions", {"type": "color-text"}),
                    ],
                ),
                ("Matches in that time", f"sum by ({each}) ({within})", [prop("decimals", 0)]),
                ("Last used", f"{last} * 1000 > 0", ago),
                (
                    "Retire by",
                    f"max by ({each}) (webhook_sidecar_secret_retire_by_timestamp_seconds{{{SELECTED_ROUTES}}}) * 1000",
                    ago,
                ),
            ],
        ),
        lines(
            "Which secret matched",
            "Verified deliveries per second, by the secret that matched. During a rotation, the curve of the old "
            "secret falls to zero after the change at the provider. If it doesn't, the provider still signs with the "
            "old secret.",
            (rate("webhook_sidecar_secret_matches_total", by="route, secret"), "{{route}} {{secret}}"),
            unit="reqps",
            stacked=True,
        ).span(12),
        lines(
            "Time since last use",
            "Time since each secret last matched on any pod, since the pods started. A secret in use stays near "
            "zero, and an unused one rises. If a curve falls back to zero, the secret is still in use.",
            (
                f"time() - (max by (route, secret) (webhook_sidecar_secret_last_used_timestamp_seconds{{{SELECTED_ROUTES}}}) > 0)",
                "{{route}} {{secret}}",
            ),
            unit="s",
        ).span(12),
        lines(
            "Signature mismatches",
            "A removed or wrong secret causes these. If they rise after a step of the rotation, add the old secret "
            "again as a second one; most providers retry the rejected deliveries.",
            (
                rate(
                    "webhook_sidecar_deliveries_total",
                    f'reason=~"signature_mismatch|token_mismatch", {MATCHED}',
                    by="route",
                ),
                "{{route}}",
            ),
            unit="reqps",
        ),
        lines(
            "Configuration age",
            "Continue with the next step once all pods have loaded the change, that is, once every curve has fallen "
            "to zero. If one hasn't, its mount is not updated yet, or the configuration is invalid.",
            (
                f"time() - {gauge('webhook_sidecar_config_last_reload_success_timestamp_seconds', function='min', by='pod, instance')}",
                "{{pod}} {{instance}}",
            ),
            unit="s",
        ),
        lines(
            "Days until retire_by",
            "Days until a secret should no longer be used. If this is below zero and the secret is still in use, the "
            "alert WebhookSidecarOldSecretInUse fires: finish the rotation, or change the date.",
            (
                f"(max by (route, secret) (webhook_sidecar_secret_retire_by_timestamp_seconds{{{SELECTED_ROUTES}}}) - time()) / 86400",
                "{{route}} {{secret}}",
            ),
            unit="d",
            negative=True,
        ),
    ]
    return add_panels(dashboard, panels)
