"""The request head as the receiver gets it: everything end-to-end as it came, and what we know about the sender added.

Our own header names are ours alone: what a sender wrote under them, underscore aliases included, is removed first. Of a
trusted proxy the X-Forwarded fields are kept.
"""

from functools import lru_cache
from typing import Final

from sidecar.http1.fields import HARMLESS_OPTIONS, HOP_BY_HOP, connection_options
from sidecar.http1.head import FieldNames, Header, RequestHead, field_lines
from sidecar.routing.access import Waived
from sidecar.routing.client_ip import X_FORWARDED_FOR, Client, ClientHeader
from sidecar.routing.routes import Route
from sidecar.telemetry.trace_context import Trace
from sidecar.verify.scheme import Scheme
from sidecar.verify.verifier import Verified

_OURS: Final = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-webhook-verified", b"x-webhook-secret-id"}
)
#: Ours alone on routes with `sign:`. On others they are a Standard Webhooks sender's.
UPSTREAM_SIGNATURE_FIELDS: Final = frozenset({b"webhook-id", b"webhook-timestamp", b"webhook-signature"})
#: `Expect` was answered by us.
_DROPPED: Final = HOP_BY_HOP | _OURS | {b"expect"}
#: `Connection` must not take away what a message can't be read without; nor what it was verified by, see `_end_to_end`.
_KEPT: Final = frozenset({b"host", b"content-type"})


def forwarded_head(
    head: RequestHead,
    *,
    scheme: Scheme | None = None,
    body_size: int,
    forwarding: bytes,
    proof: bytes,
    replaced: frozenset[bytes] = frozenset(),
) -> bytes:
    """The head's bytes, blank line included.

    `forwarding` and `proof` are ready lines, see `forwarding_lines` and `proof_lines`. What `scheme` was verified by stays,
    but no field of the sender's that is `replaced` (in `proof`), in lower case.
    """
    framed = body_size > 0 or head.method in ("POST", "PUT", "PATCH")
    length = b"%d" % body_size
    names = head.names
    if names.as_request is None:
        names.as_request = _template(names)
    plain = names.as_request and (not replaced or replaced.isdisjoint(names.lower))
    if plain and head.values(b"content-length") == ((length,) if framed else ()):
        made: bytes = names.as_request % (head.method.encode(), head.target, *head.field_values, forwarding, proof)
        return made  # most deliveries
    # Something must go, or the length be written anew.
    headers = _end_to_end(head, scheme, _DROPPED | replaced)
    if framed:
        headers.append((b"Content-Length", length))
    start = b"%b %b HTTP/1.1\r\n" % (head.method.encode(), head.target)
    return b"%b%b%b%b\r\n" % (start, field_lines(headers), forwarding, proof)


def _template(names: FieldNames) -> bytes:
    """The whole head with a `%b` in the place of each value; empty if a field has to go because of its name."""
    if names.underscored or not _DROPPED.isdisjoint(names.lower):
        return b""
    lines = [name.replace(b"%", b"%%") + b": %b\r\n" for name in names.listed]
    return b"%%b %%b HTTP/1.1\r\n%b%%b%%b\r\n" % b"".join(lines)


def _end_to_end(head: RequestHead, scheme: Scheme | None, not_meant: frozenset[bytes]) -> list[Header]:
    """The headers that are meant for the receiver, Content-Length left out."""
    named = connection_options(head.values(b"connection")) - _KEPT - HARMLESS_OPTIONS
    if named and scheme is not None:
        named = frozenset(name for name in named if not scheme.reads(name))
    dropped = not_meant | {b"content-length"} | named
    kept = []
    for name, value in head.headers:
        lower = name.lower()
        if lower not in dropped and not (b"_" in lower and lower.replace(b"_", b"-") in not_meant):
            kept.append((name, value))
    return kept


def forwarding_lines(head: RequestHead, client: Client, header: ClientHeader = X_FORWARDED_FOR) -> bytes:
    """X-Forwarded-For with the connection's address appended; -Proto and -Host. Only a trusted proxy's own are kept.

    Where trusted proxies name the client in another header, nobody vouches for an X-Forwarded-For that comes with it: the
    receiver's begins with that client.
    """
    hosts = head.values(b"host")
    if not client.trusted_peer:
        lines = _lines_of_peer(head.peer)
        return b"%bX-Forwarded-Host: %b\r\n" % (lines, hosts[0]) if hosts else lines
    chain: tuple[bytes, ...] = head.values(b"x-forwarded-for")
    if not header.is_forwarded_for:
        chain = (client.text.encode(),) if head.values(header.field) and client.text else ()
    if head.peer is not None:
        chain = (*chain, head.peer.encode())
    made = [b"X-Forwarded-For: %b\r\n" % b", ".join(chain)] if chain else []
    made += [b"X-Forwarded-Proto: %b\r\n" % proto for proto in head.values(b"x-forwarded-proto") or (b"http",)]
    made += [b"X-Forwarded-Host: %b\r\n" % host for host in head.values(b"x-forwarded-host") or hosts]
    return b"".join(made)


@lru_cache(maxsize=1024)
def _lines_of_peer(peer: str | None) -> bytes:
    """What there is to say of a connection that came straight from `peer`."""
    forwarded_for = b"X-Forwarded-For: %b\r\n" % peer.encode() if peer is not None else b""
    return forwarded_for + b"X-Forwarded-Proto: http\r\n"


@lru_cache(maxsize=1024)
def proof_lines(verified: str, secret_id: str) -> bytes:
    """X-Webhook-Verified and X-Webhook-Secret-Id; each left out if empty."""
    lines = b"X-Webhook-Verified: %b\r\n" % verified.encode() if verified else b""
    return lines + (b"X-Webhook-Secret-Id: %b\r\n" % secret_id.encode() if secret_id else b"")


_NOTHING: Final[frozenset[bytes]] = frozenset()


def _upstream_head(
    proof: Verified | Waived,
    route: Route,
    head: RequestHead,
    client: Client,
    body_size: int,
    *,
    header: ClientHeader,
    signed: bytes,
    trace: Trace | None,
) -> bytes:
    """Only a delivery with a proof has a head to send."""
    forwarding = forwarding_lines(head, client, header)
    if b"host" not in head.fields:  # HTTP/1.0; what we send is HTTP/1.1 and must have one
        forwarding = b"Host: %b\r\n%b" % (route.upstream.authority, forwarding)
    lines = proof_lines(route.name, proof.secret_id) if isinstance(proof, Verified) else proof_lines(proof.label, "")
    scheme = route.verifier.scheme if route.verifier is not None else None
    replaced = UPSTREAM_SIGNATURE_FIELDS if route.upstream_signer is not None else _NOTHING
    if trace is not None:
        replaced, signed = replaced | trace.replaces, signed + trace.line
    return forwarded_head(
        head,
        scheme=scheme,
        body_size=body_size,
        forwarding=forwarding,
        proof=lines + signed,
        replaced=replaced,
    )
