"""What holds for any input, sought by Hypothesis.

Hostile bytes raise `Rejected` and nothing else, a wrong configuration raises `ConfigError` and nothing else, what is signed
verifies, what was changed by one bit does not, and no secret shows.
"""

import json
import re
import string
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError, Problem
from sidecar.config.settings import Config
from sidecar.config.yaml_source import read_yaml
from sidecar.http1.head import check_head, make_head
from sidecar.outcomes import VERIFICATION, Reason, Rejected
from sidecar.routing.client_ip import Client, resolve_client
from sidecar.routing.networks import Networks, parse_address
from sidecar.routing.routes import RouteTable
from sidecar.secret import Secret
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.encoding import Encoding
from sidecar.verify.scheme import Scheme, SignatureField, TimestampField, Unit
from sidecar.verify.sign import sign
from sidecar.verify.template import HeaderValue, TemplateError, parse_template
from sidecar.verify.verifier import Verified, Verifier

# Two slow cores: no deadlines; examples enough to find what is common.
settings.register_profile(
    "sidecar",
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sidecar")

NOW = 1_700_000_000.0
Headers = list[tuple[bytes, bytes]]

token = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12)
#: Text of a template: a double bracket would begin or end an optional group.
visible = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="{}"), max_size=8).map(
    lambda text: re.sub(r"([\[\]])\1+", r"\1", text)
)
keys = st.binary(min_size=1, max_size=200)
bodies = st.binary(max_size=300)
#: What a header's value can hold once the parser has taken the blanks from its ends.
values = st.binary(max_size=80).map(lambda value: value.translate(None, bytes(range(32)) + b"\x7f").strip())


@st.composite
def schemes(draw: st.DrawFn) -> Scheme:
    """A scheme as somebody could write it under `verify:`."""
    clocked = draw(st.booleans())
    names = draw(st.lists(token.map(lambda name: "X-Signed-" + name), max_size=2))
    pieces = draw(st.permutations(["{body}", *["{timestamp}"] * clocked, *(f"{{header:{name}}}" for name in names)]))
    signed = draw(visible) + "".join(piece + draw(visible) for piece in pieces)
    return Scheme(
        signature=SignatureField(
            header=draw(token.map(lambda name: "X-" + name)),
            algorithm=draw(st.sampled_from(Algorithm)),
            encoding=draw(st.sampled_from([Encoding.HEX, Encoding.BASE64, Encoding.BASE64URL])),
            prefix=draw(visible),
        ),
        timestamp=TimestampField(
            header="Time-" + draw(token), unit=draw(st.sampled_from(Unit)), tolerance=draw(st.floats(0.5, 86400))
        )
        if clocked
        else None,
        signed=signed,
        parts=parse_template(signed),
    )


any_scheme = schemes()


def signed_names(scheme: Scheme) -> list[str]:
    return sorted({part.name.decode() for part in scheme.parts if isinstance(part, HeaderValue)})


def verify(scheme: Scheme, key: bytes, headers: Headers, body: list[bytes], now: float = NOW) -> Verified:
    verifier = Verifier(scheme, [Secret("other", b"other " + key), Secret("current", key)])
    head = make_head("POST", b"/hooks", headers, "192.0.2.1")
    return verifier.verify(verifier.read_claim(head, now), head, body)


@st.composite
def deliveries(draw: st.DrawFn, scheme: st.SearchStrategy[Scheme] = any_scheme) -> tuple[Scheme, bytes, Headers, bytes]:
    """A scheme, a key, and the headers and the body that are valid under them at `NOW`."""
    chosen = draw(scheme)
    key, body = draw(keys), draw(bodies)
    extra = [(name, draw(st.text(string.printable[:94], max_size=20))) for name in signed_names(chosen)]
    made = sign(chosen, Secret("current", key), body=body, now=NOW, headers=extra)
    headers = [(name.encode(), value.encode()) for name, value in [*extra, *made]]
    return chosen, key, draw(st.permutations(headers)), body


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# -- signing and verifying --


