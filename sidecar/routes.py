"""Which route takes a request, and whether it may come in at all: path, method, address."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sidecar.client_ip import Client, Networks
from sidecar.http1.upstream import UpstreamAddress
from sidecar.outcomes import Reason, Rejected
from sidecar.replay.store import Replay
from sidecar.secret import Secret
from sidecar.verify.handshake import Handshakes
from sidecar.verify.handshake import Mode as HandshakeMode
from sidecar.verify.standard_webhooks import Resigner
from sidecar.verify.verifier import Verifier

#: What some receivers resolve or unescape to another path than the one we matched (CVE-2021-29492 and kin): dot
#: segments, also with parameters (`..;x`), empty segments, backslashes, and escapes of `.`, `/`, `\` and `%`.
_AMBIGUOUS: Final = re.compile(rb"(^|/)\.{1,2}(;[^/]*)?(/|$)|//|\\|%(2[EeFf5]|5[Cc]|3[Bb]|00)")


class Refusal(NamedTuple):
    """The one answer to every refusal by verification or allowlist."""

    status: int
    body: bytes


DEFAULT_REFUSAL: Final = Refusal(403, b'{"detail":"Validation Failure"}')


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route:
    """One entry of `routes:`, ready to work."""

    name: str
    path: bytes  #: without the `*` of a prefix route
    prefix: bool
    methods: frozenset[str]
    upstream: UpstreamAddress
    body_limit: int  #: bytes
    refusal: Refusal
    verifier: Verifier | None  #: None for `verify: none` and `open: true`
    preset: str = ""
    open: bool = False
    allow: Networks | None = None
    shadow: bool = False
    handshakes: Handshakes | None = None
    replay: Replay | None = None
    resigner: Resigner | None = None  #: `sign:`

    @property
    def pattern(self) -> str:
        return self.path.decode() + ("*" if self.prefix else "")

    @property
    def secret_ids(self) -> list[str]:
        return [secret.id for secret in self.verifier.secrets] if self.verifier else []

    @property
    def allow_header(self) -> bytes:
        return ", ".join(sorted(self.methods)).encode()

    def takes(self, path: bytes) -> bool:
        """Whether this route's path is `path` or lies above it."""
        return path.startswith(self.path) if self.prefix else path == self.path


class RouteTable:
    """Routes by exact raw path, else by the one prefix above it. No decoding, no normalising, no regular expressions."""

    __slots__ = ("_exact", "_prefixes", "routes")

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact = {route.path: route for route in self.routes if not route.prefix}
        self._prefixes = {route.path: route for route in self.routes if route.prefix}

    def find(self, path: bytes) -> Route:
        """The route of a raw path. Raises `Rejected(no_route)`."""
        route = self._exact.get(path)
        if route is None and self._prefixes:
            route = self._below_prefix(path)
        if route is None:
            raise Rejected(Reason.NO_ROUTE, "no route has this path")
        return route

    def _below_prefix(self, path: bytes) -> Route | None:
        end = len(path)
        while (end := path.rfind(b"/", 0, end)) >= 0:
            route = self._prefixes.get(path[: end + 1])
            if route is not None:
                # Only below a prefix can a receiver's reading of the path differ from ours and still be matched here.
                return None if _AMBIGUOUS.search(path) else route
        return None


def overlapping(routes: Sequence[Route]) -> list[tuple[int, int]]:
    """Pairs of indices whose paths have a request in common.

    Not merely untidy: receivers unescape paths, so `/hooks/begin%69` would be verified by the route `/hooks/*` and
    delivered to what `/hooks/begini` protects.
    """
    order = sorted(range(len(routes)), key=lambda i: (routes[i].path, not routes[i].prefix))
    pairs: list[tuple[int, int]] = []
    above: list[int] = []
    for i in order:
        while above and not routes[above[-1]].takes(routes[i].path):
            above.pop()
        if above:
            pairs.append((min(above[-1], i), max(above[-1], i)))
        above.append(i)
    return sorted(pairs)


def admit(route: Route, method: str, client: Client, *, handshake: bool = False) -> None:
    """Raises `Rejected` if the route doesn't take this method, or its allowlist this client. A handshake has its own method."""
    if not handshake:
        check_method(route, method)
    check_address(route, client)


def check_method(route: Route, method: str) -> None:
    if method not in route.methods:
        raise Rejected(Reason.METHOD_NOT_ALLOWED, f"the route takes {', '.join(sorted(route.methods))}")


def check_address(route: Route, client: Client) -> None:
    if client.unreadable:
        raise Rejected(Reason.CLIENT_IP_UNREADABLE, f"unreadable: {client.unreadable}")
    if route.allow is None:
        return
    if client.address is None:
        raise Rejected(
            Reason.IP_NOT_ALLOWED,
            "the connection has no address (a unix socket, or a proxy that knows none); trust 'unix:' so that a header counts",
        )
    if client.address not in route.allow:
        raise Rejected(Reason.IP_NOT_ALLOWED, "the client's address is in no network of the route's allowlist")


def foreign_secrets(routes: Sequence[Route], but: Route) -> list[tuple[str, Secret]]:
    """The secrets of all other routes, with the routes' names."""
    return [
        (route.name, secret)
        for route in routes
        if route is not but and route.verifier is not None
        for secret in route.verifier.secrets
    ]


class Waived(NamedTuple):
    """The leave to forward a delivery that no secret vouches for; only `waive` gives it."""

    label: str  #: value of X-Webhook-Verified; empty for none
    admitted: bool = False  #: whether the allowlist vouches for it, where that is all the route asks for


def waive(route: Route, would_reject: Reason | None, *, handshake: bool = False) -> Waived:
    """For an open route, a route that admits by address alone, a rejection in shadow mode, and an unsigned handshake that
    the route passes on; else it is a bug.
    """
    if route.open:
        return Waived("")
    if route.shadow and would_reject is not None:
        return Waived("shadow-rejected")
    if handshake and route.handshakes is not None and route.handshakes.mode is HandshakeMode.PASS:
        return Waived("")
    if route.verifier is None and route.allow is not None and would_reject is None:
        return Waived(route.name, admitted=True)  # `admit` found the client in the allowlist
    raise RuntimeError("this delivery was never verified")
