"""What is signed: the template's places, filled from a delivery."""

import base64
import hashlib
from dataclasses import replace

import pytest

from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.kinds.hash import SECRET_PLACE
from sidecar.verify.message import (
    PublicURL,
    compose,
    compose_plain,
    make_messages,
    most_variants,
    plain_parts,
    query_values,
)
from sidecar.verify.places import Delivery
from sidecar.verify.scheme import Scheme, SignatureField
from sidecar.verify.template import Piece, describe_template, parse_template

BODY = b'{"a":{"b":"c","n":7}}'
URL = "https://hooks.example.com/hooks/in?x=1&y=%20"


def scheme(signed: str) -> Scheme:
    return Scheme(
        signature=SignatureField(header="X-S"), signed=signed, parts=parse_template(signed, "X-Id"), delivery_id="X-Id"
    )


def message(signed: str, *, public_url: str | None = URL) -> bytes:
    head = make_head("PUT", b"/hooks/in?x=1&y=%20", [(b"Host", b"inside:8080"), (b"x-id", b"id-1")], None)
    known = PublicURL(public_url) if public_url else None
    url = known.of(head.target) if known else b""
    delivery = Delivery(head, [BODY[:5], BODY[5:]], b"1700000000", url, "")
    return b"".join(compose(make_messages(scheme(signed), known)[0].writers, delivery))


@pytest.mark.parametrize(
    ("signed", "expected"),
    [
        ("{body}", BODY),
        ("v0:{timestamp}:{body}", b"v0:1700000000:" + BODY),
        ("{id}.{timestamp}.{body}", b"id-1.1700000000." + BODY),
        ("{method}{url}{body}", b"PUT" + URL.encode() + BODY),
        ("{url_without_query}|", b"https://hooks.example.com/hooks/in|"),
        ("{method}\n{path_query}\n{host}", b"PUT\n/hooks/in?x=1&y=%20\nhooks.example.com"),
        ("{json:a.b}{json:a.n}", b"c7"),
        ("{body_sha256_b64}", base64.b64encode(hashlib.sha256(BODY).digest())),
        ("{body_sha512_b64}", base64.b64encode(hashlib.sha512(BODY).digest())),
        ("{secret}{body}", SECRET_PLACE + BODY),
    ],
)
def test_each_place_is_filled(signed: str, expected: bytes) -> None:
    assert message(signed) == expected


def test_without_a_public_url_host_and_path_are_those_that_arrived() -> None:
    assert message("{host}{path_query}", public_url=None) == b"inside:8080/hooks/in?x=1&y=%20"


@pytest.mark.parametrize("signed", ["{body}", "{timestamp}.{body}", "v0:{timestamp}:{body}|", "{body}{timestamp}"])
def test_the_short_way_makes_the_same_message(signed: str) -> None:
    parts = plain_parts(scheme(signed))
    assert parts
    assert b"".join(compose_plain(parts, b"1700000000", [BODY[:5], BODY[5:]])) == message(signed)


@pytest.mark.parametrize("signed", ["{id}{body}", "{url}{body}", "{json:a}"])
def test_other_templates_have_no_short_way(signed: str) -> None:
    assert plain_parts(scheme(signed)) == ()


def test_a_value_that_is_not_there_is_a_missing_signature() -> None:
    with pytest.raises(Rejected) as refused:
        message("{json:a.missing}")
    assert refused.value.reason is Reason.SIGNATURE_MISSING


def test_a_form_looks_like_what_it_is() -> None:
    parts = scheme("v0:{timestamp}:{body}{id}{json:a.b}").parts
    assert describe_template(parts, {}) == '"v0:" timestamp ":" body header x-id JSON value a.b'
    assert describe_template(parts, {Piece.BODY: "7 bytes"}) == '"v0:" timestamp ":" 7 bytes header x-id JSON value a.b'


