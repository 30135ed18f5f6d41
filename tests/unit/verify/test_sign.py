"""sign_delivery, and what verifies it: schemes in the body, in the URL, under a private key; what two copies have in common."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.config.presets import Verify, load_preset
from sidecar.http1.head import RequestHead, make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.keys import KeyFormError
from sidecar.verify.scheme import Scheme
from sidecar.verify.sign import Signed, SigningError, sign, sign_delivery
from sidecar.verify.verifier import MAX_SECRETS, Verified, Verifier

NOW = 1_700_000_000.0
URL = "https://hooks.example.com/in"
SECRET = Secret("current", b"a secret of some length")
#: What no preset has.
RSA_PSS = {"signature": {"header": "X-Signature", "kind": "rsa-pss", "encoding": "base64"}}
ID_BESIDE_TIME = {
    "signature": {"header": "X-Signature"},
    "signed": "{id}{header:X-Time}{body}",
    "delivery_id": {"header": "X-Id"},
}
MAILGUN = b'{"signature":{"token":"t0k3n"},"event-data":{"event":"opened"}}'


def scheme_of(verify: Any) -> Scheme:
    """As `verify:` has it: a preset's name, or a scheme."""
    scheme = Verify().read(verify)
    assert isinstance(scheme, Scheme)
    return scheme


def head_of(signed: Signed, headers: tuple[tuple[str, str], ...] = ()) -> RequestHead:
    every = [(name.encode(), value.encode()) for name, value in [*headers, *signed.headers]]
    return make_head("POST", b"/" + signed.url.encode().partition(b"://")[2].partition(b"/")[2], every, None)


def verify(preset: str, signed: Signed, *, body: bytes | None = None, now: float = NOW, **more: str) -> Verified:
    verifier = Verifier(load_preset(preset), [SECRET], more.get("public_url", ""))
    head = head_of(signed, (("Content-Type", "application/json"),))
    return verifier.verify(verifier.read_claim(head, now), head, [signed.body if body is None else body])


def refusal(preset: str, signed: Signed, **more: object) -> Reason:
    with pytest.raises(Rejected) as refused:
        verify(preset, signed, **more)  # type: ignore[arg-type]  # passed on as they are
    return refused.value.reason


# -- in the body --


def test_a_signature_in_the_body_is_put_there_and_found_there() -> None:
    signed = sign_delivery(load_preset("mailgun"), SECRET, body=MAILGUN, now=NOW)
    document = json.loads(signed.body)
    assert document["signature"]["timestamp"] == "1700000000"
    assert document["signature"]["token"] == "t0k3n"
    assert document["event-data"] == {"event": "opened"}
    assert signed.headers == []
    assert verify("mailgun", signed) == Verified("current", 0.0)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", Reason.SIGNATURE_MALFORMED),
        (b"[]", Reason.SIGNATURE_MISSING),
        (b"{}", Reason.SIGNATURE_MISSING),
        (b'{"signature":{"signature":"x","token":"a","timestamp":"1"}}', Reason.SIGNATURE_MALFORMED),
        (b'{"signature":{"signature":"%b","timestamp":"1"}}' % (b"0" * 64), Reason.SIGNATURE_MISSING),
        (b'{"signature":{"signature":"%b","token":"a","timestamp":"1"}}' % (b"0" * 64), Reason.SIGNATURE_MISMATCH),
        (b'{"signature":"' + b"x" * 2**20 + b'"}', Reason.SIGNATURE_MALFORMED),
    ],
    ids=["empty", "list", "nothing", "malformed", "no token", "mismatch", "too large"],
)
def test_a_body_without_a_right_signature_is_refused(body: bytes, reason: Reason) -> None:
    assert refusal("mailgun", Signed("", [], body)) is reason


