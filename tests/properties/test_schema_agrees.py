"""The JSON Schema and the program accept the same values: each kind of value, and whole sections.

Only the form is compared. What several keys say together (`open: true` with `verify:`, overlapping paths) is the program's.
`EXCEPTIONS` lists the rules that JSON Schema can't express.
"""

import copy
import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sidecar.config.combination import NO_SCHEME, Entry, is_combination
from sidecar.config.fields.address import (
    AllowedSender,
    FileMode,
    Group,
    HostPattern,
    KeyMirrors,
    Listen,
    MirrorURL,
    Network,
    RangeSources,
    SecureURL,
    SocketPath,
    TrustedProxy,
    UpstreamURL,
    WebURL,
)
from sidecar.config.fields.base import InvalidValueError, JSONSchema, ValueType
from sidecar.config.fields.header import HeaderPattern, HeaderSettings
from sidecar.config.fields.mapping import Items, Section, ShortOrSection
from sidecar.config.fields.message import FieldName, JsonPlace, PlainPlaces, RequiredValues, SignedMessages
from sidecar.config.fields.number import (
    Count,
    Day,
    Duration,
    Fraction,
    LogRate,
    RefreshInterval,
    RefusalRate,
    RejectionStatus,
    ResendStatus,
    Size,
    SuccessStatus,
    Tolerance,
)
from sidecar.config.fields.reference import ReplayStore, SecretReference
from sidecar.config.fields.text import (
    Choice,
    Fingerprint,
    Flag,
    HeaderName,
    HeaderValues,
    JsonPath,
    Label,
    Method,
    NonEmpty,
    OnlyTrue,
    PathPrefix,
    RegularExpression,
    RoutePath,
    Scalars,
    Separator,
    SignatureHeader,
    TenantFileName,
    Text,
)
from sidecar.config.fields.upstream import HostField, ServerName
from sidecar.config.handshake_keys import HANDSHAKE
from sidecar.config.handshakes import HandshakeName, RouteHandshake, SchemeHandshake
from sidecar.config.key_source_keys import Names
from sidecar.config.keys import CONFIG
from sidecar.config.listed_keys import Components, OneComponent
from sidecar.config.message_keys import BODY_HASH
from sidecar.config.preset_settings import Settings
from sidecar.config.presets import OneScheme, SigningScheme, Verify, apply_changes, preset_names, read_preset
from sidecar.config.route_keys import Rejection, Secrets
from sidecar.config.scheme_keys import SCHEME, SignatureKind
from sidecar.config.token_keys import Algorithms, Claims, Expiry, HeadMembers, SignatureAlgorithm, Skew
from sidecar.telemetry.log import Level
from sidecar.verify.components import parse_component

#: The library of schemas compiles regular expressions as they are, `[[` included.
pytestmark = pytest.mark.filterwarnings("ignore:Possible:FutureWarning")

AGREES = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))

KINDS: dict[str, ValueType[Any]] = {
    type(kind).__name__: kind
    for kind in (
        AllowedSender(), Choice(Level), Count(64), Day(), Duration(), Flag(), Fraction(), HeaderName(), HeaderValues(),
        JsonPath(), Label(), Listen(), Method(), Network(), NonEmpty(), OnlyTrue(), RangeSources(), RefreshInterval(),
        RefusalRate(), RegularExpression(), Rejection(), RejectionStatus(), ReplayStore(), ResendStatus(), RoutePath(),
        PathPrefix(), Scalars(), SecretReference(), SecureURL(), Separator(), SignatureHeader(), SignatureKind(), Size(),
        SuccessStatus(), Text(), Tolerance(), TrustedProxy(), UpstreamURL(), WebURL(), FileMode(), Group(),
        SocketPath(), HostPattern(), LogRate(), HandshakeName(), RouteHandshake(), HostField(), ServerName(),
        FieldName(), PlainPlaces(), RequiredValues(JsonPlace()), SignedMessages(), BODY_HASH, HeaderPattern(),
        HeaderSettings(), Secrets(), TenantFileName(), Fingerprint(),
        SignatureAlgorithm(), Components(), OneComponent(),
        Algorithms(), Claims(), Expiry(), HeadMembers(), Names(), Settings(), Skew(), KeyMirrors(), MirrorURL(),
    )
}  # fmt: skip


# -- the exceptions: values that the schema accepts and the program rejects --