@given(deliveries(), st.data())
def test_what_sign_makes_verify_accepts_however_the_body_is_cut(
    delivery: tuple[Scheme, bytes, Headers, bytes], data: st.DataObject
) -> None:
    scheme, key, headers, body = delivery
    cut = data.draw(st.integers(0, len(body)))
    assert verify(scheme, key, headers, [body[:cut], body[cut:]]) == Verified("current")


@given(deliveries(), st.data())
def test_a_flipped_bit_of_the_body_is_a_mismatch(
    delivery: tuple[Scheme, bytes, Headers, bytes], data: st.DataObject
) -> None:
    scheme, key, headers, body = delivery
    assume(body)
    changed = flipped(body, data.draw(st.integers(0, len(body) * 8 - 1)))
    with pytest.raises(Rejected) as refused:
        verify(scheme, key, headers, [changed])
    assert refused.value.reason is Reason.SIGNATURE_MISMATCH


@given(deliveries(), st.integers(0))
def test_a_flipped_bit_of_any_header_that_counts_is_refused(
    delivery: tuple[Scheme, bytes, Headers, bytes], bit: int
) -> None:
    """The signature with its prefix, the timestamp and every signed header."""
    scheme, key, headers, body = delivery
    counts = {scheme.signature.header, scheme.timestamp.header if scheme.timestamp else "", *signed_names(scheme)}
    for index, (name, value) in enumerate(headers):
        if not value or name.decode() not in counts:
            continue
        changed = flipped(value, bit % (len(value) * 8))
        assume(changed.strip() == changed)  # a blank at an end is taken off by the parser, as it may be
        with pytest.raises(Rejected) as refused:
            verify(scheme, key, [*headers[:index], (name, changed), *headers[index + 1 :]], [body])
        assert refused.value.reason in VERIFICATION


@given(deliveries(), st.data())
@settings(max_examples=50)
def test_cutting_lengthening_or_doubling_the_signature_is_refused(
    delivery: tuple[Scheme, bytes, Headers, bytes], data: st.DataObject
) -> None:
    scheme, key, headers, body = delivery
    field = scheme.signature.header.encode()
    ((_, value),) = [header for header in headers if header[0] == field]
    rest = [header for header in headers if header[0] != field]
    digits = value.rstrip(b"=") if scheme.signature.encoding is Encoding.BASE64URL else value
    shorter = digits[: data.draw(st.integers(0, len(digits) - 1))]
    longer = value + data.draw(st.sampled_from([b"0", b"a", b"A", b"=" * 3, b",", b"\xff", b", " + value, value]))
    for wrong in ([(field, shorter)], [(field, longer)], [(field, value)] * 2, []):
        with pytest.raises(Rejected):
            verify(scheme, key, [*rest, *wrong], [body])


@given(deliveries(), keys)
def test_another_key_is_a_mismatch(delivery: tuple[Scheme, bytes, Headers, bytes], other: bytes) -> None:
    scheme, key, headers, body = delivery
    # HMAC fills a short key with zeros and hashes a long one: those are the same key by its definition.
    assume(key.rstrip(b"\0") != other.rstrip(b"\0") and max(len(key), len(other)) <= 64)
    assume(b"other " + other != key)
    with pytest.raises(Rejected) as refused:
        verify(scheme, other, headers, [body])
    assert refused.value.reason is Reason.SIGNATURE_MISMATCH


@given(deliveries(schemes().filter(lambda scheme: scheme.timestamp is not None)), st.floats(-1e6, 1e6))
def test_a_delivery_is_taken_within_the_tolerance_and_at_no_other_time(
    delivery: tuple[Scheme, bytes, Headers, bytes], age: float
) -> None:
    scheme, key, headers, body = delivery
    assert scheme.timestamp is not None
    now = NOW + age
    off = now - NOW
    tolerance = scheme.timestamp.tolerance
    if tolerance is None or abs(off) <= tolerance:
        assert verify(scheme, key, headers, [body], now)
        return
    with pytest.raises(Rejected) as refused:
        verify(scheme, key, headers, [body], now)
    assert refused.value.reason is (Reason.TIMESTAMP_TOO_OLD if off > 0 else Reason.TIMESTAMP_IN_FUTURE)


