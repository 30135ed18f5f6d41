"""The part of `sidecar explain` about an accepted request's way to the receiver: names and forms, never a secret's value."""

from collections.abc import Callable

from sidecar.http1.head import RequestHead
from sidecar.http1.upstream import Timeouts
from sidecar.routing.routes import Route


def describe_forwarding(route: Route, head: RequestHead, usual: Timeouts | None = None) -> str:
    """The changes that the configuration makes for the receiver, on one line; empty if there are none.

    `usual` are the limits of all routes, of which a route may have its own.
    """
    said = [*_connection(route, usual), *_headers(route, head)]
    signer = route.upstream_signer
    if signer is not None:
        replaces = signer.replaces
        removed = _sent(head, lambda folded: folded in replaces)
        said.append(f"signed for it as {signer.name}")
        if removed:
            said.append(f"the sender's {removed} removed, which that scheme reads")
    return f"to {route.upstream}; {'; '.join(said)}" if said else ""


def _connection(route: Route, usual: Timeouts | None) -> list[str]:
    said = [f"Host {route.host.decode()} in place of the sender's"] if route.host else []
    pool = route.pool
    if pool is not None and pool.tls is not None:
        name = pool.tls.server_name or route.upstream.host
        ours = ", and gets ours" if pool.tls.presents_certificate else ""
        said.append(f"its certificate must be for {name}{ours}")
    if pool is not None and pool.connections is not None:
        said.append(f"at most {pool.connections} at a time from each process")
    if pool is not None and usual is not None and pool.timeouts != usual:
        own = pool.timeouts
        said.append(
            f"it has {own.connect:g} s to accept the connection, {own.response:g} s to begin its response, {own.total:g} s in all"
        )
    return said


def _headers(route: Route, head: RequestHead) -> list[str]:
    headers = route.headers
    if headers is None:
        return []
    said = []
    if headers.set:
        named = [f"{each.name} (secret {each.secret.id})" if each.secret else each.name for each in headers.set]
        said.append(f"{', '.join(named)} set")
    removed = _sent(head, headers.removes)
    said.append(f"the sender's {removed} removed" if removed else "no header of the sender's to remove")
    return said


def _sent(head: RequestHead, removes: Callable[[bytes], bool]) -> str:
    """The names, as sent, of the fields that are removed; the first ten."""
    names = dict.fromkeys(
        name.decode() for name, folded in zip(head.names.listed, head.names.folded) if removes(folded)
    )
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(list(names)[:10]) + more
