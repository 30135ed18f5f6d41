"""What a head claims: one signature or several, in one header or several, in a list with its timestamp; and the caps."""

import time

import pytest

from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.claim import MAX_FIELD, MAX_ITEMS, MAX_SIGNATURES, Claim
from sidecar.verify.encoding import Encoding
from sidecar.verify.kinds.token import TOKEN
from sidecar.verify.scheme import Scheme, SignatureField, SignatureList, TimestampField, Unit
from sidecar.verify.template import parse_template
from sidecar.verify.verifier import Verifier

NOW = 1_700_000_000.0
A, B, C = (bytes([byte]) * 32 for byte in (0xAA, 0xBB, 0xCC))
HEX = {signature: signature.hex().encode() for signature in (A, B, C)}


def scheme(signature: SignatureField, *, signed: str = "{body}", timestamp: TimestampField | None = None) -> Scheme:
    return Scheme(signature=signature, signed=signed, parts=parse_template(signed), timestamp=timestamp)


def listed(
    separator: str = ",", tag: str = "v1=", *, first: bool = False, blanks: bool = True, stamp: str = "t="
) -> Scheme:
    clock = TimestampField(first=True) if first else TimestampField(tag=stamp)
    field = SignatureField(header="X-Sig", list=SignatureList(separator=separator, tag=tag, blanks=blanks))
    return scheme(field, signed="{timestamp}.{body}", timestamp=clock)


def claim(made: Scheme, *values: bytes, name: bytes = b"X-Sig", headers: tuple[tuple[bytes, bytes], ...] = ()) -> Claim:
    head = make_head("POST", b"/", [*((name, value) for value in values), *headers], None)
    return Verifier(made, [Secret("a", b"secret")]).read_claim(head, NOW)


def refused(made: Scheme, *values: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reason:
    with pytest.raises(Rejected) as error:
        claim(made, *values, headers=headers)
    for value in values:
        assert len(value) < 20 or value.decode("latin-1") not in error.value.detail
    return error.value.reason


# -- lists --


@pytest.mark.parametrize(
    ("made", "value", "signatures", "timestamp"),
    [
        (listed(), b"t=1700000000,v1=" + HEX[A], [A], b"1700000000"),
        (listed(), b"v1=%b,t=1700000000,v1=%b" % (HEX[A], HEX[B]), [A, B], b"1700000000"),
        (listed(), b"t=1700000000, v1=%b , v0=%b,x,," % (HEX[A], HEX[B]), [A], b"1700000000"),
        (listed(), b"t=1700000000,v1=dummy,v1=" + HEX[A], [A], b"1700000000"),
        (listed(";", "h1=", stamp="ts="), b"ts=1700000000;h1=" + HEX[A], [A], b"1700000000"),
        (listed(" ,"), b"t=1700000000,v1=%b t=1700000000,v1=%b" % (HEX[A], HEX[B]), [A, B], b"1700000000"),
        (listed(tag="", first=True), b"1700000000,%b,%b" % (HEX[A], HEX[B]), [A, B], b"1700000000"),
    ],
)
def test_a_list_is_taken_apart(made: Scheme, value: bytes, signatures: list[bytes], timestamp: bytes) -> None:
    assert claim(made, value) == Claim(signatures, timestamp, 0.0, NOW)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.SIGNATURE_MISSING),
        (b"t=1700000000", Reason.SIGNATURE_MALFORMED),
        (b"bad_header", Reason.SIGNATURE_MALFORMED),
        (b"t=1700000000,v0=" + HEX[A], Reason.SIGNATURE_MALFORMED),
        (b"t=1700000000,V1=" + HEX[A], Reason.SIGNATURE_MALFORMED),
        (b"t=1700000000;v1=" + HEX[A], Reason.SIGNATURE_MALFORMED),
        (b"t=1700000000,v1=", Reason.SIGNATURE_MALFORMED),
        (b"v1=" + HEX[A], Reason.TIMESTAMP_MISSING),
        (b"t=,v1=" + HEX[A], Reason.TIMESTAMP_MISSING),
        (b"t=now,v1=" + HEX[A], Reason.TIMESTAMP_MALFORMED),
        (b"t=1700000000,t=1700000001,v1=" + HEX[A], Reason.TIMESTAMP_MALFORMED),
        (b"t=1600000000,v1=" + HEX[A], Reason.TIMESTAMP_TOO_OLD),
    ],
)
def test_a_list_without_a_signature_or_a_time_is_refused(value: bytes, reason: Reason) -> None:
    assert refused(listed(), value) is reason


def test_blanks_count_where_the_scheme_says_so() -> None:
    value = b"t=1700000000, v1=" + HEX[A]
    assert claim(listed(), value).signatures == [A]
    assert refused(listed(blanks=False), value) is Reason.SIGNATURE_MALFORMED