@given(any_scheme, keys, st.data())
@settings(max_examples=300)
def test_arbitrary_bytes_in_any_header_raise_nothing_but_rejected(
    scheme: Scheme, key: bytes, data: st.DataObject
) -> None:
    names = [scheme.signature.header, *signed_names(scheme)]
    names += [scheme.timestamp.header] if scheme.timestamp else []
    names += [scheme.delivery_id] if scheme.delivery_id else []
    hostile = st.one_of(
        st.binary(max_size=200),
        st.just(scheme.signature.prefix.encode()).flatmap(lambda prefix: st.binary(max_size=100).map(prefix.__add__)),
        st.from_regex(rb"\A[0-9a-fA-F]{40,128}\Z"),
        st.from_regex(rb"\A[0-9]{1,30}\Z"),
        st.just(b"1700000000"),
    )
    headers = [(name.encode(), value) for name in names for value in data.draw(st.lists(hostile, max_size=3))]
    with pytest.raises(Rejected) as refused:
        verify(scheme, key, headers, [data.draw(bodies)])
    assert refused.value.reason in VERIFICATION
    assert len(key) < 8 or key.decode("latin-1") not in refused.value.detail


@given(st.text(max_size=60))
@example("{body}{")
@example("{header:\n}{body}")
def test_any_text_is_a_template_or_a_template_error(text: str) -> None:
    try:
        parts = parse_template(text)
    except TemplateError:
        return
    assert parts


# -- the head --


@given(
    method=st.sampled_from(["POST", "GET", "CONNECT", "M-SEARCH"]),
    target=st.binary(max_size=60),
    version=st.sampled_from(["1.0", "1.1", "2.0", ""]),
    fields=st.dictionaries(
        st.one_of(
            st.sampled_from([b"host", b"content-length", b"transfer-encoding", b"content_length"]),
            st.binary(max_size=20),
        ),
        st.lists(st.binary(max_size=30), min_size=1, max_size=3),
        max_size=5,
    ),
)
def test_any_head_is_taken_or_refused_and_a_taken_one_is_framed_in_one_way(
    method: str, target: bytes, version: str, fields: dict[bytes, list[bytes]]
) -> None:
    head = make_head(method, target, [(name, value) for name, values in fields.items() for value in values], None)
    fields = {name: list(values) for name, values in head.fields.items()}
    rejected = check_head(head, version=version)
    if rejected is not None:
        assert rejected.reason is Reason.MALFORMED_REQUEST
        return
    framing = [*fields.get(b"content-length", []), *fields.get(b"transfer-encoding", [])]
    assert len(framing) <= 1
    assert all(value.isdigit() or value.lower() == b"chunked" for value in framing)
    assert not set(target) - set(range(33, 127))


@given(
    path=st.one_of(
        st.binary(max_size=60), st.text("/.;%2eEfF5cC0a\\", max_size=30).map(lambda rest: b"/hooks/" + rest.encode())
    )
)
def test_any_path_has_a_route_or_none(table: RouteTable, path: bytes) -> None:
    """And below a prefix no segment that is taken is one that receivers resolve."""
    route = table.find(path)
    if isinstance(route, Rejected):
        return
    assert route.matches(path)
    if route.prefix:
        segments = [segment.partition(b";")[0] for segment in path.split(b"/")]
        assert not {b".", b".."} & set(segments)
        assert b"" not in path.split(b"/")[1:-1]
        assert b"\\" not in path


@pytest.fixture(scope="module")
def table() -> RouteTable:
    return load_config(str(Path(__file__).with_name("routes.yaml")), {}).routes


# -- addresses --

