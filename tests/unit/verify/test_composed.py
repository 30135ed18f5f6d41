"""Messages that are composed of places: what is left out, which of several is signed, items, forms and key ids."""

import base64
import gzip
import hashlib
import hmac
import json
from typing import Any

import pytest

from sidecar.config.fields.base import InvalidValueError
from sidecar.config.scheme_keys import SCHEME
from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.sign import SigningError, sign_delivery
from sidecar.verify.verifier import Verified, Verifier

KEY = b"a secret of some thirty-two bytes"
FORM = "application/x-www-form-urlencoded"
HEADER = {"header": "X-Sig"}
UNBOUND: dict[str, Any] = {"binds_body": False}
NOW = 1_700_000_000


def mac(message: bytes, key: bytes = KEY) -> str:
    return hmac.new(key, message, "sha256").hexdigest()


class Subject:
    """A verifier of a scheme, and deliveries to it."""

    def __init__(self, *secrets: bytes, limit: int = 1 << 20, **scheme: Any) -> None:
        made = SCHEME.read(scheme)
        given = [Secret(f"s{number}", text) for number, text in enumerate(secrets or (KEY,))]
        self.verifier = Verifier(made, given, "https://h.example", body_limit=limit)

    def verify(self, body: bytes = b"", target: str = "/p", **headers: str) -> Verified:
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        head = make_head("POST", target.encode(), named, None)
        return self.verifier.verify(self.verifier.read_claim(head, NOW), head, [body])

    def rejects(self, body: bytes = b"", target: str = "/p", **headers: str) -> Reason:
        with pytest.raises(Rejected) as error:
            self.verify(body, target, **headers)
        return error.value.reason


# -- optional groups and alternatives --


def test_a_group_is_left_out_where_its_place_is_absent_or_empty() -> None:
    made = Subject(signature=HEADER, signed="[[id:{query:data.id};]][[r:{header:X-R};]]{body}")
    assert made.verify(b"x", "/p?data.id=%31", x_r="a", x_sig=mac(b"id:1;r:a;x"))
    assert made.verify(b"x", "/p?data.id=", x_sig=mac(b"x"))
    assert made.verify(b"x", x_r="", x_sig=mac(b"x"))
    assert made.rejects(b"x", "/p?data.id=1", x_sig=mac(b"x")) is Reason.SIGNATURE_MISMATCH
    assert made.rejects(b"x", x_sig=mac(b"id:;x")) is Reason.SIGNATURE_MISMATCH


def test_a_place_that_appears_twice_is_malformed_even_in_a_group() -> None:
    made = Subject(signature=HEADER, signed="[[{query:a}]]{body}")
    assert made.rejects(b"x", "/p?a=1&a=1", x_sig=mac(b"1x")) is Reason.SIGNATURE_MALFORMED


def test_a_group_with_two_places_is_there_only_with_both() -> None:
    made = Subject(signature=HEADER, signed="[[{query:a}.{query:b}|]]{body}")
    assert made.verify(b"x", "/p?a=1&b=2", x_sig=mac(b"1.2|x"))
    assert made.verify(b"x", "/p?a=1", x_sig=mac(b"x"))


def test_any_alternative_may_be_signed() -> None:
    made = Subject(signature=HEADER, signed=["{query:a}{body}", "{query_lower:a}{body}"])
    assert made.verify(b"x", "/p?a=AB", x_sig=mac(b"ABx")).message == 0
    assert made.verify(b"x", "/p?a=AB", x_sig=mac(b"abx")).message == 1
    assert made.rejects(b"x", "/p?a=Ab", x_sig=mac(b"aBx")) is Reason.SIGNATURE_MISMATCH
    assert made.rejects(b"x", x_sig=mac(b"x")) is Reason.SIGNATURE_MISSING


@pytest.mark.parametrize(
    ("when", "value", "holds"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", None, False),
        (["a", 5], "5", True),
        (["a", 5], 5, True),
        (["a", 5], "6", False),
        (True, "x", True),
        (True, "", False),
        (True, None, False),
        (False, None, True),
        (False, "", True),
        (False, "x", False),
    ],
)
def test_an_alternative_counts_only_where_its_condition_holds(when: Any, value: Any, holds: bool) -> None:
    made = Subject(signature=HEADER, signed=[{"when": {"json:type": when}, "is": "v.{body}"}])
    body = json.dumps({} if value is None else {"type": value}).encode()
    if holds:
        assert made.verify(body, x_sig=mac(b"v." + body))
    else:
        assert made.rejects(body, x_sig=mac(b"v." + body)) is Reason.SIGNATURE_MALFORMED