@pytest.mark.parametrize(
    ("stamp", "now", "reason"),
    [
        (b'"webhookTimestamp":1700000000000', NOW + 61, Reason.TIMESTAMP_TOO_OLD),
        (b'"webhookTimestamp":1700000000000', NOW - 61, Reason.TIMESTAMP_IN_FUTURE),
        (b'"webhookTimestamp":"soon"', NOW, Reason.TIMESTAMP_MALFORMED),
        (b'"webhookTimestamp":1e12', NOW, Reason.TIMESTAMP_MISSING),
        (b'"other":1', NOW, Reason.TIMESTAMP_MISSING),
        (b'"webhookTimestamp":1,"webhookTimestamp":1700000000000', NOW, Reason.TIMESTAMP_MALFORMED),
    ],
)
def test_a_time_in_the_body_counts_once_the_body_is_genuine(stamp: bytes, now: float, reason: Reason) -> None:
    body = b"{%b}" % stamp
    # Signed as the provider would, whatever the body says.
    signed = Signed("", sign(load_preset("github"), SECRET, body=body, now=NOW), body)
    headers = [("Linear-Signature", signed.headers[0][1].removeprefix("sha256="))]
    assert refusal("linear", Signed("", headers, body), now=now) is reason
    assert refusal("linear", Signed("", headers, body + b" "), now=now) is Reason.SIGNATURE_MISMATCH


def test_the_age_of_a_time_in_the_body_is_known_after_verifying() -> None:
    signed = sign_delivery(load_preset("linear"), SECRET, body=b'{"action":"create"}', now=NOW - 7)
    assert json.loads(signed.body) == {"action": "create", "webhookTimestamp": 1699999993000}
    assert verify("linear", signed) == Verified("current", 7.0)


def test_every_notification_of_a_batch_must_hold_the_token() -> None:
    signed = sign_delivery(load_preset("microsoft-graph"), SECRET, body=b'{"value":[{"id":1},{"id":2}]}', now=NOW)
    assert verify("microsoft-graph", signed).secret_id == "current"
    document = json.loads(signed.body)
    assert [item["id"] for item in document["value"]] == [1, 2]
    document["value"][1]["clientState"] = "another"
    assert refusal("microsoft-graph", signed, body=json.dumps(document).encode()) is Reason.TOKEN_MISMATCH
    del document["value"][1]["clientState"]
    assert refusal("microsoft-graph", signed, body=json.dumps(document).encode()) is Reason.SIGNATURE_MISSING
    assert refusal("microsoft-graph", signed, body=b'{"value":[]}') is Reason.SIGNATURE_MISSING


def test_signing_into_a_body_needs_a_json_object() -> None:
    for body in (b"", b"[1]", b"text", b"[" * 100_000, b'{"a":1,"a":2}'):
        with pytest.raises(SigningError, match="JSON object"):
            sign_delivery(load_preset("mailgun"), SECRET, body=body, now=NOW)


def test_sign_gives_headers_and_says_when_they_are_not_enough() -> None:
    assert [name for name, _ in sign(load_preset("slack"), SECRET, body=b"x", now=NOW)] == [
        "X-Slack-Signature",
        "X-Slack-Request-Timestamp",
    ]
    with pytest.raises(SigningError, match="body or the URL"):
        sign(load_preset("mailgun"), SECRET, body=MAILGUN, now=NOW)
    with pytest.raises(SigningError, match="signs the URL"):
        sign(load_preset("square"), SECRET, body=b"", now=NOW)


# -- in the URL --


def test_the_url_counts_and_is_taken_from_the_configuration() -> None:
    signed = sign_delivery(load_preset("square"), SECRET, body=b"{}", now=NOW, url=URL + "?a=1")
    assert verify("square", signed, public_url="https://hooks.example.com")
    assert refusal("square", signed, public_url="https://other.example.com") is Reason.SIGNATURE_MISMATCH
    changed = signed._replace(url=URL + "?a=2")
    assert refusal("square", changed, public_url="https://hooks.example.com") is Reason.SIGNATURE_MISMATCH
    with pytest.raises(ValueError, match="public URL"):
        Verifier(load_preset("square"), [SECRET])