@pytest.mark.parametrize(
    ("public_url", "target", "url"),
    [
        ("https://h", "/in?a=1", "https://h/in?a=1"),
        ("https://h/", "/in", "https://h/in"),
        ("https://h:8443", "/", "https://h:8443/"),
        # A path that something before us takes off.
        ("https://h/base", "/in", "https://h/base/in"),
        ("https://h/base/", "/in?a", "https://h/base/in?a"),
        # One that is still there.
        ("https://h/base", "/base/in?a=1", "https://h/base/in?a=1"),
        ("https://h/base/in", "/base/in", "https://h/base/in"),
        ("https://h/base", "/based", "https://h/base/based"),
        # A whole URL.
        ("https://h/in?a=1&b=2", "/elsewhere?c=3", "https://h/in?a=1&b=2"),
    ],
)
def test_the_public_url_stands_before_the_target(public_url: str, target: str, url: str) -> None:
    assert PublicURL(public_url).of(target.encode()) == url.encode()


@pytest.mark.parametrize(
    ("url", "without", "with_port"),
    [
        ("https://h/in?a=b:1", "https://h/in?a=b:1", "https://h:443/in?a=b:1"),
        ("http://h/", "http://h/", "http://h:80/"),
        ("https://h:8443/in", "https://h/in", "https://h:8443/in"),
        ("https://[::1]/in", "https://[::1]/in", "https://[::1]:443/in"),
        ("https://[::1]:8443/in", "https://[::1]/in", "https://[::1]:8443/in"),
    ],
)
def test_a_url_with_and_without_its_port(url: str, without: str, with_port: str) -> None:
    assert PublicURL.ports(url.encode()) == [without.encode(), with_port.encode()]


@pytest.mark.parametrize(
    ("public_url", "target", "urls"),
    [
        ("https://h", b"/", [b"https://h/", b"https://h"]),
        ("https://h/", b"/?a=1", [b"https://h/?a=1", b"https://h?a=1"]),
        ("https://h/base", b"/", [b"https://h/base/", b"https://h/base"]),
        ("https://h", b"/in", [b"https://h/in"]),
        ("https://h?a=1", b"/?a=1", [b"https://h?a=1"]),
    ],
)
def test_a_url_without_a_path_is_called_with_one(public_url: str, target: bytes, urls: list[bytes]) -> None:
    assert PublicURL(public_url).variants(target, scheme("{url}")) == urls


def test_both_kinds_of_variant_go_together() -> None:
    made = replace(scheme("{url}"), any_port=True)
    assert PublicURL("https://h").variants(b"/?a", made) == [
        b"https://h/?a",
        b"https://h:443/?a",
        b"https://h?a",
        b"https://h:443?a",
    ]


def test_escapes_of_some_characters_may_be_undone_before_signing() -> None:
    made = replace(scheme("{url}"), url_unescaped=":@,")
    url = PublicURL("https://h")
    assert url.variants(b"/in?a=b", made) == [b"https://h/in?a=b"]
    assert url.variants(b"/in?m=a%40b%2cc%2f%3A", made) == [
        b"https://h/in?m=a%40b%2cc%2f%3A",
        b"https://h/in?m=a@b,c%2f:",
    ]
    assert url.variants(b"/in?m=a%40b", scheme("{url}")) == [b"https://h/in?m=a%40b"]


@pytest.mark.parametrize("any_port", [False, True])
@pytest.mark.parametrize("unescaped", ["", ":@"])
def test_the_number_of_variants_has_a_bound_that_is_reached(unescaped: str, any_port: bool) -> None:
    made = replace(scheme("{url}"), any_port=any_port, url_unescaped=unescaped)
    targets = [b"/", b"/?a=%40", b"/in?a=%40", b"/" + b"%40" * 100]
    assert max(len(PublicURL("https://h").variants(target, made)) for target in targets) == most_variants(made)


def test_every_value_of_a_query_parameter_is_seen() -> None:
    target = b"/in?bodySHA256=a&xbodySHA256=b&bodySHA256=c&bodySHA256"
    assert query_values(target, "bodySHA256") == [b"a", b"c"]
    assert query_values(b"/bodySHA256=a", "bodySHA256") == []
