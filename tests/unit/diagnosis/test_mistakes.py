"""Each mistake gets its own hint, and a delivery without it never does."""

import base64
import gzip
import hashlib
import hmac
import json

import pytest

from sidecar.config.presets import load_preset
from sidecar.diagnosis.diagnose import Finding, diagnose
from sidecar.diagnosis.effort import LIVE, MAX_LIVE_BODY
from sidecar.http1.head import make_head
from sidecar.outcomes import Hint, Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.scheme import Scheme, SignatureField
from sidecar.verify.template import JsonValue
from sidecar.verify.verifier import Verifier

SECRET = b"CANARY-SECRET-unit-5b1e"
BOM = b"\xef\xbb\xbf"
BODY = b'{"name":"J\\u00f6rg \\\\u00ff", "list":[1]}'
OWN = Scheme(signature=SignatureField(header="X-Sig"))
NEW = {
    Hint.SECRET_HAS_EXTRA_TEXT,
    Hint.SECRET_BASE64_OF_LINE,
    Hint.BODY_BOM_CHANGED,
    Hint.BODY_DECOMPRESSED,
    Hint.BODY_EMPTY,
}


def hint(
    *,
    ours: bytes = SECRET,
    theirs: bytes = SECRET,
    signed: bytes = BODY,
    arrived: bytes = BODY,
    encoding: str = "",
    scheme: Scheme = OWN,
) -> Finding:
    """What is found for a delivery that was signed with `theirs` over `signed`."""
    mac = hmac.digest(theirs, signed, "sha256").hex().encode()
    headers = [(b"X-Sig", mac), *([(b"Content-Encoding", encoding.encode())] if encoding else [])]
    head = make_head("POST", b"/", headers, None)
    verifier = Verifier(scheme, [Secret("s", ours)])
    with pytest.raises(Rejected) as rejected:
        verifier.verify(verifier.read_claim(head, None), head, [arrived])
    assert rejected.value.reason is Reason.SIGNATURE_MISMATCH
    found = diagnose(rejected.value.reason, verifier, head, arrived, now=0.0, effort=LIVE)
    assert found is not None
    assert b"CANARY" not in found.because.encode()
    return found


@pytest.mark.parametrize(
    ("ours", "because"),
    [
        (b'"' + SECRET + b'"', "without quotes around our secret"),
        (b"'" + SECRET + b"'\n", "without quotes around our secret"),
        (BOM + SECRET, "without a byte order mark around our secret"),
        (b"NAME=" + SECRET, "without NAME= around our secret"),
        (b"export GITHUB_SECRET = " + SECRET, "without NAME= around our secret"),
        (
            BOM + b'NAME="' + SECRET + b'"',
            "without a byte order mark and NAME= and quotes around our secret",
        ),
    ],
)
def test_extra_text_around_our_secret(ours: bytes, because: str) -> None:
    assert hint(ours=ours) == Finding(Hint.SECRET_HAS_EXTRA_TEXT, because, matches=True)


@pytest.mark.parametrize("theirs", [b'"' + SECRET + b'"', b"'" + SECRET + b"'", BOM + SECRET])
def test_extra_text_around_the_senders_secret(theirs: bytes) -> None:
    assert hint(theirs=theirs).hint is Hint.SECRET_HAS_EXTRA_TEXT


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_our_secret_is_the_base64_of_a_line(end: bytes) -> None:
    assert hint(ours=base64.b64encode(SECRET + end)).hint is Hint.SECRET_BASE64_OF_LINE


def test_our_secret_is_the_base64_of_a_long_line_in_several_lines() -> None:
    secret = b"CANARY" * 20
    assert hint(ours=base64.encodebytes(secret + b"\n"), theirs=secret).hint is Hint.SECRET_BASE64_OF_LINE


def test_the_senders_secret_is_the_base64_of_a_line() -> None:
    assert hint(theirs=base64.b64encode(SECRET + b"\n")).hint is Hint.SECRET_BASE64_OF_LINE


def test_base64_without_a_newline_is_a_secret_decoded_differently() -> None:
    assert hint(ours=base64.b64encode(SECRET)).hint is Hint.SECRET_DECODED_DIFFERENTLY