@pytest.mark.parametrize("signed_as", ["?mail=a%40b.c&x=%20", "?mail=a@b.c&x=%20"])
def test_hubspots_url_is_signed_with_or_without_some_of_its_escapes(signed_as: str) -> None:
    scheme = load_preset("hubspot-v3")
    signed = sign_delivery(scheme, SECRET, body=b"{}", now=NOW, url=URL + signed_as)
    called = signed._replace(url=URL + "?mail=a%40b.c&x=%20")
    assert verify("hubspot-v3", called, public_url="https://hooks.example.com")
    other = signed._replace(url=URL + "?mail=a%40b.d&x=%20")
    assert refusal("hubspot-v3", other, public_url="https://hooks.example.com") is Reason.SIGNATURE_MISMATCH


def test_plivos_published_value_is_accepted() -> None:
    """The SDK's own test: a URL without a path, called with one. github.com/plivo/plivo-python, version 2 signatures."""
    headers = [
        ("X-Plivo-Signature-V2", "ehV3IKhLysWBxC1sy8INm0qGoQYdYsHwuoKjsX7FsXc="),
        ("X-Plivo-Signature-V2-Nonce", "12345"),
    ]
    verifier = Verifier(load_preset("plivo-v2"), [Secret("s", b"my_auth_token")], "https://answer.url")
    for url in ("https://answer.url/", "https://answer.url/?CallUUID=1"):
        head = head_of(Signed(url, headers, b""))
        assert verifier.verify(verifier.read_claim(head, NOW), head, [b"anything"])
    other = head_of(Signed("https://answer.url/other", headers, b""))
    with pytest.raises(Rejected):
        verifier.verify(verifier.read_claim(other, NOW), other, [b""])


@pytest.mark.parametrize("query", ["?a=1", ""])
def test_a_body_is_bound_by_its_hash_in_the_url(query: str) -> None:
    signed = sign_delivery(load_preset("twilio-json"), SECRET, body=b"{}", now=NOW, url=URL + query)
    assert "bodySHA256=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" in signed.url
    origin = "https://hooks.example.com"
    assert verify("twilio-json", signed, public_url=origin)
    assert refusal("twilio-json", signed, body=b"{ }", public_url=origin) is Reason.SIGNATURE_MISMATCH
    twice = signed._replace(url=signed.url + "&bodySHA256=" + "0" * 64)
    assert refusal("twilio-json", twice, public_url=origin) is Reason.SIGNATURE_MISMATCH


# -- keys --


def test_a_private_key_signs_what_its_public_key_verifies(key_pair: Callable[..., tuple[bytes, bytes]]) -> None:
    for verify in ("discord", "telnyx", "sendgrid", "wise", "postal", RSA_PSS):
        scheme = scheme_of(verify)
        private, public = key_pair(scheme)
        signed = sign_delivery(scheme, Secret("s", private), body=b"{}", now=NOW)
        verifier = Verifier(scheme, [Secret("other", key_pair(scheme, 1)[1]), Secret("right", public)])
        head = head_of(signed)
        assert verifier.verify(verifier.read_claim(head, NOW), head, [b"{", b"}"]).secret_id == "right"
        with pytest.raises(Rejected):
            verifier.verify(verifier.read_claim(head, NOW), head, [b"{ }"])


def test_a_secret_in_another_form_is_an_error_at_load() -> None:
    with pytest.raises(KeyFormError):
        Verifier(load_preset("svix"), [SECRET])
    with pytest.raises(KeyFormError):
        sign(load_preset("svix"), SECRET, body=b"", now=NOW)
    unresolved = Verifier(load_preset("svix"), [SECRET], resolved=False)
    signed = sign_delivery(load_preset("svix"), Secret("s", b"whsec_c2VjcmV0"), body=b"", now=NOW)
    head = head_of(signed)
    with pytest.raises(Rejected) as refused:
        unresolved.verify(unresolved.read_claim(head, NOW), head, [b""])
    assert refused.value.reason is Reason.SIGNATURE_MISMATCH
    assert MAX_SECRETS == 10


# -- fingerprints --


