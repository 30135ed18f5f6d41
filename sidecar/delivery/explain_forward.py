"""What `sidecar explain` says of an accepted request's way to the receiver: names and forms, never a value of a secret."""

from collections.abc import Callable

from sidecar.http1.head import RequestHead
from sidecar.routing.routes import Route


def describe_forwarding(route: Route, head: RequestHead) -> str:
    """What changes for the receiver, on one line; empty if nothing does that the configuration asks for."""
    said = [*_connection(route), *_headers(route, head)]
    signer = route.upstream_signer
    if signer is not None:
        replaces = signer.replaces
        removed = _sent(head, lambda folded: folded in replaces)
        said.append(f"signed for it as {signer.name}")
        if removed:
            said.append(f"the sender's {removed} removed, which that scheme reads")
    return f"to {route.upstream}; {'; '.join(said)}" if said else ""


def _connection(route: Route) -> list[str]:
    said = [f"Host {route.host.decode()} in place of the sender's"] if route.host else []
    pool = route.pool
    if pool is not None and pool.tls is not None:
        name = pool.tls.server_name or route.upstream.host
        ours = ", and gets ours" if pool.tls.presents_certificate else ""
        said.append(f"its certificate must be for {name}{ours}")
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
