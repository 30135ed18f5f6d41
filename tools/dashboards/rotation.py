"""Which secret verifies, when each was last used, and whether the old one can go."""

from grafana_foundation_sdk.builders.dashboard import CustomVariable, Dashboard
from grafana_foundation_sdk.models.dashboard import VariableOption

from dashboards.panels import FOUND, ROUTES, begun, filled, gauge, lines, rate, rows, shown, words


def rotation() -> Dashboard:
    made = begun("Rotation", "Which secret verifies, when each was last used, and whether the old one can go.")
    made.with_variable(
        CustomVariable("quiet")
        .label("Unused for")
        .description("How long a secret must have matched nothing: longer than your providers try again.")
        .values("1h,6h,1d,3d,7d,14d")
        .current(VariableOption(text="3d", value="3d"))
    )
    matches = f"webhook_sidecar_secret_matches_total{{{ROUTES}}}"
    each, within = "namespace, route, secret", f"increase({matches}[$quiet])"
    last = f"max by ({each}) (max_over_time(webhook_sidecar_secret_last_used_timestamp_seconds{{{ROUTES}}}[30d]))"
    # 1: matched nothing in all that time, while its route did verify, but was used before. 2: the same, and never used at all.
    # 0: anything else, and what has not been watched for so long.
    verdict = (
        f"((sum by ({each}) ({within}) == bool 0)"
        f" * on (namespace, route) group_left () (sum by (namespace, route) ({within}) > bool 0)"
        f" * on ({each}) (1 + ({last} == bool 0))"
        f" and on ({each}) sum by ({each}) ({matches} offset $quiet))"
        f" or sum by ({each}) ({matches}) * 0"
    )
    ago = [shown("unit", "dateTimeFromNow")]
    panels = [
        rows(
            "Safe to remove?",
            "Safe to remove: the secret was in use, and has matched nothing for the chosen time on any pod, while the route went on "
            "verifying with another. Keep: it is in use, or nobody knows yet. Not used yet: a new one, the provider does not sign with it. "
            "If an old one stays in use, some sender still has it: docs/rotation.md, step 3.",
            [
                (
                    "Verdict",
                    verdict,
                    [
                        shown("mappings", words(Not_used_yet="blue", Safe_to_remove="green", Keep="text")),
                        shown("custom.cellOptions", {"type": "color-text"}),
                    ],
                ),
                ("Matches in that time", f"sum by ({each}) ({within})", [shown("decimals", 0)]),
                ("Last used", f"{last} * 1000 > 0", ago),
                (
                    "Retire by",
                    f"max by ({each}) (webhook_sidecar_secret_retire_by_timestamp_seconds{{{ROUTES}}}) * 1000",
                    ago,
                ),
            ],
        ),
        lines(
            "Which secret matched",
            "Verified deliveries per second, by the secret that matched. In a rotation the old one's curve falls to zero after the "
            "provider's change; if it doesn't, the provider still signs with it.",
            (rate("secret_matches_total", by="route, secret"), "{{route}} {{secret}}"),
            unit="reqps",
            stacked=True,
        ).span(12),
        lines(
            "Since the last use",
            "How long ago each secret last matched, over all pods, since they started. The one in use stays near zero; the old one "
            "climbs. One that falls back to zero is still in use somewhere.",
            (
                f"time() - (max by (route, secret) (webhook_sidecar_secret_last_used_timestamp_seconds{{{ROUTES}}}) > 0)",
                "{{route}} {{secret}}",
            ),
            unit="s",
        ).span(12),
        lines(
            "Signature mismatches",
            "What a removed or wrong secret looks like. If it rises after a step of the rotation, put the old secret back as a second; "
            "the providers send again what was refused.",
            (
                rate("deliveries_total", f'reason=~"signature_mismatch|token_mismatch", {FOUND}', by="route"),
                "{{route}}",
            ),
            unit="reqps",
        ),
        lines(
            "Configuration loaded, ago",
            "Go on with the next step when all pods have loaded the change: every curve has fallen to zero since. One that has not: "
            "its mount is not updated yet, or the configuration is wrong.",
            (
                f"time() - {gauge('config_last_reload_success_timestamp_seconds', function='min', by='pod, instance')}",
                "{{pod}} {{instance}}",
            ),
            unit="s",
        ),
        lines(
            "Days until retire_by",
            "Days that are left until a secret should be out of use. Below zero and still in use: the alert "
            "WebhookSidecarOldSecretInUse fires; finish the rotation, or move the day.",
            (
                f"(max by (route, secret) (webhook_sidecar_secret_retire_by_timestamp_seconds{{{ROUTES}}}) - time()) / 86400",
                "{{route}} {{secret}}",
            ),
            unit="d",
            negative=True,
        ),
    ]
    return filled(made, panels)