def key_of(preset: str, signed: Signed, secrets: tuple[Secret, ...] = (SECRET,), scope: str = "route") -> bytes:
    verifier = Verifier(load_preset(preset), secrets)
    head = head_of(signed)
    return verifier.fingerprint(verifier.read_claim(head, NOW), head, [signed.body], scope=scope, url=b"")


def test_two_copies_have_one_key_whichever_signature_they_carry() -> None:
    other = Secret("other", b"another secret of some length")
    one = sign_delivery(load_preset("stripe"), SECRET, body=b"{}", now=NOW)
    two = sign_delivery(load_preset("stripe"), other, body=b"{}", now=NOW)
    both = Signed("", [("Stripe-Signature", one.headers[0][1] + "," + two.headers[0][1].partition(",")[2])], b"{}")
    keys = {key_of("stripe", signed, (SECRET, other)) for signed in (one, two, both)}
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    later = sign_delivery(load_preset("stripe"), SECRET, body=b"{}", now=NOW + 1)
    assert key_of("stripe", later) != key_of("stripe", one)
    assert key_of("stripe", one, scope="another") != key_of("stripe", one)


def test_the_key_follows_the_delivery_id_where_that_is_signed_and_is_never_the_mac() -> None:
    whsec = Secret("s", b"whsec_c2VjcmV0")
    signed = sign_delivery(load_preset("svix"), whsec, body=b"{}", now=NOW, delivery_id="msg_1")
    again = sign_delivery(load_preset("svix"), whsec, body=b'{"attempt":2}', now=NOW + 5, delivery_id="msg_1")
    other = sign_delivery(load_preset("svix"), whsec, body=b"{}", now=NOW, delivery_id="msg_2")
    assert key_of("svix", signed, (whsec,)) == key_of("svix", again, (whsec,)) != key_of("svix", other, (whsec,))
    github = sign_delivery(load_preset("github"), SECRET, body=b"{}", now=NOW, delivery_id="unsigned")
    assert key_of("github", github) == key_of("github", github._replace(headers=github.headers[:1]))
    assert key_of("github", github).hex() not in github.headers[0][1]


def test_the_url_that_was_verified_is_part_of_the_key_where_it_is_signed() -> None:
    def key(target: bytes, signed_as: str) -> bytes:
        verifier = Verifier(load_preset("twilio"), (SECRET,), "https://hooks.example.com")
        signed = sign_delivery(load_preset("twilio"), SECRET, body=b"", now=NOW, url=signed_as)
        head = make_head("POST", target, [(name.encode(), value.encode()) for name, value in signed.headers], None)
        claim = verifier.read_claim(head, NOW)
        url = verifier.verify(claim, head, [b""]).url
        return verifier.fingerprint(claim, head, [b""], scope="route", url=url)

    a, with_port = "https://hooks.example.com/a", "https://hooks.example.com:443/a"
    assert key(b"/a", a) == key(b"/a", a) != key(b"/b", "https://hooks.example.com/b")
    assert key(b"/a", a) != key(b"/a", with_port)