addresses = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=4).map(lambda address: f"::ffff:{address}"),
    st.ip_addresses(v=4).map(lambda address: f"{address}:443"),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]:443"),
)
hops = st.one_of(
    st.binary(max_size=60),
    addresses.map(str.encode),
    st.lists(addresses, max_size=40).map(lambda many: ", ".join(many).encode()),
)


@given(st.one_of(st.text(max_size=60), st.text("0123456789abcdefx.:[]%/ ", max_size=50), addresses))
@settings(max_examples=300)
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = parse_address(text)
    if address is not None:
        assert parse_address(str(address)) == address
        assert not (address.version == 6 and address.ipv4_mapped)


@given(addresses)
def test_every_address_that_a_proxy_writes_is_read(text: str) -> None:
    assert parse_address(text) is not None


@given(
    peer=st.one_of(st.none(), addresses, st.text(max_size=20)),
    lines=st.lists(hops, max_size=4),
    trusted=st.lists(st.ip_addresses(), max_size=3),
    trust_unix=st.booleans(),
    data=st.data(),
)
@settings(max_examples=300)
def test_any_chain_of_hops_has_a_client_or_is_unreadable(
    peer: str | None, lines: list[bytes], trusted: list[Any], trust_unix: bool, data: st.DataObject
) -> None:
    if peer is not None and (own := parse_address(peer)) is not None and data.draw(st.booleans()):
        trusted = [*trusted, own]
    networks = Networks(ip_network(address) for address in trusted)
    client = resolve_client(peer, lines, networks, trust_unix=trust_unix)
    assert isinstance(client, Client)
    assert client.text == str(client.address or "")
    if client.unreadable:
        assert client.address is None
    elif not client.trusted_peer and peer is not None:
        assert client.address == parse_address(peer)


@given(
    st.lists(
        st.ip_addresses(v=4).flatmap(lambda address: st.integers(0, 32).map(lambda size: (address, size))), max_size=8
    ),
    st.ip_addresses(v=4),
)
def test_networks_agree_with_the_standard_library(listed: list[tuple[Any, int]], address: Any) -> None:
    networks = [ip_network((first, size), strict=False) for first, size in listed]
    for probe in (
        address,
        *(network.network_address for network in networks),
        *(network.broadcast_address for network in networks),
    ):
        assert (probe in Networks(networks)) == any(probe in network for network in networks)


# -- configuration --

KEY = "a-secret-that-must-never-be-shown"
ENV = {"KEY": KEY, "SHORT": KEY[:12]}
BASE = """\
listen: 127.0.0.1:8080
admin: 127.0.0.1:9090
upstream: http://127.0.0.1:3000
trusted_proxies: [10.0.0.0/8, "unix:"]
limits: {body: 5MiB, buffer: 64MiB, connections: 10, header_timeout: 10s}
timeouts: {connect: 5s}
drain: 20s
log: {level: info, accepted: true, format: json}
routes:
  - name: acme
    path: /webhooks/acme
    verify:
      signature: {header: X-Acme, algorithm: sha256, encoding: hex, prefix: "v1="}
      timestamp: {header: X-Time, unit: s, tolerance: 5m}
      signed: "{timestamp}.{body}"
    secrets: [{id: current, env: KEY}, {id: short, env: SHORT}, {id: absent, file: /nowhere, optional: true}]
    allow: [203.0.113.0/24]
    methods: [POST]
    mode: enforce
    limits: {body: 1MiB}
    reject: {status: 403, body: "{}"}
  - {path: /by-address/*, verify: none, allow: [192.0.2.1]}
  - {path: /healthz, open: true}
delivery_test:
  accounts:
    - {id: a, api_key: {env: KEY}, webhook_url: "http://127.0.0.1:8080/webhooks/acme"}
"""


