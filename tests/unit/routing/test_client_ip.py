"""Addresses as proxies write them, networks, and who the client is behind trusted proxies."""

import tracemalloc
from ipaddress import ip_address, ip_network

import pytest

from sidecar.http1.proxy_protocol import UNKNOWN_PEER
from sidecar.routing.client_ip import MAX_HOPS, X_FORWARDED_FOR, Client, ClientHeader, resolve_client
from sidecar.routing.networks import Networks, parse_address

PROXIES = Networks([ip_network("10.0.0.0/8"), ip_network("2001:db8:ffff::/48")])
NOBODY = Networks([])
FORWARDED = ClientHeader("forwarded")
REAL_IP = ClientHeader("X-Real-IP")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::", "::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1"),
        ("0000:0000:0000:0000:0000:ffff:192.0.2.255", "192.0.2.255"),
        ("64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
    ],
)
def test_an_address_is_read_with_or_without_brackets_and_port(text: str, address: str) -> None:
    assert parse_address(text) == ip_address(address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "unknown",
        "_hidden",
        "192.0.2",
        "192.0.2.1.1",
        "192.0.2.256",
        "192.0.2.01",  # octal to some, decimal to others
        "0300.0.2.1",
        "0xC0.0.2.1",
        "3221225985",
        "192.0.2.1:",
        "192.0.2.1:123456",
        "192.0.2.1:http",
        "192.0.2.1/32",
        " 192.0.2.1",
        "192.0.2.1\n",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]443",
        "[2001:db8::1]:",
        "[]",
        ":",
        ":::",
        "1::2::3",
        "12345::",
        "fe80::1%eth0",
        "[fe80::1%eth0]:80",
        "fe80::1%",
        "١٩٢.0.2.1",
        "192\uff0e0.2.1",
        "for=192.0.2.1",
        "::ffff:192.0.2.01",
        "1:" * 5000,
    ],
)
def test_what_is_not_plainly_an_address_is_none(text: str) -> None:
    assert parse_address(text) is None


def test_an_address_is_in_a_network_if_it_lies_between_its_ends() -> None:
    networks = Networks(
        ip_network(text)
        for text in ("198.51.100.0/25", "192.0.2.7", "198.51.100.128/25", "10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32")
    )
    inside = (
        "192.0.2.7",
        "198.51.100.0",
        "198.51.100.127",
        "198.51.100.128",
        "198.51.100.255",
        "10.0.0.0",
        "10.255.255.255",
        "2001:db8::",
        "2001:db8:ffff::1",
    )
    outside = (
        "0.0.0.0",
        "192.0.2.6",
        "192.0.2.8",
        "198.51.99.255",
        "198.51.101.0",
        "9.255.255.255",
        "11.0.0.0",
        "255.255.255.255",
        "::",
        "2001:db7::",
        "2001:db9::",
    )
    assert [text for text in inside if ip_address(text) not in networks] == []
    assert [text for text in outside if ip_address(text) in networks] == []


def test_nothing_is_in_no_networks() -> None:
    assert ip_address("192.0.2.1") not in NOBODY
    assert ip_address("::1") not in NOBODY


def test_an_ipv6_address_is_never_in_an_ipv4_network_of_the_same_number() -> None:
    assert ip_address("::a00:1") not in PROXIES