@pytest.mark.parametrize(
    ("ours", "rest"),
    [
        (b'"short"', b"short"),
        (b"NAME=short", b"short"),
        (b"c2VjcmV0LXNlY3JldA==", b"="),
        (base64.b64encode(b"short\n"), b"short"),
    ],
)
def test_a_rest_that_a_stranger_could_guess_is_not_tried(ours: bytes, rest: bytes) -> None:
    """Else a forger who signs with it would get a hint."""
    assert hint(ours=ours, theirs=rest).hint is Hint.UNKNOWN


@pytest.mark.parametrize(("signed", "arrived"), [(BODY, BOM + BODY), (BOM + BODY, BODY)])
def test_a_byte_order_mark_was_added_or_removed(signed: bytes, arrived: bytes) -> None:
    assert hint(signed=signed, arrived=arrived).hint is Hint.BODY_BOM_CHANGED


def test_the_most_common_mistakes_are_found_in_the_largest_body_too() -> None:
    """Few tries fit into the effort then, and the rarer ones must not take their place."""
    large = b"x" * MAX_LIVE_BODY
    quoted = b'"' + SECRET + b'"'
    assert hint(ours=quoted, signed=large, arrived=large).hint is Hint.SECRET_HAS_EXTRA_TEXT
    assert hint(signed=large, arrived=large + b"\n").hint is Hint.BODY_NEWLINE_CHANGED
    assert hint(ours=quoted, theirs=quoted, signed=large, arrived=BOM + large).hint is Hint.BODY_BOM_CHANGED
    assert hint(signed=b"", arrived=large).hint is Hint.BODY_EMPTY


UPPER = BODY.replace(b"\\u00f6", b"\\u00F6")


@pytest.mark.parametrize(
    ("signed", "arrived", "because"),
    [
        (UPPER, BODY, "with the digits of its \\u escapes in upper case"),
        (BODY, UPPER, "with the digits of its \\u escapes in lower case"),
        (
            json.dumps(json.loads(BODY), separators=(",", ":")).encode().replace(b"\\u00f6", b"\\u00F6"),
            json.dumps(json.loads(BODY), ensure_ascii=False).encode(),
            "with its JSON rewritten: compact, escaped to ASCII, the digits of \\u escapes in upper case",
        ),
        (
            b'{"a":"\\u003Cb\\u003E"}',
            b'{"a": "<b>"}',
            "with its JSON rewritten: compact, the digits of \\u escapes in upper case, <, > and & escaped",
        ),
    ],
)
def test_unicode_escapes_have_digits_in_another_case(signed: bytes, arrived: bytes, because: str) -> None:
    assert hint(signed=signed, arrived=arrived) == Finding(Hint.BODY_JSON_RESERIALISED, because, matches=True)


def test_a_backslash_before_u_begins_no_escape() -> None:
    """The text `\\\\u00ff` is a backslash and five letters: a library leaves them alone."""
    assert hint(signed=BODY.replace(b"\\\\u00ff", b"\\\\u00FF")).hint is Hint.UNKNOWN


def test_a_nul_in_the_body_changes_nothing_about_escaped_backslashes() -> None:
    assert hint(signed=b"\\\\" + UPPER, arrived=b"\0" + BODY).hint is Hint.UNKNOWN


COMPRESSED = gzip.compress(BODY, mtime=0)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "br, gzip"])
def test_the_body_was_decompressed_on_the_way(encoding: str) -> None:
    found = hint(signed=COMPRESSED, encoding=encoding)
    assert found.hint is Hint.BODY_DECOMPRESSED
    assert found.because == "Content-Encoding says gzip, but the body is not gzip"


@pytest.mark.parametrize(
    ("arrived", "encoding"),
    [
        (COMPRESSED, "gzip"),  # as it says
        (BODY, ""),
        (BODY, "identity"),
        (BODY, "gzip, br"),  # Brotli has no magic number
        (BODY, "deflate"),  # nor has deflate
        (BODY, "sha256"),
    ],
)
def test_a_body_that_may_be_as_its_head_says_was_not_decompressed(arrived: bytes, encoding: str) -> None:
    assert hint(signed=b"other", arrived=arrived, encoding=encoding).hint is Hint.UNKNOWN


