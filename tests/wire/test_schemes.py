"""The other schemes on the wire: timestamps, prefixes, base64, a scheme of one's own."""

import base64
import time
from collections.abc import Callable

import pytest
from craft import Craft, Fields
from receiver import Receiver
from sidecar_process import Sidecar

NOW = int(time.time())


def test_a_slack_delivery_signed_now_is_accepted_and_its_age_is_counted(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    mark, before = sidecar.mark(), sidecar.metric("signature_age_seconds_bucket", route="slack", le="+Inf")
    assert sidecar.ask(craft.slack()).status == 200
    assert 0 <= sidecar.delivery(mark)["signature_age_s"] < 60
    assert sidecar.metric("signature_age_seconds_bucket", route="slack", le="+Inf") == before + 1


@pytest.mark.parametrize("age", [-290, 290])
def test_a_slack_delivery_within_tolerance_is_accepted(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], age: int
) -> None:
    assert sidecar.ask(craft.slack(age=age)).status == 200


@pytest.mark.parametrize("age", [302, 3600, 1_700_000_000])
def test_a_slack_delivery_signed_too_long_ago_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], age: int
) -> None:
    sidecar.refused(craft.slack(age=age), 403, "timestamp_too_old", route="slack", receiver=receiver)


@pytest.mark.parametrize("age", [-310, -3600, -(10**11)])
def test_a_slack_delivery_signed_in_the_future_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], age: int
) -> None:
    sidecar.refused(craft.slack(age=age), 403, "timestamp_in_future", route="slack", receiver=receiver)


