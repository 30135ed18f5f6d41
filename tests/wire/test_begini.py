"""Begini's scheme on the wire: what is accepted, and that every refusal looks the same and reaches nobody."""

from collections.abc import Callable

import pytest
from craft import Craft, Fields
from receiver import Receiver
from sidecar_process import Sidecar

#: The only thing a sender is ever told about a failed verification.
REFUSAL = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n"
    b'{"detail":"Validation Failure"}'
)


def signed_with(craft: type[Craft], fields: Fields, body: bytes | None = None) -> bytes:
    """A delivery whose signature fields are exactly `fields`."""
    return craft.request(b"/webhooks/begini", fields, craft.json_body if body is None else body)


def test_a_good_delivery_is_accepted_and_reaches_the_receiver_once(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    mark = sidecar.mark()
    answer = sidecar.ask(craft.begini())
    assert (answer.status, answer.body) == (200, b"ok")
    assert [seen.body for seen in receiver.requests] == [craft.json_body]
    assert receiver.requests[0].values(b"X-Webhook-Verified") == [b"begini"]
    assert receiver.requests[0].values(b"X-Webhook-Secret-Id") == [b"current"]
    line = sidecar.delivery(mark)
    assert (line["outcome"], line["reason"], line["secret"]) == ("accepted", "", "current")


def test_the_previous_secret_still_works_and_its_id_is_reported(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    before = sidecar.metric("secret_matches_total", route="begini", secret="previous")
    answer = sidecar.ask(craft.begini(secret="CANARY-SECRET-begini-previous-e2d4"))
    assert answer.status == 200
    assert receiver.requests[0].values(b"X-Webhook-Secret-Id") == [b"previous"]
    assert sidecar.metric("secret_matches_total", route="begini", secret="previous") == before + 1


def test_an_empty_body_is_signed_like_any_other(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    assert sidecar.ask(craft.begini(b"")).status == 200
    assert receiver.requests[0].values(b"Content-Length") == [b"0"]
    assert receiver.requests[0].body == b""


@pytest.mark.parametrize("at", [0, 1, 7, 20, -2, -1])
@pytest.mark.parametrize("bit", [0x01, 0x20, 0x80])
def test_one_flipped_bit_of_the_body_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], at: int, bit: int
) -> None:
    body = bytearray(craft.json_body)
    body[at] ^= bit
    raw = signed_with(craft, [(b"X-Signature", craft.mac("BEGINI_API_KEY", craft.json_body))], bytes(body))
    assert sidecar.refused(raw, 403, "signature_mismatch", receiver=receiver).raw == REFUSAL


@pytest.mark.parametrize("body", [b"%b\n", b" %b", b"\xef\xbb\xbf%b", b"%b\0"])
def test_a_body_with_something_added_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    made = craft.mac("BEGINI_API_KEY", craft.json_body)
    raw = signed_with(craft, [(b"X-Signature", made)], body % craft.json_body)
    assert sidecar.refused(raw, 403, "signature_mismatch", receiver=receiver).raw == REFUSAL


@pytest.mark.parametrize("at", [0, 31, 64, 127])
def test_one_changed_digit_of_the_signature_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], at: int
) -> None:
    made = bytearray(craft.mac("BEGINI_API_KEY", craft.json_body))
    made[at : at + 1] = b"0" if made[at : at + 1] != b"0" else b"f"
    raw = signed_with(craft, [(b"X-Signature", bytes(made))])
    assert sidecar.refused(raw, 403, "signature_mismatch", receiver=receiver).raw == REFUSAL