def test_what_matches_goes_before_what_only_looks_so() -> None:
    assert hint(signed=BODY + b"\n", encoding="gzip").hint is Hint.BODY_NEWLINE_CHANGED


BODY_FREE = Scheme(signature=SignatureField(header="X-Sig"), signed="fixed", parts=(b"fixed",))


def test_an_empty_body_is_a_mistake_where_the_scheme_signs_it() -> None:
    assert hint(arrived=b"").hint is Hint.BODY_EMPTY
    assert hint(signed=b"").hint is Hint.BODY_EMPTY


def test_an_empty_body_is_a_mistake_where_the_scheme_reads_it() -> None:
    reads = Scheme(signature=SignatureField(header="X-Sig"), signed="{json:name}", parts=(JsonValue("name"),))
    verifier = Verifier(reads, [Secret("s", SECRET)])
    head = make_head("POST", b"/", [(b"X-Sig", b"0" * 64)], None)
    found = diagnose(Reason.SIGNATURE_MISMATCH, verifier, head, b"", now=0.0, effort=LIVE)
    assert found is not None
    assert found.hint is Hint.BODY_EMPTY


@pytest.mark.parametrize("body", [b"", BODY, BOM + BODY])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_body_that_the_scheme_does_not_need_is_never_the_mistake(body: bytes, encoding: str) -> None:
    assert hint(signed=b"other", arrived=body, encoding=encoding, scheme=BODY_FREE).hint is Hint.UNKNOWN


@pytest.mark.parametrize(
    ("method", "body", "expected"),
    [
        ("POST", b"", Hint.BODY_EMPTY),
        ("GET", b"", Hint.UNKNOWN),  # Twilio sends the form in the query then
        ("POST", b"a=b", Hint.UNKNOWN),  # what is signed is the form, however it was compressed
    ],
)
def test_a_form_may_be_in_the_query(method: str, body: bytes, expected: Hint) -> None:
    verifier = Verifier(load_preset("twilio"), [Secret("s", SECRET)], "https://hooks.test")
    form = (b"Content-Type", b"application/x-www-form-urlencoded")
    mac = (b"X-Twilio-Signature", base64.b64encode(b"0" * 20))
    head = make_head(method, b"/?a=b", [form, mac, (b"Content-Encoding", b"gzip")], None)
    found = diagnose(Reason.SIGNATURE_MISMATCH, verifier, head, body, now=0.0, effort=LIVE)
    assert found == Finding(expected, found.because if found is not None else "")


def test_a_token_needs_no_body() -> None:
    verifier = Verifier(load_preset("gitlab"), [Secret("s", SECRET)])
    head = make_head("POST", b"/", [(b"X-Gitlab-Token", b"another token")], None)
    found = diagnose(Reason.TOKEN_MISMATCH, verifier, head, b"", now=0.0, effort=LIVE)
    assert found == Finding(Hint.UNKNOWN)


def test_a_token_in_quotes() -> None:
    verifier = Verifier(load_preset("gitlab"), [Secret("s", SECRET)])
    head = make_head("POST", b"/", [(b"X-Gitlab-Token", b'"' + SECRET + b'"')], None)
    found = diagnose(Reason.TOKEN_MISMATCH, verifier, head, b"", now=0.0, effort=LIVE)
    assert found is not None
    assert found.hint is Hint.SECRET_HAS_EXTRA_TEXT


@pytest.mark.parametrize(
    "ours", [SECRET, b'"' + SECRET + b'"', BOM + b"NAME=" + SECRET, base64.b64encode(SECRET + b"\n")]
)
@pytest.mark.parametrize("arrived", [BODY, BOM + BODY, UPPER, COMPRESSED])
@pytest.mark.parametrize("theirs", [b"a stranger's secret", hashlib.sha256(SECRET).digest()])
def test_a_stranger_gets_none_of_these_hints(ours: bytes, arrived: bytes, theirs: bytes) -> None:
    assert hint(ours=ours, theirs=theirs, arrived=arrived, signed=arrived).hint not in NEW
