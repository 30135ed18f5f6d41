"""The PROXY protocol's header, as balancers send it and as nobody should."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http1.proxy_protocol import MAX_BYTES, ProxyHeader, ProxyHeaderError, read_proxy_header
from sidecar.routing.networks import parse_address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(family: int, addresses: bytes, *, command: int = 0x21, tlvs: bytes = b"", size: int | None = None) -> bytes:
    content = addresses + tlvs
    return SIGNATURE + struct.pack("!BBH", command, family, len(content) if size is None else size) + content


def tcp(source: str, destination: str = "", *, tlvs: bytes = b"") -> bytes:
    address = ipaddress.ip_address(source)
    packed = address.packed + ipaddress.ip_address(destination or source).packed + struct.pack("!HH", 4711, 443)
    return v2(0x11 if address.version == 4 else 0x21, packed, tlvs=tlvs)


UNIX = v2(0x31, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0"))
WHOLE = [
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n", ("203.0.113.9", False)),
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 0 65535\r\n", ("203.0.113.9", False)),
    (b"PROXY TCP6 2001:db8::9 2001:db8::1 56324 443\r\n", ("2001:db8::9", False)),
    (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 1 1\r\n", ("203.0.113.9", False)),
    (b"PROXY TCP6 " + b" ".join([b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2) + b" 65535 65535\r\n", None),
    (b"PROXY UNKNOWN\r\n", (None, False)),
    (b"PROXY UNKNOWN whatever stands here\r\n", (None, False)),
    (tcp("203.0.113.9"), ("203.0.113.9", False)),
    (tcp("2001:db8::9"), ("2001:db8::9", False)),
    (tcp("203.0.113.9", tlvs=b"\x03\x00\x04abcd\xee\x00\x10" + bytes(16)), ("203.0.113.9", False)),
    (v2(0x00, b""), (None, False)),
    (v2(0x00, b"", tlvs=bytes(40)), (None, False)),
    (v2(0x12, bytes(12)), (None, False)),  # UDP
    (UNIX, (None, False)),
    (v2(0x00, b"", command=0x20), (None, True)),  # LOCAL
    (v2(0x11, bytes(12), command=0x20), (None, True)),
    (v2(0x99, b"", command=0x20, tlvs=bytes(40)), (None, True)),  # LOCAL: the rest is to be ignored
    (v2(0x00, bytes(MAX_BYTES - 16)), (None, False)),
]


@pytest.mark.parametrize(("header", "says"), WHOLE)
def test_a_header_is_read_and_what_follows_is_left(header: bytes, says: tuple[str | None, bool] | None) -> None:
    source, local = says or ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", False)
    for behind in (b"", b"POST / HTTP/1.1\r\n", header):
        assert read_proxy_header(header + behind) == ProxyHeader(source, local, len(header))


@pytest.mark.parametrize("header", [header for header, _ in WHOLE])
def test_a_part_of_a_header_waits_for_the_rest(header: bytes) -> None:
    assert all(read_proxy_header(header[:size]) is None for size in range(len(header)))


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\n",
        b"GET",
        b"proxy TCP4 203.0.113.9 192.0.2.1 1 1\r\n",
        b" PROXY TCP4 203.0.113.9 192.0.2.1 1 1\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP5 203.0.113.9 192.0.2.1 1 1\r\n",
        b"PROXY UDP4 203.0.113.9 192.0.2.1 1 1\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY TCP4  203.0.113.9 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 1 1 \r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 1\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 01 1\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 65536 1\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 1 99999\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 -1 1\r\n",
        b"PROXY TCP4 203.0.113.009 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 203.0.113 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 2001:db8::1 192.0.2.1 1 1\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::1 1 1\r\n",
        b"PROXY TCP6 203.0.113.9 192.0.2.1 1 1\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::1 1 1\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 1 1\n" + b"x" * 100,
        b"PROXY UNKNOWN " + b"x" * 100,
        b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
        b"\r\n\r\nPOST / HTTP/1.1\r\n",
        SIGNATURE[:-1] + b"\r",
        v2(0x11, bytes(12), command=0x11),  # version 1 in version 2's form
        v2(0x11, bytes(12), command=0x22),
        v2(0x41, bytes(12)),
        v2(0x13, bytes(12)),
        v2(0x11, bytes(11)),
        v2(0x21, bytes(35)),
        v2(0x11, b"", size=MAX_BYTES),
        v2(0x11, b"", size=65535),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read_proxy_header(data)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda rest: SIGNATURE + rest)))
def test_any_bytes_are_a_header_or_wait_or_are_refused(data: bytes) -> None:
    try:
        header = read_proxy_header(data)
    except ProxyHeaderError:
        # What is refused stays refused, whatever comes behind it.
        with pytest.raises(ProxyHeaderError):
            read_proxy_header(data + b"\r\n")
        return
    assert header is None or 0 < header.size <= len(data)


@given(st.ip_addresses(), st.binary(max_size=100), st.binary(max_size=50))
def test_every_address_is_read_back(address: ipaddress.IPv4Address, tlvs: bytes, behind: bytes) -> None:
    made = tcp(str(address), tlvs=tlvs)
    header = read_proxy_header(made + behind)
    assert header is not None
    assert (parse_address(header.source or ""), header.size) == (parse_address(str(address)), len(made))
