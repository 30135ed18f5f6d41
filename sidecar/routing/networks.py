"""Parses IP addresses as proxies write them; holds sets of networks."""

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
    nowhere else: `::ffff:192.0.2.1` would match no IPv4 network. None if it is not an address.
    """
    if (match := _IPV4.fullmatch(text)) or (match := _IPV6_BRACKETED.fullmatch(text)):
        text = match[1]
    elif not _IPV6.fullmatch(text):
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Networks:
    """A set of CIDR networks; `address in networks` is a bisection.

    It may include named sets (`preset:github`), which are shared, not copied.
    """

    __slots__ = ("_named", "_v4", "_v6", "cidrs")

    def __init__(self, networks: Iterable[IPNetwork], named: "Mapping[str, Networks] | None" = None) -> None:
        listed = list(networks)
        self._named = tuple(named.values()) if named else ()
        #: As configured, for display.
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
    """The first and last addresses of networks of one IP version, merged and sorted."""
    merged = list(ipaddress.collapse_addresses(networks))  # type: ignore[type-var]
    return [int(each.network_address) for each in merged], [int(each.broadcast_address) for each in merged]