def test_the_key_of_another_route_is_refused(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = craft.begini(secret="ACME_SECRET")
    assert sidecar.refused(raw, 403, "signature_mismatch", receiver=receiver).raw == REFUSAL


def test_the_signature_of_another_body_is_refused(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = signed_with(craft, [(b"X-Signature", craft.mac("BEGINI_API_KEY", b"{}"))])
    assert sidecar.refused(raw, 403, "signature_mismatch", receiver=receiver).raw == REFUSAL


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(lambda made: [], id="absent"),
        pytest.param(lambda made: [(b"X-Signature", b"")], id="empty"),
        pytest.param(lambda made: [(b"X-Signature", b"   ")], id="blank"),
        pytest.param(lambda made: [(b"X_Signature", made)], id="underscore alias"),
        pytest.param(lambda made: [(b"X-Signature-256", made)], id="another name"),
        pytest.param(lambda made: [(b"Cookie", b"X-Signature=" + made)], id="in a cookie"),
        pytest.param(lambda made: [(b"Trailer", b"X-Signature")], id="announced as a trailer"),
    ],
)
def test_a_delivery_without_signature_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], fields: Callable[[bytes], Fields]
) -> None:
    raw = signed_with(craft, fields(craft.mac("BEGINI_API_KEY", craft.json_body)))
    assert sidecar.refused(raw, 403, "signature_missing", receiver=receiver).raw == REFUSAL


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(lambda made: [(b"X-Signature", made[:-1] + b"g")], id="not hexadecimal"),
        pytest.param(lambda made: [(b"X-Signature", made[:-2] + b"\xc3\xa9")], id="not ASCII"),
        pytest.param(lambda made: [(b"X-Signature", b"\xff" * 128)], id="obs-text only"),
        pytest.param(lambda made: [(b"X-Signature", made[:-3] + b"\xef\xbc\x91")], id="a full-width digit"),
        pytest.param(lambda made: [(b"X-Signature", made[:-1])], id="one digit short"),
        pytest.param(lambda made: [(b"X-Signature", made[:-2])], id="one byte short"),
        pytest.param(lambda made: [(b"X-Signature", made[:64])], id="half"),
        pytest.param(lambda made: [(b"X-Signature", made[:1])], id="one digit"),
        pytest.param(lambda made: [(b"X-Signature", made + b"0")], id="one digit long"),
        pytest.param(lambda made: [(b"X-Signature", made * 2)], id="twice in one"),
        pytest.param(lambda made: [(b"X-Signature", made.upper())], id="upper case"),
        pytest.param(lambda made: [(b"X-Signature", b"0x" + made)], id="with 0x"),
        pytest.param(lambda made: [(b"X-Signature", b"sha512=" + made)], id="with a prefix that is not Begini's"),
        pytest.param(lambda made: [(b"X-Signature", made[:64] + b" " + made[64:])], id="with a blank inside"),
        pytest.param(lambda made: [(b"X-Signature", b'"' + made + b'"')], id="quoted"),
        pytest.param(lambda made: [(b"X-Signature", made + b", " + made)], id="listed twice"),
        pytest.param(lambda made: [(b"X-Signature", made), (b"X-Signature", made)], id="two fields"),
        pytest.param(lambda made: [(b"X-Signature", made), (b"x-signature", b"0" * 128)], id="right one first"),
        pytest.param(lambda made: [(b"X-Signature", b"0" * 128), (b"X-SIGNATURE", made)], id="right one last"),
        pytest.param(lambda made: [(b"X-Signature", made), (b"X-Signature", b"")], id="an empty one behind"),
    ],
)
def test_a_malformed_signature_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], fields: Callable[[bytes], Fields]
) -> None:
    raw = signed_with(craft, fields(craft.mac("BEGINI_API_KEY", craft.json_body)))
    assert sidecar.refused(raw, 403, "signature_malformed", receiver=receiver).raw == REFUSAL


def test_an_empty_repeated_signature_is_never_skipped_to_the_right_one(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    made = craft.mac("BEGINI_API_KEY", craft.json_body)
    mark = sidecar.mark()
    assert sidecar.ask(signed_with(craft, [(b"X-Signature", b""), (b"X-Signature", made)])).raw == REFUSAL
    assert sidecar.delivery(mark)["reason"] in ("signature_missing", "signature_malformed")
    assert not receiver.bytes_seen


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_another_algorithm_under_the_right_key_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], algorithm: str
) -> None:
    raw = signed_with(craft, [(b"X-Signature", craft.mac("BEGINI_API_KEY", craft.json_body, algorithm))])
    assert sidecar.refused(raw, 403, "signature_malformed", receiver=receiver).raw == REFUSAL


def test_blanks_around_the_signature_do_not_belong_to_it(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    made = craft.mac("BEGINI_API_KEY", craft.json_body)
    assert sidecar.ask(signed_with(craft, [(b"X-Signature", b" \t " + made + b" \t")])).status == 200


# Addresses: the route `allowed` takes 203.0.113.0/24 and 2001:db8::/32, and one proxy is trusted


def test_an_address_outside_allow_is_refused_even_with_a_good_signature(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.begini(path=b"/webhooks/allowed")
    assert sidecar.refused(raw, 403, "ip_not_allowed", route="allowed", receiver=receiver).raw == REFUSAL


@pytest.mark.parametrize(
    "hops",
    [
        b"203.0.113.7",
        b"2001:db8::1",
        b"[2001:db8::1]:443",
        b"203.0.113.7:51234",
        b"::ffff:203.0.113.7",
        b"198.51.100.1, 203.0.113.7",
        b"garbage, 203.0.113.7",
        b"203.0.113.7, 127.0.0.9",
        b"203.0.113.7\t,\t127.0.0.9 ",
    ],
)
def test_an_allowed_address_behind_the_trusted_proxy_is_accepted(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], hops: bytes
) -> None:
    raw = craft.begini(path=b"/webhooks/allowed", headers=[(b"X-Forwarded-For", hops)])
    assert sidecar.ask(raw, source=craft.trusted).status == 200
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "lines",
    [
        [b"203.0.113.7, 198.51.100.1"],
        [b"203.0.113.7, 198.51.100.1, 127.0.0.9"],
        [b"203.0.113.7", b"198.51.100.1"],
        [b"203.0.113.7,203.0.113.8,198.51.100.1"],
        [b"::ffff:198.51.100.1"],
        [b"2002:cb00:7107::1"],
        [b"64:ff9b::203.0.113.7"],
        [b"127.0.0.9"],
        [],
    ],
    ids=str,
)
def test_an_address_forged_on_the_left_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], lines: list[bytes]
) -> None:
    raw = craft.begini(path=b"/webhooks/allowed", headers=[(b"X-Forwarded-For", line) for line in lines])
    answer = sidecar.refused(raw, 403, "ip_not_allowed", route="allowed", source=craft.trusted, receiver=receiver)
    assert answer.raw == REFUSAL


