"""The `Forwarded` field: who is named, and what is not the grammar's."""

import pytest

from sidecar.routing.forwarded_field import ForwardedError, parse_forwarded


@pytest.mark.parametrize(
    ("lines", "addresses"),
    [
        (["for=192.0.2.60;proto=http;by=203.0.113.43"], ["192.0.2.60"]),  # RFC 7239, section 4
        (["for=192.0.2.43, for=198.51.100.17"], ["192.0.2.43", "198.51.100.17"]),
        (['for="_gazonk"'], [""]),
        (['For="[2001:db8:cafe::17]:4711"'], ["2001:db8:cafe::17"]),
        (["for=192.0.2.43", 'for="[2001:db8:cafe::17]"'], ["192.0.2.43", "2001:db8:cafe::17"]),  # section 7.1
        (['for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown'], ["192.0.2.43", "2001:db8:cafe::17", ""]),
        (["for=_hidden, for=_SEVKISEK"], ["", ""]),  # section 6.3
        (['for="192.0.2.1:443"'], ["192.0.2.1"]),
        (['for="192.0.2.1:_port"'], ["192.0.2.1"]),
        (['for="192.0.2\\.1"'], ["192.0.2.1"]),
        (["by=10.0.0.1;host=a.example"], [""]),
        ([" for=192.0.2.1 ; proto=https "], ["192.0.2.1"]),
        (["FOR=192.0.2.1;PROTO=https"], ["192.0.2.1"]),
        (['for=192.0.2.1;by="a, for=6.6.6.6"'], ["192.0.2.1"]),
        (['for=192.0.2.1;x="\\", for=6.6.6.6"'], ["192.0.2.1"]),
        (['for="2001:db8::1"'], [""]),  # brackets are required
        (['for="[2001:db8::1"'], [""]),
        (['for="192.0.2.1:"'], [""]),
        (['for=""'], [""]),
    ],
)
def test_the_address_of_each_hop_is_read(lines: list[str], addresses: list[str]) -> None:
    assert list(parse_forwarded(lines)) == addresses


@pytest.mark.parametrize(
    "line",
    [
        "",
        ",",
        ";",
        "192.0.2.1",
        "for=",
        "for= 192.0.2.1",
        "for =192.0.2.1",
        "for=192.0.2.1,",
        ",for=192.0.2.1",
        "for=192.0.2.1,,for=192.0.2.2",
        "for=192.0.2.1;",
        ";for=192.0.2.1",
        "for=192.0.2.1;;proto=http",
        "for=192.0.2.1 for=192.0.2.2",
        "for=192.0.2.1:443",  # a colon must be quoted
        "for=[2001:db8::1]",
        'for="192.0.2.1',
        'for="192.0.2.1"x',
        'for=192.0.2.1;x="\\',
        "for='192.0.2.1'x y",
        'for=192.0.2.1;x="\x00"',
        "for=192.0.2.1;for=192.0.2.2",
        "for=192.0.2.1;FOR=192.0.2.2",
        "for=192.0.2.1\n",
    ],
)
def test_what_is_not_the_grammars_is_refused(line: str) -> None:
    with pytest.raises(ForwardedError):
        list(parse_forwarded([line]))


def test_a_quoted_string_does_not_go_on_in_the_next_line() -> None:
    """A sender opens a quote so that what the proxy adds disappears in it."""
    with pytest.raises(ForwardedError):
        list(parse_forwarded(['for=203.0.113.1;x="', 'for=6.6.6.6;by="']))
    with pytest.raises(ForwardedError):
        list(parse_forwarded(['for=203.0.113.1;x=", for="[2001:db8::6]"']))
