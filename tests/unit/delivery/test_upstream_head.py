"""The head that the receiver gets: what is kept, what is removed, what is added."""

import tracemalloc

import pytest

from sidecar.config.presets import load_preset
from sidecar.delivery.upstream_head import HeaderFilter, filtered_head, forwarding_lines, unchanged_head, verified_lines
from sidecar.http1.head import make_head
from sidecar.routing.client_ip import Client
from sidecar.verify.scheme import Scheme, SignatureField

Headers = list[tuple[bytes, bytes]]


def forwarded(
    headers: Headers,
    *,
    method: str = "POST",
    target: bytes = b"/hooks",
    body_size: int = 0,
    forwarding: bytes = b"",
    proof: bytes = b"",
    scheme: Scheme | None = None,
    trusted_peer: bool = False,
) -> list[bytes]:
    """The lines of the forwarded head."""
    head = make_head(method, target, headers, "192.0.2.1")
    read = frozenset(scheme.headers if scheme is not None else ())
    added, rules = forwarding + proof, HeaderFilter(read=read, trusted_peer=trusted_peer)
    whole = unchanged_head(head, body_size, added) or filtered_head(head, body_size, added, rules)
    assert whole.endswith(b"\r\n\r\n")
    return whole[:-4].split(b"\r\n")


def kept(headers: Headers, *, scheme: Scheme | None = None, trusted_peer: bool = False) -> Headers:
    """What is left of `headers`; of a GET, so that no Content-Length is added."""
    lines = forwarded(headers, method="GET", scheme=scheme, trusted_peer=trusted_peer)[1:]
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


def test_order_duplicates_spelling_and_values_are_kept() -> None:
    sent = [
        (b"hOST", b"hooks.example.com"),
        (b"X-B", b"1"),
        (b"Accept", b"a, b;q=0.5"),
        (b"x-b", b""),
        (b"X-B", b"\xff\t'\"\\"),
        (b"X_Underscore", b"4"),
        (b"Cookie", b"a=b"),
        (b"Content-Type", b"application/json"),
        (b"Content-Encoding", b"gzip"),
        (b"X-Hub-Signature-256", b"sha256=00"),
    ]
    assert kept(sent) == sent


@pytest.mark.parametrize("headers", [[], [(b"Connection", b"close")], [(b"X-Forwarded-For", b"6.6.6.6")]])
def test_no_blank_line_comes_before_ours_when_no_header_of_the_sender_is_left(headers: Headers) -> None:
    """An HTTP/1.0 request may have none; after a blank line ours would be the next request's."""
    lines = forwarded(headers, method="GET", forwarding=b"X-Forwarded-For: 192.0.2.1\r\n")
    assert lines == [b"GET /hooks HTTP/1.1", b"X-Forwarded-For: 192.0.2.1"]


@pytest.mark.parametrize("target", [b"/", b"/a%2Fb/../c?x=%20&y", b"//a;b"])
def test_method_and_target_are_forwarded_as_they_came(target: bytes) -> None:
    assert forwarded([], method="PURGE", target=target)[0] == b"PURGE " + target + b" HTTP/1.1"


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Webhook-Verified", "X-Webhook-Secret-Id"]
)
@pytest.mark.parametrize("trusted_peer", [False, True])
def test_our_own_names_are_removed_in_every_spelling_and_as_aliases(name: str, trusted_peer: bool) -> None:
    spellings = {name, name.lower(), name.upper(), name.replace("-", "_"), name.upper().replace("-", "_")}
    spellings |= {name.replace("-", "_", 1), name[::-1].replace("-", "_", 1)[::-1]}
    spellings |= {name.replace("-", character) for character in "!#$%&'*+.^_`|~"}
    sent = [(spelling.encode(), b"forged") for spelling in sorted(spellings)]
    assert kept([*sent, (b"X-Kept", b"1"), *sent], trusted_peer=trusted_peer) == [(b"X-Kept", b"1")]


@pytest.mark.parametrize(
    "name", [b"Forwarded", b"X-Webhook-Verified-By", b"X.Webhook.Event", b"XForwardedFor", b"X-Forwarded", b"X_Real_IP"]
)
def test_names_that_only_resemble_ours_are_the_senders(name: bytes) -> None:
    assert kept([(name, b"1")]) == [(name, b"1")]