def _has_host_bits(value: Any) -> bool:
    """The bits after the prefix are arithmetic; a pattern would have to list them for each of 160 prefixes."""
    network = read_network(value)
    return network is not None and network.network_address != ipaddress.ip_address(value.partition("/")[0])


def _is_mapped(value: Any) -> bool:
    """An IPv4-mapped network has many spellings, and the remedy (the IPv4 network) has to be computed."""
    network = read_network(value)
    if network is None or network.version == 4:
        return False
    return network.network_address.ipv4_mapped is not None and network.prefixlen >= 96


def read_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _is_not_python_syntax(value: Any) -> bool:
    """The syntax of regular expressions is no regular language, and `format: regex` means that of ECMA-262."""
    try:
        re.compile(value)
    except re.error:
        return True
    return False


def _is_no_class(value: Any) -> bool:
    """The order of the ends of a range is no regular language either."""
    return any(map(_is_not_python_syntax, value.values()))


def _has_bad_pattern(value: Any) -> bool:
    """The same inside claims and settings."""
    if isinstance(value, dict):
        bad = isinstance(value.get("pattern"), str) and _is_not_python_syntax(value["pattern"])
        return bad or any(map(_has_bad_pattern, value.values()))
    return isinstance(value, list) and any(map(_has_bad_pattern, value))


def _has_keys(value: Any) -> bool:
    """`keys` of a choice of claims have rules for several keys together, as those of a scheme have."""
    return isinstance(value, list) and any(isinstance(each, dict) and "keys" in each for each in value)


def _changes_what_is_not_there(value: Any) -> bool:
    """A preset without a timestamp needs a whole section, not a change. The schema does not know what presets contain."""
    if not isinstance(value, dict) or value.get("preset") not in preset_names():
        return False
    return not validator_of(SCHEME).is_valid(apply_changes(read_preset(value["preset"]), value))


def _has_a_component_twice(value: Any) -> bool:
    """Also as `@query` and `@query?`, or with `key` of the same name."""
    return isinstance(value, list) and len({parse_component(each).identity for each in value}) < len(value)


EXCEPTIONS: dict[type[ValueType[Any]], tuple[Callable[[Any], bool], ...]] = {
    Network: (_has_host_bits, _is_mapped),
    AllowedSender: (_has_host_bits, _is_mapped),
    TrustedProxy: (_has_host_bits, _is_mapped),
    RegularExpression: (_is_not_python_syntax,),
    PlainPlaces: (_is_no_class,),
    Components: (_has_a_component_twice,),
    Claims: (_has_bad_pattern, _has_keys),
    Settings: (_has_bad_pattern,),
}


def is_excepted(kind: ValueType[Any], value: Any) -> bool:
    """Whether JSON Schema can't know that `value` is not valid."""
    if isinstance(kind, Section) and isinstance(value, dict):
        return any(is_excepted(key.type, value[name]) for name, key in kind.keys.items() if name in value)
    if isinstance(kind, Verify | OneScheme | SigningScheme | Entry):
        if is_combination(value):
            return is_excepted(Verify.several, value)
        return is_excepted(SCHEME, value) or _changes_what_is_not_there(value)
    if isinstance(kind, ShortOrSection):
        return is_excepted(kind.section if isinstance(value, dict) else kind.short, value)
    if isinstance(kind, SchemeHandshake):
        return is_excepted(HANDSHAKE, value)
    if isinstance(kind, Items) and isinstance(value, list):
        return any(is_excepted(kind.item, item) for item in value)
    return any(rule(value) for rule in EXCEPTIONS.get(type(kind), ()) if validator_of(kind).is_valid(value))


# -- both sides --


@cache
def form_of(kind: Any) -> Any:
    """`kind` without the checks of several keys together."""
    form = copy.copy(kind)
    if isinstance(kind, Section):
        form.keys = {name: key._replace(type=form_of(key.type)) for name, key in kind.keys.items()}
        form._make = form._check = None
    elif isinstance(kind, ShortOrSection):
        form.section = form_of(kind.section)
        form._make = lambda value: value
    elif isinstance(kind, Items):
        form.item = form_of(kind.item)
    elif isinstance(kind, Verify):
        form.read = read_verify
    elif isinstance(kind, SigningScheme):
        form.read = read_signing_scheme
    elif isinstance(kind, OneScheme):
        form.read = read_one_scheme
    elif isinstance(kind, SchemeHandshake):
        form.read = read_handshake
    elif isinstance(kind, Entry):
        form.read = read_entry
    return form