def test_a_place_has_only_the_characters_that_are_plain() -> None:
    made = Subject(signature=HEADER, signed="{query:a};{query:b};{body}", plain={"query:a": "[a-z0-9]{1,3}"})
    assert made.verify(b"", "/p?a=ab&b=;", x_sig=mac(b"ab;;;"))
    for value in ("a%3b", "abcd", "a%0a"):
        assert made.rejects(b"", f"/p?a={value}&b=1", x_sig=mac(b"a;;1;")) is Reason.SIGNATURE_MALFORMED


@pytest.mark.parametrize(
    ("body", "accepted"),
    [
        (b'{"a":{"b":"1"}}', True),
        (b'{"a":{"b":"1"},"c":1,"C":2,"b":3,"B":4}', True),
        (b'{"a":{"b":"1","B":"2"}}', False),
        (b'{"A":{"b":"2"},"a":{"b":"1"}}', False),
    ],
)
def test_a_name_on_the_way_to_a_signed_value_has_one_spelling(body: bytes, accepted: bool) -> None:
    made = Subject(signature=HEADER, signed="{json:a.b}", **UNBOUND)
    if accepted:
        assert made.verify(body, x_sig=mac(b"1"))
    else:
        assert made.rejects(body, x_sig=mac(b"1")) is Reason.SIGNATURE_MALFORMED


# -- hashes and prehash --


def test_hashes_of_the_body_are_written_as_senders_write_them() -> None:
    digest = hashlib.sha256(b"body").digest()
    places = {
        "body_sha256_hex": digest.hex().encode(),
        "body_sha256_b64url": base64.urlsafe_b64encode(digest).rstrip(b"="),
        "body_sha512_hex": hashlib.sha512(b"body").hexdigest().encode(),
        "body_sha512_b64url": base64.urlsafe_b64encode(hashlib.sha512(b"body").digest()).rstrip(b"="),
        "body_sha1_hex": hashlib.sha1(b"body").hexdigest().encode(),
    }
    for place, written in places.items():
        made = Subject(signature=HEADER, signed=f"{{{place}}}")
        assert made.verify(b"body", x_sig=mac(written))
        assert made.rejects(b"bodz", x_sig=mac(written)) is Reason.SIGNATURE_MISMATCH
    made = Subject(signature=HEADER, signed="{body_crc32}", **UNBOUND)
    assert made.verify(b"123456789", x_sig=mac(b"3421780262"))  # the check value of CRC-32
    assert not made.verifier.scheme.binds_body


def test_the_hash_of_the_message_may_be_signed() -> None:
    made = Subject(signature=HEADER | {"prehash": "sha512"}, signed="v:{body}")
    assert made.verify(b"x", x_sig=mac(hashlib.sha512(b"v:x").digest()))
    assert made.rejects(b"x", x_sig=mac(b"v:x")) is Reason.SIGNATURE_MISMATCH


def test_a_hash_in_a_signed_header_must_be_the_bodys() -> None:
    made = Subject(
        signature=HEADER,
        signed="{header:Content-Digest}",
        body_hash={"header": "Content-Digest", "form": "content-digest"},
    )
    digest = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    assert made.verifier.scheme.binds_body
    assert made.verify(b'{"hello": "world"}', content_digest=digest, x_sig=mac(digest.encode()))
    assert made.rejects(b"{}", content_digest=digest, x_sig=mac(digest.encode())) is Reason.SIGNATURE_MISMATCH


# -- the body without its coding --