@pytest.mark.parametrize("name", [b"X-Forwarded-Port", b"x-forwarded-user", b"X-FORWARDED-For-Real", b"X-Forwarded-"])
def test_other_x_forwarded_fields_are_kept_of_trusted_proxies_only(name: bytes) -> None:
    assert kept([(name, b"1")]) == []
    assert kept([(name, b"1")], trusted_peer=True) == [(name, b"1")]
    alias = name.replace(b"-", b".", 1)
    assert kept([(alias, b"1")], trusted_peer=True) == kept([(alias, b"1")]) == []


@pytest.mark.parametrize(
    ("preset", "field", "alias"),
    [
        ("standard-webhooks", b"Webhook-Id", b"webhook~id"),
        ("github", b"X-GitHub-Delivery", b"X_GitHub-Delivery"),
        ("docusign", b"X-DocuSign-Signature-2", b"X.DocuSign.Signature.2"),
    ],
)
def test_aliases_of_what_the_scheme_reads_are_removed(preset: str, field: bytes, alias: bytes) -> None:
    headers = [(alias, b"forged"), (field, b"1"), (b"X_Other", b"2"), (alias.upper(), b"forged")]
    assert kept(headers, scheme=load_preset(preset)) == [(field, b"1"), (b"X_Other", b"2")]
    assert kept(headers) == headers


def test_a_header_with_other_characters_that_the_scheme_reads_is_kept() -> None:
    scheme = Scheme(signature=SignatureField(header="X_Sig.Nature"))
    headers = [(b"x_sig.nature", b"1"), (b"X-Sig-Nature", b"kept: no receiver folds it"), (b"X_Sig_Nature", b"forged")]
    assert kept(headers, scheme=scheme) == headers[:2]


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "Expect",
        "Content-Length",
        "Transfer_Encoding",
        "Keep_Alive",
    ],
)
def test_hop_by_hop_fields_and_the_framing_are_removed(name: str) -> None:
    assert kept([(name.encode(), b"x"), (b"X-Kept", b"1")]) == [(b"X-Kept", b"1")]


def test_connection_removes_hop_by_hop_fields_only() -> None:
    """Others may come from a proxy in front of us: a sender must not remove the name in its client certificate."""
    others = [(b"X-Client-DN", b"CN=a"), (b"X-One", b"1")]
    sent = [
        (b"Connection", b"close, X-Client-DN ,\tx-one, keep-alive"),
        (b"connection", b"X-ONE,,"),
        (b"Keep-Alive", b"5"),
    ]
    assert kept([*sent, *others]) == others


def test_connection_can_not_take_away_what_the_message_needs() -> None:
    sent = [(b"Host", b"a"), (b"Content-Type", b"text/plain")]
    assert kept([(b"Connection", b"host, content-type, Host"), *sent]) == sent
    assert b"Content-Length: 3" in forwarded(
        [(b"Connection", b"content-length"), (b"Content-Length", b"3")], body_size=3
    )


def test_connection_can_not_take_away_what_we_add() -> None:
    lines = forwarded(
        [(b"Connection", b"x-webhook-verified, x-forwarded-for")],
        forwarding=b"X-Forwarded-For: 192.0.2.1\r\n",
        proof=verified_lines("acme", "current"),
    )
    assert lines[2:] == [b"X-Forwarded-For: 192.0.2.1", b"X-Webhook-Verified: acme", b"X-Webhook-Secret-Id: current"]


@pytest.mark.parametrize(
    ("method", "size", "expected"),
    [
        ("POST", 5, [b"Content-Length: 5"]),
        ("POST", 0, [b"Content-Length: 0"]),
        ("PUT", 0, [b"Content-Length: 0"]),
        ("PATCH", 0, [b"Content-Length: 0"]),
        ("DELETE", 5, [b"Content-Length: 5"]),
        ("DELETE", 0, []),
        ("GET", 0, []),
        ("HEAD", 0, []),
    ],
)
def test_content_length_is_written_once_and_is_that_of_the_body_that_was_read(
    method: str, size: int, expected: list[bytes]
) -> None:
    for framing in (
        [(b"Content-Length", b"99")],
        [(b"Transfer-Encoding", b"chunked")],
        [(b"Content-Length", b"099")],
        [],
    ):
        lines = forwarded([(b"Host", b"a"), *framing], method=method, body_size=size)
        assert [line for line in lines[1:] if line != b"Host: a"] == expected


