"""Published networks: the snapshots in the package, and which published lists are accepted."""

import json
import re
from dataclasses import replace
from importlib import resources
from ipaddress import ip_address, ip_network

import pytest

from sidecar.config.presets import preset_names
from sidecar.config.ranges import MAX_NETWORKS, WIDEST, RangesError, load_ranges, range_names
from sidecar.config.yaml_source import read_yaml
from sidecar.routing.networks import Networks

TEXT = replace(load_ranges("stripe"), json="")
JSON = replace(load_ranges("github"), json="hooks[]")
BELOW = replace(JSON, json="items[].cidr")


@pytest.mark.parametrize("name", range_names())
def test_a_snapshot_says_where_it_is_from_and_of_which_day(name: str) -> None:
    assert name in preset_names()
    file = resources.files("sidecar.ranges").joinpath(f"{name}.yaml")
    data = read_yaml(file.read_bytes(), name).value
    assert set(data) <= {"title", "docs", "sources", "json", "date", "evidence", "networks"}
    assert re.fullmatch(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}", data["date"])
    assert "repositor" in data["evidence"]
    assert "Seen on 20" in data["evidence"]
    assert len(set(data["networks"])) == len(data["networks"])
    ranges = load_ranges(name)
    assert ranges.sources
    assert all(url.startswith("https://") for url in ranges.sources)
    assert ranges.networks.cidrs
    assert all(ip_network(cidr).is_global for cidr in ranges.networks.cidrs)
    assert 1_700_000_000 < ranges.date < 2_000_000_000


def test_an_unknown_name_has_no_snapshot() -> None:
    with pytest.raises(KeyError):
        load_ranges("nobody")
    with pytest.raises(KeyError):
        load_ranges("../presets/github")


TEN = ("10.0.0.0/10", "10.64.0.0/10", "10.128.0.0/10", "10.192.0.0/10", "10.1.0.0/16", "10.1.0.0/16")


@pytest.mark.parametrize(
    ("ranges", "published", "cidrs"),
    [
        (
            TEXT,
            [b"203.0.113.0/24\n2001:db8::/32\n198.51.100.7\n"],
            ("203.0.113.0/24", "2001:db8::/32", "198.51.100.7/32"),
        ),
        (TEXT, [b"# webhooks\r\n\r\n 203.0.113.1  # one\r\n"], ("203.0.113.1/32",)),
        (TEXT, [b"203.0.113.1", b"203.0.113.2"], ("203.0.113.1/32", "203.0.113.2/32")),
        (JSON, [b'{"hooks": ["203.0.113.0/24"], "web": ["0.0.0.0/0"]}'], ("203.0.113.0/24",)),
        (BELOW, [b'{"items": [{"cidr": "203.0.113.0/24"}, {"cidr": "::1/128"}]}'], ("203.0.113.0/24", "::1/128")),
        # as wide as a list may be, and the same networks twice
        (TEXT, [b"10.0.0.0/10\n10.64.0.0/10\n10.128.0.0/10\n10.192.0.0/10\n10.1.0.0/16\n10.1.0.0/16"], TEN),
        (TEXT, [f"10.0.0.0/{WIDEST[4]}\n2001:d00::/{WIDEST[6]}".encode()], ("10.0.0.0/10", "2001:d00::/24")),
    ],
)
def test_networks_are_read_from_text_and_json(ranges, published: list[bytes], cidrs: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    assert ranges.read(published).cidrs == cidrs


@pytest.mark.parametrize(
    ("ranges", "published"),
    [
        (TEXT, [b""]),
        (TEXT, [b"\n# nothing\n"]),
        (TEXT, [b"203.0.113.1", b""]),
        (TEXT, [b"203.0.113.1\nnot a network\n"]),
        (TEXT, [b"<html><body>203.0.113.1</body></html>"]),
        (TEXT, [b"203.0.113.1\n0.0.0.0/0\n"]),
        (TEXT, [b"::/0"]),
        (TEXT, [b"128.0.0.0/1"]),
        (TEXT, [b"0.0.0.0/9"]),
        (TEXT, [b"2000::/3"]),
        (TEXT, [b"203.0.113.1/24"]),  # host bits: what was meant?
        (TEXT, [b"203.0.113.1 203.0.113.2"]),
        (TEXT, [b"fe80::1%eth0"]),
        (TEXT, [b"3405803777"]),
        (TEXT, [b"203.0.113.1\xff"]),
        (TEXT, [b"\x1f\x8b\x08\x00"]),
        (TEXT, [b"\n".join(b"%d.%d.0.0/10" % (n // 4, n % 4 * 64) for n in range(1024))]),  # all of IPv4
        (TEXT, [b"\n".join(b"%d.0.0.0/12" % n for n in range(10, 27))]),
        (TEXT, [b"10.0.0.0/10\n10.64.0.0/10\n10.128.0.0/10\n10.192.0.0/10\n11.0.0.0/32"]),
        (TEXT, [b"10.0.0.0/10\n10.64.0.0/10\n", b"10.128.0.0/10\n10.192.0.0/10\n12.0.0.1"]),  # both sources together
        (TEXT, [b"\n".join(b"2001:%x00::/24" % n for n in range(5))]),
        (TEXT, [b"::ffff:0:0/96"]),
        (TEXT, [b"203.0.113.1\n64:ff9b::/100"]),
        (TEXT, [b"::ffff:203.0.113.1"]),
        (TEXT, [b"\n".join(b"203.0.%d.%d" % divmod(n, 250) for n in range(MAX_NETWORKS + 1))]),
        (JSON, [b"203.0.113.0/24"]),
        (JSON, [b"[]"]),
        (JSON, [b"{}"]),
        (JSON, [b'{"hooks": []}']),
        (JSON, [b'{"hooks": "203.0.113.0/24"}']),
        (JSON, [b'{"hooks": [null]}']),
        (JSON, [b'{"hooks": [1]}']),
        (JSON, [b'{"hooks": ["203.0.113.0/24", {"cidr": "203.0.113.0/24"}]}']),
        (JSON, [b'{"hooks": ["203.0.113.0/24", "0.0.0.0/0"]}']),
        (JSON, [b"[" * 100_000]),
        (BELOW, [b'{"items": [{"cidr": "203.0.113.0/24"}, {}]}']),
    ],
)
def test_a_list_is_accepted_whole_or_not_at_all(ranges, published: list[bytes]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RangesError):
        ranges.read(published)


def test_networks_with_names_belong_to_those_that_name_them() -> None:
    github = Networks([ip_network("192.0.2.0/24")])
    networks = Networks([ip_network("203.0.113.7/32")], {"preset:github": github})
    assert networks.cidrs == ("203.0.113.7/32", "preset:github")
    assert [ip_address(text) in networks for text in ("203.0.113.7", "192.0.2.9", "203.0.113.8", "2001:db8::1")] == [
        True,
        True,
        False,
        False,
    ]
    assert ip_address("192.0.2.9") in Networks([], {"preset:github": github})


def test_the_three_presets_are_those_that_could_be_sourced() -> None:
    assert range_names() == ("github", "pagerduty", "stripe")
    assert "9.234.98.160/28" in load_ranges("github").networks.cidrs
    assert json.dumps(load_ranges("stripe").networks.cidrs).count("/32") == 15