def test_a_tag_may_have_a_part_that_varies() -> None:
    made = scheme(SignatureField(header="X-Sig", list=SignatureList(separator=",", tag="*/SHA256/")))
    assert claim(made, b"1/SHA256/%b,22/SHA256/%b,3/MD5/%b" % (HEX[A], HEX[B], HEX[C])).signatures == [A, B]
    assert refused(made, b"1/MD5/" + HEX[A]) is Reason.SIGNATURE_MALFORMED


# -- versions --

VERSIONS = scheme(SignatureField(header="X-Sig", list=SignatureList(separator=",", versions=("v2=", "v1="))))


@pytest.mark.parametrize(
    ("value", "signatures"),
    [
        (b"v1=" + HEX[A], [A]),
        (b"v2=" + HEX[A], [A]),
        (b"v1=%b,v2=%b" % (HEX[A], HEX[B]), [B]),
        (b"v2=%b,v1=%b" % (HEX[B], HEX[A]), [B]),
        (b"v3=%b,v1=%b" % (HEX[C], HEX[A]), [A]),
    ],
)
def test_of_a_list_of_versions_only_the_newest_known_one_counts(value: bytes, signatures: list[bytes]) -> None:
    assert claim(VERSIONS, value).signatures == signatures


@pytest.mark.parametrize("newest", [b"v2=", b"v2=dummy", b"v2=" + HEX[A][:-2], b"v2=%b,v2=%b" % (HEX[A], HEX[B])])
def test_a_right_weaker_version_does_not_rescue_a_wrong_stronger_one(newest: bytes) -> None:
    assert refused(VERSIONS, newest + b",v1=" + HEX[A]) is Reason.SIGNATURE_MALFORMED
    assert refused(VERSIONS, b"v1=%b," % HEX[A] + newest) is Reason.SIGNATURE_MALFORMED


# -- several headers --


def test_further_headers_may_hold_a_signature_and_may_be_absent() -> None:
    made = scheme(SignatureField(header="X-Sig", also=("X-Sig-2",)))
    assert claim(made, HEX[A]).signatures == (A,)
    assert claim(made, HEX[A], headers=((b"x-sig-2", HEX[B]),)).signatures == [A, B]
    assert claim(made, headers=((b"x-sig-2", HEX[B]),)).signatures == (B,)
    assert claim(made, b"", headers=((b"x-sig-2", HEX[B]),)).signatures == (B,)
    assert refused(made) is Reason.SIGNATURE_MISSING
    assert refused(made, HEX[A], HEX[B]) is Reason.SIGNATURE_MALFORMED
    assert refused(made, HEX[A], headers=((b"x-sig-2", HEX[B]),) * 2) is Reason.SIGNATURE_MALFORMED
    assert refused(made, b"x", headers=((b"x-sig-2", b"y"),)) is Reason.SIGNATURE_MALFORMED


def test_numbered_headers_are_read_whatever_numbers_are_absent() -> None:
    made = scheme(SignatureField(header="X-Sig-{n}"))
    numbered = [(b"X-Sig-%d" % number, HEX[A]) for number in range(1, 51)]
    assert len(claim(made, headers=tuple(numbered)).signatures) == 50
    assert claim(made, headers=(numbered[0], (b"X-Sig-3", HEX[B]))).signatures == [A, B]
    assert claim(made, headers=((b"X-Sig-2", HEX[A]),)).signatures == (A,)
    assert refused(made, headers=((b"X-Sig-0", HEX[A]),)) is Reason.SIGNATURE_MISSING
    assert refused(made, headers=((b"X-Sig", HEX[A]),)) is Reason.SIGNATURE_MISSING


def test_a_header_may_be_repeated_only_where_the_scheme_says_so() -> None:
    field = SignatureField(header="X-Sig", prefix="sha256=")
    repeated = SignatureField(header="X-Sig", prefix="sha256=", repeated=True)
    values = [b"sha256=" + HEX[A], b"sha256=" + HEX[B]]
    assert claim(scheme(repeated), *values).signatures == [A, B]
    assert refused(scheme(field), *values) is Reason.SIGNATURE_MALFORMED
    assert refused(scheme(repeated), b"", b"") is Reason.SIGNATURE_MISSING


# -- caps --


def test_a_cap_on_signatures_items_and_bytes() -> None:
    many = b",".join([b"t=1700000000", *[b"v1=" + HEX[A]] * MAX_SIGNATURES])
    assert len(claim(listed(), many).signatures) == MAX_SIGNATURES
    assert refused(listed(), many + b",v1=" + HEX[A]) is Reason.SIGNATURE_MALFORMED
    items = b"t=1700000000,v1=%b" % HEX[A] + b",x" * (MAX_ITEMS - 2)
    assert claim(listed(), items).signatures == [A]
    assert refused(listed(), items + b",x") is Reason.SIGNATURE_MALFORMED
    long = b"t=1700000000,v1=%b,x=" % HEX[A]
    assert claim(listed(), long.ljust(MAX_FIELD, b"x")).signatures == [A]
    assert refused(listed(), long.ljust(MAX_FIELD + 1, b"x")) is Reason.SIGNATURE_MALFORMED
    repeated = scheme(SignatureField(header="X-Sig", repeated=True))
    assert refused(repeated, *[HEX[A]] * (MAX_SIGNATURES + 1)) is Reason.SIGNATURE_MALFORMED


