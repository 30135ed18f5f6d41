"""From the direct connection's address and X-Forwarded-For to the client's address.

Two words for two things: `peer` is who holds the connection, `client` is who sent the delivery. X-Forwarded-For
is read from the right, and only past hops that are trusted proxies; a hop that can't be read is a refusal, never
skipped, because the entry to its left was written by whoever sent the unreadable one.
"""

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

#: More hops than any real chain of proxies; beyond it the field is an attack on us or on the log.
MAX_HOPS = 32

_IPV4 = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::[0-9]{1,5})?")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_IPV6_BRACKETED = re.compile(r"\[(?=[^\]]*:)([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?")


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
    """A set of CIDR networks that answers `address in networks` by bisection, whatever their number."""

    __slots__ = ("_ends", "_starts", "cidrs")

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        listed = list(networks)
        #: As they were configured, for people.
        self.cidrs = tuple(str(network) for network in listed)
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        self._ends: dict[int, list[int]] = {4: [], 6: []}
        for version in (4, 6):
            merged = ipaddress.collapse_addresses([n for n in listed if n.version == version])  # type: ignore[type-var]
            for network in merged:
                self._starts[version].append(int(network.network_address))
                self._ends[version].append(int(network.broadcast_address))

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        at = bisect_right(self._starts[address.version], number) - 1
        return at >= 0 and number <= self._ends[address.version][at]

    def __repr__(self) -> str:
        return f"Networks({', '.join(self.cidrs)})"


class Client(NamedTuple):
    """Who sent a delivery, as far as addresses tell."""

    address: IPAddress | None  #: None if unreadable, and on a unix socket whose proxy is not trusted or names no client
    text: str  #: for the log
    trusted_peer: bool  #: the direct connection is a trusted proxy's
    unreadable: str = ""  #: what could not be read; such a delivery is refused wherever it goes


def resolve_client(
    peer: str | None, forwarded_for: Sequence[bytes], trusted: Networks, *, trust_unix: bool = False
) -> Client:
    """The first address from the right that is not a trusted proxy; if all are, the leftmost.

    `peer` is the direct connection's address, None on a unix socket; `forwarded_for` holds every X-Forwarded-For line
    in wire order. Never raises.
    """
    address: IPAddress | None = None
    if peer is not None:
        address = parse_address(peer)
        if address is None:
            return Client(None, "", False, "the connection's own address")
        if address not in trusted:
            return Client(address, str(address), False)
    elif not trust_unix:
        return Client(None, "", False)
    if forwarded_for:
        hops = b",".join(forwarded_for).decode("latin-1").split(",")
        if len(hops) > MAX_HOPS:
            return Client(None, "", True, f"X-Forwarded-For with more than {MAX_HOPS} hops")
        for distance, hop in enumerate(reversed(hops), start=1):
            address = parse_address(hop.strip(" \t"))
            if address is None:
                return Client(None, "", True, f"hop {distance} from the right of X-Forwarded-For")
            if address not in trusted:
                break
    return Client(address, str(address or ""), True)
