"""Access rules of the admin listener.

    view    probes and metrics are open to all; so are page, events and configuration, but on loopback the Host is checked
    change  reload and the page's delivery test need `admin_token`; if none is set, they are allowed on loopback only

The listener's own address decides whether it is on loopback, not the connection's: through a mesh's proxy or a port forward
any client connects from 127.0.0.1. A unix socket counts as loopback.

A browser on the same machine can reach loopback on behalf of any web page that it shows. So pages of another origin may not
change anything, and on loopback the Host must be an IP address, localhost or another name without a dot: a name with dots
could be anybody's, rebound to 127.0.0.1 (nobody can own a name without one).
The token is sent in a header or a form field, never in a cookie, so that nothing a browser sends by itself grants access.
"""

import ipaddress
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
    403, "the Host is not valid for a listener on loopback; use 127.0.0.1 or localhost, also behind a proxy"
)
OTHER_ORIGIN = Denied(403, "the request comes from a page of another origin")
_READ_ONLY = Denied(403, "read-only; set admin_token, or bind the admin listener to loopback")
_NO_TOKEN = Denied(401, "admin_token is missing; send it as Authorization: Bearer")
_WRONG_TOKEN = Denied(401, "admin_token is wrong")


def on_loopback(address: ListenAddress) -> bool:
    """Whether only this machine, or only this pod, can connect to a listener."""
    return bool(address.path) or _is_loopback(address.host)


def may_change(address: ListenAddress, token: Secret | None) -> bool:
    """Whether changes are allowed at all."""
    return token is not None or on_loopback(address)


def denied_to_view(request: Request, address: ListenAddress) -> Denied | None:
    """Why a request may not view page, events and configuration; None if it may."""
    if address.path or not on_loopback(address):
        return None
    host = _host(request.headers.get("host", ""))
    return None if (host and "." not in host) or host.endswith(".localhost") or _is_address(host) else _FOREIGN_HOST


def denied_to_change(
    request: Request, address: ListenAddress, token: Secret | None, given: str | None = None
) -> Denied | None:
    """Why a request may not change anything; None if it may. `given` is a token from a form, used instead of the header's."""
    if denied := denied_to_view(request, address):
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