@pytest.mark.parametrize(
    "target", [b"/hs?x=(1),a/b", b"/hs?x=%281%29,a/b", b"/hs?x=(1)%2Ca%2fb", b"/hs?x=%281%29%2ca%2Fb"]
)
def test_every_spelling_of_a_url_that_one_signature_verifies_has_one_key(target: bytes) -> None:
    scheme = load_preset("hubspot-v3")
    verifier = Verifier(scheme, (SECRET,), "https://hooks.example.com")
    url = "https://hooks.example.com/hs?x=(1),a/b"
    signed = sign_delivery(scheme, SECRET, body=b"{}", now=NOW, url=url)
    keys = set()
    for each in (b"/hs?x=(1),a/b", target):
        head = make_head("POST", each, [(name.encode(), value.encode()) for name, value in signed.headers], None)
        claim = verifier.read_claim(head, NOW)
        keys.add(verifier.fingerprint(claim, head, [b"{}"], scope="r", url=verifier.verify(claim, head, [b"{}"]).url))
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("verify", "body", "moved"),
    [
        # (id, timestamp header) and body of the delivery, and the same message cut elsewhere
        (
            ID_BESIDE_TIME,
            (b"a1b2", b"1795579411", b"{}"),
            [(b"a1b", b"21795579411", b"{}"), (b"a1b21795", b"579411", b"{}")],
        ),
        ("framer", (b"7e1f", b"", b'{"a":1}'), [(b"1f", b"", b'{"a":1}7e'), (b"}7e1f", b"", b'{"a":1')]),
    ],
)
def test_bytes_moved_between_id_and_neighbour_leave_the_key_as_it_is(
    verify: str | dict[str, object], body: tuple[bytes, bytes, bytes], moved: list[tuple[bytes, bytes, bytes]]
) -> None:
    scheme = scheme_of(verify)
    verifier = Verifier(scheme, (SECRET,))
    assert scheme.delivery_id is not None
    names = (scheme.delivery_id, "x-time")
    first = [(name, text.decode()) for name, text in zip(names, body)]
    signed = sign_delivery(scheme, SECRET, body=body[2], now=NOW, headers=first)
    keys = set()
    for ident, stamp, text in (body, *moved):
        headers = [*signed.headers, (names[0], ident.decode()), (names[1], stamp.decode())]
        head = make_head("POST", b"/", [(name.encode(), value.encode()) for name, value in headers], None)
        claim = verifier.read_claim(head, NOW)
        verified = verifier.verify(claim, head, [text])
        keys.add(verifier.fingerprint(claim, head, [text], scope="r", url=verified.url))
        assert verifier.other_fingerprints(head, scope="r") == []
    assert len(keys) == 1


def test_two_events_of_one_moov_webhook_have_two_keys() -> None:
    """X-Webhook-ID is the same for both; taken for a delivery's id, it made the second event a copy."""
    verifier = Verifier(load_preset("moov"), (SECRET,))
    keys = set()
    for nonce in ("n-1", "n-2"):
        sent = [("X-Webhook-ID", "w-1"), ("X-Nonce", nonce)]
        head = head_of(sign_delivery(verifier.scheme, SECRET, body=b"{}", now=NOW, headers=sent), tuple(sent))
        claim = verifier.read_claim(head, NOW)
        keys.add(verifier.fingerprint(claim, head, [b"{}"], scope="r", url=verifier.verify(claim, head, [b"{}"]).url))
    assert len(keys) == 2


def test_an_id_that_took_what_follows_it_is_known_by_its_first_part() -> None:
    """`{id}.{timestamp}.{body}` with `id.timestamp.start` for an id, and a time in the body for the timestamp."""
    whsec = Secret("s", b"whsec_c2VjcmV0")
    earlier = int(NOW) - 10
    body = b'{"note":"x.%d.y"}' % earlier
    genuine = sign_delivery(load_preset("svix"), whsec, body=body, now=NOW, delivery_id="msg_1")
    verifier = Verifier(load_preset("svix"), (whsec,))
    sent = dict(genuine.headers)
    stamp = sent["svix-timestamp"]
    headers = sent | {"svix-id": f'msg_1.{stamp}.{{"note":"x', "svix-timestamp": str(earlier)}
    head = make_head("POST", b"/", [(name.encode(), value.encode()) for name, value in headers.items()], None)
    claim = verifier.read_claim(head, NOW)
    assert verifier.verify(claim, head, [b'y"}']).secret_id == "s"
    assert key_of("svix", genuine, (whsec,)) in verifier.other_fingerprints(head, scope="route")
    assert verifier.other_fingerprints(head_of(genuine), scope="route") == []
    many = make_head("POST", b"/", [(b"svix-id", b"a." * 100)], None)
    with pytest.raises(Rejected):
        verifier.other_fingerprints(many, scope="route")


def test_where_nothing_is_signed_the_key_follows_the_body() -> None:
    one, same, other = (
        key_of("gitlab", sign_delivery(load_preset("gitlab"), SECRET, body=body, now=NOW))
        for body in (b"1", b"1", b"2")
    )
    assert one == same != other
