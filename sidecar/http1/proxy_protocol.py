"""The PROXY protocol's header, versions 1 and 2: an L4 balancer's statement about the connection that it passes on.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. Pure: bytes in, a value out. The caller must know whether
the peer may send such a header.
"""

import ipaddress
import re
from typing import Final, NamedTuple

#: Whole header, bytes. Version 1 has 107 at most; version 2's own limit of 65,551 is an attack, not a header.
MAX_BYTES_V1 = 107
MAX_BYTES = 4096

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = b"PROXY "
_PORT = r"(?:0|[1-9][0-9]{0,4})"
_LINE = re.compile(rf"(TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ({_PORT}) ({_PORT})")
#: Address family and transport of version 2 → bytes of one address. The protocol's other families have no IP address.
_SIZES = {0x11: 4, 0x21: 16}


class ProxyHeaderError(Exception):
    """These bytes are not a PROXY header; the message says why."""


class ProxyHeader(NamedTuple):
    """The content of a header."""

    source: str | None  #: the address that connected to the proxy; None if the header has none
    local: bool  #: the proxy's own connection (a health check): its own address counts
    size: int  #: bytes; the connection's own data follows


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header at the beginning of `data`; None while it is incomplete. Raises `ProxyHeaderError`."""
    if data[:1] == _V1[:1]:
        return _read_v1(data)
    if data[: len(_SIGNATURE)] != _SIGNATURE[: len(data)]:
        raise ProxyHeaderError("the connection does not begin with a PROXY protocol header")
    return _read_v2(data) if len(data) >= 16 else None


def _read_v1(data: bytes) -> ProxyHeader | None:
    if data[: len(_V1)] != _V1[: len(data)]:
        raise ProxyHeaderError("the connection does not begin with a PROXY protocol header")
    end = data.find(b"\r\n", 0, MAX_BYTES_V1)
    if end < 0:
        if len(data) >= MAX_BYTES_V1:
            raise ProxyHeaderError(f"a PROXY header of version 1 with more than {MAX_BYTES_V1} bytes")
        return None
    line = data[len(_V1) : end].decode("latin-1")
    if line == "UNKNOWN" or line.startswith("UNKNOWN "):
        return ProxyHeader(None, False, end + 2)
    match = _LINE.fullmatch(line)
    if match is None or max(int(match[4]), int(match[5])) > 65535:
        raise ProxyHeaderError("a PROXY header of version 1 that can't be read")
    try:
        source, destination = (ipaddress.ip_address(match[group]) for group in (2, 3))
    except ValueError:
        raise ProxyHeaderError("a PROXY header whose addresses can't be read") from None
    if {source.version, destination.version} != {int(match[1][3])}:
        raise ProxyHeaderError("a PROXY header whose addresses are not of its family")
    return ProxyHeader(_text(source), False, end + 2)


def _read_v2(data: bytes) -> ProxyHeader | None:
    command, family = data[12], data[13]
    size = 16 + int.from_bytes(data[14:16], "big")
    if command >> 4 != 2 or command & 0x0F > 1:
        raise ProxyHeaderError("a PROXY header of a version or command that is not known")
    if size > MAX_BYTES:
        raise ProxyHeaderError(f"a PROXY header of more than {MAX_BYTES} bytes")
    local = command & 0x0F == 0
    address_size = 0 if local else _SIZES.get(family, 0)
    if not local and (family >> 4 > 3 or family & 0x0F > 2):
        raise ProxyHeaderError("a PROXY header of an address family that is not known")
    if size < 16 + 2 * address_size + (4 if address_size else 0):
        raise ProxyHeaderError("a PROXY header that is shorter than its addresses")
    if len(data) < size:
        return None
    # The addresses are followed by extensions (TLVs), which we don't use.
    source = _text(ipaddress.ip_address(data[16 : 16 + address_size])) if address_size else None
    return ProxyHeader(source, local, size)


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


#: In place of a peer's address: a trusted proxy doesn't know the source of the connection, or it was reset before we asked.
UNKNOWN_PEER: Final = "unknown"
