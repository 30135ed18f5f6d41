"""Routes, and which of them handles a path on a host."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sidecar.http1.head import RequestHead
from sidecar.http1.upstream import UpstreamAddress, UpstreamSettings
from sidecar.outcomes import Reason, Rejected, RejectionResponse
from sidecar.replay.store import Replay
from sidecar.routing.client_certificate import ClientCertificate
from sidecar.routing.networks import Networks
from sidecar.routing.receiver_headers import ReceiverHeaders
from sidecar.secret import Secret
from sidecar.verify.handshake import Handshakes
from sidecar.verify.standard_webhooks import UpstreamSigner
from sidecar.verify.tenants import PLACE, Tenants, is_name
from sidecar.verify.verifier import Verifier

#: Parts that some receivers resolve or unescape to a different path than the one we matched (CVE-2021-29492 and similar):
#: dot segments, also with parameters (`..;x`), empty segments, backslashes, escapes of `.`, `/`, `\`, `%`, `;` and NUL. Each
#: alternative begins with a character of its own, so that `re` skips all others quickly.
_AMBIGUOUS: Final = re.compile(rb"/(?:/|\.{1,2}(?:;[^/]*)?(?:/|$))|\\|%(?:2[EeFf5]|5[Cc]|3[Bb]|00)")


#: Replaces a secret in a path that is shown.
HIDDEN: Final = b"***"


class Capture(NamedTuple):
    """A route's `capture:`."""

    rejected: int  #: how many of the last rejected requests are held
    seconds: float  #: for how long each of them is


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route:
    """One entry of `routes:`, ready to use."""

    name: str
    path: bytes  #: without the `*` of a prefix route
    prefix: bool
    methods: frozenset[str]
    upstream: UpstreamAddress
    body_limit: int  #: bytes
    rejection: RejectionResponse
    verifier: Verifier | None  #: None for `verify: none` and `open: true`
    hosts: tuple[bytes, ...] = ()  #: lower-case names, or `*.` and a domain for all names below it; empty: any host
    preset: str = ""
    open: bool = False
    allow: Networks | None = None
    shadow: bool = False
    handshakes: Handshakes | None = None
    replay: Replay | None = None
    capture: Capture | None = None
    client_certificate: ClientCertificate | None = None
    upstream_signer: UpstreamSigner | None = None  #: `sign:`
    tenants: Tenants | None = None  #: whose secrets verify, in place of the verifier's own
    segments: tuple[bytes, ...] = ()  #: of a path with `PLACE`, the placeholder of the tenant
    headers: ReceiverHeaders | None = None  #: `headers:`
    pool: UpstreamSettings | None = None  #: how the receiver is connected to; None: as the whole configuration says
    host: bytes = b""  #: the Host that the receiver gets; empty: the sender's

    @property
    def pattern(self) -> str:
        if self.segments:
            return b"/".join(self.segments).decode()
        return self.path.decode() + ("*" if self.prefix else "")

    @property
    def hides_path(self) -> bool:
        """Whether a segment of the path is a secret."""
        return self.verifier is not None and self.verifier.hides_path

    @property
    def place(self) -> str:
        """Hosts and path, for people."""
        return f"{b'|'.join(self.hosts).decode()}{self.pattern}"

    @property
    def forwards(self) -> bool:
        """Whether it has a receiver. A route without one is for the authorize listener alone."""
        return bool(self.upstream.host or self.upstream.path)

    @property
    def secret_ids(self) -> list[str]:
        return list(self.verifier.secret_ids) if self.verifier else []

    @property
    def allow_header(self) -> bytes:
        return ", ".join(sorted(self.methods)).encode()

    def matches(self, path: bytes) -> bool:
        """Whether this route handles `path`: exactly, as a prefix route, or with a tenant in its place."""
        if self.segments:
            return self.tenants is not None and self.tenants.takes(path)
        return path.startswith(self.path) if self.prefix else path == self.path