@pytest.mark.parametrize(
    "timestamp",
    [
        b"nan",
        b"inf",
        b"1e9",
        b"+%d",
        b"-%d",
        b"%d.0",
        b"0x10",
        b"%d abc",
        b"1_000",
        b"9" * 30,
        b"9" * 5000,
        b"\xd9\xa1",
        b"%d,%d",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_malformed_timestamp_is_refused_though_it_is_signed(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], timestamp: bytes
) -> None:
    stamp = timestamp.replace(b"%d", b"%d" % NOW)
    sidecar.refused(craft.slack(timestamp=stamp), 403, "timestamp_malformed", route="slack", receiver=receiver)


def test_a_missing_or_empty_timestamp_is_refused(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    made = craft.mac("SLACK_SECRET", b"v0::" + craft.json_body, "sha256")
    signature = (b"X-Slack-Signature", b"v0=" + made)
    for fields in ([signature], [signature, (b"X-Slack-Request-Timestamp", b"")]):
        raw = craft.request(b"/webhooks/slack", fields, craft.json_body)
        sidecar.refused(raw, 403, "timestamp_missing", route="slack", receiver=receiver)


def test_two_timestamps_are_refused_whichever_was_signed(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.slack(headers=[(b"X-Slack-Request-Timestamp", b"1")])
    sidecar.refused(raw, 403, "timestamp_malformed", route="slack", receiver=receiver)


def test_a_timestamp_that_was_not_signed_is_refused(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    old = craft.slack(age=1000)
    stamp = old.split(b"X-Slack-Request-Timestamp: ")[1][:10]
    renewed = old.replace(stamp, b"%d" % time.time(), 1)
    sidecar.refused(renewed, 403, "signature_mismatch", route="slack", receiver=receiver)


@pytest.mark.parametrize("prefix", [b"", b"v1=", b"V0=", b"v0:", b"v0= "])
def test_a_slack_signature_needs_its_prefix(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], prefix: bytes
) -> None:
    raw = craft.slack().replace(b"v0=", prefix, 1)
    sidecar.refused(raw, 403, "signature_malformed", route="slack", receiver=receiver)


def test_a_github_delivery_is_accepted_and_its_id_is_logged(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    mark = sidecar.mark()
    assert sidecar.ask(craft.github(headers=[(b"X-GitHub-Delivery", b"72d3162e-cc78-11e3")])).status == 200
    assert sidecar.delivery(mark)["delivery_id"] == "72d3162e-cc78-11e3"
    assert receiver.requests[0].values(b"X-GitHub-Delivery") == [b"72d3162e-cc78-11e3"]


def test_the_legacy_sha1_signature_of_github_is_not_looked_at(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    made = craft.mac("GITHUB_SECRET", craft.json_body, "sha1")
    raw = craft.request(b"/webhooks/github", [(b"X-Hub-Signature", b"sha1=" + made)], craft.json_body)
    sidecar.refused(raw, 403, "signature_missing", route="github", receiver=receiver)
    raw = craft.request(b"/webhooks/github", [(b"X-Hub-Signature-256", b"sha1=" + made)], craft.json_body)
    sidecar.refused(raw, 403, "signature_malformed", route="github", receiver=receiver)


def test_a_tampered_github_delivery_is_refused(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = craft.github().replace(b'"n":1', b'"n":2')
    sidecar.refused(raw, 403, "signature_mismatch", route="github", receiver=receiver)


def test_a_shopify_delivery_is_accepted_and_a_tampered_one_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(craft.shopify()).status == 200
    receiver.forget()
    raw = craft.shopify().replace(b'"n":1', b'"n":2')
    sidecar.refused(raw, 401, "signature_mismatch", route="shopify", receiver=receiver)


@pytest.mark.parametrize(
    "rewrite",
    [
        pytest.param(lambda text: text.rstrip(b"="), id="without padding"),
        pytest.param(lambda text: text + b"=", id="too much padding"),
        pytest.param(lambda text: text[:20] + b" " + text[20:], id="blank inside"),
        pytest.param(lambda text: base64.b64decode(text).hex().encode(), id="hexadecimal"),
        pytest.param(lambda text: b"-_" + text[2:], id="URL alphabet"),
        pytest.param(lambda text: text[:-4], id="short"),
    ],
)
def test_base64_in_another_form_is_malformed(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], rewrite: Callable[[bytes], bytes]
) -> None:
    raw = craft.shopify()
    text = raw.split(b"X-Shopify-Hmac-Sha256: ")[1].split(b"\r\n")[0]
    raw = raw.replace(text, rewrite(text))
    sidecar.refused(raw, 401, "signature_malformed", route="shopify", receiver=receiver)


def test_base64_with_stray_bits_behind_the_last_digit_is_refused(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.shopify()
    text = raw.split(b"X-Shopify-Hmac-Sha256: ")[1].split(b"\r\n")[0]
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet.index(text[-2:-1])
    same = text[:-2] + alphabet[last + 1 : last + 2] + b"="
    assert base64.b64decode(same) == base64.b64decode(text)  # a lax decoder takes both
    mark = sidecar.mark()
    assert sidecar.ask(raw.replace(text, same)).status == 401
    assert sidecar.delivery(mark)["reason"] in ("signature_malformed", "signature_mismatch")
    assert not receiver.bytes_seen


def acme(craft: type[Craft], fields: Fields = (), *, stamp: bytes | None = None, ident: bytes = b"evt-1") -> bytes:
    stamp = stamp or b"%d" % (time.time() * 1000)
    made = craft.mac("ACME_SECRET", b".".join([stamp, ident, craft.json_body]), "sha256")
    head = [(b"X-Acme-Signature", b"v1=" + made), (b"X-Acme-Timestamp", stamp), *fields]
    return craft.request(b"/webhooks/acme", head, craft.json_body)


def test_a_scheme_of_ones_own_with_a_signed_header_works(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(acme(craft, [(b"X-Acme-Id", b"evt-1")])).status == 200
    assert receiver.requests[0].values(b"X-Webhook-Verified") == [b"webhooks-acme"]


def test_a_signed_header_that_was_changed_is_refused(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = acme(craft, [(b"X-Acme-Id", b"evt-2")])
    sidecar.refused(raw, 403, "signature_mismatch", route="webhooks-acme", receiver=receiver)


@pytest.mark.parametrize("count", [0, 2])
def test_a_signed_header_must_appear_exactly_once(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], count: int
) -> None:
    raw = acme(craft, [(b"X-Acme-Id", b"evt-1")] * count)
    sidecar.refused(raw, 403, "signature_malformed", route="webhooks-acme", receiver=receiver)


def test_milliseconds_are_not_seconds(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = acme(craft, [(b"X-Acme-Id", b"evt-1")], stamp=b"%d" % time.time())
    sidecar.refused(raw, 403, "timestamp_too_old", route="webhooks-acme", receiver=receiver)
