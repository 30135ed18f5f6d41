"""Who may do what at the admin listener.

    see     probes, metrics: everybody; page, its events, configuration: everybody, but on loopback not by a strange name
    change  reload, delivery test from the page: with `admin_token`, if one is set; without one on loopback only

Whether the listener is on loopback is told by its own address, not by the connection's: behind a mesh's proxy or a port forward
every stranger comes from 127.0.0.1. A unix socket counts as loopback.

A browser on the same machine reaches loopback for any web page that it shows. So a page of another origin may change
nothing, and on loopback a request must call us by an address, as localhost or by another name without a dot: one with dots
could be anybody's, rebound to 127.0.0.1 (nobody can own a name without).
The token is a header or a field of the form, never a cookie: nothing that a browser sends by itself lets anybody in.
"""

import hmac
import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request

from sidecar.http1.sockets import ListenAddress
from sidecar.secret import Secret


class Denied(NamedTuple):
    """Status and reason; the reason names the remedy."""

    status: int
    detail: str


_BY_NAME = Denied(
    403, "this listener is on loopback and is called by another name; use 127.0.0.1 or localhost, in a proxy's Host too"
)
OTHER_ORIGIN = Denied(403, "asked by a page of another origin")
_READ_ONLY = Denied(403, "read-only: set admin_token, or let the admin listener be on loopback")
_NO_TOKEN = Denied(401, "needs the admin_token; send it as Authorization: Bearer")
_WRONG_TOKEN = Denied(401, "that is not the admin_token")


def on_loopback(address: ListenAddress) -> bool:
    """Whether only this machine (in a pod: this pod) can connect to a listener."""
    return bool(address.path) or _is_loopback(address.host)


def may_change(address: ListenAddress, token: Secret | None) -> bool:
    """Whether anybody may change anything here."""
    return token is not None or on_loopback(address)


def denied_to_see(request: Request, address: ListenAddress) -> Denied | None:
    """Why a request may not see what the listener shows to people; None if it may."""
    if address.path or not on_loopback(address):
        return None
    host = _host(request.headers.get("host", ""))
    return None if (host and "." not in host) or host.endswith(".localhost") or _is_address(host) else _BY_NAME


def denied_to_change(
    request: Request, address: ListenAddress, token: Secret | None, given: str | None = None
) -> Denied | None:
    """Why a request may not change anything; None if it may. `given` is the token of a form, in place of the header's."""
    if denied := denied_to_see(request, address):
        return denied
    if is_of_another_origin(request):
        return OTHER_ORIGIN
    if token is None:
        return None if on_loopback(address) else _READ_ONLY
    presented = given.encode("utf-8", "surrogatepass") if given is not None else _bearer(request)
    if not presented:
        return _NO_TOKEN
    return None if hmac.compare_digest(presented, token.reveal()) else _WRONG_TOKEN


def _bearer(request: Request) -> bytes:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def is_of_another_origin(request: Request) -> bool:
    """Browsers say where a POST comes from, and no page can make them lie; other clients say nothing."""
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
