"""read_claim, verify and sign: what is well-formed, what is in time, what matches."""

import base64
import hashlib
import hmac
from itertools import product

import pytest

from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.claim import Claim
from sidecar.verify.encoding import Encoding
from sidecar.verify.kinds import Kind
from sidecar.verify.kinds.hmac import HMAC
from sidecar.verify.kinds.token import TOKEN
from sidecar.verify.scheme import Scheme, SignatureField, TimestampField, Unit
from sidecar.verify.sign import sign
from sidecar.verify.template import parse_template
from sidecar.verify.verifier import Verified, Verifier

KEY = b"a key of thirty-two bytes, about"
SECRET = Secret("current", KEY)
BODY = b'{"event":"paid"}'
NOW = 1_700_000_000.0
STALE = (Reason.TIMESTAMP_TOO_OLD, Reason.TIMESTAMP_IN_FUTURE)

Headers = list[tuple[bytes, bytes]]


def scheme(
    *,
    algorithm: str = "sha256",
    encoding: str = "hex",
    prefix: str = "",
    signed: str = "{body}",
    unit: str | None = None,
    tolerance: float = 300.0,
    delivery_id: str | None = None,
) -> Scheme:
    return Scheme(
        signature=SignatureField(
            header="X-Signature", algorithm=Algorithm(algorithm), encoding=Encoding(encoding), prefix=prefix
        ),
        timestamp=TimestampField(header="X-Time", unit=Unit(unit), tolerance=tolerance) if unit else None,
        signed=signed,
        parts=parse_template(signed),
        delivery_id=delivery_id,
    )


CLOCKED = scheme(signed="{timestamp}.{body}", unit="s")


def mac(message: bytes, algorithm: str = "sha256", key: bytes = KEY) -> bytes:
    """The MAC by the standard library, apart from the code under test."""
    return hmac.new(key, message, getattr(hashlib, algorithm)).digest()


def verify(
    made: Scheme, headers: Headers, *, body: bytes = BODY, secrets: list[Secret] | None = None, now: float = NOW
) -> Verified:
    verifier = Verifier(made, secrets or [SECRET])
    head = make_head("POST", b"/", headers, None)
    return verifier.verify(verifier.read_claim(head, now), head, [body])


def refusal(made: Scheme, headers: Headers, *, now: float = NOW) -> Rejected:
    with pytest.raises(Rejected) as refused:
        verify(made, headers, now=now)
    return refused.value


def signed_headers(made: Scheme, *, now: float = NOW, headers: list[tuple[str, str]] | None = None) -> Headers:
    every = [*(headers or []), *sign(made, SECRET, body=BODY, now=now, headers=headers or [])]
    return [(name.encode(), value.encode()) for name, value in every]


@pytest.mark.parametrize(("algorithm", "encoding", "prefix"), list(product(Algorithm, Encoding, ["", "v1=", ".*("])))
def test_what_sign_makes_verify_accepts(algorithm: str, encoding: str, prefix: str) -> None:
    made = scheme(algorithm=algorithm, encoding=encoding, prefix=prefix)
    assert verify(made, signed_headers(made)) == Verified("current")


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_mac_is_the_standard_librarys(algorithm: str) -> None:
    digest = mac(BODY, algorithm)
    assert sign(scheme(algorithm=algorithm), SECRET, body=BODY, now=NOW) == [("X-Signature", digest.hex())]
    made = scheme(algorithm=algorithm, encoding="base64", prefix="p ")
    assert sign(made, SECRET, body=BODY, now=NOW) == [("X-Signature", "p " + base64.b64encode(digest).decode())]
    made = scheme(algorithm=algorithm, encoding="base64url")
    assert sign(made, SECRET, body=BODY, now=NOW) == [
        ("X-Signature", base64.urlsafe_b64encode(digest).decode().rstrip("="))
    ]


def test_an_empty_body_is_signed_like_any_other() -> None:
    assert verify(scheme(), [(b"X-Signature", mac(b"").hex().encode())], body=b"")


def test_the_verified_message_is_put_together_by_the_template() -> None:
    made = scheme(signed="v0:{header:X-Id}:{timestamp}:{body}|", unit="s")
    message = b"v0:id-1:1700000000:" + BODY + b"|"
    headers = [(b"x-SIGNATURE", mac(message).hex().encode()), (b"X-ID", b"id-1"), (b"x-time", b"1700000000")]
    assert verify(made, headers)


