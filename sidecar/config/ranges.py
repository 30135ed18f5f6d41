"""The networks that providers say they send from: dated snapshots in the package, and reading the published lists.

A provider is a data file, `ranges/NAME.yaml`, with the day and the evidence of its snapshot. `allow: ["preset:NAME"]`.
"""

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

from sidecar.config.yaml_source import read_shipped, shipped_names
from sidecar.routing.networks import IPNetwork, Networks
from sidecar.verify.document import find_values

#: A list with more networks is not one of webhook senders.
MAX_NETWORKS = 10_000
#: The widest networks that are accepted, by IP version. A wider one would admit anyone who rents a machine there, or everyone.
WIDEST = {4: 10, 6: 24}
#: All networks of a list together may be as wide as one such network, by IP version: for IPv4 1/256 of all addresses. The widest
#: list of the package, GitHub's, has 10,288 IPv4 addresses.
WIDEST_IN_ALL = {4: 8, 6: 22}
#: IPv6 networks that contain all of IPv4: RFC 4291, 2.5.5.2, and RFC 6052.
_IPV4_IN_IPV6 = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))
_N = TypeVar("_N", ipaddress.IPv4Network, ipaddress.IPv6Network)
_ENTRY = re.compile(r"[0-9A-Fa-f.:/]{2,50}")


class RangesError(Exception):
    """A published list that can't be used. The message says why, and repeats nothing of the list."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranges:
    """The networks that a provider publishes."""

    name: str
    docs: str
    sources: tuple[str, ...]  #: https URLs; all of them together are the list
    json: str  #: the place of the networks in the JSON of each; empty for text with one network on each line
    date: float  #: of the snapshot, unix time
    networks: Networks  #: the snapshot

    def read(self, published: Sequence[bytes]) -> Networks:
        """The networks in the responses of `sources`: all of them, or `RangesError`."""
        listed = [network for text in published for network in _networks(_entries(text, self.json))]
        if len(listed) > MAX_NETWORKS:
            raise RangesError(f"more than {MAX_NETWORKS} networks")
        _check_union([network for network in listed if isinstance(network, ipaddress.IPv4Network)])
        _check_union([network for network in listed if isinstance(network, ipaddress.IPv6Network)])
        return Networks(listed)


@cache
def range_names() -> tuple[str, ...]:
    """Names of the snapshots in the package, sorted."""
    return shipped_names("ranges")


@cache
def load_ranges(name: str) -> Ranges:
    """The snapshot `name`. Raises `KeyError` for an unknown name."""
    data = read_shipped("ranges", name, range_names())
    return Ranges(
        name=name,
        docs=data["docs"],
        sources=tuple(data["sources"]),
        json=data.get("json", ""),
        date=datetime.fromisoformat(data["date"]).replace(tzinfo=UTC).timestamp(),
        networks=Networks(_networks(data["networks"])),
    )


def _entries(text: bytes, path: str) -> list[str]:
    try:
        if path:
            return find_values(json.loads(text), path)
        lines = [line.partition("#")[0].strip() for line in text.decode("ascii").splitlines()]
    except (ValueError, RecursionError):
        raise RangesError("the response is not JSON" if path else "the response is not plain text") from None
    return [line for line in lines if line]


def _networks(entries: Sequence[str]) -> list[IPNetwork]:
    if not entries:
        raise RangesError("no networks in the response")
    return [_network(entry) for entry in entries]


def _network(entry: str) -> IPNetwork:
    try:
        network = ipaddress.ip_network(entry if _ENTRY.fullmatch(entry) else "")
    except ValueError:
        raise RangesError("an entry that is not a network") from None
    if isinstance(network, ipaddress.IPv6Network) and any(map(network.overlaps, _IPV4_IN_IPV6)):
        raise RangesError("an IPv6 network of IPv4 addresses")
    if network.prefixlen < WIDEST[network.version]:
        raise RangesError(f"{network}, a network wider than /{WIDEST[network.version]}")
    return network


def _check_union(networks: Sequence[_N]) -> None:
    """Many networks, each narrow enough, could be all addresses together. `networks` are of one IP version."""
    if networks:
        first = networks[0]
        widest = WIDEST_IN_ALL[first.version]
        addresses = sum(network.num_addresses for network in ipaddress.collapse_addresses(networks))
        if addresses > 2 ** (first.max_prefixlen - widest):
            raise RangesError(f"IPv{first.version} networks that are together wider than /{widest}")