def test_networks_show_themselves_as_they_were_configured() -> None:
    networks = Networks([ip_network("10.1.0.0/16"), ip_network("10.0.0.0/8"), ip_network("192.0.2.7")])
    assert networks.cidrs == ("10.1.0.0/16", "10.0.0.0/8", "192.0.2.7/32")
    assert repr(networks) == "Networks(10.1.0.0/16, 10.0.0.0/8, 192.0.2.7/32)"


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        pytest.param([], "10.0.0.1", id="no field: the proxy itself"),
        pytest.param([b"203.0.113.9"], "203.0.113.9", id="one hop"),
        pytest.param(
            [b"6.6.6.6, 203.0.113.9"], "203.0.113.9", id="what the client wrote is to the left of what the proxy saw"
        ),
        pytest.param([b"6.6.6.6,203.0.113.9,10.0.0.2,10.0.0.3"], "203.0.113.9", id="trusted hops are passed"),
        pytest.param([b"6.6.6.6", b"203.0.113.9"], "203.0.113.9", id="two lines are one list"),
        pytest.param([b"203.0.113.9", b"10.0.0.2", b"10.0.0.3"], "203.0.113.9", id="three lines"),
        pytest.param([b"203.0.113.9, 10.0.0.2", b"10.0.0.3"], "203.0.113.9", id="lists in lines"),
        pytest.param([b"10.0.0.9, 10.0.0.2"], "10.0.0.9", id="all trusted: the leftmost"),
        pytest.param([b" \t203.0.113.9\t , 10.0.0.2 "], "203.0.113.9", id="blanks"),
        pytest.param([b"203.0.113.9:4711"], "203.0.113.9", id="with a port"),
        pytest.param([b"[2001:db8::9]:4711"], "2001:db8::9", id="with brackets and port"),
        pytest.param([b"203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9", id="a mapped address is the IPv4 proxy it is"),
        pytest.param([b"203.0.113.9, 2001:db8:ffff::1"], "203.0.113.9", id="an IPv6 proxy"),
        pytest.param([b"garbage, 203.0.113.9"], "203.0.113.9", id="garbage left of the client is not looked at"),
        pytest.param([b",,203.0.113.9"], "203.0.113.9", id="leading commas left of the client are not looked at"),
        pytest.param([b", ".join([b"203.0.113.9"] + [b"10.0.0.2"] * (MAX_HOPS - 1))], "203.0.113.9", id="32 hops"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_trusted_proxy(lines: list[bytes], client: str) -> None:
    assert resolve_client("10.0.0.1", lines, PROXIES) == Client(ip_address(client), client, True)


@pytest.mark.parametrize(
    ("lines", "unreadable"),
    [
        pytest.param([b""], "hop 1 from the right of X-Forwarded-For", id="empty"),
        pytest.param([b"203.0.113.9,"], "hop 1 from the right of X-Forwarded-For", id="trailing comma"),
        pytest.param([b"203.0.113.9", b""], "hop 1 from the right of X-Forwarded-For", id="empty second line"),
        pytest.param([b",10.0.0.2"], "hop 2 from the right of X-Forwarded-For", id="leading comma"),
        pytest.param([b"203.0.113.9,,10.0.0.2"], "hop 2 from the right of X-Forwarded-For", id="comma in the middle"),
        pytest.param([b"203.0.113.9, unknown, 10.0.0.2"], "hop 2 from the right of X-Forwarded-For", id="a word"),
        pytest.param([b"fe80::1%eth0"], "hop 1 from the right of X-Forwarded-For", id="a zone id"),
        pytest.param([b"203.0.113.009"], "hop 1 from the right of X-Forwarded-For", id="octal"),
        pytest.param([b"\xff\x00"], "hop 1 from the right of X-Forwarded-For", id="bytes"),
        pytest.param([b"\xa010.0.0.2"], "hop 1 from the right of X-Forwarded-For", id="a no-break space is no blank"),
        pytest.param(
            [b"10.0.0.2," * MAX_HOPS + b"10.0.0.2"], f"X-Forwarded-For with more than {MAX_HOPS} hops", id="33 hops"
        ),
        pytest.param([b"10.0.0.2"] * 33, f"X-Forwarded-For with more than {MAX_HOPS} hops", id="33 lines"),
    ],
)
def test_a_hop_that_can_not_be_read_is_a_refusal_and_never_skipped(lines: list[bytes], unreadable: str) -> None:
    assert resolve_client("10.0.0.1", lines, PROXIES) == Client(None, "", True, unreadable)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (FORWARDED, b"for=10.0.0.2," * (MAX_HOPS + 1) + b'no"grammar'),
        (X_FORWARDED_FOR, b"10.0.0.2," * 9000 + b"no address"),
    ],
)
def test_hops_beyond_the_limit_are_not_read(header: ClientHeader, line: bytes) -> None:
    client = resolve_client("10.0.0.1", [line], PROXIES, header=header)
    assert client.unreadable == f"{header.name} with more than {MAX_HOPS} hops"


@pytest.mark.parametrize("peer", ["203.0.113.9", "::ffff:203.0.113.9", "2001:db8::9"])
def test_the_field_of_a_peer_that_is_not_trusted_counts_for_nothing(peer: str) -> None:
    for trusted in (PROXIES, NOBODY):
        client = resolve_client(peer, [b"10.0.0.9", b"garbage"], trusted)
        assert client == Client(parse_address(peer), str(parse_address(peer)), False)