def read_verify(value: Any) -> Any:
    """`Verify().read` for the form alone."""
    return form_of(Verify.several).read(value) if is_combination(value) else read_one_scheme(value)


def read_entry(value: Any) -> Any:
    """`Entry.read` for the form alone."""
    if value == NO_SCHEME:
        raise InvalidValueError("can't be combined")
    if not isinstance(value, dict):
        return read_one_scheme(value)
    if "secrets" in value:
        Entry.secrets.read(value["secrets"])
    return read_one_scheme({key: item for key, item in value.items() if key != "secrets"})


def read_handshake(value: Any) -> Any:
    """`SchemeHandshake.read` for the form alone."""
    return HandshakeName().read(value) if isinstance(value, str) else form_of(HANDSHAKE).read(value)


def read_one_scheme(value: Any) -> Any:
    if not isinstance(value, dict):
        return OneScheme().read(value)
    if "preset" not in value:
        return FORM.read(value)
    if value["preset"] not in preset_names():
        raise InvalidValueError("is not a preset")
    return FORM.read(apply_changes(read_preset(value["preset"]), value))


def read_signing_scheme(value: Any) -> Any:
    if value == "none":
        raise InvalidValueError("is not a scheme")
    return read_one_scheme(value)


FORM = form_of(SCHEME)


def is_read(kind: ValueType[Any], value: Any) -> bool:
    try:
        form_of(kind).read(value)
    except InvalidValueError:
        return False
    return True


def check_agreement(kind: ValueType[Any], value: Any) -> bool:
    """Fails if the two differ; else whether they accept `value`."""
    read, valid = is_read(kind, value), bool(validator_of(kind).is_valid(value))
    if valid and not read and is_excepted(kind, value):
        return False
    assert read == valid, f"the program {'accepts' if read else 'rejects'} {value!r}, unlike the schema"
    return valid


@cache
def validator_of(kind: ValueType[Any]) -> Draft202012Validator:
    return Draft202012Validator(kind.json_schema())


# -- values --


