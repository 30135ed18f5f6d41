"""The request head that the receiver gets: all end-to-end fields as they came, plus the facts about the sender.

Our own header names are reserved: fields of the sender's under them are removed first, and so are those whose names some
receivers fold to the same, or to a header that the signature was read from. Only a trusted proxy may send X-Forwarded fields.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from sidecar.delivery.delivery import Delivery
from sidecar.http1.fields import HOP_BY_HOP
from sidecar.http1.head import FieldNames, Header, RequestHead, field_lines, fold_name
from sidecar.routing.access import Waived
from sidecar.routing.client_ip import X_FORWARDED_FOR, Client, ClientHeader
from sidecar.routing.receiver_headers import ReceiverHeaders
from sidecar.verify.verifier import Verified

_OURS: Final = frozenset(
    {
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-webhook-verified",
        b"x-webhook-secret-id",
        b"x-webhook-tenant",
    }
)
_NOTHING: Final[frozenset[bytes]] = frozenset()
_HOST: Final = frozenset({b"host"})
#: We respond to `Expect` ourselves.
_DROPPED: Final = HOP_BY_HOP | _OURS | {b"expect"}
#: Receivers believe further ones: X-Forwarded-Port, X-Forwarded-Prefix, X-Forwarded-User...
_FORWARDED: Final = b"x-forwarded-"


class HeaderFilter(NamedTuple):
    """The rules for which of the sender's fields are kept."""

    replaced: frozenset[bytes] = _NOTHING  #: lower-case names that are not kept
    headers: ReceiverHeaders | None = None  #: fields that it removes are not kept
    read: frozenset[bytes] = _NOTHING  #: headers that verification reads; none stays that a receiver may take for one
    trusted_peer: bool = False  #: X-Forwarded fields besides ours stay


def upstream_head(delivery: Delivery, permission: Verified | Waived, signed: bytes) -> bytes:
    """The head of the request to the receiver, empty line included. `signed` are the lines of the route's `sign:`, if any."""
    head, route, trace = delivery.head, delivery.route, delivery.record.trace
    client = delivery.client
    assert client is not None  # stage 2
    added = forwarding_lines(head, client, delivery.snapshot.config.client_header)
    replaced = route.upstream_signer.replaces if route.upstream_signer is not None else _NOTHING
    if route.host:
        replaced, added = replaced | _HOST, b"Host: %b\r\n%b" % (route.host, added)
    elif b"host" not in head.fields:  # HTTP/1.0; our request is HTTP/1.1 and must have one
        added = b"Host: %b\r\n%b" % (route.upstream.authority, added)
    if isinstance(permission, Verified):
        added += verified_lines(route.name, permission.secret_id)
        if delivery.tenant:
            added += b"X-Webhook-Tenant: %b\r\n" % delivery.tenant.encode()
    else:
        added += verified_lines(permission.label, "")
    if trace is not None:
        replaced, signed = replaced | trace.replaces, signed + trace.line
    size, added, headers = delivery.body.size, added + signed, route.headers
    if headers is not None:
        added += headers.lines(vouched=isinstance(permission, Verified) or permission.admitted)
    elif unchanged := unchanged_head(head, size, added, replaced):  # most deliveries
        return unchanged
    # No other name than an irregular one can be taken for another.
    read = route.verifier.headers() if route.verifier is not None and head.names.irregular else _NOTHING
    return filtered_head(head, size, added, HeaderFilter(replaced, headers, read, client.trusted_peer))


def unchanged_head(head: RequestHead, body_size: int, added: bytes, replaced: frozenset[bytes] = _NOTHING) -> bytes:
    """The head with all fields as they came and the lines `added` at its end, empty line included.

    Empty if a field must be removed, because of its own name or one in `replaced`, or the length must be written again.
    """
    names = head.names
    if names.as_request is None:
        names.as_request = _template(names)
    plain = names.as_request and (not replaced or replaced.isdisjoint(names.lower))
    if not plain or head.values(b"content-length") != _content_length(head, body_size):
        return b""
    made: bytes = names.as_request % (head.method.encode(), head.target, *head.field_values, added)
    return made


def filtered_head(head: RequestHead, body_size: int, added: bytes, rules: HeaderFilter) -> bytes:
    """The head with the fields that `rules` keep, the body's length, and the lines `added`, empty line included."""
    headers = _end_to_end(head, rules)
    headers += [(b"Content-Length", length) for length in _content_length(head, body_size)]
    start = b"%b %b HTTP/1.1\r\n" % (head.method.encode(), head.target)
    return b"%b%b%b\r\n" % (start, field_lines(headers), added)


def _content_length(head: RequestHead, body_size: int) -> tuple[bytes, ...]:
    """The values of Content-Length to the receiver: one, or none for a request without a body whose method needs none."""
    framed = body_size > 0 or head.method in ("POST", "PUT", "PATCH")
    return (b"%d" % body_size,) if framed else ()


def _template(names: FieldNames) -> bytes:
    """The whole head with a `%b` in place of each value; empty if the name of a field means that it must be removed."""
    if names.irregular or not _DROPPED.isdisjoint(names.lower):
        return b""
    if any(name.startswith(_FORWARDED) for name in names.lower):
        return b""
    lines = [name.replace(b"%", b"%%") + b": %b\r\n" for name in names.listed]
    return b"%%b %%b HTTP/1.1\r\n%b%%b\r\n" % b"".join(lines)


def _end_to_end(head: RequestHead, rules: HeaderFilter) -> list[Header]:
    """The headers for the receiver, without Content-Length.

    Names in `Connection` are not honoured beyond HOP_BY_HOP: a sender could remove what a proxy in front of us added,
    such as the name in a client certificate.
    """
    names, dropped = head.names, _DROPPED | rules.replaced
    headers = rules.headers
    read = rules.read if names.irregular else _NOTHING
    numbered = tuple([name[: -len(b"{n}")] for name in read if name.endswith(b"{n}")])
    reserved = dropped | {b"content-length"} | {fold_name(name) for name in read}
    numbered_reserved = tuple([fold_name(name) for name in numbered])
    kept = []
    for header, name, folded in zip(head.headers, names.lower, names.folded):
        if name in dropped or name == b"content-length":
            continue
        if headers is not None and headers.removes(folded):
            continue
        if folded.startswith(_FORWARDED) and not (rules.trusted_peer and name == folded):
            continue
        alias = folded in reserved or (numbered and folded.startswith(numbered_reserved))
        if alias and name != folded and name not in read and not name.startswith(numbered):
            continue
        kept.append(header)
    return kept


def forwarding_lines(head: RequestHead, client: Client, header: ClientHeader = X_FORWARDED_FOR) -> bytes:
    """X-Forwarded-For with the connection's address appended; -Proto and -Host. Only those of a trusted proxy are kept.

    Where trusted proxies name the client in another header, nothing vouches for an X-Forwarded-For beside it: the one for
    the receiver starts with that client.
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
    """The lines for a connection that came directly from `peer`."""
    forwarded_for = b"X-Forwarded-For: %b\r\n" % peer.encode() if peer is not None else b""
    return forwarded_for + b"X-Forwarded-Proto: http\r\n"


@lru_cache(maxsize=1024)
def verified_lines(verified: str, secret_id: str) -> bytes:
    """X-Webhook-Verified and X-Webhook-Secret-Id, each only if it has a value."""
    lines = b"X-Webhook-Verified: %b\r\n" % verified.encode() if verified else b""
    return lines + (b"X-Webhook-Secret-Id: %b\r\n" % secret_id.encode() if secret_id else b"")