def test_the_body_may_come_in_pieces() -> None:
    verifier = Verifier(CLOCKED, [SECRET])
    head = make_head("POST", b"/", signed_headers(CLOCKED), None)
    claim = verifier.read_claim(head, NOW)
    assert verifier.verify(claim, head, [BODY[:3], b"", BODY[3:]])
    assert verifier.verify(claim, head, [bytes([byte]) for byte in BODY])


def test_a_verifier_can_be_used_again_and_keeps_no_state() -> None:
    verifier = Verifier(scheme(), [SECRET])
    good = make_head("POST", b"/", [(b"X-Signature", mac(BODY).hex().encode())], None)
    claim = verifier.read_claim(good, NOW)
    for _ in range(3):
        assert verifier.verify(claim, good, [BODY])
        with pytest.raises(Rejected):
            verifier.verify(claim, good, [BODY, b"\n"])


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        (HMAC, [(b"X-Signature", mac(BODY).hex().encode())]),
        (TOKEN, [(b"X-Signature", KEY)]),
    ],
)
def test_a_mismatch_is_returned_as_verify_raises_it(kind: Kind, headers: Headers) -> None:
    made = Scheme(
        signature=SignatureField(header="X-Signature", kind=kind), signed="{body}", parts=parse_template("{body}")
    )
    head = make_head("POST", b"/", headers, None)
    right, wrong = Verifier(made, [SECRET]), Verifier(made, [Secret("other", b"another secret")])
    claim = right.read_claim(head, NOW)
    assert right.match(claim, head, [BODY]) == right.verify(claim, head, [BODY]) == Verified("current")
    assert wrong.match(claim, head, [BODY]) is None
    with pytest.raises(Rejected) as raised:
        wrong.verify(claim, head, [BODY])
    assert (raised.value.reason, raised.value.detail) == (wrong.mismatch.reason, wrong.mismatch.detail)
    assert raised.value.reason is (Reason.TOKEN_MISMATCH if kind is TOKEN else Reason.SIGNATURE_MISMATCH)
    assert raised.value is not wrong.mismatch  # what was raised once holds on to the delivery that it was raised for


def test_a_claim_holds_the_bare_signature_and_the_age() -> None:
    made = scheme(encoding="base64", prefix="v1=", signed="{timestamp}{body}", unit="s")
    text = base64.b64encode(bytes(32))
    head = make_head("POST", b"/", [(b"X-Signature", b"v1=" + text), (b"X-Time", b"1699999990")], None)
    assert Verifier(made, [SECRET]).read_claim(head, NOW) == Claim((bytes(32),), b"1699999990", 10.0, NOW)
    head = make_head("POST", b"/", [(b"X-Signature", mac(b"").hex().encode())], None)
    assert Verifier(scheme(), [SECRET]).read_claim(head, NOW) == Claim((mac(b""),), b"", None, NOW)


# -- secrets --


def test_any_of_several_secrets_may_match_and_its_id_says_which() -> None:
    secrets = [Secret("next", b"1" * 32), SECRET, Secret("previous", b"3" * 32)]
    for secret in secrets:
        headers = [(b"X-Signature", mac(BODY, key=secret.reveal()).hex().encode())]
        assert verify(scheme(), headers, secrets=secrets) == Verified(secret.id)


def test_no_match_with_any_secret_is_a_mismatch_that_tells_only_their_number() -> None:
    secrets = [Secret("next", b"1" * 32), Secret("previous", b"3" * 32)]
    headers = [(b"X-Signature", mac(BODY).hex().encode())]
    with pytest.raises(Rejected) as refused:
        verify(scheme(), headers, secrets=secrets)
    assert (refused.value.reason, refused.value.detail) == (Reason.SIGNATURE_MISMATCH, "no match with 2 secrets")


def test_a_verifier_without_a_secret_can_not_be_made() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        Verifier(scheme(), [])


def test_secrets_with_newlines_and_any_bytes_count_in_full() -> None:
    for key in (b"key\n", b"\x00", b"\xff" * 200, b" key"):
        assert verify(scheme(), [(b"X-Signature", mac(BODY, key=key).hex().encode())], secrets=[Secret("odd", key)])


# -- the signature field --


@pytest.mark.parametrize(
    "headers", [[], [(b"X-Other", b"1")], [(b"X-Signature", b"")], [(b"X-Signature", b""), (b"X-Signature", b"")]]
)
def test_an_absent_or_empty_signature_is_missing(headers: Headers) -> None:
    refused = refusal(scheme(), headers)
    assert (refused.reason, refused.detail) == (Reason.SIGNATURE_MISSING, "no X-Signature header")