def test_a_body_is_signed_as_it_is_without_its_coding() -> None:
    made = Subject(signature=HEADER, decompressed=True)
    sent = gzip.compress(b"body")
    assert made.verify(sent, content_encoding="gzip", x_sig=mac(b"body"))
    assert made.verify(b"body", x_sig=mac(b"body"))
    assert made.rejects(sent, content_encoding="gzip", x_sig=mac(sent)) is Reason.SIGNATURE_MISMATCH
    assert made.rejects(sent, content_encoding="br", x_sig=mac(b"body")) is Reason.SIGNATURE_MALFORMED
    small = Subject(signature=HEADER, decompressed=True, limit=3)
    assert small.rejects(sent, content_encoding="gzip", x_sig=mac(b"body")) is Reason.SIGNATURE_MALFORMED


def test_a_copy_that_is_compressed_otherwise_has_the_same_fingerprint() -> None:
    made = Subject(signature=HEADER, decompressed=True).verifier
    body = b"body" * 1000
    prints = set()
    for level in (1, 9):
        head = make_head("POST", b"/", [(b"X-Sig", mac(body).encode()), (b"Content-Encoding", b"gzip")], None)
        claim = made.read_claim(head, NOW)
        prints.add(made.fingerprint(claim, head, [gzip.compress(body, level)], scope="r", url=b""))
    assert len(prints) == 1


# -- forms --


def test_signature_and_timestamp_may_be_fields_of_a_form() -> None:
    made = Subject(
        signature={"form": "sig"},
        timestamp={"form": "t", "tolerance": "5m"},
        signed="{form:t}{form:token}",
        **UNBOUND,
    )
    sig = mac(b"1700000000abc")
    urlencoded = f"t={NOW}&token=abc&sig={sig}&other=%zz".encode()
    multipart = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % field
        for field in ((b"token", b"abc"), (b"t", b"%d" % NOW), (b"sig", sig.encode()))
    )
    assert made.verify(urlencoded.replace(b"%zz", b"1"), content_type=FORM).age == 0
    assert made.verify(multipart + b"--B--", content_type="multipart/form-data; boundary=B").age == 0
    assert made.rejects(urlencoded, content_type=FORM) is Reason.SIGNATURE_MALFORMED
    assert made.rejects(b"t=1&token=abc", content_type=FORM) is Reason.SIGNATURE_MISSING
    assert made.rejects(b"", content_type=FORM) is Reason.SIGNATURE_MISSING
    twice = urlencoded.replace(b"%zz", b"1") + b"&sig=" + sig.encode()
    assert made.rejects(twice, content_type=FORM) is Reason.SIGNATURE_MALFORMED
    old = f"t=1600000000&token=abc&sig={mac(b'1600000000abc')}".encode()
    assert made.rejects(old, content_type=FORM) is Reason.TIMESTAMP_TOO_OLD
    wordy = f"t=now&token=abc&sig={mac(b'nowabc')}".encode()
    assert made.rejects(wordy, content_type=FORM) is Reason.TIMESTAMP_MALFORMED


def test_a_sorted_form_binds_every_field_but_those_left_out() -> None:
    made = Subject(signature={"form": "sign"}, signed="{form_joined:sign,sign_type}")
    sig = mac(b"a=&b=1&c=x y")
    assert made.verify(f"c=x+y&sign={sig}&a=&sign_type=any&b=1".encode(), content_type=FORM)
    for body in (f"c=x+y&sign={sig}&b=1", f"c=x+y&sign={sig}&a=&b=1&d=", f"c=x&sign={sig}&a=&b=1"):
        assert made.rejects(body.encode(), content_type=FORM) is Reason.SIGNATURE_MISMATCH
    assert made.rejects(f"a=&a=&b=1&c=x+y&sign={sig}".encode(), content_type=FORM) is Reason.SIGNATURE_MALFORMED


def test_fields_and_values_can_be_required() -> None:
    made = Subject(signature={"form": "sign"}, signed="{form_joined:sign}", require_form={"app": "7", "order": True})
    sig = mac(b"app=7&order=1")
    assert made.verify(f"app=7&order=1&sign={sig}".encode(), content_type=FORM)
    for fields in ("app=8&order=1", "app=7&order=", "app=7", "order=1"):
        body = f"{fields}&sign={mac(fields.encode())}".encode()
        assert made.rejects(body, content_type=FORM) is Reason.SIGNATURE_MALFORMED
    made = Subject(signature=HEADER, require_json={"account.id": "acme"})
    assert made.verify(b'{"account":{"id":"acme"}}', x_sig=mac(b'{"account":{"id":"acme"}}'))
    assert made.rejects(b'{"account":{}}', x_sig=mac(b'{"account":{}}')) is Reason.SIGNATURE_MALFORMED