@pytest.mark.parametrize(
    "name", [b"X-Forwarded-For", b"X-Real-IP", b"Forwarded", b"X_Forwarded_For", b"True-Client-IP"]
)
def test_a_forwarded_address_from_an_untrusted_peer_counts_for_nothing(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: bytes
) -> None:
    raw = craft.begini(path=b"/webhooks/allowed", headers=[(name, b"203.0.113.7")])
    assert sidecar.refused(raw, 403, "ip_not_allowed", route="allowed", receiver=receiver).raw == REFUSAL


@pytest.mark.parametrize(
    "hops",
    [
        b"203.0.113.7, unknown",
        b"203.0.113.7,",
        b"",
        b"203.0.113.7, , 127.0.0.9",
        b"203.0.113.007",
        b"203.0.113",
        b"3405803783",
        b"0xcb007107",
        b"203.0.113.7%eth0",
        b"fe80::1%eth0",
        b"203.0.113.7:",
        b"[203.0.113.7]",
        b"[2001:db8::1",
        b"2001:db8::1]:443",
        b"\xa0203.0.113.7",
        b"203.0.113.7\xa0",
        b"203.0.113.\xef\xbc\x97",
        b"203.0.113.7/32",
        b'"203.0.113.7"',
        b"for=203.0.113.7",
        b", ".join([b"127.0.0.9"] * 40),
    ],
    ids=lambda hops: repr(hops[:30]),
)
def test_an_unreadable_hop_is_refused_and_not_walked_past(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], hops: bytes
) -> None:
    raw = craft.begini(path=b"/webhooks/allowed", headers=[(b"X-Forwarded-For", hops)])
    answer = sidecar.refused(raw, 403, "client_ip_unreadable", route="allowed", source=craft.trusted, receiver=receiver)
    assert answer.raw == REFUSAL


def test_a_connection_option_cannot_take_the_forwarded_address_away(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    headers = [(b"X-Forwarded-For", b"198.51.100.1"), (b"Connection", b"X-Forwarded-For, X-Signature")]
    raw = craft.begini(path=b"/webhooks/allowed", headers=headers)
    sidecar.refused(raw, 403, "ip_not_allowed", route="allowed", source=craft.trusted, receiver=receiver)


def test_a_route_may_choose_its_refusal_and_then_all_of_them_look_like_it(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    missing = craft.request(b"/webhooks/polite", body=craft.json_body)
    wrong = craft.begini(path=b"/webhooks/polite", secret="ACME_SECRET")
    malformed = craft.request(b"/webhooks/polite", [(b"X-Signature", b"zz")], craft.json_body)
    answers = [
        sidecar.refused(raw, 401, reason, route="polite", receiver=receiver).raw
        for raw, reason in [
            (missing, "signature_missing"),
            (wrong, "signature_mismatch"),
            (malformed, "signature_malformed"),
        ]
    ]
    assert len(set(answers)) == 1
    assert answers[0].endswith(b'\r\n\r\n{"error":"no"}')


def test_a_refusal_leaves_the_connection_usable(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    with sidecar.connect() as client:
        client.send(craft.begini(secret="ACME_SECRET"))
        assert client.answer().status == 403
        client.send(craft.begini())
        assert client.answer().status == 200
    assert len(receiver.requests) == 1


def test_what_the_head_alone_shows_is_refused_before_the_body_is_sent(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.request(headers=[(b"Expect", b"100-continue"), (b"Content-Length", b"1000")])
    mark = sidecar.mark()
    with sidecar.connect() as client:
        answer = client.send(raw).answer()
        assert (answer.status, answer.informational) == (403, [])
        assert answer.values(b"connection") == [b"close"]
        assert client.rest() == b""
    sidecar.was_refused(answer, 403, "signature_missing", receiver=receiver, mark=mark)