@pytest.mark.parametrize("first", [b"", b"0" * 64, None])
def test_a_repeated_signature_is_refused_whichever_of_them_is_right(first: bytes | None) -> None:
    right = mac(BODY).hex().encode()
    pair = [right if first is None else first, right]
    for values in (pair, pair[::-1]):
        refused = refusal(scheme(), [(b"X-Signature", value) for value in values])
        expected = Reason.SIGNATURE_MALFORMED if values[0] else Reason.SIGNATURE_MISSING
        assert refused.reason is expected


RIGHT = mac(BODY).hex().encode()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(RIGHT.upper(), id="upper case"),
        pytest.param(RIGHT[:-1] + RIGHT[-1:].upper() + b"A", id="one letter more"),
        pytest.param(RIGHT[:-2], id="truncated"),
        pytest.param(RIGHT[:1], id="one digit"),
        pytest.param(RIGHT + b"00", id="extended"),
        pytest.param(RIGHT + b"," + RIGHT, id="a list"),
        pytest.param(RIGHT[:32] + b"\n" + RIGHT[32:], id="newline"),
        pytest.param(b" " + RIGHT, id="blank"),
        pytest.param(b"sha256=" + RIGHT, id="a prefix the scheme has not"),
        pytest.param(RIGHT[:-1] + b"\xe9", id="not ASCII"),
        pytest.param("\uff10".encode() * 64, id="full-width digits"),
        pytest.param(RIGHT[:-1] + b"\x00", id="NUL"),
        pytest.param(RIGHT[:-1] + b"g", id="not hex"),
        pytest.param(base64.b64encode(mac(BODY)), id="base64"),
        pytest.param(b"null", id="a word"),
    ],
)
def test_anything_but_one_lower_case_hex_digest_is_malformed(sent: bytes) -> None:
    refused = refusal(scheme(), [(b"X-Signature", sent)])
    assert refused.reason is Reason.SIGNATURE_MALFORMED
    assert refused.detail == "X-Signature is not 32 bytes of sha256 in hex"


def test_the_detail_names_the_form_that_was_expected_and_never_what_was_sent() -> None:
    made = scheme(prefix="v1=")
    assert refusal(made, [(b"X-Signature", RIGHT)]).detail == "X-Signature does not start with 'v1='"
    assert refusal(made, [(b"X-Signature", b"V1=" + RIGHT)]).detail == "X-Signature does not start with 'v1='"
    assert refusal(made, [(b"X-Signature", b"v1=")]).detail == "X-Signature is not 32 bytes of sha256 in hex"
    assert refusal(made, [(b"X-Signature", b"v1=" + RIGHT)] * 2).detail == "2 X-Signature headers; expected one"
    wrong = refusal(made, [(b"X-Signature", b"v1=" + mac(b"other").hex().encode())])
    assert wrong.detail == "no match with 1 secret"


def test_a_prefix_is_text_and_not_a_pattern() -> None:
    made = scheme(prefix="v.=")
    assert refusal(made, [(b"X-Signature", b"v1=" + RIGHT)]).reason is Reason.SIGNATURE_MALFORMED
    assert verify(made, [(b"X-Signature", b"v.=" + RIGHT)])


# -- base64 --


def stray_bits(text: bytes, alphabet: bytes) -> list[bytes]:
    """The same digest with other unused bits in its last character: lenient decoders read them all as equal."""
    digits = text.rstrip(b"=")
    unused = {0: 0, 2: 4, 3: 2}[len(digits) % 4]
    at = alphabet.index(digits[-1])
    return [digits[:-1] + bytes([alphabet[at + extra]]) + text[len(digits) :] for extra in range(1, 1 << unused)]


STANDARD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
URLSAFE = STANDARD[:-2] + b"-_"


