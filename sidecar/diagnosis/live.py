"""Hints on live traffic: `diagnose` for rejected deliveries, after the response and under a limit.

The response is sent before anything is tried, so neither its content nor its timing shows what was found. Of many rejections
only `PER_SECOND` are diagnosed; the others have no hint, and are not counted as `unknown`.
"""

from collections.abc import Callable, Sequence
from typing import Final

from sidecar.diagnosis.diagnose import DIAGNOSABLE, LIVE, MAX_LIVE_BODY, diagnose
from sidecar.http1.head import RequestHead
from sidecar.outcomes import Hint, Reason
from sidecar.routing.routes import Route, foreign_secrets

#: Diagnoses of one process; each takes a few milliseconds at most, so together about a twentieth of a core.
PER_SECOND: Final = 10


class Hints:
    """Decides which rejections are diagnosed, and diagnoses them."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._second = 0
        self._left = 0

    def wants(self, reason: Reason | None, route: Route | None, body_size: int) -> bool:
        """Whether to diagnose a rejection; if so, it counts against the limit."""
        if reason not in DIAGNOSABLE or route is None or route.verifier is None or body_size > MAX_LIVE_BODY:
            return False
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._left = second, PER_SECOND
        self._left -= 1
        return self._left >= 0

    def hint(
        self,
        reason: Reason,
        route: Route,
        head: RequestHead,
        pieces: Sequence[bytes],
        *,
        now: float,
        routes: Sequence[Route],
    ) -> Hint | None:
        """The hint; None if the reason says enough."""
        assert route.verifier is not None
        others = foreign_secrets(routes, route)
        found = diagnose(reason, route.verifier, head, b"".join(pieces), now=now, effort=LIVE, others=others)
        return found.hint if found is not None else None