# -- keys that the delivery names --


def test_a_key_counts_only_where_the_header_names_it() -> None:
    made = Subject(b"k1:" + KEY, b"k2:" + KEY[::-1], b"any", signature=HEADER | {"key_id": "X-Key"})
    assert made.verify(b"x", x_key="k1", x_sig=mac(b"x")).secret_id == "s0"
    assert made.verify(b"x", x_key="k2", x_sig=mac(b"x", KEY[::-1])).secret_id == "s1"
    assert made.verify(b"x", x_key="k3", x_sig=mac(b"x", b"any")).secret_id == "s2"
    for headers in ({"x_key": "k2"}, {"x_key": "K1"}, {}):
        assert made.rejects(b"x", x_sig=mac(b"x"), **headers) is Reason.SIGNATURE_MISMATCH


def test_a_tag_can_name_the_key_of_a_form_field() -> None:
    signature = {"form": "sig", "list": {"separator": "&", "tag": "{key_id}|", "first": True}}
    made = Subject(b"k1:one", b"k2:two", signature=signature, signed="{form:p}", key="after-colon", binds_body=True)
    one, two = mac(b"x", b"one"), mac(b"x", b"two")

    def form(value: str) -> bytes:
        return b"p=x&sig=" + value.replace("&", "%26").replace("|", "%7C").encode()

    assert made.verify(form(f"k1|{one}"), content_type=FORM).secret_id == "s0"
    assert made.verify(form(f"k0|{one}&k2|{two}"), content_type=FORM).secret_id == "s1"
    for value in (f"k2|{one}", f"k0|{one}", f"k1|{two}&k1|{one}"):
        assert made.rejects(form(value), content_type=FORM) in (Reason.SIGNATURE_MISMATCH, Reason.SIGNATURE_MALFORMED)


# -- items --


ITEMS: dict[str, Any] = {
    "signature": {"field": "mac"},
    "items": "events[].event",
    "signed": "{json:id}:[[{json:ref}]]",
    **UNBOUND,
}


def events(*items: tuple[str, str]) -> bytes:
    return json.dumps({"events": [{"event": {"id": ident, "mac": sig}} for ident, sig in items]}).encode()


def test_every_item_must_be_signed() -> None:
    made = Subject(KEY, b"other", **ITEMS)
    one, two, foreign = mac(b"1:"), mac(b"2:", b"other"), mac(b"2:", b"a stranger's")
    assert made.verify(events(("1", one))).secret_id == "s0"
    assert made.verify(events(("1", one), ("2", two)))
    for items in ([("1", one), ("2", foreign)], [("2", foreign), ("1", one)], [("1", one), ("3", one)]):
        assert made.rejects(events(*items)) is Reason.SIGNATURE_MISMATCH
    assert made.rejects(events(("1", one), ("2", "x"))) is Reason.SIGNATURE_MALFORMED


@pytest.mark.parametrize(
    "body", [b"{}", b'{"events":[]}', b'{"events":{}}', b'{"events":[{}]}', b'{"events":[[]]}', b"[]"]
)
def test_a_body_without_items_is_rejected(body: bytes) -> None:
    assert Subject(**ITEMS).rejects(body) is Reason.SIGNATURE_MISSING


def test_a_body_with_too_many_items_is_rejected() -> None:
    assert Subject(**ITEMS).verify(events(*[("1", mac(b"1:"))] * 100))
    assert Subject(**ITEMS).rejects(events(*[("1", mac(b"1:"))] * 101)) is Reason.SIGNATURE_MALFORMED


def test_each_item_has_its_fingerprint_wherever_it_is() -> None:
    made = Subject(**ITEMS).verifier
    one, two = ("1", mac(b"1:")), ("2", mac(b"2:"))

    def items(*given: tuple[str, str]) -> list[bytes]:
        head = make_head("POST", b"/", [], None)
        claim = made.read_claim(head, NOW)
        return made.fingerprints(claim, head, [events(*given)], scope="r", url=b"")[1:]

    assert items(one) == items(one, one)
    assert sorted(items(one) + items(two)) == items(one, two) == items(two, one)