def values_of(schema: JSONSchema) -> st.SearchStrategy[Any]:
    """Values that a schema of the configuration accepts, or nearly: `not` and `oneOf` are not followed."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    if "anyOf" in schema:
        return st.one_of([values_of(each) for each in schema["anyOf"]])
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([OF_TYPE[each](schema) for each in types])


def texts_of(schema: JSONSchema) -> st.SearchStrategy[str]:
    if "pattern" not in schema:
        return st.text(max_size=20)
    return texts_like(schema["pattern"])


@cache
def texts_like(pattern: str) -> st.SearchStrategy[str]:
    """Each is made once: that takes Hypothesis far longer than to draw from it."""
    text = st.from_regex(re.compile(pattern, re.ASCII), fullmatch=pattern.startswith("^"))
    return text.map(lambda text: text.removesuffix("\n"))


def integers_of(schema: JSONSchema) -> st.SearchStrategy[int]:
    return st.integers(schema.get("minimum", -(10**6)), schema.get("maximum", 10**16))


def numbers_of(schema: JSONSchema) -> st.SearchStrategy[float]:
    least, most = schema.get("minimum", 0), schema.get("maximum", 10**15)
    return st.floats(least, most, exclude_min="minimum" not in schema, exclude_max="maximum" not in schema)


def lists_of(schema: JSONSchema) -> st.SearchStrategy[list[Any]]:
    return st.lists(values_of(schema["items"]), min_size=1, max_size=3)


def mappings_of(schema: JSONSchema) -> st.SearchStrategy[dict[str, Any]]:
    if "properties" not in schema:
        names = values_of({"type": "string"} | schema.get("propertyNames", {}))
        return st.dictionaries(names, values_of(schema["additionalProperties"]), min_size=1, max_size=3)
    keys = {name: values_of(below) for name, below in schema["properties"].items()}
    required = set(schema.get("required", ()))
    alternatives = [set(each["required"]) for each in schema.get("oneOf", ({"required": []},))]
    free = keys.keys() - required - set().union(*alternatives)

    def with_keys(alternative: set[str]) -> st.SearchStrategy[dict[str, Any]]:
        return (
            st.sets(st.sampled_from(sorted(free)), max_size=4).flatmap(
                lambda some: st.fixed_dictionaries({name: keys[name] for name in sorted(required | alternative | some)})
            )
            if free
            else st.fixed_dictionaries({name: keys[name] for name in sorted(required | alternative)})
        )

    return st.sampled_from(alternatives).flatmap(with_keys)


OF_TYPE: dict[str, Callable[[JSONSchema], st.SearchStrategy[Any]]] = {
    "string": texts_of,
    "integer": integers_of,
    "number": numbers_of,
    "boolean": lambda schema: st.booleans(),
    "array": lists_of,
    "object": mappings_of,
}

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10**16),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.text("0159.:/[]*-_ \t\n\r@#?aAfFhHmMsSkKiIbB{}", max_size=12),
    st.sampled_from(
        [
            "",
            " ",
            "\n",
            "0",
            "none",
            "memory",
            "unix:",
            "unix:/",
            "preset:github",
            403.0,
            5.0,
            [],
            {},
            [None],
            {"a": None},
        ]
    ),
)


def damaged(text: str) -> st.SearchStrategy[str]:
    """`text` with one character more or less."""
    place = st.integers(0, len(text))
    more = st.tuples(place, st.sampled_from([*"\n\r\t 0a*/.:-@é", "//", "/../"])).map(
        lambda it: text[: it[0]] + it[1] + text[it[0] :]
    )
    return st.one_of(st.just(text + "\n"), more, place.map(lambda at: text[:at] + text[at + 1 :]))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(below, (*path, key))


def replace_at(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    changed = value.copy()
    changed[path[0]] = replace_at(value[path[0]], path[1:], change)
    return changed


@st.composite
def near(draw: Any, values: st.SearchStrategy[Any]) -> Any:
    """One of the valid values with one place changed."""
    value = draw(values)
    path = draw(st.sampled_from(list(places(value))))

    def change(inner: Any) -> Any:
        if isinstance(inner, str) and draw(st.booleans()):
            return draw(damaged(inner))
        if isinstance(inner, dict) and inner and draw(st.booleans()):
            if draw(st.booleans()):
                return inner | {draw(st.sampled_from(["banana", "a", *inner])): draw(junk)}
            gone = draw(st.sampled_from(sorted(inner)))
            return {name: below for name, below in inner.items() if name != gone}
        return draw(junk)

    return replace_at(value, path, change)


@cache
def tried(kind: ValueType[Any]) -> st.SearchStrategy[Any]:
    """Values that `kind` accepts, and values that it nearly accepts."""
    valid = values_of(kind.json_schema())
    return st.one_of(valid, near(valid))


# -- the properties --


@pytest.mark.parametrize("name", KINDS)
@AGREES
@given(st.data())
def test_schema_and_program_agree_on_a_value(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    check_agreement(kind, data.draw(tried(kind) | junk))


SECTIONS: dict[str, Section[Any]] = {"config": CONFIG, "scheme": SCHEME} | {
    f"{where}.{name}": inner
    for where, section in (("config", CONFIG), ("route", CONFIG.keys["routes"].type.item), ("scheme", SCHEME))  # type: ignore[attr-defined]
    for name, key in section.keys.items()
    if isinstance(inner := key.type.item if isinstance(key.type, Items) else key.type, Section)
}


@pytest.mark.parametrize("name", SECTIONS)
@settings(AGREES, max_examples=25)
@given(st.data())
def test_schema_and_program_agree_on_a_section(name: str, data: st.DataObject) -> None:
    section = SECTIONS[name]
    check_agreement(section, data.draw(tried(section)))


@AGREES
@given(st.sampled_from(preset_names()), near(values_of(SCHEME.json_schema())))
def test_schema_and_program_agree_on_a_preset_with_changes(preset: str, changes: Any) -> None:
    assume(isinstance(changes, dict))
    base = read_preset(preset)
    assume(not any(section in changes and changes[section] is None for section in base))
    check_agreement(Verify(), {"preset": preset} | changes)


def test_every_kind_of_value_of_the_configuration_is_compared() -> None:
    def kinds_in(kind: Any) -> Iterator[ValueType[Any]]:
        if isinstance(kind, Section) and not isinstance(kind, SecretReference):
            for key in kind.keys.values():
                yield from kinds_in(key.type)
        elif isinstance(kind, ShortOrSection):
            yield from (*kinds_in(kind.short), *kinds_in(kind.section))
        elif isinstance(kind, Items):
            yield from kinds_in(kind.item)
        elif isinstance(kind, SchemeHandshake):
            yield from kinds_in(HANDSHAKE)
        elif not isinstance(kind, Verify | SigningScheme):
            yield kind

    assert {type(kind).__name__ for kind in (*kinds_in(CONFIG), *kinds_in(SCHEME))} <= KINDS.keys()


#: Values that the schema once accepted and the program rejected.
ONCE_DIFFERENT: list[tuple[str, Any]] = [
    ("Size", "0"), ("Size", "0.0001KB"), ("Size", "5\nMiB"), ("Size", "5MiB\n"), ("Size", "1" * 16), ("Size", 10**16),
    ("Duration", "0"), ("Duration", "0.0s"), ("Duration", "5\ns"), ("Duration", "1" * 16), ("Duration", 1e16),
    ("RefreshInterval", "5s"), ("RefreshInterval", "59s"), ("RefreshInterval", 59), ("RefreshInterval", "100ms"),
    ("RoutePath", "/a*"), ("RoutePath", "/../x"), ("RoutePath", "/a//b"), ("RoutePath", "/.."), ("RoutePath", "/a\n"),
    ("Method", "CONNECT"), ("Method", "-"), ("Method", "A" * 33), ("RejectionStatus", 410), ("Day", "2026-02-30"),
    ("TrustedProxy", "0.0.0.0/0"), ("TrustedProxy", "::/0"), ("Network", "banana"), ("Network", "fe80::1%eth0"),
    ("AllowedSender", "preset:nobody"), ("AllowedSender", "unix:"), ("Listen", "8080"), ("Listen", "0.0.0.0:65536"),
    ("UpstreamURL", "http://a b"), ("UpstreamURL", "http://user@host"), ("UpstreamURL", "http://host:0"),
    ("WebURL", "http://"), ("WebURL", "https://host/a b"), ("WebURL", "https://host:99999"), ("NonEmpty", " \t"),
    ("Separator", "é"), ("HeaderValues", {"a b": "c"}), ("HeaderValues", {"A": " "}), ("HeaderValues", {"A": "é"}),
    ("KeyMirrors", {"https://a.example/x": "http://m.example/x"}), ("KeyMirrors", {"https://a.example/x/": "https://m.example/x"}),
    ("KeyMirrors", {"https://a.example/x": "https://m.example/x/"}), ("KeyMirrors", {"http://a.example/x": "https://m.example/x"}),
    ("KeyMirrors", {"https://u@a.example/x": "https://m.example/x"}), ("MirrorURL", "http://localhost.evil.example/"),
    ("RangeSources", {"nobody": "https://a.example"}), ("RangeSources", {"github": "https://"}), ("Label", "a\n"),
    ("ReplayStore", "redis://host:70000"), ("ReplayStore", "redis://-"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), ONCE_DIFFERENT)
def test_schema_and_program_reject_what_they_once_differed_on(name: str, value: Any) -> None:
    assert check_agreement(KINDS[name], value) is False
    assert not validator_of(KINDS[name]).is_valid(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Size", "1.5MiB"), ("Size", 1), ("Duration", "500ms"), ("Duration", 0.25), ("RefreshInterval", "1m"),
        ("RefreshInterval", 60), ("RefreshInterval", "60000ms"), ("RefreshInterval", "0.5h"), ("RoutePath", "/*"),
        ("RoutePath", "/a/..b/*"), ("RejectionStatus", 403.0), ("Day", "2028-02-29"), ("Network", "::/0"),
        ("Network", "1:2:3:4:5:6:7::"), ("TrustedProxy", "unix:"), ("UpstreamURL", "https://[2001:db8::1]:8443/"),
        ("ReplayStore", {"url": "rediss://user@host"}), ("WebURL", "https://user:x@host/?a#b"), ("Count", 64),
    ],
)  # fmt: skip
def test_schema_and_program_accept_the_edges(name: str, value: Any) -> None:
    assert check_agreement(KINDS[name], value) is True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Network", "10.0.0.1/8"), ("AllowedSender", "2001:db8::1/32"), ("TrustedProxy", "::ffff:0:0/96"),
        ("RegularExpression", "[a-"),
    ],
)  # fmt: skip
def test_an_exception_is_one(name: str, value: Any) -> None:
    assert validator_of(KINDS[name]).is_valid(value)
    assert not is_read(KINDS[name], value)
    assert is_excepted(KINDS[name], value)


def test_a_difference_is_found() -> None:
    class Loose(Size):
        def json_schema(self) -> JSONSchema:
            return {"type": ["string", "integer"]}

    with pytest.raises(AssertionError, match="the program rejects '0', unlike the schema"):
        check_agreement(Loose(), "0")