@pytest.mark.parametrize("item", [b",", b"v1=,", b"v1=%b," % HEX[A], b"t=1,"])
def test_a_list_of_ten_thousand_costs_no_more_than_one_of_a_hundred(item: bytes) -> None:
    made = listed()

    def cost(count: int) -> float:
        """CPU seconds of the cheapest of many runs, so that other processes' load doesn't count."""
        seconds = []
        for _ in range(200):
            began = time.process_time()
            assert refused(made, item * count) is Reason.SIGNATURE_MALFORMED
            seconds.append(time.process_time() - began)
        return min(seconds)

    assert cost(10_000) < 10 * cost(100)


# -- encodings and kinds --


def test_hex_in_any_case_is_one_digest_and_nothing_else() -> None:
    made = scheme(SignatureField(header="X-Sig", encoding=Encoding.HEX_ANY_CASE))
    assert claim(made, HEX[A].upper()).signatures == claim(made, HEX[A]).signatures == (A,)
    for wrong in (HEX[A][:-2], HEX[A] + b"AA", HEX[A][:-1] + b"g", HEX[A][:-1] + b" "):
        assert refused(made, wrong) is Reason.SIGNATURE_MALFORMED


def test_the_scheme_word_of_a_bearer_token_is_case_insensitive() -> None:
    made = scheme(SignatureField(header="X-Sig", kind=TOKEN, prefix="Bearer "))
    assert claim(made, b"bearer token").signatures == (b"token",)
    assert refused(made, b"Basic token") is Reason.SIGNATURE_MALFORMED
    assert refused(made, b"Bearer ") is Reason.SIGNATURE_MALFORMED


def test_a_required_header_has_its_value_once() -> None:
    made = Scheme(signature=SignatureField(header="X-Sig"), require=(("X-Version", "1"),))
    assert claim(made, HEX[A], headers=((b"x-version", b"1"),)).signatures == (A,)
    for wrong in ((), ((b"x-version", b"2"),), ((b"x-version", b"1"),) * 2):
        assert refused(made, HEX[A], headers=wrong) is Reason.SIGNATURE_MALFORMED


def test_a_clock_that_is_not_compared_is_read_all_the_same() -> None:
    clock = TimestampField(header="X-Time", unit=Unit.SECONDS, tolerance=None)
    made = scheme(SignatureField(header="X-Sig"), signed="{timestamp}{body}", timestamp=clock)
    assert claim(made, HEX[A], headers=((b"X-Time", b"1"),)).age == NOW - 1
    assert refused(made, HEX[A], headers=((b"X-Time", b"x"),)) is Reason.TIMESTAMP_MALFORMED
    assert refused(made, HEX[A]) is Reason.TIMESTAMP_MISSING


# -- no signature at all: found without an exception --


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (SignatureField(header="X-Sig"), ()),
        (SignatureField(header="X-Sig"), (b"",)),
        (SignatureField(header="X-Sig"), (b"", b"")),
        (SignatureField(header="X-Sig", list=SignatureList(separator=",", tag="v1=")), ()),
        (SignatureField(header="Authorization", kind=TOKEN, prefix="Bearer "), ()),
    ],
)
def test_an_absent_signature_is_returned_as_read_claim_raises_it(
    field: SignatureField, values: tuple[bytes, ...]
) -> None:
    verifier = Verifier(scheme(field), [Secret("a", b"secret")])
    head = make_head("POST", b"/", [(field.header.encode(), value) for value in values], None)
    told = verifier.unsigned(head)
    with pytest.raises(Rejected) as raised:
        verifier.read_claim(head, NOW)
    assert told is not None
    assert (told.reason, told.detail) == (raised.value.reason, raised.value.detail)
    assert told.reason is Reason.SIGNATURE_MISSING
    assert raised.value is not told  # what was raised once holds on to the delivery that it was raised for


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (SignatureField(header="X-Sig"), (HEX[A],)),
        (SignatureField(header="X-Sig"), (b"no signature",)),
        (SignatureField(header="X-Sig"), (HEX[A], HEX[B])),
        (SignatureField(header="X-Sig", also=("X-Sig-2",)), ()),  # another header may have it
        (SignatureField(header="X-Sig", repeated=True), (b"", HEX[A])),
        (SignatureField(header="X-Sig-{n}"), ()),
        (SignatureField(field="signature"), ()),  # in the body
    ],
)
def test_of_anything_else_read_claim_is_the_judge(field: SignatureField, values: tuple[bytes, ...]) -> None:
    verifier = Verifier(scheme(field), [Secret("a", b"secret")])
    head = make_head("POST", b"/", [(b"X-Sig", value) for value in values], None)
    assert verifier.unsigned(head) is None
