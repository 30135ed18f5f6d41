"""When each tenant in rotation last used its old and its new secret.

Tenants are not labels of a metric, because their number has no limit. Only those with two secrets are kept here, in memory.
"""

from typing import Final, NamedTuple

from sidecar.verify.tenants import PREVIOUS, Tenants

#: Tenants of one route that are remembered; beyond it the one that used a secret longest ago is forgotten.
MAX_REMEMBERED: Final = 20_000


class TenantUse(NamedTuple):
    """One tenant in rotation. Times are in unix seconds, 0 for never since the start."""

    route: str
    tenant: str
    previous_used: float = 0.0
    current_used: float = 0.0


class TenantUses:
    """The uses that one process has seen. They outlive reloads."""

    def __init__(self) -> None:
        self._uses: dict[str, dict[str, TenantUse]] = {}

    def note(self, route: str, tenant: str, secret_id: str, now: float) -> None:
        """A delivery of a tenant with two secrets was verified."""
        uses = self._uses.setdefault(route, {})
        use = uses.pop(tenant, None) or TenantUse(route, tenant)
        uses[tenant] = use._replace(previous_used=now) if secret_id == PREVIOUS else use._replace(current_used=now)
        if len(uses) > MAX_REMEMBERED:
            del uses[next(iter(uses))]

    def listed(self, route: str, tenants: Tenants) -> list[TenantUse]:
        """Every tenant of a route that has a previous secret now."""
        uses = self._uses.get(route, {})
        return [
            uses.get(tenant) or TenantUse(route, tenant)
            for tenant, secrets in list(tenants.store.items())
            if secrets.previous is not None
        ]


def merge(listed: list[TenantUse]) -> list[TenantUse]:
    """The uses of several processes, one for each tenant: the latest times. Those that used the old secret last come first."""
    merged: dict[tuple[str, str], TenantUse] = {}
    for use in listed:
        known = merged.get((use.route, use.tenant), use)
        merged[use.route, use.tenant] = use._replace(
            previous_used=max(use.previous_used, known.previous_used),
            current_used=max(use.current_used, known.current_used),
        )
    return sorted(merged.values(), key=lambda use: (-use.previous_used, use.route, use.tenant))