class PathTable:
    """Finds a route by its exact raw path, otherwise by the prefix above it. Paths are never decoded or normalised."""

    __slots__ = ("_exact", "_lengths", "_prefixes", "_with_tenant")

    def __init__(self, routes: Iterable[Route]) -> None:
        listed = list(routes)
        self._exact = {route.path: route for route in listed if not route.prefix and not route.segments}
        self._with_tenant = [route for route in listed if route.segments]
        self._prefixes = {route.path: route for route in listed if route.prefix}
        #: Lengths of prefixes, longest first. Only these are tried, whatever the path: a sender may send 16 KiB of slashes.
        self._lengths = sorted({len(path) for path in self._prefixes}, reverse=True)

    def look_up(self, path: bytes) -> Route | None:
        """The route for a raw path."""
        route = self._exact.get(path)
        if route is None and self._with_tenant:
            route = self._of_tenant(path)
        return self._below_prefix(path) if route is None and self._prefixes else route

    def _of_tenant(self, path: bytes) -> Route | None:
        for each in self._with_tenant:
            if each.tenants is not None and each.tenants.takes(path):
                return each
        return None

    def _below_prefix(self, path: bytes) -> Route | None:
        for length in self._lengths:
            route = self._prefixes.get(path[:length])
            if route is not None:
                # Only below a prefix can a path match here that a receiver reads as a different one.
                return None if _AMBIGUOUS.search(path) else route
        return None

    def _explain_miss(self, path: bytes) -> str:
        """Why a path doesn't match a route that resembles it; empty if no route does."""
        for near in self._with_tenant:
            if near.tenants is not None and near.tenants.nearly_takes(path):
                return f"{near.pattern} is like this path, but a tenant's name has 1 to 64 letters, digits, - and _"
        for length in self._lengths:
            route = self._prefixes.get(path[:length])
            found = _AMBIGUOUS.search(path) if route is not None else None
            if route is not None and found is not None:
                return (
                    f"{route.pattern} is above this path, but accepts no path with {_describe(found[0])}, which "
                    "receivers read in different ways"
                )
        return ""


def _describe(text: bytes) -> str:
    """The part that `_AMBIGUOUS` found, in words."""
    if text.startswith(b"%"):
        return f"the escape {text.decode()}"
    if text == b"\\":
        return "a backslash"
    return "an empty segment" if text == b"//" else "a dot segment"


def _first_segment(path: bytes) -> bytes:
    """`/hooks/acr/x` → `/hooks/`; `/` if nothing follows the first segment, or if that is empty."""
    _, first, rest = path.split(b"/", 2) if path.count(b"/") > 1 else (b"", b"", b"")
    return b"/%b/" % first if first and rest.strip(b"/") else b"/"


class RouteTable(PathTable):
    """All routes. The paths of those without `hosts` are its own; each host has a table for the others."""

    __slots__ = ("_anywhere", "_below", "_hiding", "_lengths_below", "_on", "by_host", "routes")

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        super().__init__([route for route in self.routes if not route.hosts])
        named: dict[bytes, list[Route]] = {}
        for route in self.routes:
            for host in route.hosts:
                named.setdefault(host, []).append(route)
        self.by_host = bool(named)  #: whether the host of a request matters
        self._on = {host: PathTable(listed) for host, listed in named.items() if not host.startswith(b"*")}
        self._below = {host[1:]: PathTable(listed) for host, listed in named.items() if host.startswith(b"*")}
        #: Lengths of `.example.com`: only these ends of a host are tried, however many dots a sender writes.
        self._lengths_below = sorted({len(domain) for domain in self._below})
        hiding = [route for route in self.routes if route.hides_path]
        #: The routes with a secret in the path, and all routes, whatever their hosts; None if no path has a secret.
        self._hiding = PathTable(hiding) if hiding else None
        self._anywhere = PathTable(self.routes) if hiding else None

    def shown_path(self, path: bytes) -> bytes:
        """A raw path as log, traces and pages may show it: without a segment that is a secret.

        As soon as one route has its secret in the path, a path that no route takes is shown up to its first segment, because
        it may be that URL, mistyped.
        """
        if self._hiding is None or self._anywhere is None:
            return path
        route = self._hiding.look_up(path)
        if route is not None:
            return route.path + HIDDEN
        return path if self._anywhere.look_up(path) is not None else _first_segment(path) + HIDDEN

    def find(self, path: bytes) -> Route | Rejected:
        """The route for a raw path, among those without `hosts`, or the rejection `no_route`.

        Raising it costs 8 % more CPU (`bench.py refusals`, beside a missing signature).
        """
        route = self._exact.get(path)
        if route is None and self._with_tenant:
            route = self._of_tenant(path)
        if route is None and self._prefixes:
            route = self._below_prefix(path)
        if route is None:
            return Rejected(Reason.NO_ROUTE, self._explain_miss(path) or "no route has this path")
        return route

    def find_on(self, host: bytes, path: bytes) -> Route | Rejected:
        """The route for a raw path on a host, as `host_name` returns it, or the rejection `no_route`.

        Routes don't overlap, so the order in which the tables are asked doesn't matter.
        """
        route = self.look_up(path)
        if route is None and (named := self._on.get(host)) is not None:
            route = named.look_up(path)
        if route is not None:
            return route
        why = self._explain_miss(path) or (named._explain_miss(path) if named is not None else "")
        for length in self._lengths_below:
            below = self._below.get(host[-length:]) if len(host) > length else None
            if below is not None:
                route = below.look_up(path)
                if route is not None:
                    return route
                why = why or below._explain_miss(path)
        return Rejected(Reason.NO_ROUTE, why or "no route has this path on this host")