def test_what_the_sender_forged_is_gone_before_ours_is_added() -> None:
    lines = forwarded(
        [(b"X-Webhook-Verified", b"forged"), (b"X_Webhook_Secret_Id", b"forged"), (b"X-Forwarded-For", b"6.6.6.6")],
        forwarding=b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n",
        proof=verified_lines("acme", "current"),
    )
    assert lines == [
        b"POST /hooks HTTP/1.1",
        b"Content-Length: 0",
        b"X-Forwarded-For: 192.0.2.1",
        b"X-Forwarded-Proto: https",
        b"X-Webhook-Verified: acme",
        b"X-Webhook-Secret-Id: current",
    ]


def lines_for(peer: str | None, headers: Headers, *, trusted_peer: bool) -> bytes:
    return forwarding_lines(make_head("POST", b"/", headers, peer), Client(None, "", trusted_peer))


@pytest.mark.parametrize(
    ("peer", "hops", "line"),
    [
        ("192.0.2.1", [], b"X-Forwarded-For: 192.0.2.1\r\n"),
        ("192.0.2.1", [b"203.0.113.9"], b"X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n"),
        ("2001:db8::1", [b"a, b", b"c"], b"X-Forwarded-For: a, b, c, 2001:db8::1\r\n"),
        (None, [b"203.0.113.9"], b"X-Forwarded-For: 203.0.113.9\r\n"),
        (None, [], b""),
    ],
)
def test_a_trusted_proxys_address_is_appended_to_its_hops(peer: str | None, hops: list[bytes], line: bytes) -> None:
    headers = [(b"X-Forwarded-For", hop) for hop in hops]
    assert lines_for(peer, headers, trusted_peer=True) == line + b"X-Forwarded-Proto: http\r\n"


def test_a_trusted_proxys_proto_and_hosts_are_kept_one_line_each() -> None:
    headers = [(b"Host", b"inner"), (b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Host", b"a")]
    headers.append((b"X-Forwarded-Host", b"b"))
    assert lines_for(None, headers, trusted_peer=True) == (
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\nX-Forwarded-Host: b\r\n"
    )


@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8::1", None])
def test_nothing_that_another_peer_says_is_kept(peer: str | None) -> None:
    headers = [(b"X-Forwarded-For", b"6.6.6.6"), (b"X-Forwarded-Proto", b"gopher"), (b"X-Forwarded-Host", b"forged")]
    address = b"X-Forwarded-For: %b\r\n" % peer.encode() if peer else b""
    lines = lines_for(peer, [(b"Host", b"inner"), *headers], trusted_peer=False)
    assert lines == address + b"X-Forwarded-Proto: http\r\nX-Forwarded-Host: inner\r\n"
    assert lines_for(peer, headers, trusted_peer=False) == address + b"X-Forwarded-Proto: http\r\n"


@pytest.mark.parametrize(
    ("verified", "secret_id", "lines"),
    [
        ("acme", "current", b"X-Webhook-Verified: acme\r\nX-Webhook-Secret-Id: current\r\n"),
        ("shadow-rejected", "", b"X-Webhook-Verified: shadow-rejected\r\n"),
        ("", "", b""),
    ],
)
def test_the_proof_names_route_and_secret_or_says_nothing(verified: str, secret_id: str, lines: bytes) -> None:
    assert verified_lines(verified, secret_id) == lines


def test_lines_made_of_what_a_sender_wrote_are_not_kept_in_memory() -> None:
    tracemalloc.start()
    try:
        for number in range(100):
            hostile = [(b"X-Forwarded-For", b"%d" % number + b"x" * 60_000), (b"Host", b"%d" % number + b"y" * 1000)]
            lines_for("10.0.0.1", hostile, trusted_peer=number % 2 == 0)
            forwarded([(b"X-%d" % number + b"n" * 20_000, b""), *hostile])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
