"""IP addresses as proxies write them, and sets of networks."""

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Final

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
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
