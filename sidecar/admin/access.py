"""Access rules of the admin listener.

    view    probes and metrics are open to all; so are page, events and configuration, but their Host is checked
    change  reload and the page's delivery test need `admin_token`; if none is set, they are allowed on loopback only

The listener's own address decides whether it is on loopback, not the connection's: through a mesh's proxy or a port forward
any client connects from 127.0.0.1. A unix socket counts as loopback.

An operator's browser can reach the listener on behalf of any web page that it shows. So pages of another origin may not
change anything, and the Host must be an IP address, a name without a dot such as localhost, a name of the cluster, this
machine's own name, or one of `admin_hosts`: any other name could be anybody's, rebound to our address (nobody can own a name
without a dot). A browser can't reach a unix socket, so its Host is not checked.
The token is sent in a header or a form field, never in a cookie, so that nothing a browser sends by itself grants access.
"""

import ipaddress
import socket
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request

from sidecar.http1.sockets import ListenAddress
from sidecar.secret import Secret


class Denied(NamedTuple):
    """Status and reason; the reason includes the remedy."""

    status: int
    detail: str


_FOREIGN_HOST = Denied(
    403, "the Host is not a name of the admin listener; use an address or localhost, or add it to admin_hosts"
)
#: Names below these belong to this machine or to the cluster (RFC 6761; Kubernetes' DNS).
_OWN_DOMAINS = (".localhost", ".svc", ".cluster.local")
OTHER_ORIGIN = Denied(403, "the request comes from a page of another origin; use the page of this listener")
_READ_ONLY = Denied(403, "read-only; set admin_token, or bind the admin listener to loopback")
_NO_TOKEN = Denied(401, "admin_token is missing; send it as Authorization: Bearer")
_WRONG_TOKEN = Denied(401, "admin_token is wrong")


def on_loopback(address: ListenAddress) -> bool:
    """Whether only this machine, or only this pod, can connect to a listener."""
    return bool(address.path) or _is_loopback(address.host)


def may_change(address: ListenAddress, token: Secret | None) -> bool:
    """Whether changes are allowed at all."""
    return token is not None or on_loopback(address)


def denied_to_view(request: Request, address: ListenAddress, hosts: Sequence[str]) -> Denied | None:
    """Why a request may not view page, events and configuration; None if it may. `hosts` are `admin_hosts`."""
    if address.path:
        return None
    host = _host(request.headers.get("host", "")).removesuffix(".")
    own = "." not in host or host.endswith(_OWN_DOMAINS) or host in (address.host.lower(), socket.gethostname().lower())
    return None if host and (own or _is_address(host) or _is_listed(host, hosts)) else _FOREIGN_HOST


def _is_listed(host: str, hosts: Sequence[str]) -> bool:
    return any(host.endswith(name[1:]) if name.startswith("*.") else host == name for name in hosts)


def denied_to_change(
    request: Request, address: ListenAddress, hosts: Sequence[str], token: Secret | None, given: str | None = None
) -> Denied | None:
    """Why a request may not change anything; None if it may. `given` is a token from a form, used instead of the header's."""
    if denied := denied_to_view(request, address, hosts):
        return denied
    if is_of_another_origin(request):
        return OTHER_ORIGIN
    if token is None:
        return None if on_loopback(address) else _READ_ONLY
    presented = given.encode("utf-8", "surrogatepass") if given is not None else _bearer(request)
    if not presented:
        return _NO_TOKEN
    return None if token.matches(presented) else _WRONG_TOKEN


def _bearer(request: Request) -> bytes:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def is_of_another_origin(request: Request) -> bool:
    """Whether a page of another origin sent this. Browsers name the origin, and pages can't forge it; other clients don't."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")


def _host(field: str) -> str:
    """`[::1]:9090` → `::1`."""
    try:
        return urlsplit(f"//{field}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