def test_a_mapped_peer_is_the_ipv4_proxy_it_is() -> None:
    assert resolve_client("::ffff:10.0.0.1", [b"203.0.113.9"], PROXIES).text == "203.0.113.9"


@pytest.mark.parametrize("peer", ["", "testclient", "fe80::1%eth0"])
def test_a_connection_whose_own_address_can_not_be_read_is_refused(peer: str) -> None:
    assert resolve_client(peer, [b"203.0.113.9"], PROXIES) == Client(None, "", False, "the connection's own address")


def test_on_a_unix_socket_the_field_counts_only_if_the_socket_is_trusted() -> None:
    assert resolve_client(None, [b"203.0.113.9"], PROXIES) == Client(None, "", False)
    trusted = resolve_client(None, [b"203.0.113.9, 10.0.0.2"], PROXIES, trust_unix=True)
    assert trusted == Client(ip_address("203.0.113.9"), "203.0.113.9", True)


def test_a_trusted_unix_socket_without_the_field_names_no_client() -> None:
    assert resolve_client(None, [], PROXIES, trust_unix=True) == Client(None, "", True)


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([b"for=203.0.113.9"], "203.0.113.9"),
        ([b'for=6.6.6.6, for="[2001:db8::9]:443";proto=https, for=10.0.0.2'], "2001:db8::9"),
        ([b"for=6.6.6.6", b"for=203.0.113.9", b"for=10.0.0.2;by=10.0.0.1"], "203.0.113.9"),
        ([b"for=unknown, for=203.0.113.9"], "203.0.113.9"),  # left of the client: not looked at
        ([b'for="::ffff:203.0.113.9", for="[::ffff:10.0.0.3]"'], None),
        ([b'for="[::ffff:203.0.113.9]"'], "203.0.113.9"),
        ([b"for=10.0.0.2"], "10.0.0.2"),
        ([b"for=203.0.113.9, for=unknown"], None),
        ([b"for=203.0.113.9, for=_hidden, for=10.0.0.2"], None),
        ([b"for=203.0.113.9, proto=https"], None),
        ([b"203.0.113.9"], None),
        ([b'for=203.0.113.9;x="', b"for=6.6.6.6"], None),
        ([b"for=10.0.0.2," * MAX_HOPS + b"for=203.0.113.9"], None),
    ],
)
def test_forwarded_is_read_from_the_right_as_well(lines: list[bytes], client: str | None) -> None:
    resolved = resolve_client("10.0.0.1", lines, PROXIES, header=FORWARDED)
    assert (resolved.text or None, bool(resolved.unreadable)) == (client, client is None)
    assert resolved.trusted_peer


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([b"203.0.113.9"], "203.0.113.9"),
        ([b"[2001:db8::9]:443"], "2001:db8::9"),
        ([b"10.0.0.2"], "10.0.0.2"),
        ([b""], None),
        ([b"203.0.113.9, 10.0.0.2"], None),
        ([b"6.6.6.6", b"203.0.113.9"], None),
        ([b"unknown"], None),
    ],
)
def test_any_other_header_holds_one_address(lines: list[bytes], client: str | None) -> None:
    resolved = resolve_client("10.0.0.1", lines, PROXIES, header=REAL_IP)
    assert (resolved.text or None, bool(resolved.unreadable)) == (client, client is None)


@pytest.mark.parametrize("header", [FORWARDED, REAL_IP])
def test_of_a_peer_that_is_not_trusted_no_header_counts(header: ClientHeader) -> None:
    assert resolve_client("203.0.113.9", [b"for=10.0.0.9"], PROXIES, header=header).text == "203.0.113.9"


def test_a_proxy_that_knows_no_address_is_believed_no_header_either() -> None:
    assert resolve_client(UNKNOWN_PEER, [b"203.0.113.9"], PROXIES, trust_unix=True) == Client(None, "", False)


def test_what_hostile_senders_write_is_not_kept_in_memory() -> None:
    """A cache by the text of a hop would hold thousands of heads of 64 KiB, outside of every limit."""
    tracemalloc.start()
    try:
        for number in range(100):
            resolve_client("10.0.0.1", [b"%d" % number + b"x" * 60_000], PROXIES)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