def load(tmp_path: Path, text: bytes) -> Config | ConfigError:
    """The configuration or its mistakes; anything else is a crash. Neither shows the secret."""
    file = tmp_path / "a.yaml"
    file.write_bytes(text)
    result: Config | ConfigError
    try:
        result = load_config(str(file), ENV)
    except ConfigError as error:
        result = error
    shown = repr(result) + str(result)
    if isinstance(result, Config):
        shown += repr(result.accounts) + repr(result.routes.routes) + "".join(map(str, result.warnings))
    assert KEY not in shown
    assert isinstance(result, Config) or result.problems
    return result


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.text("-:?[]{}&*!|>'\"%#, \n\tab0", max_size=60).map(str.encode),
    )
)
@settings(max_examples=400)
@example(b"a: " + b"9" * 5000)
@example(b"\xff\xfe\x00")
@example(b"? ")
@example(b'"\\ud800"')
@example(b"? [a]\n: b")
def test_any_bytes_are_yaml_or_a_list_of_problems(text: bytes) -> None:
    source = read_yaml(text, "a.yaml")
    for problem in source.problems:
        assert isinstance(problem, Problem)
        assert str(problem).startswith("a.yaml:")
        assert problem.line >= 1


@given(st.one_of(st.binary(max_size=100), st.text(max_size=100).map(str.encode)))
def test_any_text_is_no_configuration_and_no_crash(tmp_path: Path, text: bytes) -> None:
    assert isinstance(load(tmp_path, text), ConfigError)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "none",
            "github",
            "/a",
            "/*",
            "0.0.0.0/0",
            "10.0.0.1/8",
            "5MiB",
            "1h",
            "::8080",
            "unix:/a",
            "http://a:1/b",
            "{body}",
            "\0",
        ]
    ),
)
replacements = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value below `value`."""
    steps = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for step in steps for place in ((*path, step), *places(value[step], (*path, step)))]


PLAIN = json.dumps(yaml.safe_load(BASE))
PLACES = places(json.loads(PLAIN))


def test_the_configuration_that_is_mutated_is_valid(tmp_path: Path) -> None:
    result = load(tmp_path, BASE.encode())
    assert isinstance(result, Config)
    assert len(result.routes.routes) == 3


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["replace", "remove", "rename", "repeat"]), replacements),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=300)
def test_a_mutated_configuration_is_a_configuration_or_a_list_of_mistakes(
    tmp_path: Path, mutations: list[tuple[tuple[Any, ...], str, Any]]
) -> None:
    whole = json.loads(PLAIN)
    for place, kind, replacement in mutations:
        inner = whole
        try:
            for step in place[:-1]:
                inner = inner[step]
            value = inner[place[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier mutation took it away
        if not isinstance(inner, dict | list):
            continue
        if kind == "replace":
            inner[place[-1]] = replacement
        elif kind == "remove":
            del inner[place[-1]]
        elif kind == "rename" and isinstance(inner, dict):
            inner[f"{place[-1]}x"] = inner.pop(place[-1])
        elif kind == "repeat" and isinstance(inner, list):
            inner.append(value)
    load(tmp_path, json.dumps(whole, ensure_ascii=False).encode("utf-8", "surrogatepass"))  # JSON is YAML


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(BASE) - 1),
            st.one_of(
                st.just(b""), st.binary(max_size=2), st.sampled_from([b"\n", b" ", b":", b"-", b"[", b"&", b"\0"])
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=200)
def test_a_damaged_file_is_a_configuration_or_a_list_of_mistakes(
    tmp_path: Path, damage: list[tuple[int, bytes]]
) -> None:
    text = BASE.encode()
    for at, piece in damage:
        text = text[:at] + piece + text[at + 1 :]
    load(tmp_path, text)


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40),
    st.text(string.ascii_letters, min_size=1, max_size=10),
)
def test_a_secrets_value_is_in_no_representation(value: str, id: str) -> None:
    assume(value not in f"Secret(id={id!r}, value=<secret>)")
    secret = Secret(id, value.encode())
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!s:>50}", repr([secret]), repr({id: secret})):
        assert value not in shown
        assert id in shown