# -- replay: where an id ends, and what is adjacent --


@pytest.mark.parametrize(
    ("signed", "bound"),
    [
        ("{id}.{body}", True),
        ("[[{query:a};]]{id}.{body}", False),  # the query may hold what begins an id
        ("{id}.[[{query:a};]]{body}", True),
        ("[[{id}.]]{body}", False),  # unsigned where it is absent
        (["{id}.{body}", "{id}.{body_sha256_hex}"], True),
        (["{id}.{body}", "v{id}.{body}"], False),  # one could be taken for the other
        (["{id}.{body}", "{body}"], False),
        (["{id}.{body}", "{id};{body}"], False),
    ],
)
def test_an_id_counts_only_where_it_ends_alike_in_every_message(signed: Any, bound: bool) -> None:
    scheme = SCHEME.read({"signature": HEADER, "signed": signed, "delivery_id": {"header": "X-Id"}})
    assert (scheme.id_bound is not None) is bound


@pytest.mark.parametrize(
    ("signed", "adjacent"),
    [
        ("{header:A}[[;{header:B};]]{body}", True),  # without the group nothing is between
        ("{header:A};[[{header:B};]]{body}", False),
        ("{query:a}{query:b};{body}", True),
        (["{header:A};{body}", "{header:A}{body}"], True),
        ("{header:A};{body_sha256_hex}{query:b}", False),
    ],
)
def test_places_without_text_between_them_are_found_in_every_message(signed: Any, adjacent: bool) -> None:
    assert (SCHEME.read({"signature": HEADER, "signed": signed}).adjacent is not None) is adjacent


@pytest.mark.parametrize(
    ("signed", "binds"),
    [
        ("[[{form_sorted}]]{query:a}", True),
        ("[[{query:a}{form_sorted}]]{query:b}", False),
        ("{form_joined:a}", True),
        (["{body}", "{query:a}"], False),
        ("{body_crc32}", False),
    ],
)
def test_a_body_is_bound_only_by_what_no_sender_can_leave_out(signed: Any, binds: bool) -> None:
    given = {"signature": HEADER, "signed": signed}
    if binds:
        assert SCHEME.read(given).binds_body
    else:
        with pytest.raises(InvalidValueError, match="the body would not be signed"):
            SCHEME.read(given)


# -- listed headers --


def test_the_headers_that_a_list_names_are_signed_sorted() -> None:
    made = Subject(
        signature=HEADER,
        timestamp={"header": "X-T", "tolerance": "5m"},
        signed="{path_query_escaped}\n{listed_headers:X-Listed}\n{body}",
    )
    message = b"/p\nx-a:1;x-listed:x-listed,x-t,X-A;x-t:1700000000\nx"
    assert made.verify(b"x", x_a="1", x_t=str(NOW), x_listed="x-listed,x-t,X-A", x_sig=mac(message))
    for listed in ("x-listed,x-a", "x-t,x-a", "x-listed, x-t", "x-listed,x-t,x-t", "", "x-listed,x-t,x-b", "x," * 70):
        reason = made.rejects(b"x", x_a="1", x_t=str(NOW), x_listed=listed, x_sig=mac(message))
        assert reason in (Reason.SIGNATURE_MALFORMED, Reason.SIGNATURE_MISSING)


# -- signing --


def test_what_can_not_be_signed_is_said() -> None:
    def sign(body: bytes, headers: Any = (), **scheme: Any) -> None:
        sign_delivery(SCHEME.read(scheme), Secret("s", KEY), body=body, now=NOW, headers=headers)

    form = {"signature": {"form": "sign"}, "signed": "{form_joined:sign}"}
    with pytest.raises(SigningError, match="needs a body that is a form"):
        sign(b"{}", **form)
    with pytest.raises(SigningError, match="already has a field sign"):
        sign(b"sign=1", [("Content-Type", FORM)], **form)
    with pytest.raises(SigningError, match="part of the URL's query"):
        sign(b"", signature=HEADER, signed="{query:a}.{body}")
    with pytest.raises(SigningError, match="fits none of the messages"):
        sign(b'{"type":1}', signature=HEADER, signed=[{"when": {"json:type": "a"}, "is": "{body}"}])