@pytest.mark.parametrize("algorithm", Algorithm)
def test_base64_is_accepted_in_its_one_canonical_form(algorithm: str) -> None:
    made = scheme(algorithm=algorithm, encoding="base64")
    right = base64.b64encode(mac(BODY, algorithm))
    assert verify(made, [(b"X-Signature", right)])
    wrong = [
        *stray_bits(right, STANDARD),
        right + b"=",
        right[:-1],
        right + b"A",
        b" " + right,
        right[:4] + b"\n" + right[4:],
    ]
    if right.endswith(b"="):
        wrong.append(right.rstrip(b"="))
    for sent in wrong:
        assert refusal(made, [(b"X-Signature", sent)]).reason in (Reason.SIGNATURE_MALFORMED, Reason.SIGNATURE_MISMATCH)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_base64url_is_accepted_with_and_without_padding(algorithm: str) -> None:
    made = scheme(algorithm=algorithm, encoding="base64url")
    padded = base64.urlsafe_b64encode(mac(BODY, algorithm))
    bare = padded.rstrip(b"=")
    assert verify(made, [(b"X-Signature", padded)])
    assert verify(made, [(b"X-Signature", bare)])
    wrong = [*stray_bits(padded, URLSAFE), *stray_bits(bare, URLSAFE), padded + b"=", bare[:-1], bare + b"A"]
    if padded.endswith(b"=="):
        wrong.append(bare + b"=")
    for sent in wrong:
        assert refusal(made, [(b"X-Signature", sent)]).reason in (Reason.SIGNATURE_MALFORMED, Reason.SIGNATURE_MISMATCH)


def test_the_two_alphabets_of_base64_are_not_mixed() -> None:
    digest = next(digest for number in range(1000) if {62, 63} & set(sextets(digest := mac(b"%d" % number))))
    standard, urlsafe = base64.b64encode(digest), base64.urlsafe_b64encode(digest)
    assert refusal(scheme(encoding="base64"), [(b"X-Signature", urlsafe)]).reason is Reason.SIGNATURE_MALFORMED
    assert refusal(scheme(encoding="base64url"), [(b"X-Signature", standard)]).reason is Reason.SIGNATURE_MALFORMED


def sextets(digest: bytes) -> list[int]:
    return [STANDARD.index(char) for char in base64.b64encode(digest).rstrip(b"=")]


# -- the timestamp --


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (0.0, None),
        (300.0, None),
        (-300.0, None),
        (300.001, Reason.TIMESTAMP_TOO_OLD),
        (-300.001, Reason.TIMESTAMP_IN_FUTURE),
        (NOW, Reason.TIMESTAMP_TOO_OLD),
        (-1e9, Reason.TIMESTAMP_IN_FUTURE),
    ],
)
def test_the_tolerance_holds_in_both_directions_and_includes_its_edges(
    unit: str, age: float, reason: Reason | None
) -> None:
    made = scheme(signed="{timestamp}.{body}", unit=unit)
    headers = signed_headers(made, now=NOW)
    if age == NOW:  # signed at the epoch
        headers, age = signed_headers(made, now=0), 0
    if reason is None:
        assert verify(made, headers, now=NOW + age)
        return
    assert refusal(made, headers, now=NOW + age).reason is reason


def test_milliseconds_are_told_to_the_millisecond() -> None:
    made = scheme(signed="{timestamp}.{body}", unit="ms", tolerance=0.5)
    assert sign(made, SECRET, body=b"", now=1700000000.25)[1] == ("X-Time", "1700000000250")
    headers = signed_headers(made, now=1700000000.25)
    assert verify(made, headers, now=1700000000.75)
    assert refusal(made, headers, now=1700000000.751).reason is Reason.TIMESTAMP_TOO_OLD
    assert refusal(made, headers, now=1699999999.749).reason is Reason.TIMESTAMP_IN_FUTURE


@pytest.mark.parametrize(
    ("sent_as", "read_as", "reason"), [("s", "ms", Reason.TIMESTAMP_TOO_OLD), ("ms", "s", Reason.TIMESTAMP_IN_FUTURE)]
)
def test_seconds_and_milliseconds_are_not_guessed(sent_as: str, read_as: str, reason: Reason) -> None:
    headers = signed_headers(scheme(signed="{timestamp}.{body}", unit=sent_as))
    assert refusal(scheme(signed="{timestamp}.{body}", unit=read_as), headers).reason is reason


def test_the_detail_of_a_stale_timestamp_says_how_far_off_it_is() -> None:
    headers = signed_headers(CLOCKED)
    assert refusal(CLOCKED, headers, now=NOW + 400).detail == "signed 400 s ago, tolerance is 300 s"
    assert refusal(CLOCKED, headers, now=NOW - 400).detail == "signed 400 s in the future, tolerance is 300 s"


