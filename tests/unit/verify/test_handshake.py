"""Handshakes: the providers' own examples, what is echoed, and what is never signed."""

import json
import re
from base64 import b64encode
from typing import Any

import pytest

from sidecar.config.scheme_keys import SCHEME
from sidecar.http1.head import RequestHead, make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.handshake import HandshakeMode, Handshakes, Shape


def shapes(*listed: dict[str, Any]) -> tuple[Shape, ...]:
    """As they stand in a preset."""
    return SCHEME.read({"signature": {"header": "X-Signature"}, "handshake": list(listed)}).handshake


def head(target: bytes = b"/hook", *headers: tuple[bytes, bytes], method: str = "GET") -> RequestHead:
    return make_head(method, target, headers, None)


def desk(*listed: dict[str, Any], token: bytes = b"", url: str = "") -> Handshakes:
    made = Secret("token", token) if token else None
    return Handshakes(shapes(*listed), HandshakeMode.ANSWER, secret=Secret("s", b"secret"), token=made, url=url)


ECHO = {"request": {"method": "GET"}, "challenge": {"query": "challenge"}, "answer": {"text": "{challenge}"}}
TOKEN = {
    "request": {"method": "GET", "query": {"hub.mode": "subscribe"}},
    "challenge": {"query": "hub.challenge"},
    "compare": {"query": "hub.verify_token"},
    "answer": {"text": "{challenge}"},
}
X = {
    "request": {"method": "GET"},
    "challenge": {"query": "crc_token", "pattern": "[A-Za-z0-9._~+/=-]{1,128}"},
    "computed": {"hash": "hmac-sha256", "encoding": "base64"},
    "answer": {"json": {"response_token": "sha256={computed}"}},
}
ZOOM = {
    "request": {"json": {"event": "endpoint.url_validation"}},
    "challenge": {"json": "payload.plainToken", "pattern": "[A-Za-z0-9._~+/=-]{1,128}"},
    "signed": True,
    "computed": {"hash": "hmac-sha256"},
    "answer": {"json": {"plainToken": "{challenge}", "encryptedToken": "{computed}"}},
}
EBAY = {
    "request": {"method": "GET"},
    "challenge": {"query": "challenge_code", "pattern": "[A-Za-z0-9-]{1,128}"},
    "computed": {"hash": "sha256", "of": "{challenge}{token}{url}"},
    "answer": {"json": {"challengeResponse": "{computed}"}},
}
BRAINTREE = {
    "request": {"method": "GET"},
    "challenge": {"query": "bt_challenge", "pattern": "[a-f0-9]{20,32}"},
    "computed": {"hash": "hmac-sha1", "key": "sha1-after-colon"},
    "answer": {"text": "{before_colon}|{computed}"},
}


@pytest.mark.parametrize(
    ("shape", "secret", "target", "url", "expected"),
    [
        pytest.param(  # https://gist.github.com/jcipriano/46c4b3f379d214d57a9ddfa70dba49fe
            X,
            "z3ZX4v7mAAUGykl3EcmkqbartmuW8VFOOzCloLx9Q45P0hLrFu",
            b"/hook?crc_token=9b4507b3-9040-4669-9ca3-6b94edb50553",
            "",
            {"response_token": "sha256=Cytd4Sq+NvEcV3MMrXxWJGJx5A+y/lXzzU2Maartkx8="},
            id="x",
        ),
        pytest.param(
            EBAY,
            "webhook-co-ebay-verify-token-0123456789abcdef",
            b"/t/ebay-acct-deletion?challenge_code=71745723-9b5e-4f8a-bc11-9f0e2a7d4c63",
            "https://wbhk.my/t/ebay-acct-deletion",
            {"challengeResponse": "d24cd543fe79a6b0b79e99e0b27939b4a01fce883ae11a63ca875183a5a07ba4"},
            id="ebay",
        ),
        pytest.param(  # made by event-notification-nodejs-sdk 1.0.3
            EBAY,
            "ebay-verification-token-0123456789abcdef",
            b"/ebay?challenge_code=71745723-d031-455c-bfa5-f90d11b4f20a",
            "https://receiver.example/ebay",
            {"challengeResponse": "6516a601f787244f488e04f002c4958ba7879fbfc53a08876d6cf63afc95e000"},
            id="ebay-sdk",
        ),
        pytest.param(  # made by braintree 4.48.0
            BRAINTREE,
            "integration_public_key:integration_private_key",
            b"/hook?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53",
            "",
            "integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4",
            id="braintree",
        ),
    ],
)
def test_a_computed_answer_is_the_providers_own(
    shape: dict[str, Any], secret: str, target: bytes, url: str, expected: Any
) -> None:
    key = Secret("s", secret.encode())
    handshakes = Handshakes(shapes(shape), HandshakeMode.ANSWER, secret=key, token=key, url=url)
    begun = handshakes.find_unsigned(head(target))
    assert begun is not None
    answer = handshakes.respond(begun, head(target))
    assert answer.status == 200
    assert (json.loads(answer.body) if isinstance(expected, dict) else answer.body.decode()) == expected