def host_name(head: RequestHead) -> bytes:
    """The host that a request is for: in lower case, without its port and a final dot; empty if it names none (HTTP/1.0)."""
    values = head.values(b"host")
    if not values:
        return b""
    name = values[0].lower()
    name = name[: name.find(b"]") + 1] if name.startswith(b"[") else name.partition(b":")[0]
    return name.removesuffix(b".")


def find_overlaps(routes: Sequence[Route]) -> list[tuple[int, int]]:
    """Pairs of indices of routes that can match the same path on the same host.

    Overlaps are unsafe, because receivers unescape paths: `/hooks/begin%69` would be verified by the route `/hooks/*` and
    reach the receiver's handler that `/hooks/begini` protects.
    """
    anywhere = [index for index, route in enumerate(routes) if not route.hosts]
    pairs = _overlaps_of_paths(routes, anywhere)
    named: dict[bytes, list[int]] = {}
    for index, route in enumerate(routes):
        for host in route.hosts:
            named.setdefault(host, []).append(index)
    for host in named:
        # Of two hosts that overlap, one is the other or is below it.
        together = {index for pattern in (host, *_domains_above(host)) for index in named.get(pattern, ())}
        pairs |= _overlaps_of_paths(routes, sorted([*anywhere, *together]))
    return sorted(pairs)


def _domains_above(host: bytes) -> list[bytes]:
    """`a.b.example`, or `*.a.b.example`, → `*.b.example`, `*.example`, and `*.a.b.example` for the latter."""
    labels = host.split(b".")
    return [b".".join((b"*", *labels[start:])) for start in range(1, len(labels))]


def _overlaps_of_paths(routes: Sequence[Route], indices: Sequence[int]) -> set[tuple[int, int]]:
    order = sorted((i for i in indices if not routes[i].segments), key=lambda i: (routes[i].path, not routes[i].prefix))
    pairs: set[tuple[int, int]] = set()
    above: list[int] = []
    for i in order:
        while above and not routes[above[-1]].matches(routes[i].path):
            above.pop()
        if above:
            pairs.add((min(above[-1], i), max(above[-1], i)))
        above.append(i)
    pairs |= {
        (min(one, other), max(one, other))
        for one in indices
        if routes[one].segments
        for other in indices
        if other != one and (other < one or not routes[other].segments) and _meet(routes[one], routes[other])
    }
    return pairs


def _meet(route: Route, other: Route) -> bool:
    """Whether a path with a tenant in its place can also be one of `other`'s."""
    if not other.segments and not other.prefix:
        return route.matches(other.path)
    theirs = other.segments or tuple(other.path.split(b"/")[:-1])
    if len(theirs) > len(route.segments) or (not other.prefix and len(theirs) < len(route.segments)):
        return False
    return all(_same(mine, its) for mine, its in zip(route.segments, theirs))


def _same(one: bytes, other: bytes) -> bool:
    """Whether two segments can be the same text."""
    if one == other:
        return True
    if PLACE not in (one, other):
        return False
    return is_name(other if one == PLACE else one)


def foreign_secrets(routes: Sequence[Route], but: Route) -> list[tuple[str, Secret]]:
    """The secrets of all routes except `but`, with the names of the routes."""
    return [
        (route.name, secret)
        for route in routes
        if route is not but and route.verifier is not None and route.tenants is None
        for secret in route.verifier.secrets
    ]