@pytest.mark.parametrize("stamps", [[], [b""], [b"", b"1700000000"]])
def test_an_absent_or_empty_timestamp_is_missing(stamps: list[bytes]) -> None:
    headers = [(b"X-Signature", RIGHT), *((b"X-Time", stamp) for stamp in stamps)]
    refused = refusal(CLOCKED, headers)
    assert (refused.reason, refused.detail) == (Reason.TIMESTAMP_MISSING, "no X-Time header")


@pytest.mark.parametrize(
    "stamps",
    [
        [b"1700000000", b"1700000000"],
        [b"1700000000", b""],
        [b"1700000000.0"],
        [b"+1700000000"],
        [b"-1700000000"],
        [b"1_700_000_000"],
        [b"1.7e9"],
        [b" 1700000000"],
        [b"17000\n00000"],
        [b"0x6553f100"],
        ["1\uff17".encode()],
        [b"\xb2\xb2"],
        [b"2023-11-14T22:13:20Z"],
        [b"nan"],
        [b"inf"],
        [b"1" * 16],
        [b"9" * 5000],
    ],
)
def test_anything_but_one_whole_number_is_a_malformed_timestamp(stamps: list[bytes]) -> None:
    headers = [(b"X-Signature", RIGHT), *((b"X-Time", stamp) for stamp in stamps)]
    refused = refusal(CLOCKED, headers)
    assert (refused.reason, refused.detail) == (
        Reason.TIMESTAMP_MALFORMED,
        "X-Time is not one integer of unix time (s)",
    )


@pytest.mark.parametrize("stamp", [b"9" * 15, b"0" * 15, b"0"])
def test_a_timestamp_far_away_is_stale_and_nothing_worse(stamp: bytes) -> None:
    for unit in (Unit.SECONDS, Unit.MILLISECONDS):
        made = scheme(signed="{timestamp}.{body}", unit=unit)
        assert refusal(made, [(b"X-Signature", RIGHT), (b"X-Time", stamp)]).reason in STALE


def test_the_timestamp_is_signed_as_it_was_sent() -> None:
    sent = b"001700000000"
    headers = [(b"X-Time", sent), (b"X-Signature", mac(sent + b"." + BODY).hex().encode())]
    assert verify(CLOCKED, headers)
    headers[0] = (b"X-Time", b"1700000000")
    assert refusal(CLOCKED, headers).reason is Reason.SIGNATURE_MISMATCH


def test_the_signature_is_looked_at_before_the_timestamp() -> None:
    assert refusal(CLOCKED, []).reason is Reason.SIGNATURE_MISSING
    assert refusal(CLOCKED, [(b"X-Signature", b"x")]).reason is Reason.SIGNATURE_MALFORMED


# -- signed headers --


SIGNS_ID = scheme(signed="{header:X-Id}.{body}")


@pytest.mark.parametrize("values", [[], ["a", "a"], ["a", "b"], ["", "a"]])
def test_a_signed_header_appears_exactly_once(values: list[str]) -> None:
    headers = [(b"X-Signature", RIGHT), *((b"X-Id", value.encode()) for value in values)]
    refused = refusal(SIGNS_ID, headers)
    assert (refused.reason, refused.detail) == (
        Reason.SIGNATURE_MALFORMED,
        f"signed header x-id appears {len(values)} times; expected exactly one",
    )


def test_another_value_of_a_signed_header_is_a_mismatch() -> None:
    headers = signed_headers(SIGNS_ID, headers=[("X-Id", "a")])
    assert verify(SIGNS_ID, headers)
    assert refusal(SIGNS_ID, [(b"X-Id", b"b"), headers[1]]).reason is Reason.SIGNATURE_MISMATCH


def test_sign_makes_up_a_signed_header_that_is_not_given() -> None:
    headers = signed_headers(SIGNS_ID)
    assert [name for name, _ in headers] == [b"X-Signature", b"x-id"]
    assert verify(SIGNS_ID, headers)


# -- the delivery id --


def test_the_delivery_id_is_the_first_as_sent_and_empty_if_there_is_none() -> None:
    verifier = Verifier(scheme(delivery_id="X-Delivery"), [SECRET])
    assert (
        verifier.delivery_id(make_head("POST", b"/", [(b"x-delivery", b"\xffid"), (b"X-Delivery", b"b")], None))
        == b"\xffid"
    )
    assert verifier.delivery_id(make_head("POST", b"/", [], None)) == b""
    unnamed = Verifier(scheme(), [SECRET])
    assert unnamed.delivery_id(make_head("POST", b"/", [(b"", b"x"), (b"X-Delivery", b"b")], None)) == b""
