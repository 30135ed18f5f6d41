"""Stage 3's brake: a sender that a route keeps rejecting must wait (`limits.refusals`).

The snapshot of the configuration holds the counts, so a reload starts them again: what another configuration rejected says
little about this one, which may have the secret that was missing.
"""

from collections.abc import Callable

from sidecar.delivery.delivery import Delivery
from sidecar.http1.head import FORWARDING_HEADERS
from sidecar.outcomes import RESPONSES, VERIFICATION, Reason, Rejected
from sidecar.telemetry.log import Level, Log


class Throttle:
    """Holds back senders by client address, and never a proxy, whose address many senders share."""

    def __init__(self, log: Log, monotonic: Callable[[], float]) -> None:
        self._log = log
        self._monotonic = monotonic

    def check(self, delivery: Delivery) -> Rejected | None:
        """The rejection of a sender that must wait. Warns once a route where the addresses are probably proxies'."""
        snapshot, route = delivery.snapshot, delivery.route
        if _is_probably_proxied(delivery):
            self._warn_of_proxy(delivery)
        limit = snapshot.refusal_limit
        if limit.rate is None or delivery.client is None:
            return None
        wait = limit.wait(route.name, delivery.client.address, self._monotonic())
        if not wait:
            return None
        response = RESPONSES[Reason.RATE_LIMITED]._replace(retry_after=wait)
        return Rejected(Reason.RATE_LIMITED, f"more than {limit.rate} were rejected", response=response)

    def count(self, delivery: Delivery, reason: Reason) -> None:
        """Counts a rejection by verification against its sender."""
        snapshot, client = delivery.snapshot, delivery.client
        if snapshot.refusal_limit.rate is None or reason not in VERIFICATION or client is None:
            return
        address = client.address
        if address is None or address in snapshot.config.trusted_proxies or _is_probably_proxied(delivery):
            return  # a proxy's, probably; `_warn_of_proxy` said so
        snapshot.refusal_limit.count_rejection(delivery.route.name, address, self._monotonic())

    def _warn_of_proxy(self, delivery: Delivery) -> None:
        snapshot, route, head = delivery.snapshot, delivery.route, delivery.head
        if route.name in snapshot.warned or (route.allow is None and snapshot.refusal_limit.rate is None):
            return
        snapshot.warned.add(route.name)
        consequence = (
            "the allowlist checks the connection's own address"
            if route.allow is not None
            else "limits.refusals skips deliveries with such a header, because all senders may share the address"
        )
        self._log.event(
            "forwarding_header_ignored",
            Level.WARNING,
            route=route.name,
            header=next(name for name in FORWARDING_HEADERS if name in head.fields).decode(),
            peer=head.peer or "unix:",
            detail=f"{consequence}; if that is a proxy's, add it to trusted_proxies",
        )


def _is_probably_proxied(delivery: Delivery) -> bool:
    """Whether a header names another sender, and no proxy is trusted to write one."""
    return delivery.snapshot.trusts_nobody and delivery.head.names.forwarding
