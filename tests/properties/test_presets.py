"""What holds for every preset, sought by Hypothesis: what we sign we verify, and nothing that was changed by one bit."""

import json
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published_store import brings_certificates, needs_secrets, store_for

from sidecar.config.presets import load_preset, preset_names
from sidecar.http1.head import make_head
from sidecar.outcomes import VERIFICATION, Rejected
from sidecar.secret import Secret
from sidecar.verify.document import find_items, find_value
from sidecar.verify.published import KeyNeeded
from sidecar.verify.scheme import Scheme
from sidecar.verify.sign import sign_delivery
from sidecar.verify.template import FormValue, HeaderValue, JsonValue, ListedHeaders, QueryValue
from sidecar.verify.verifier import Verified, Verifier

NOW = 1_700_000_000.0
ORIGIN = "https://hooks.example.com"
KeyPairs = Callable[..., tuple[bytes, bytes]]

examples = settings(
    deadline=None, max_examples=5, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
#: Those whose deliveries bring a certificate have vectors instead: tests/vectors/test_published_keys.py.
SCHEMES = {name: scheme for name in preset_names() if not brings_certificates(scheme := load_preset(name))}
every_preset = pytest.mark.parametrize("preset", SCHEMES)
every_preset_that_binds_the_body = pytest.mark.parametrize(
    "preset", [name for name, scheme in SCHEMES.items() if scheme.binds_body]
)
every_preset_that_signs_values = pytest.mark.parametrize(
    "preset",
    [
        name
        for name, scheme in SCHEMES.items()
        if any(isinstance(part, JsonValue | FormValue | QueryValue) for part in scheme.places)
    ],
)

names = st.text("abcxyz", min_size=1, max_size=5)
objects = st.dictionaries(names, st.one_of(names, st.integers(0, 9), st.booleans()), min_size=1, max_size=4)
json_bodies = objects.map(lambda value: json.dumps(value).encode())
form_bodies = st.dictionaries(names, names, min_size=1, max_size=4).map(
    lambda fields: "&".join(f"{name}={value}" for name, value in fields.items()).encode()
)


@dataclass
class Delivery:
    """One that its preset accepts."""

    verifier: Verifier
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def verify(self, **changes: object) -> Verified:
        now = {**self.__dict__, **changes}
        head = make_head("POST", now["target"], now["headers"], "192.0.2.1")
        return self.verifier.verify(self.verifier.read_claim(head, NOW), head, [now["body"]])

    def refuses(self, **changes: object) -> None:
        with pytest.raises((Rejected, KeyNeeded)) as refused:
            self.verify(**changes)
        assert getattr(refused.value, "reason", None) in VERIFICATION


def looks_into_json(scheme: Scheme) -> bool:
    return scheme.reads_document or bool(scheme.timestamp and scheme.timestamp.field)


def delivery(preset: str, key_pair: KeyPairs, data: st.DataObject, *, forged: bool = False) -> Delivery:
    scheme = load_preset(preset)
    private, public = key_pair(scheme)
    store = store_for(scheme, private)
    form = scheme.reads_form
    kind = ("Content-Type", "application/x-www-form-urlencoded" if form else "application/json")
    bodies = form_bodies if form else json_bodies if looks_into_json(scheme) else st.binary(min_size=1, max_size=200)
    if scheme.keys is not None and scheme.keys.fits:
        bodies = objects.map(lambda value: json.dumps(value | {"channelId": "msteams"}).encode())
    path = "/hooks?" + data.draw(names)
    given = [kind, ("Host", "hooks.example.com")]
    signed = sign_delivery(
        scheme,
        Secret("current", private),
        body=data.draw(bodies),
        now=NOW,
        url=ORIGIN + path,
        headers=given,
        forged=forged,
    )
    headers = [(name.encode(), value.encode()) for name, value in [*given, *signed.headers]]
    other = Secret("other", key_pair(scheme, 1)[1])
    secrets = [other, Secret("current", public)] if needs_secrets(scheme) else []
    verifier = Verifier(scheme, secrets, ORIGIN, published=store)
    return Delivery(verifier, signed.url.removeprefix(ORIGIN).encode(), headers, signed.body)


def flipped(text: bytes, bit: int) -> bytes:
    changed = bytearray(text)
    changed[bit // 8 % len(text)] ^= 1 << bit % 8
    return bytes(changed)


def meaning(scheme: Scheme, value: bytes) -> object:
    """What a header says, without what nothing signs: a key's id, the letter case of names, bits of base64 that no byte has."""
    try:
        if scheme.signature.kind.name == "cavage":
            parts = dict(re.findall(rb'([A-Za-z]+)="([^"]*)"', value))
            if value != b", ".join(b'%b="%b"' % part for part in parts.items()):
                return value
            said = {name.lower(): text for name, text in parts.items() if name.lower() != b"keyid"}
            return said | {b"signature": b64decode(said[b"signature"]), b"headers": said[b"headers"].lower()}
        if scheme.signature.kind.name == "rfc9421" and (found := re.fullmatch(rb"(\w+)=:([\w+/]+=*):", value)):
            return found[1], b64decode(found[2], validate=True)  # RFC 8941, 4.2.7
        if (wrapped := scheme.signature.wrapped) is not None:
            document = json.loads(b64decode(value, validate=True))
            return document | {wrapped.id: "", wrapped.signature: b64decode(document[wrapped.signature], validate=True)}
    except (ValueError, LookupError, TypeError):
        pass
    return value


@every_preset
@given(data=st.data())
@examples
def test_what_we_sign_we_verify_whatever_else_is_configured(
    preset: str, key_pair: KeyPairs, data: st.DataObject
) -> None:
    made = delivery(preset, key_pair, data)
    assert made.verify().secret_id == ("published" if made.verifier.scheme.published else "current")


@every_preset
@given(data=st.data())
@examples
def test_what_we_forge_is_of_the_right_form_and_rejected(preset: str, key_pair: KeyPairs, data: st.DataObject) -> None:
    delivery(preset, key_pair, data, forged=True).refuses()


@every_preset_that_binds_the_body
@given(data=st.data(), bit=st.integers(0, 10_000))
@examples
def test_a_flipped_bit_of_a_body_that_is_signed_is_refused(
    preset: str, key_pair: KeyPairs, data: st.DataObject, bit: int
) -> None:
    made = delivery(preset, key_pair, data)
    scheme = made.verifier.scheme
    if not scheme.reads_form:
        made.refuses(body=flipped(made.body, bit))
        return
    # Its order and its separators are not part of what is signed; each value is, or those of the fields that the scheme names.
    made.refuses(body=made.body[:-1] + (b"w" if made.body.endswith(b"x") else b"x"))
    fields = [part.name.encode() + b"=" for part in scheme.places if isinstance(part, FormValue)]
    for field in fields or [b"="]:
        for at in (place for place in range(len(made.body)) if made.body.startswith(field, place)):
            made.refuses(body=made.body[: at + len(field)] + b"q" + made.body[at + len(field) :])


@every_preset_that_signs_values
@given(data=st.data())
@examples
def test_a_changed_value_in_the_body_or_the_query_that_is_signed_is_refused(
    preset: str, key_pair: KeyPairs, data: st.DataObject
) -> None:
    made = delivery(preset, key_pair, data)
    scheme = made.verifier.scheme
    for part in scheme.places:
        if isinstance(part, JsonValue):
            document = json.loads(made.body)
            for item in find_items(document, scheme.items) if scheme.items else [document]:
                if find_value(item, part.path) is None:  # a place of another message
                    continue
                *above, last = part.path.split(".")
                inner = item
                for step in above:
                    inner = inner[step]
                before = inner[last]
                inner[last] = f"{before}1" if isinstance(before, str) else before + 1
                made.refuses(body=json.dumps(document).encode())
                inner[last] = before
        elif isinstance(part, FormValue):
            made.refuses(body=made.body.replace(part.name.encode() + b"=", part.name.encode() + b"=1"))
        elif isinstance(part, QueryValue):
            made.refuses(target=made.target.replace(part.name.encode() + b"=", part.name.encode() + b"=1"))


@every_preset
@given(data=st.data(), bit=st.integers(0, 10_000))
@examples
def test_a_flipped_bit_of_signature_timestamp_or_a_signed_header_is_refused(
    preset: str, key_pair: KeyPairs, data: st.DataObject, bit: int
) -> None:
    made = delivery(preset, key_pair, data)
    scheme = made.verifier.scheme
    counts = {scheme.signature.header.replace("{n}", "1").lower(), *(name.lower() for name, _ in scheme.require)}
    counts |= {part.name.decode() for part in scheme.places if isinstance(part, HeaderValue | ListedHeaders)}
    counts |= {scheme.timestamp.header.lower()} if scheme.timestamp else set()
    if scheme.signature.in_target:
        path, _, query = made.target.partition(b"?")
        token = path.rpartition(b"/")[2] if scheme.signature.path else query.rpartition(b"=")[2]
        made.refuses(target=made.target.replace(token, flipped(token, bit)))
    for index, (name, value) in enumerate(made.headers):
        changed = flipped(value, bit)
        if name.decode().lower() not in counts or changed.strip() != changed:
            continue
        if changed.lower() == value.lower() and (
            scheme.signature.encoding == "hex-any-case" or scheme.signature.kind.bearer
        ):
            continue  # the letter case of the digits, or of the word Basic
        word = len(scheme.signature.prefix)
        if scheme.signature.kind.claims and changed.lower() == value.lower() and changed[word:] == value[word:]:
            continue  # the letter case of the word Bearer (RFC 9110, 11.1)
        if meaning(scheme, changed) == meaning(scheme, value):
            continue
        made.refuses(headers=[*made.headers[:index], (name, changed), *made.headers[index + 1 :]])


@every_preset
@given(data=st.data())
@examples
def test_arbitrary_bytes_anywhere_raise_nothing_but_a_refusal(
    preset: str, key_pair: KeyPairs, data: st.DataObject
) -> None:
    made = delivery(preset, key_pair, data)
    hostile = st.one_of(
        st.binary(max_size=60),
        st.sampled_from(
            [b"t=1,v1=", b"v1,", b"sha256=", b"Basic ", b"1700000000", b"," * 5000, b" " * 200, b"\xff" * 9]
        ),
    )
    wild = [(name, data.draw(hostile)) for name, _ in made.headers]
    if not made.verifier.scheme.signature.in_body and not made.verifier.scheme.signature.in_target:
        made.refuses(headers=wild)
        made.refuses(headers=[])
    made.refuses(headers=wild, body=data.draw(hostile), target=b"/?" + data.draw(hostile))
