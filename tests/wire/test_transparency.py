"""What the receiver gets is what was sent, byte for byte; only what the contract names is added or taken away."""

import hashlib
import os

import pytest
from craft import Craft
from receiver import Receiver
from sidecar_process import Sidecar

#: Names that the sidecar adds itself.
ADDED = {b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"X-Webhook-Verified", b"X-Webhook-Secret-Id"}


@pytest.mark.parametrize(
    "query",
    [
        b"?a=%2F..&b=%zz&&c",
        b"?",
        b"??",
        b"?a=b?c=d",
        b"?%00",
        b"?x='\"<>|{}^`[]\\",
        b"?/../..//",
        b"?a+b%20c;d",
        b"?" + b"q" * 8000,
    ],
    ids=lambda query: repr(query[:20]),
)
def test_the_target_is_forwarded_with_its_raw_bytes(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], query: bytes
) -> None:
    assert sidecar.ask(craft.begini(path=b"/webhooks/begini" + query)).status == 200
    assert receiver.requests[0].line == b"POST /webhooks/begini" + query + b" HTTP/1.1"


def test_headers_keep_order_duplicates_and_spelling(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    fields = [
        (b"X-First", b"1"),
        (b"x-dup", b"a"),
        (b"Content-Type", b"application/json; charset=utf-8"),
        (b"X-DUP", b"b"),
        (b"x-Dup", b""),
        (b"Cookie", b"a=1; b=2"),
        (b"Cookie", b"c=3"),
        (b"X-odd_name!#$%&'*+.^`|~9", b"odd"),
        (b"Accept-Encoding", b"gzip, br"),
        (b"User-Agent", b"Begini/1.0 (+https://begini.co)"),
        (b"Authorization", b"Bearer of-the-receivers-own"),
        (b"X-Last", b"z"),
    ]
    assert sidecar.ask(craft.begini(headers=fields)).status == 200
    got = receiver.requests[0].headers
    sent = [(b"Host", b"hooks.test"), (b"X-Signature", craft.mac("BEGINI_API_KEY", craft.json_body)), *fields]
    assert [field for field in got if field[0] not in ADDED | {b"Content-Length"}] == sent
    assert receiver.requests[0].values(b"content-length") == [b"%d" % len(craft.json_body)]


def test_values_with_bytes_above_ascii_are_forwarded_as_they_are(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    value = bytes(range(0x80, 0x100)) + b" caf\xc3\xa9 \tx"
    assert sidecar.ask(craft.begini(headers=[(b"X-Obs", value)])).status == 200
    assert receiver.requests[0].values(b"X-Obs") == [value]


def test_a_binary_body_is_forwarded_as_it_is(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    body = bytes(range(256)) * 5 + b"\r\n\r\n0\r\n\r\n" + os.urandom(1000)
    assert sidecar.ask(craft.begini(body, [(b"Content-Encoding", b"gzip")])).status == 200
    assert receiver.requests[0].body == body
    assert receiver.requests[0].values(b"Content-Encoding") == [b"gzip"]


def test_a_body_of_three_mebibytes_is_forwarded_whole(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    body = os.urandom(1 << 16) * 48
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini(body)).status == 200
    assert hashlib.sha256(receiver.requests[0].body).digest() == hashlib.sha256(body).digest()
    assert sidecar.delivery(mark)["request_bytes"] == len(body)
    sidecar.idle()


@pytest.mark.parametrize(("size", "piece"), [(0, 1), (1, 1), (3000, 7), (300_000, 65536)])
def test_a_chunked_body_is_framed_again_with_one_content_length(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], size: int, piece: int
) -> None:
    body = os.urandom(size)
    fields = [(b"X-Signature", craft.mac("BEGINI_API_KEY", body)), (b"Transfer-Encoding", b"chunked")]
    assert sidecar.ask(craft.request(headers=fields) + craft.chunked(body, piece)).status == 200
    seen = receiver.requests[0]
    assert seen.values(b"content-length") == [b"%d" % size]
    assert seen.values(b"transfer-encoding") == []
    assert seen.body == body


def test_chunk_extensions_and_odd_spellings_of_chunked_do_not_reach_the_receiver(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    fields = [(b"X-Signature", craft.mac("BEGINI_API_KEY", b"hello world")), (b"TRANSFER-encoding", b"Chunked")]
    raw = craft.request(headers=fields) + b'5;name="va;lue"\r\nhello\r\n0006\r\n world\r\n0\r\n\r\n'
    assert sidecar.ask(raw).status == 200
    assert receiver.requests[0].body == b"hello world"


def test_every_byte_may_come_alone(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    with sidecar.connect() as client:
        for byte in craft.begini(b'{"a":1}', [(b"X-Other", b"1")]):
            client.send(bytes([byte]))
        assert client.answer().status == 200
    assert receiver.requests[0].body == b'{"a":1}'


def test_expect_100_continue_is_answered_here_and_not_forwarded(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.begini(headers=[(b"Expect", b"100-continue")])
    with sidecar.connect() as client:
        client.send(raw.removesuffix(craft.json_body))
        assert client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = client.send(craft.json_body).answer()
    assert (answer.status, answer.informational) == (200, [])
    assert receiver.requests[0].values(b"Expect") == []


def test_expect_with_the_body_already_there_gets_its_answer(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(craft.begini(headers=[(b"Expect", b"100-continue")])).status == 200


def test_a_body_too_large_is_refused_instead_of_asked_for(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    signature = (b"X-Signature", b"0" * 128)
    raw = craft.request(b"/webhooks/small", [signature, (b"Expect", b"100-continue"), (b"Content-Length", b"1001")])
    answer = sidecar.refused(raw, 413, "body_too_large", route="small", receiver=receiver)
    assert answer.informational == []


def test_a_sender_of_http_1_0_is_served(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    with sidecar.connect() as client:
        answer = client.send(craft.begini(version=b"HTTP/1.0", host=None)).answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert client.rest() == b""
    assert receiver.requests[0].line == b"POST /webhooks/begini HTTP/1.1"


def test_the_receiver_always_gets_a_host(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    assert sidecar.ask(craft.begini(version=b"HTTP/1.0", host=None)).status == 200
    assert len(receiver.requests[0].values(b"Host")) == 1  # RFC 9112, 3.2: an HTTP/1.1 request without it is a 400


def test_hop_by_hop_headers_are_not_forwarded(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    dropped = [
        (b"Connection", b"keep-alive, X-Named, x-other"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"Proxy-Authorization", b"Basic eA=="),
        (b"TE", b"trailers"),
        (b"Upgrade", b"h2c"),
        (b"HTTP2-Settings", b"AAMAAABk"),
    ]
    stay = [(b"X-Named", b"1"), (b"X-OTHER", b"2")]  # a proxy in front may have added what the sender named
    assert sidecar.ask(craft.begini(headers=[stay[0], *dropped, stay[1]])).status == 200
    seen = receiver.requests[0]
    assert [field for field in seen.headers if field in stay] == stay
    lower = {name.lower() for name in seen.names}
    assert not lower & {name.lower() for name, _ in dropped}


def test_a_connection_option_cannot_take_away_what_the_message_needs(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    options = b"close, Host, Content-Length, Content-Type, X-Webhook-Verified, X-Forwarded-For, X-Signature"
    fields = [(b"Content-Type", b"application/json"), (b"Connection", options)]
    assert sidecar.ask(craft.begini(headers=fields)).status == 200
    seen = receiver.requests[0]
    assert seen.values(b"Host") == [b"hooks.test"]
    assert seen.values(b"Content-Type") == [b"application/json"]
    assert seen.values(b"X-Signature") == [craft.mac("BEGINI_API_KEY", craft.json_body)]
    assert seen.values(b"X-Webhook-Verified") == [b"begini"]
    assert seen.values(b"X-Forwarded-For") == [b"127.0.0.1"]
    assert seen.body == craft.json_body


def test_hop_by_hop_headers_of_the_answer_are_removed(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    receiver.then(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Named\r\nKeep-Alive: timeout=5\r\nX-Named: 1\r\nX-Stays: 2\r\n"
        b"Proxy-Authenticate: Basic\r\nTrailer: X\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok"
    )
    answer = sidecar.ask(craft.begini())
    assert [(name.lower(), value) for name, value in answer.headers] == [(b"x-stays", b"2"), (b"content-length", b"2")]


@pytest.mark.parametrize(
    "name",
    [
        b"X-Webhook-Verified",
        b"x-webhook-verified",
        b"X_Webhook_Verified",
        b"X-Webhook_Verified",
        b"X-Webhook-Secret-Id",
        b"X_WEBHOOK_SECRET_ID",
        b"X.Webhook.Verified",
        b"x'webhook`secret|id",
    ],
)
def test_our_own_names_cannot_be_forged(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: bytes) -> None:
    assert sidecar.ask(craft.begini(headers=[(name, b"forged"), (name, b"again")])).status == 200
    seen = receiver.requests[0]
    assert b"forged" not in seen.head
    assert seen.values(b"X-Webhook-Verified") == [b"begini"]
    assert seen.values(b"X-Webhook-Secret-Id") == [b"current"]


def test_only_a_trusted_proxy_may_send_x_forwarded_fields(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.begini(headers=[(b"X-Forwarded-Prefix", b"/admin"), (b"x-forwarded-user", b"root")])
    assert sidecar.ask(raw).status == 200
    assert sidecar.ask(raw, source="127.0.0.9").status == 200
    assert [b"root" in seen.head for seen in receiver.requests] == [False, True]
    assert receiver.requests[1].values(b"X-Forwarded-Prefix") == [b"/admin"]


def test_on_an_open_route_our_own_names_are_removed_and_not_added(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.request(
        b"/healthz", [(b"X-Webhook-Verified", b"begini"), (b"x_webhook_secret_id", b"current")], method=b"GET"
    )
    assert sidecar.ask(raw, method="GET").status == 200
    assert b"webhook" not in receiver.requests[0].head.lower()


def test_forwarded_fields_of_an_untrusted_peer_are_replaced(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    forged = [
        (b"X-Forwarded-For", b"192.0.2.66"),
        (b"x-forwarded-for", b"192.0.2.67"),
        (b"X_Forwarded_For", b"192.0.2.68"),
        (b"X-Forwarded-Proto", b"https-forged"),
        (b"X-Forwarded-Host", b"forged.example"),
        (b"X_FORWARDED_HOST", b"forged.example"),
    ]
    assert sidecar.ask(craft.begini(headers=forged)).status == 200
    seen = receiver.requests[0]
    assert b"192.0.2" not in seen.head
    assert b"forged" not in seen.head
    assert seen.values(b"X-Forwarded-For") == [b"127.0.0.1"]
    assert seen.values(b"X-Forwarded-Proto") == [b"http"]
    assert seen.values(b"X-Forwarded-Host") == [b"hooks.test"]


def test_forwarded_fields_of_the_trusted_proxy_are_kept_and_the_client_appended(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    fields = [
        (b"X-Forwarded-For", b"192.0.2.1, 192.0.2.2"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"public.example"),
    ]
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini(headers=fields), source=craft.trusted).status == 200
    seen = receiver.requests[0]
    assert seen.values(b"X-Forwarded-For") == [b"192.0.2.1, 192.0.2.2, 127.0.0.9"]
    assert seen.values(b"X-Forwarded-Proto") == [b"https"]
    assert seen.values(b"X-Forwarded-Host") == [b"public.example"]
    line = sidecar.delivery(mark)
    assert (line["client"], line["peer"]) == ("192.0.2.2", "127.0.0.9")


def test_what_the_trusted_proxy_leaves_out_is_added(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    assert sidecar.ask(craft.begini(headers=[(b"X-Forwarded-For", b"192.0.2.1")]), source=craft.trusted).status == 200
    seen = receiver.requests[0]
    assert seen.values(b"X-Forwarded-Proto") == [b"http"]
    assert seen.values(b"X-Forwarded-Host") == [b"hooks.test"]


def test_a_receiver_behind_tls_gets_the_same_bytes(
    sidecar: Sidecar, receiver: Receiver, receivers: dict[str, Receiver], craft: type[Craft]
) -> None:
    body = os.urandom(200_000)
    assert sidecar.ask(craft.begini(body, path=b"/webhooks/tls?x=%2F")).status == 200
    seen = receivers["tls"].requests[0]
    assert seen.line == b"POST /webhooks/tls?x=%2F HTTP/1.1"
    assert seen.values(b"Host") == [b"hooks.test"]
    assert seen.body == body
    assert not receiver.requests


def test_a_receiver_on_a_unix_socket_gets_the_same_bytes(
    sidecar: Sidecar, receiver: Receiver, receivers: dict[str, Receiver], craft: type[Craft]
) -> None:
    body = os.urandom(200_000)
    assert sidecar.ask(craft.begini(body, path=b"/webhooks/socket?")).status == 200
    seen = receivers["socket"].requests[0]
    assert seen.line == b"POST /webhooks/socket? HTTP/1.1"
    assert seen.body == body
    assert not receiver.requests


def test_another_method_is_forwarded_as_it_is(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = craft.begini(path=b"/hooks/a", method=b"PUT")
    assert sidecar.ask(raw).status == 200
    assert receiver.requests[0].line == b"PUT /hooks/a HTTP/1.1"