def test_zooms_answer_is_zooms_own() -> None:
    # https://github.com/zoom/webhook-sample
    handshakes = Handshakes(
        shapes(ZOOM), HandshakeMode.ANSWER, secret=Secret("s", b"zoom-secret-token-xyz"), token=None
    )
    body = b'{"event": "endpoint.url_validation", "payload": {"plainToken": "pv-plainToken-abc123"}}'
    begun = handshakes.find_signed(head(method="POST"), [body[:30], body[30:]])
    assert begun is not None
    assert json.loads(handshakes.respond(begun, head(method="POST"), [body]).body) == {
        "plainToken": "pv-plainToken-abc123",
        "encryptedToken": "924c76d973084bbe133c17ff1c1a9b6639c74aef8bb34daa05c70361039e7beb",
    }


def test_an_echo_is_plain_text_that_no_browser_looks_into() -> None:
    handshakes = desk(ECHO)
    begun = handshakes.find_unsigned(head(b"/hook?challenge=a1b2"))
    assert begun is not None
    assert handshakes.respond(begun, head(b"/hook?challenge=a1b2")) == (
        200,
        [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"x-content-type-options", b"nosniff"),
            (b"content-length", b"4"),
        ],
        b"a1b2",
    )


def test_header_and_json_answers_hold_the_challenge() -> None:
    handshakes = desk(
        {"challenge": {"header": "X-Hook-Secret"}, "answer": {"headers": {"X-Hook-Secret": "{challenge}"}}},
        {"challenge": {"query": "c"}, "answer": {"json": {"verification": "{challenge}", "n": 1}}},
        {"request": {"method": "HEAD"}, "answer": {"status": 204}},
    )
    asked = head(b"/", (b"X-Hook-Secret", b"abc"), method="POST")
    assert handshakes.respond(handshakes.unsigned[0], asked).headers[0] == (b"X-Hook-Secret", b"abc")
    assert json.loads(handshakes.respond(handshakes.unsigned[1], head(b"/?c=x")).body) == {"verification": "x", "n": 1}
    assert handshakes.respond(handshakes.unsigned[2], head(method="HEAD")) == (204, [], b"")


@pytest.mark.parametrize(
    "challenge",
    [
        b"", b"%3Cscript%3E", b"a%0d%0aSet-Cookie:x", b"a%00", b"a%20b", b"%C3%A9", b"%ff", b"a" * 513, b"{}", b"a:b",
    ],
)  # fmt: skip
def test_what_could_be_markup_a_header_or_a_signed_message_is_not_echoed(challenge: bytes) -> None:
    for shape in (ECHO, X):
        parameter = b"challenge" if shape is ECHO else b"crc_token"
        asked = head(b"/hook?" + parameter + b"=" + challenge)
        begun = desk(shape).find_unsigned(asked)
        assert begun is not None
        with pytest.raises(Rejected) as refusal:
            desk(shape).respond(begun, asked)
        assert refusal.value.reason is Reason.MALFORMED_REQUEST
        assert challenge not in refusal.value.detail.encode() or not challenge


@pytest.mark.parametrize("token", ["a:b", "v0:1531420618:{}", '{"event":1}', "", 5, None, ["a"], "a" * 129, "x\n"])
def test_zoom_never_signs_what_could_be_a_delivery(token: Any) -> None:
    body = json.dumps({"event": "endpoint.url_validation", "payload": {"plainToken": token}}).encode()
    handshakes = desk(ZOOM)
    begun = handshakes.find_signed(head(method="POST"), [body])
    if begun is not None:
        with pytest.raises(Rejected):
            handshakes.respond(begun, head(method="POST"), [body])


@pytest.mark.parametrize("challenge", [b"g" * 20, b"a" * 19, b"a" * 33, b"A" * 20, b"a" * 20 + b"%0a"])
def test_braintrees_challenge_is_held_to_the_form_its_sdk_checks(challenge: bytes) -> None:
    asked = head(b"/hook?bt_challenge=" + challenge)
    begun = desk(BRAINTREE).find_unsigned(asked)
    assert begun is not None
    with pytest.raises(Rejected):
        desk(BRAINTREE).respond(begun, asked)


def test_a_token_is_compared_before_anything_is_echoed() -> None:
    handshakes = desk(TOKEN, token=b"right token")
    right = head(b"/hook?hub.mode=subscribe&hub.challenge=12&hub.verify_token=right+token")
    begun = handshakes.find_unsigned(right)
    assert begun is not None
    assert handshakes.respond(begun, right).body == b"12"
    for wrong in (b"wrong", b"", b"right+token2", b"%ff", "é".encode()):
        asked = head(b"/hook?hub.mode=subscribe&hub.challenge=12&hub.verify_token=" + wrong)
        with pytest.raises(Rejected) as refusal:
            handshakes.respond(begun, asked)
        assert refusal.value.reason is Reason.TOKEN_MISMATCH


