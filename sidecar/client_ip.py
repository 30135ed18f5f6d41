"""From the direct connection's address and what proxies say to the client's address.

Two words for two things: `peer` is who holds the connection (what a PROXY header says, where there is one), `client` is
who sent the delivery. One header field is believed, X-Forwarded-For if no other is configured, and of a trusted peer
alone. Fields that grow with each proxy are read from the right, and only past hops that are trusted proxies; a hop that
can't be read is a refusal, never skipped, because the entry to its left was written by whoever sent the unreadable one.
"""

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from sidecar.http1.proxy_protocol import UNKNOWN_PEER
from sidecar.rfc7239 import ForwardedError, forwarded_for

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: More hops than any real chain of proxies; beyond it the field is an attack on us or on the log.
MAX_HOPS: Final = 32

_IPV4: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::[0-9]{1,5})?")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_IPV6_BRACKETED: Final = re.compile(r"\[(?=[^\]]*:)([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?")


def parse_address(text: str) -> IPAddress | None:
    """One address as proxies write it: `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]:443`.

    Strict ASCII; no zone ids, no octal or short forms. An IPv4-mapped IPv6 address is returned as IPv4, here and
    nowhere else (`::ffff:192.0.2.1` is in no IPv4 network otherwise). None if it is not an address.
    """
    if (match := _IPV4.fullmatch(text)) or (match := _IPV6_BRACKETED.fullmatch(text)):
        text = match[1]
    elif not _IPV6.fullmatch(text):
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 6 and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Networks:
    """A set of CIDR networks that answers `address in networks` by bisection, whatever their number.

    Sets with names (`preset:github`) may belong to it; they are shared, not copied.
    """

    __slots__ = ("_named", "_v4", "_v6", "cidrs")

    def __init__(self, networks: Iterable[IPNetwork], named: "Mapping[str, Networks] | None" = None) -> None:
        listed = list(networks)
        self._named = tuple(named.values()) if named else ()
        #: As they were configured, for people.
        self.cidrs = (*(str(network) for network in listed), *(named or ()))
        self._v4 = _intervals([n for n in listed if isinstance(n, ipaddress.IPv4Network)])
        self._v6 = _intervals([n for n in listed if isinstance(n, ipaddress.IPv6Network)])

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        starts, ends = self._v4 if isinstance(address, ipaddress.IPv4Address) else self._v6
        at = bisect_right(starts, number) - 1
        if at >= 0 and number <= ends[at]:
            return True
        return any(address in networks for networks in self._named) if self._named else False

    def __repr__(self) -> str:
        return f"Networks({', '.join(self.cidrs)})"


def _intervals(networks: Iterable[IPNetwork]) -> tuple[list[int], list[int]]:
    """First and last addresses of networks of one version, merged and in order."""
    merged = list(ipaddress.collapse_addresses(networks))  # type: ignore[type-var]
    return [int(it.network_address) for it in merged], [int(it.broadcast_address) for it in merged]


class Client(NamedTuple):
    """Who sent a delivery, as far as addresses tell."""

    address: IPAddress | None  #: None if unreadable, and on a unix socket whose proxy is not trusted or names no client
    text: str  #: for the log
    trusted_peer: bool  #: the direct connection is a trusted proxy's
    unreadable: str = ""  #: what could not be read; such a delivery is refused wherever it goes


class ClientHeader:
    """The one header field that trusted proxies name the client in."""

    def __init__(self, name: str) -> None:
        """`X-Forwarded-For` and `Forwarded` list the hops; any other field holds one address, the client's."""
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
    """The first address from the right that is not a trusted proxy; if all are, the leftmost; without a header the peer's.

    `peer` is the direct connection's address, None on a unix socket, `UNKNOWN_PEER` if a proxy knows none; `lines` holds
    every line of the header field in wire order. Never raises.
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
    """What stands in the field for each hop, in wire order. Raises `ForwardedError`."""
    if header.is_forwarded:
        return forwarded_for(line.decode("latin-1") for line in lines)
    if header.is_forwarded_for:
        return [hop.strip(" \t") for hop in b",".join(lines).decode("latin-1").split(",")]
    return [line.decode("latin-1").strip(" \t") for line in lines]
