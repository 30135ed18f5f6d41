"""Finds the client's address from the connection's address and the header that proxies add.

`peer` is the other end of the connection (as the PROXY header says, if there is one); `client` is the sender of the
delivery. Only one header field is used (X-Forwarded-For unless configured otherwise), and only from a trusted peer. Fields
that grow with each proxy are read from the right, and only past hops that are trusted proxies. A hop that can't be read
means rejection and is never skipped: the entry to its left was written by the same party as the unreadable one.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

from sidecar.http1.proxy_protocol import UNKNOWN_PEER
from sidecar.routing.forwarded_field import ForwardedError, parse_forwarded
from sidecar.routing.networks import IPAddress, Networks, parse_address

#: More hops than any real chain of proxies has; a longer field is an attack.
MAX_HOPS: Final = 32


class Client(NamedTuple):
    """The sender of a delivery, by address."""

    address: IPAddress | None  #: None if unreadable, or on a unix socket whose proxy is not trusted or names no client
    text: str  #: for the log
    trusted_peer: bool  #: whether the connection comes from a trusted proxy
    unreadable: str = ""  #: what could not be read; such a delivery is always rejected


class ClientHeader:
    """The header field in which trusted proxies name the client."""

    def __init__(self, name: str) -> None:
        """`X-Forwarded-For` and `Forwarded` list the hops; any other field holds only the client's address."""
        self.name = name
        self.field = name.lower().encode("ascii")
        self.is_forwarded_for = self.field == b"x-forwarded-for"
        self.is_forwarded = self.field == b"forwarded"
        self.lists_hops = self.is_forwarded_for or self.is_forwarded


X_FORWARDED_FOR: Final = ClientHeader("X-Forwarded-For")


def resolve_client(
    peer: str | None,
    lines: Sequence[bytes],
    trusted: Networks,
    *,
    trust_unix: bool = False,
    header: ClientHeader = X_FORWARDED_FOR,
) -> Client:
    """The first address from the right that is not a trusted proxy. If all are trusted, the leftmost; without a header, the peer.

    `peer` is the connection's address, None on a unix socket, `UNKNOWN_PEER` if a proxy knows none; `lines` holds every line
    of the header field in wire order. Never raises.
    """
    address: IPAddress | None = None
    if peer == UNKNOWN_PEER:
        return Client(None, "", False)
    if peer is not None:
        address = parse_address(peer)
        if address is None:
            return Client(None, "", False, "the connection's own address")
        if address not in trusted:
            return Client(address, str(address), False)
    elif not trust_unix:
        return Client(None, "", False)
    if not lines:
        return Client(address, str(address or ""), True)
    try:
        hops = _hops(lines, header)
    except ForwardedError as error:
        return Client(None, "", True, str(error))
    if len(hops) > MAX_HOPS:
        return Client(None, "", True, f"{header.name} with more than {MAX_HOPS} hops")
    if not header.lists_hops and len(hops) > 1:
        return Client(None, "", True, f"{header.name} on more than one line")
    for distance, hop in enumerate(reversed(hops), start=1):
        address = parse_address(hop)
        if address is None:
            where = f"hop {distance} from the right of " if header.lists_hops else ""
            return Client(None, "", True, f"{where}{header.name}")
        if address not in trusted:
            break
    return Client(address, str(address or ""), True)


def _hops(lines: Sequence[bytes], header: ClientHeader) -> list[str]:
    """The field's entry for each hop, in wire order; if there are too many, one more than MAX_HOPS. Raises `ForwardedError`."""
    if header.is_forwarded:
        return list(islice(parse_forwarded(line.decode("latin-1") for line in lines), MAX_HOPS + 1))
    if header.is_forwarded_for:
        return [hop.strip(" \t") for hop in b",".join(lines).decode("latin-1").split(",", MAX_HOPS)]
    return [line.decode("latin-1").strip(" \t") for line in lines]