def test_without_the_token_or_url_it_needs_a_shape_takes_nothing() -> None:
    assert desk(TOKEN).unsigned == ()
    assert desk(EBAY, token=b"t").unsigned == ()
    assert len(desk(EBAY, token=b"t", url="https://a.test/hook").unsigned) == 1
    passed = Handshakes(shapes(TOKEN), HandshakeMode.PASS, secret=None, token=None)
    assert len(passed.unsigned) == 1  # the receiver knows the token


PASSED = Handshakes(shapes(TOKEN), HandshakeMode.PASS, secret=None, token=None)


@pytest.mark.parametrize(
    ("challenge", "fields", "passes"),
    [
        (b"12", (), True),
        (b"12", ((b"Content-Length", b"0"),), True),
        (b"12", ((b"Content-Length", b"1"),), False),
        (b"12", ((b"Transfer-Encoding", b"chunked"),), False),
        (b"%3Cb%3E", (), False),
        (b"a" * 513, (), False),
        (b"", (), False),
    ],
)
def test_an_unsigned_one_for_the_receiver_has_no_body_and_a_challenge_of_its_pattern(
    challenge: bytes, fields: tuple[tuple[bytes, bytes], ...], passes: bool
) -> None:
    asked = head(b"/hook?hub.mode=subscribe&hub.challenge=" + challenge, *fields)
    assert (PASSED.find_unsigned(asked) is not None) == passes
    assert desk(TOKEN, token=b"t").find_unsigned(asked) is not None  # responded to here, whatever comes with it


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"hub%2Emode=sub%73cribe&hub.challenge=1+2", True),
        (b"hub.mode=subscribe&hub.challenge=" + b"%31" * 1365, True),
        (b"hub.mode=subscribe&hub.challenge=" + b"%31" * 2000, False),
        (b"hub.mode=subscribe&hub.challenge=\xc3\xa9", False),
    ],
)
def test_of_a_query_only_the_parameters_of_the_handshake_are_read(query: bytes, found: bool) -> None:
    assert (desk(TOKEN, token=b"t").find_unsigned(head(b"/hook?" + query)) is not None) == found


@pytest.mark.parametrize(
    "target",
    [
        b"/hook",
        b"/hook?hub.mode=subscribe",
        b"/hook?hub.mode=other&hub.challenge=1",
        b"/hook?hub.challenge=1",
        b"/hook?hub.mode=subscribe&hub.challenge=1&hub.challenge=2",
        b"/hook?hub.mode=subscribe&hub.mode=subscribe&hub.challenge=1",
        b"/hook?" + b"&".join(b"a=1" for _ in range(100)) + b"&hub.mode=subscribe&hub.challenge=1",
    ],
)
def test_what_lacks_or_repeats_a_mark_of_the_handshake_is_none(target: bytes) -> None:
    assert desk(TOKEN, token=b"t").find_unsigned(head(target)) is None


def test_another_method_is_no_handshake() -> None:
    assert desk(ECHO).find_unsigned(head(b"/hook?challenge=1", method="POST")) is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b"[" * 9000, b'{"event":"other"}', b"\xff\xfe",
        b'{"event":"endpoint.url_validation"}', b'{"event":"endpoint.url_validation","payload":{"plainToken":true}}x',
        b'{"event":"endpoint.url_validation","payload":{"plainToken":"a"}}' + b" " * 17000,
        b'{"event":"endpoint.url_validation","payload":{"plainToken":"a","plainToken":"b"}}',
        b'{"event":"other","event":"endpoint.url_validation","payload":{"plainToken":"a"}}',
        b'{"event":"endpoint.url_validation","n":NaN,"payload":{"plainToken":"a"}}',
        '{"event":"endpoint.url_validation","payload":{"plainToken":"a"}}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_handshake_is_a_delivery(body: bytes) -> None:
    assert desk(ZOOM).find_signed(head(method="POST"), [body]) is None


def test_numbers_and_flags_are_told_apart() -> None:
    ping = {"request": {"json": {"type": 1}}, "signed": True, "answer": {"json": {"type": 1}}}
    handshakes = desk(ping)
    assert handshakes.find_signed(head(method="POST"), [b'{"type":1}']) is not None
    for other in (b'{"type":true}', b'{"type":"1"}', b'{"type":1.5}', b'{"type":2}'):
        assert handshakes.find_signed(head(method="POST"), [other]) is None


def test_the_answer_of_a_signed_message_is_not_its_signature() -> None:
    """The characters that X's challenge may have are too few for any JSON object, array or form."""
    pattern = re.compile(X["challenge"]["pattern"])  # type: ignore[index]
    assert not any(pattern.fullmatch(text) for text in ("{}", "[1]", '"text"', "a=1&b=2", '{"a":1}'))
    assert pattern.fullmatch(b64encode(b"any token").decode())
