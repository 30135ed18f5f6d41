"""Hostile requests by class, and what a careful proxy does with each.

`refused`: an answer of one of the statuses, nothing at the receiver, and the connection closes unless the whole request was
understood. `forwarded`: the receiver sees it once, verified, with the body and target given. Where a form is legal but odd and
either would be safe, the case says what this program does, and docs/security.md says why.

The sources of the forms are RFC 9112 and 9110, and the advisories and desync research collected in docs/security.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hostile_wire import mac

BODY = b'{"event":"payment.settled","mark":"CANARY-BODY-hostile"}'
SIGNATURE = (b"X-Signature", mac(BODY))
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: hooks.test\r\n\r\n"
#: What a malformed request may be answered. 501 and 505 would be right too; this program always says 400.
MALFORMED = frozenset({400})
LARGE = frozenset({413, 414, 431})
#: Verification refuses with one status, whatever was wrong.
UNVERIFIED = frozenset({403})
NO_ROUTE = frozenset({404})
METHOD = frozenset({400, 405})

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Case:
    name: str
    raw: bytes
    statuses: frozenset[int]  #: of the first answer
    forwarded: int = 0  #: requests that the receiver sees
    body: bytes | None = None  #: of the first of them
    target: bytes | None = None
    present: Fields = field(default_factory=list)  #: fields it must have
    absent: tuple[bytes, ...] = ()  #: names that it must not
    half_close: bool = False
    stays_open: bool = False  #: the connection may go on


def request(
    fields: Fields | None = None,
    body: bytes = BODY,
    *,
    line: bytes = b"POST /webhooks/begini HTTP/1.1",
    host: tuple[bytes, ...] = (b"hooks.test",),
    signature: Fields | None = None,
    framed: bool = True,
) -> bytes:
    """A delivery of Begini's, valid but for what is asked for."""
    lines = [line, *(b"Host: " + value for value in host)]
    signed = [(b"X-Signature", mac(body))] if signature is None else signature
    lines += [b"%b: %b" % pair for pair in [*signed, *(fields or [])]]
    if framed:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def with_lines(*lines: bytes, body: bytes = BODY, framed: bool = False) -> bytes:
    """A delivery with these lines among its fields, exactly as they are written."""
    raw = request(body=body, framed=framed)
    return raw.replace(b"Host: hooks.test\r\n", b"Host: hooks.test\r\n" + b"".join(each + b"\r\n" for each in lines), 1)


def chunks(data: bytes = BODY, size: int = 16) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def chunked(framing: bytes, data: bytes = BODY, fields: Fields | None = None) -> bytes:
    head = request([*(fields or []), (b"Transfer-Encoding", b"chunked")], data, framed=False)
    return head[: len(head) - len(data)] + framing


def shown(data: bytes) -> str:
    return data[:40].decode("latin-1").encode("unicode_escape").decode()


def length_and_coding() -> Iterator[Case]:
    """Any framing but exactly one."""
    length = b"Content-Length: %d" % len(BODY)
    codings = [
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: Chunked",
        b"transfer-encoding:chunked",
        b"TRANSFER-ENCODING: CHUNKED",
        b"Transfer-Encoding:\tchunked",
    ]
    for coding in codings:
        yield Case(
            f"coding alone {shown(coding)}",
            with_lines(coding, body=b"").replace(mac(b""), mac(BODY)) + chunks(),
            frozenset({200}),
            1,
            BODY,
        )
        for order in ((coding, length), (length, coding)):
            for body in (BODY, chunks(), b"0\r\n\r\n" + HIDDEN):
                yield Case(
                    f"both, {shown(coding)}, {order.index(coding)}, {len(body)}",
                    with_lines(*order, body=body),
                    MALFORMED,
                )
    for value in (
        b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b",chunked", b"chunked,", b"chunked;q=1",
        b'"chunked"', b"chunked\x00", b"\x0bchunked", b"\x0cchunked", b"chunked\x0b", b"xchunked", b"chunkedx", b"chunke", b"",
        b"chunk\xc3\xa9d", b"\xef\xbb\xbfchunked", b"c\thunked", b"chun\tked", b"deflate", b"cow", b"chunked identity",
        b"\xa0chunked", b"\x85chunked", b"'chunked'", b"chunked#", b"\xe2\x80\x8bchunked", b"identity, chunked",
    ):  # fmt: skip
        coding = b"Transfer-Encoding: " + value
        yield Case(f"coding {shown(value)}", with_lines(coding, body=chunks()), MALFORMED)
        yield Case(f"coding {shown(value)} and a length", with_lines(coding, length), MALFORMED)
    for line in (
        b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b" Transfer-Encoding: chunked", b"Transfer-Encoding\x00: chunked",
        b"Transfer-Encoding\xa0: chunked", b"Transfer\x2dEncoding\x0b: chunked", b"X: y\nTransfer-Encoding: chunked",
        b"X: y\rTransfer-Encoding: chunked", b"X: y\r\n Transfer-Encoding: chunked", b"Transfer-Encoding: \r\n chunked",
        b"Transfer-Encoding:\n chunked", b"Transfer-Encoding", b"\x0bTransfer-Encoding: chunked", b"Transfer Encoding: chunked",
        b"\xef\xbb\xbfTransfer-Encoding: chunked", b"Transfer-\xc4\xb0ncoding: chunked", b"(Transfer-Encoding): chunked",
        b"Content-Length : 3", b"Content-Length\t: 3", b"X: y\nContent-Length: 3", b"X: y\rContent-Length: 3", b"Content-Length:\r\n 3",
        b"Content\\-Length: 3", b"Content Length: 3", b"Content-Length", b"Content-Length:",
    ):  # fmt: skip
        yield Case(f"line {shown(line)}", with_lines(line, framed=True), MALFORMED)
    for first, second in (("chunked", "chunked"), ("chunked", "identity"), ("identity", "chunked"), ("chunked", "x")):
        pair = [b"Transfer-Encoding: " + value.encode() for value in (first, second)]
        yield Case(f"coding twice {first} {second}", with_lines(*pair, body=chunks()), MALFORMED)
    for alias in (
        b"Content_Length: 3", b"content_length: 3", b"CONTENT_LENGTH: 3", b"Transfer_Encoding: chunked", b"transfer_encoding: chunked",
        b"_Content_Length: 3", b"Content_Length_: 3", b"_Transfer-Encoding: chunked", b"Transfer-Encoding_: chunked", b"__Content-Length__: 3",
    ):  # fmt: skip
        yield Case(f"alias {shown(alias)}", with_lines(alias, framed=True), MALFORMED)
        yield Case(f"alias {shown(alias)} alone", with_lines(alias), MALFORMED)
    for value in (
        b"%d, %d", b"%d,%d", b"%d;%d", b"%d %d", b"%d\t%d", b"%d.%d"
    ):  # fmt: skip
        yield Case(
            f"length {shown(value)}", with_lines(b"Content-Length: " + value % (len(BODY), len(BODY))), MALFORMED
        )
    for value in (
        b"+%d", b"-%d", b"0x%x", b"%d.0", b"%de0", b"%d\x00", b"\xb2%d", b"%d\xb2", b"'%d'", b'"%d"', b"%d_0", b"_%d", b"%dL", b"%d\x0b",
        b"\x0b%d", b"\xa0%d", b"%d\xa0", b"99999999999999999999%d", b"18446744073709551616%d", b"-0%d", b"%d#", b"%d;", b"%d,", b",%d",
        b"\xd9\xa5%d", b"%d\r", b"1%%%d", b"NaN%d", b"0b1%d", b"0o%d", b"\xef\xbc\x95%d",
    ):  # fmt: skip
        yield Case(f"length {shown(value)}", with_lines(b"Content-Length: " + value % len(BODY)), MALFORMED)
    for other in (b"0", b"0%d" % len(BODY), b"%d" % (len(BODY) + 1), b"", b"x"):
        for order in ((length, b"Content-Length: " + other), (b"Content-Length: " + other, length)):
            yield Case(f"length twice {shown(order[0])} {shown(order[1])}", with_lines(*order), MALFORMED)
    yield Case("no framing at all is an empty body", request(body=b"", framed=False), frozenset({200}), 1, b"")
    yield Case("no framing, bytes follow", request(body=b"", framed=False) + HIDDEN, frozenset({200}), 1, b"")
    yield Case(
        "length with zeros in front", with_lines(b"Content-Length: 000%d" % len(BODY)), frozenset({200}), 1, BODY
    )
    yield Case("coding in HTTP/1.0", chunked(chunks()).replace(b"HTTP/1.1", b"HTTP/1.0", 1), MALFORMED)
    for name in (
        b"Transfer-Encoding%20",
        b"Transfer-Encodin",
        b"X-Transfer-Encoding",
        b"Transfer-Encoding2",
        b"TE",
        b"X-Content-Length",
    ):
        yield Case(
            f"another name {shown(name)}", with_lines(name + b": chunked", framed=True), frozenset({200}), 1, BODY
        )


def chunk_syntax() -> Iterator[Case]:
    """Chunks that two parsers could cut differently, and trailers."""
    size = b"%x" % len(BODY)
    good = size + b"\r\n" + BODY + b"\r\n0\r\n\r\n"
    for name, framing in {
        "one": good, "many": chunks(size=1), "upper case": good.replace(size, size.upper()), "zeros in front": b"0000" + good,
        "extension": size + b";a=b\r\n" + BODY + b"\r\n0\r\n\r\n", "quoted extension": size + b';a="b;c"\r\n' + BODY + b"\r\n0;x\r\n\r\n",
        "zeros for the last": size + b"\r\n" + BODY + b"\r\n000\r\n\r\n",
    }.items():  # fmt: skip
        yield Case(f"chunks {name}", chunked(framing), frozenset({200}), 1, BODY)
        yield Case(f"chunks {name}, a request behind", chunked(framing) + request(), frozenset({200}), 2, BODY)
    for bad in (
        b"0x" + size, b"+" + size, b"-" + size, b"_" + size, size + b"_", b" " + size, size + b" ", size + b"\t", b"\t" + size, b"", b"x", b"g",
        size + b"\x00", b"\x00" + size, size + b".", size + b",", b"\xef\xbc\x95", b"fffffffffffffffff", b"10000000000000000" + size,
        b"-1", b"1e1z", size + b"\n;x", size + b";a\rb", size + b";a\nb", size + b" ;a=b", b"0" * 4 + b" " + size, size + b"\r", size + b"\x0b",
        size + b"\xa0", b"'" + size + b"'", size + b"h", b"#" + size, size + b"#", b"\\x" + size,
    ):  # fmt: skip
        yield Case(f"chunk size {shown(bad)}", chunked(bad + b"\r\n" + BODY + b"\r\n0\r\n\r\n"), MALFORMED)
    for name, framing in {
        "bare LF behind the size": size + b"\n" + BODY + b"\r\n0\r\n\r\n", "bare LF everywhere": size + b"\n" + BODY + b"\n0\n\n",
        "bare CR behind the size": size + b"\r" + BODY + b"\r\n0\r\n\r\n", "no end of chunk": size + b"\r\n" + BODY + b"0\r\n\r\n",
        "LF for the end of chunk": size + b"\r\n" + BODY + b"\n0\r\n\r\n", "another end of chunk": size + b"\r\n" + BODY + b"XX0\r\n\r\n",
        "size too small": b"3\r\n" + BODY + b"\r\n0\r\n\r\n", "LF for the last": size + b"\r\n" + BODY + b"\r\n0\n\n",
        "CR for the last": size + b"\r\n" + BODY + b"\r\n0\r\r", "letters behind the last": size + b"\r\n" + BODY + b"\r\n0\r\nXY",
        "two CR": size + b"\r\r\n" + BODY + b"\r\n0\r\n\r\n",
    }.items():  # fmt: skip
        yield Case(f"chunks {name}", chunked(framing), frozenset({400, 408}))
    for trailer in (
        b"X-Signature: " + mac(BODY), b"X-Forwarded-For: 203.0.113.9", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Host: other",
        b"X: y", b"X-Webhook-Verified: begini", b": x", b"no colon", b"X : y", b" X: y", b"X: a\x00b", b"X: " + b"y" * 20_000,
    ):  # fmt: skip
        framing = good[:-2] + trailer + b"\r\n\r\n"
        yield Case(f"trailer {shown(trailer)}", chunked(framing), MALFORMED)
        yield Case(f"trailer {shown(trailer)}, unsigned", request(signature=[], fields=[(b"Transfer-Encoding", b"chunked")], body=b"",
                   framed=False) + framing, MALFORMED | UNVERIFIED)  # fmt: skip
    yield Case(
        "an extension of 20 kB", chunked(size + b";" + b"x" * 20_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"), MALFORMED
    )
    yield Case(
        "extensions larger than the body",
        chunked(b"".join(b"1;%b\r\n%c\r\n" % (b"e" * 900, byte) for byte in BODY) + b"0\r\n\r\n"),
        MALFORMED,
    )
    yield Case("more than the limit in chunks", chunked(chunks(bytes(1 << 20) + b"x", 65536)), LARGE, stays_open=True)
    yield Case("a chunk larger than the limit", chunked(b"7fffffff\r\n" + bytes(2000)), LARGE | {408})
    yield Case("half a chunk", chunked(size + b"\r\n" + BODY[:9]), frozenset({408}))
    yield Case("no last chunk", chunked(good[:-5]), frozenset({408}))
    yield Case("half a chunk, then the end", chunked(size + b"\r\n" + BODY[:9]), frozenset({0, 400}), half_close=True)


def targets() -> Iterator[Case]:
    """Every spelling of a path that a looser reader takes for the route's."""
    for path in (
        b"/webhooks/begini/", b"//webhooks/begini", b"/webhooks//begini", b"/./webhooks/begini", b"/webhooks/./begini", b"/x/../webhooks/begini",
        b"/webhooks/x/../begini", b"/webhooks/begini/.", b"/webhooks/begini/..", b"/webhooks/begini/../begini", b"/webhooks%2fbegini", b"/webhooks%2Fbegini",
        b"/%77ebhooks/begini", b"/webhooks/beg%69ni", b"/webhooks/begini%00", b"/webhooks/begini%20", b"/webhooks/begini%0d%0a", b"/webhooks/begini;",
        b"/webhooks/begini;a=b", b"/webhooks;/begini", b"/webhooks/begini,", b"/WEBHOOKS/begini", b"/webhooks/Begini", b"/webhooks/begini.json", b"/webhooks/beginix",
        b"/webhooks/begin", b"/webhooks\\begini", b"\\webhooks\\begini", b"/webhooks/begini\\", b"/webhooks/%2e%2e/webhooks/begini", b"/webhooks/..;/webhooks/begini",
        b"/webhooks/begini%", b"/webhooks/begini%zz", b"/webhooks/begini%23", b"/webhooks/begini%3f", b"/webhooks/begini&", b"/", b"/livez", b"/metrics", b"/-/reload",
        b"/-/config", b"/readyz", b"/v1/webhooks-management/test", b"//hooks.test/webhooks/begini", b"/webhooks/begini~", b"/webhooks/begini'", b'/webhooks/begini"',
        b"/http://hooks.test/webhooks/begini", b"/webhooks/begini|", b"/webhooks/begini{}", b"/webhooks/begini^", b"/webhooks/begini`", b"/webhooks/begini<>",
    ):  # fmt: skip
        yield Case(
            f"path {shown(path)}", request(line=b"POST " + path + b" HTTP/1.1"), NO_ROUTE | MALFORMED, stays_open=True
        )
    for target in (
        b"/webhooks/begini#", b"/webhooks/begini#x", b"/webhooks/begini?a#x", b"/x#/../webhooks/begini", b"/webhooks/begini#/../x", b"#/webhooks/begini",
        b"http://hooks.test/webhooks/begini", b"https://hooks.test/webhooks/begini", b"http://evil.test/webhooks/begini", b"http://u:p@hooks.test/webhooks/begini",
        b"HTTP://hooks.test/webhooks/begini", b"file:///webhooks/begini", b"gopher://x/", b"hooks.test:80", b"hooks.test", b"*", b"webhooks/begini", b"",
        b"/webhooks/begini\xc3\xa9", b"/webhooks/begini\xff", b"/webhooks/begini\x7f", b"/webhooks/begini\x01", b"/webhooks/begini\x00", b"/webhooks/begini\x0b",
        b"/webhooks/begini\t", b"/webhooks/begini x", b"/webhooks/begini?a b", b"/webhooks/begini\r", b"/webhooks/begini\n", b"?/webhooks/begini", b"http:/webhooks/begini",
    ):  # fmt: skip
        yield Case(f"target {shown(target)}", request(line=b"POST " + target + b" HTTP/1.1"), MALFORMED)
    for query in (
        b"?",
        b"?a=b",
        b"?a=b&a=c",
        b"?%00",
        b"??",
        b"?/../x",
        b"?a=http://x/",
        b"?'\"<>\\^`{|}",
        b"?" + b"a=b&" * 900,
    ):
        target = b"/webhooks/begini" + query
        yield Case(
            f"query {shown(query)}", request(line=b"POST " + target + b" HTTP/1.1"), frozenset({200}), 1, BODY, target
        )
    yield Case(
        "a target of 20 kB", request(line=b"POST /webhooks/begini?" + b"q" * 20_000 + b" HTTP/1.1"), frozenset({414})
    )


def methods_and_versions() -> Iterator[Case]:
    for method in (
        b"GET",
        b"HEAD",
        b"PUT",
        b"PATCH",
        b"DELETE",
        b"OPTIONS",
        b"TRACE",
        b"LOCK",
        b"PROPFIND",
        b"PURGE",
        b"SEARCH",
    ):
        yield Case(
            f"method {shown(method)}", request(line=method + b" /webhooks/begini HTTP/1.1"), METHOD, stays_open=True
        )
    for method in (
        b"CONNECT", b"PRI", b"post", b"Post", b"POSTT", b"POS", b"X", b"MMMMMMMMMMMMMMMMMMMM", b"POST\x00", b"\x00POST", b" POST", b"\tPOST", b"P\xc3\x96ST", b"FOO/1", b"",
        b"POST POST", b"SETUP", b"DESCRIBE",
    ):  # fmt: skip
        yield Case(f"method {shown(method)}", request(line=method + b" /webhooks/begini HTTP/1.1"), METHOD)
    for override in (b"X-HTTP-Method-Override", b"X-Method-Override", b"X-HTTP-Method"):
        yield Case(f"override {shown(override)}", request([(override, b"DELETE")]), frozenset({200}), 1, BODY)
        yield Case(
            f"override {shown(override)} on GET",
            request([(override, b"POST")], line=b"GET /webhooks/begini HTTP/1.1"),
            METHOD,
            stays_open=True,
        )
    for version in (
        b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/2", b"HTTP/3.0", b"HTTP/1.", b"HTTP/1", b"HTTP/11", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.01", b"HTTP/-1.1", b"http/1.1",
        b"Http/1.1", b"HTTPS/1.1", b"RTSP/1.0", b"RTSP/1.1", b"ICE/1.0", b"ICE/1.1", b"HTTP /1.1", b"HTTP/ 1.1", b"HTTP/1 .1", b"HTTP/1.1 ", b"HTTP/1.1\t", b" HTTP/1.1", b"\tHTTP/1.1",
        b"HTTP/1.1x", b"HTTP/1.1 HTTP/1.1", b"SIP/2.0", b"HTTP\\1.1", b"HTTP/1,1", b"HTTP/\xef\xbc\x91.1", b"", b"XTTP/1.1", b"HTTP/1.1\x00",
    ):  # fmt: skip
        yield Case(f"version {shown(version)}", request(line=b"POST /webhooks/begini " + version), MALFORMED)
    yield Case("no version", request(line=b"POST /webhooks/begini"), MALFORMED)
    yield Case("HTTP/1.0", request(line=b"POST /webhooks/begini HTTP/1.0"), frozenset({200}), 1, BODY)
    yield Case(
        "HTTP/1.0 without Host", request(line=b"POST /webhooks/begini HTTP/1.0", host=()), frozenset({200}), 1, BODY
    )
    yield Case(
        "HTTP/1.0, kept alive",
        request([(b"Connection", b"keep-alive")], line=b"POST /webhooks/begini HTTP/1.0") + request(),
        frozenset({200}),
        1,
        BODY,
    )
    yield Case("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), MALFORMED)
    for upgrade in (b"websocket", b"h2c", b"HTTP/2.0", b"TLS/1.0", b"x"):
        fields = [(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", upgrade), (b"HTTP2-Settings", b"AAMAAABk")]
        name, gone = f"upgrade {shown(upgrade)}", (b"upgrade", b"http2-settings", b"connection")
        yield Case(name, request(fields), frozenset({200}), 1, BODY, absent=gone)
        yield Case(f"{name} hiding a request", request(fields, HIDDEN), frozenset({200}), 1, HIDDEN, absent=gone)
        yield Case(f"{name} in chunks", chunked(chunks(), fields=fields), frozenset({200}), 1, BODY, absent=gone)
        yield Case(f"{name} and another request", request(fields) + request(), frozenset({200}), 2, BODY)
        yield Case(f"{name} unsigned", request(fields, HIDDEN, signature=[]), UNVERIFIED, stays_open=True)
        yield Case(
            f"upgrade {shown(upgrade)} without Connection",
            request(fields[1:2]),
            frozenset({200}),
            1,
            BODY,
            absent=(b"upgrade",),
        )
    for target in (b"hooks.test:443", b"/webhooks/begini", b"127.0.0.1:22", b""):
        yield Case(f"CONNECT {shown(target)}", request(line=b"CONNECT " + target + b" HTTP/1.1"), MALFORMED)


def header_syntax() -> Iterator[Case]:
    for line in (
        b"X: a\x00b", b"X: a\x01b", b"X: a\x08", b"X: a\x1b[31m", b"X: a\x7f", b"X: a\x0bb", b"X: a\x0cb", b"X\x00: a", b"X y: a", b"X\t: a", b"X : a", b": a", b":", b"X", b"X-\xc3\xa9: a", b"X\xff: a",
        b"X: a\nY: b", b"X: a\rY: b", b"X: a\r\n b", b"X: a\r\n\tb", b" X: a", b"\tX: a", b"X\n: a", b"X(: a", b"X): a", b"X<: a", b"X>: a", b"X@: a", b"X,: a", b"X;: a", b"X\\: a", b'X": a', b"X/: a", b"X[: a",
        b"X]: a", b"X?: a", b"X=: a", b"X{: a", b"X}: a", b"X: a\n", b"X: a\r", b"\x16\x03\x01",
    ):  # fmt: skip
        yield Case(f"line {shown(line)}", with_lines(line, framed=True), MALFORMED)
        yield Case(
            f"first line {shown(line)}", request().replace(b"\r\nHost", b"\r\n" + line + b"\r\nHost", 1), MALFORMED
        )
    for name, value in (
        (b"X-Obs", b"\xe2\x80\xaeabc\xff\x80"), (b"X-Empty", b""), (b"X-Colon", b"a:b:c"), (b"X-Tab", b"a\tb"), (b"!#$%&'*+-.^`|~9", b"x"), (b"User-Agent", b'"}{"level":"error","x":"'),
        (b"Cookie", b"; ".join(b"c%d=v" % n for n in range(1500))), (b"Traceparent", b"00-zz-zz-00"), (b"Proxy", b"http://evil.test:3128"), (b"X-Original-URL", b"/admin"),
        (b"Range", b"bytes=0-" + b",0-" * 500), (b"Content-Encoding", b"gzip"), (b"Max-Forwards", b"0"), (b"Authorization", b"Basic eDp5"), (b"Content-Type", b"multipart/form-data; boundary=" + b"x" * 900),
    ):  # fmt: skip
        yield Case(f"field {shown(name)}", request([(name, value)]), frozenset({200}), 1, BODY, present=[(name, value)])
    twice = [(b"X-Twice", b"one"), (b"x-twice", b"two")]
    yield Case("a field twice", request(twice), frozenset({200}), 1, BODY, present=twice)
    yield Case(
        "blanks around a value",
        with_lines(b"X-Blank: \t a \t ", framed=True),
        frozenset({200}),
        1,
        BODY,
        present=[(b"X-Blank", b"a")],
    )
    yield Case("empty lines in front", b"\r\n\r\n" + request(), frozenset({200}), 1, BODY)
    yield Case("a bare LF in front", b"\n" + request(), frozenset({200, 400}), 1, BODY)
    yield Case("bare LF throughout", request().replace(b"\r\n", b"\n"), MALFORMED)
    yield Case("bare CR throughout", request().replace(b"\r\n", b"\r"), MALFORMED)
    yield Case("a head that ends in LF LF", request().replace(b"\r\n\r\n", b"\n\n", 1), MALFORMED)
    yield Case("a head that ends in CR LF LF", request().replace(b"\r\n\r\n", b"\r\n\n", 1), MALFORMED)
    for what, raw in {
        "one large field": request([(b"X", b"a" * 70_000)]), "a large name": request([(b"X" * 70_000, b"a")]), "many fields": request([(b"X-%d" % n, b"a") for n in range(300)]),
        "blanks": with_lines(b"X:" + b" " * 70_000 + b"a", framed=True), "many signatures": request([SIGNATURE] * 3000), "a large Host": request(host=(b"h" * 70_000,)),
    }.items():  # fmt: skip
        yield Case(f"a head too large: {what}", raw, frozenset({431}))
    for host in ((), (b"hooks.test", b"hooks.test"), (b"hooks.test", b"evil.test"), (b"a b",), (b"u@hooks.test",), (b"hooks.test/x",), (b"hooks.test?x",), (b"hooks.test#x",), (b"[::1",), (b"::1]",), (b"[::1]x",),
                 (b"a,b",), (b"hooks.test,",), (b"hooks.test:x",), (b"hooks.test:123456",), (b"hooks\x80test",), (b"hooks.test\\x",), (b"hooks.test:80:80",), (b"<x>",), (b"a\tb",), (b"http://hooks.test",)):  # fmt: skip
        yield Case(f"hosts {host!r}", request(host=host), MALFORMED)
    for value in (b"", b"hooks.test:", b"hooks.test:8080", b"[::1]", b"[::1]:80", b"HOOKS.test", b"127.1"):
        yield Case(
            f"host {shown(value)}", request(host=(value,)), frozenset({200}), 1, BODY, present=[(b"Host", value)]
        )
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60), b"SSH-2.0-x\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + request(), b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + request(),
                  b"\x00" * 50, b"\xff" * 50, b"EHLO x\r\n", b"*1\r\n$4\r\nPING\r\n", b"{}\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"):  # fmt: skip
        yield Case(f"noise {shown(noise)}", noise, MALFORMED)


def addresses() -> Iterator[Case]:
    """The sender connects from a trusted proxy's address; who counts is the rightmost hop that is not trusted."""
    line = b"POST /webhooks/allowed HTTP/1.1"

    def hops(*values: bytes, name: bytes = b"X-Forwarded-For") -> bytes:
        return request([(name, value) for value in values], line=line)

    values: tuple[bytes, ...]
    for values in ((b"203.0.113.7",), (b"198.51.100.1, 203.0.113.7",), (b"junk, 203.0.113.7",), (b"198.51.100.1", b"203.0.113.7"), (b"203.0.113.7, 127.0.0.5",), (b"203.0.113.7:443",),
                   (b"2001:db8::1",), (b"[2001:db8::1]",), (b"[2001:db8::1]:443",), (b"::ffff:203.0.113.7",), (b" \t203.0.113.7\t ",), (b", 203.0.113.7",), (b"203.0.113.7", b"127.0.0.1, 127.9.9.9")):  # fmt: skip
        yield Case(f"hops {values!r}", hops(*values), frozenset({200}), 1, BODY)
    for values in (
        (), (b"",), (b" ",), (b",",), (b"203.0.113.7,",), (b"203.0.113.7, ",), (b"203.0.113.7, unknown",), (b"203.0.113.7, _hidden",), (b"203.0.113.7, 198.51.100.1",), (b"203.0.113.7", b"198.51.100.1"),
        (b"0203.0.113.7",), (b"0xcb.0.113.7",), (b"203.0.113",), (b"203.113",), (b"3405803783",), (b"203.0.113.7.",), (b"203.0.113.256",), (b"203.0.113.7/32",), (b"203.0.113.7%eth0",), (b"2001:db8::1%1",),
        (b"203.0.113.07",), (b"203.0.0113.7",), (b"2001:db8::1]",), (b"[203.0.113.7]",), (b"[2001:db8::1",), (b"2001:db8:::1",), (b"203.0.113.7:",), (b"203.0.113.7:x",), (b"203.0.113.7:123456",), (b"203.0.113.7 x",),
        (b"203.0.113.7\xa0",), (b"\xd9\xa2\xd9\xa0\xd9\xa3.0.113.7",), (b'"203.0.113.7"',), (b"for=203.0.113.7",), (b"::203.0.113.7",), (b"64:ff9b::203.0.113.7",), (b"2002:cb00:7107::",), (b"localhost",), (b"203.0.113.7;",),
        (b"-203.0.113.7",), (b"+203.0.113.7",), (b"203.0.113.7\x0b",), (b", ".join([b"203.0.113.7"] * 40),), (b"127.0.0.1",), (b"203.0.113.7, junk, 127.0.0.1",), (b"203.0.113.7,,127.0.0.1",),
    ):  # fmt: skip
        yield Case(
            f"hops {values!r}"[:90],
            hops(*values),
            UNVERIFIED | (MALFORMED if b"\x0b" in b"".join(values) else frozenset()),
            stays_open=True,
        )
    for name in (
        b"X_Forwarded_For",
        b"X-Real-IP",
        b"Forwarded",
        b"True-Client-IP",
        b"CF-Connecting-IP",
        b"X-Client-IP",
        b"X-Forwarded_For",
        b"X-Originating-IP",
        b"Client-IP",
    ):
        yield Case(f"other field {shown(name)}", hops(b"203.0.113.7", name=name), UNVERIFIED, stays_open=True)
    named = request([(b"X-Forwarded-For", b"203.0.113.7"), (b"Connection", b"X-Forwarded-For")], line=line)
    yield Case("Connection names X-Forwarded-For", named, frozenset({200}), 1, BODY)


def signatures() -> Iterator[Case]:
    good = mac(BODY)
    for name, fields in {
        "missing": [], "empty": [(b"X-Signature", b"")], "blank": [(b"X-Signature", b" \t ")], "twice": [SIGNATURE, SIGNATURE], "good and bad": [SIGNATURE, (b"X-Signature", b"0" * 128)], "bad and good": [(b"X-Signature", b"0" * 128), SIGNATURE],
        "a list": [(b"X-Signature", good + b", " + good)], "cut": [(b"X-Signature", good[:-1])], "half": [(b"X-Signature", good[:64])], "longer": [(b"X-Signature", good + b"0")], "with a prefix": [(b"X-Signature", b"sha512=" + good)],
        "0x": [(b"X-Signature", b"0x" + good)], "upper case": [(b"X-Signature", good.upper())], "another algorithm": [(b"X-Signature", mac(BODY, "sha256"))], "MD5": [(b"X-Signature", mac(BODY, "md5"))], "spaces between": [(b"X-Signature", good[:64] + b" " + good[64:])],
        "quoted": [(b"X-Signature", b'"' + good + b'"')], "NBSP": [(b"X-Signature", b"\xa0" + good)], "above ASCII": [(b"X-Signature", b"\xd9\xa0" * 64)], "zeros": [(b"X-Signature", b"0" * 128)], "none": [(b"X-Signature", b"none")], "null": [(b"X-Signature", b"null")],
        "true": [(b"X-Signature", b"true")], "the secret's name": [(b"X-Signature", b"HOSTILE")], "endless": [(b"X-Signature", b"a" * 30_000)], "in X_Signature": [(b"X_Signature", good)], "in X-Signature-": [(b"X-Signature-", good)], "in a cookie": [(b"Cookie", b"X-Signature=" + good)],
        "in Authorization": [(b"Authorization", b"Bearer " + good)], "in Signature": [(b"Signature", good)], "of an empty body": [(b"X-Signature", mac(b""))], "of the body with a newline": [(b"X-Signature", mac(BODY + b"\n"))], "of another field": [(b"X-Hub-Signature-256", b"sha256=" + mac(BODY, "sha256"))],
        "with a newline's letters": [(b"X-Signature", good + b"%0a")], "format": [(b"X-Signature", b"{0.__class__}")], "percent": [(b"X-Signature", b"%s%n" * 32)], "127 and a sign": [(b"X-Signature", b"+" + good[1:])], "underscore": [(b"X-Signature", b"_" + good[1:])],
    }.items():  # fmt: skip
        yield Case(f"signature {name}", request(signature=fields), UNVERIFIED, stays_open=True)
        yield Case(
            f"signature {name}, chunked",
            chunked(chunks()).replace(
                b"X-Signature: " + good + b"\r\n", b"".join(b"%b: %b\r\n" % pair for pair in fields), 1
            ),
            UNVERIFIED,
            stays_open=True,
        )
    yield Case(
        "signature in the query",
        request(signature=[], line=b"POST /webhooks/begini?X-Signature=" + good + b" HTTP/1.1"),
        UNVERIFIED,
        stays_open=True,
    )
    yield Case(
        "signature with blanks around",
        request(signature=[(b"X-Signature", b"  " + good + b" \t")]),
        frozenset({200}),
        1,
        BODY,
    )
    yield Case(
        "signature field in other letters", request(signature=[(b"x-sIgNaTuRe", good)]), frozenset({200}), 1, BODY
    )
    for changed in (
        BODY + b" ",
        BODY[:-1],
        BODY.replace(b"settled", b"Settled"),
        b"\xef\xbb\xbf" + BODY,
        BODY.replace(b":", b": "),
        BODY + b"\r\n",
        b"",
    ):
        yield Case(
            f"another body {len(changed)} {shown(changed)}",
            request(body=changed, signature=[SIGNATURE]),
            UNVERIFIED,
            stays_open=True,
        )
    yield Case(
        "another route's signature", request(line=b"POST /webhooks/github HTTP/1.1"), UNVERIFIED, stays_open=True
    )
    for algorithm, prefix in (
        ("sha1", b"sha1="),
        ("sha256", b""),
        ("sha256", b"sha256:"),
        ("sha512", b"sha512="),
        ("sha256", b"SHA256="),
        ("sha256", b"sha256=sha256="),
        ("sha256", b"sha256= "),
    ):
        value = [(b"X-Hub-Signature-256", prefix + mac(BODY, algorithm))]
        yield Case(
            f"GitHub {prefix!r}{algorithm}",
            request(signature=value, line=b"POST /webhooks/github HTTP/1.1"),
            UNVERIFIED,
            stays_open=True,
        )
    for body in (
        b"",
        b"\0",
        bytes(range(256)),
        b"[" * 100_000,
        b"PK\x03\x04" + bytes(99),
        b'{"a":' * 9000,
        HIDDEN,
        request(),
    ):
        yield Case(f"any body {shown(body)}", request(body=body), frozenset({200}), 1, body)


def several_requests() -> Iterator[Case]:
    good, bad = request(), request(signature=[])
    yield Case("two", good + good, frozenset({200}), 2, BODY)
    yield Case("good, bad, good", good + bad + good, frozenset({200}), 2, BODY, stays_open=True)
    yield Case("five with empty lines", (good + b"\r\n") * 5, frozenset({200}), 5, BODY)
    yield Case("nothing after close", request([(b"Connection", b"close")]) + good, frozenset({200}), 1, BODY)
    yield Case(
        "nothing after HTTP/1.0", request(line=b"POST /webhooks/begini HTTP/1.0") + good, frozenset({200}), 1, BODY
    )
    for garbage in (b"GARBAGE\r\n\r\n", b"\0", b"\x16\x03\x01" + bytes(60), b"POST /x HTTP/9.9\r\n\r\n", b"GET /smuggled#x HTTP/1.1\r\nHost: a\r\n\r\n", b" " + good, b"\t\r\n" + HIDDEN, b"0\r\n\r\n" + HIDDEN, b"}" * 9,
                    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", b"x" * 70_000, b"PUT", b"POST /webhooks/begini HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000):  # fmt: skip
        yield Case(f"good, then {shown(garbage)}", good + garbage, frozenset({200}), 1, BODY)
        yield Case(f"chunked, then {shown(garbage)}", chunked(chunks()) + garbage[:9000], frozenset({200}), 1, BODY)
        yield Case(f"two, then {shown(garbage)}", good + good + garbage, frozenset({200}), 2, BODY)
    hiding = [(b"Content-Length", b"%d" % len(HIDDEN))]
    for name, fields in {
        "unsigned": [],
        "badly signed": [(b"X-Signature", b"x")],
        "wrongly signed": [(b"X-Signature", b"0" * 128)],
    }.items():
        head = request(hiding, b"", signature=fields, framed=False)
        yield Case(f"{name} hiding a request", head + HIDDEN, UNVERIFIED, stays_open=True)
        yield Case(
            f"{name}, Expect, hiding a request",
            request([*hiding, (b"Expect", b"100-continue")], b"", signature=fields, framed=False) + HIDDEN,
            UNVERIFIED,
            stays_open=True,
        )
    unsent = [(b"Content-Length", b"500")]
    for name, statuses, raw in (
        ("unsigned", UNVERIFIED, request(unsent, b"", signature=[], framed=False)),
        ("no such route", NO_ROUTE, request(unsent, b"", line=b"POST /x HTTP/1.1", framed=False)),
        ("wrong method", METHOD, request(unsent, b"", line=b"PUT /webhooks/begini HTTP/1.1", framed=False)),
        ("another address", UNVERIFIED, request(unsent, b"", line=b"POST /webhooks/allowed HTTP/1.1", framed=False)),
        ("unsigned chunks", UNVERIFIED, request([(b"Transfer-Encoding", b"chunked")], b"", signature=[], framed=False)),
    ):
        yield Case(f"{name}, the body not sent", raw, statuses)
        yield Case(
            f"{name}, a part of the body sent", raw + (b"5\r\nPOST " if b"chunked" in raw else b"POST /"), statuses
        )
    yield Case(
        "too large, hiding a request", request([(b"Content-Length", b"9999999")], b"", framed=False) + HIDDEN * 9, LARGE
    )
    yield Case(
        "no such route, hiding a request",
        request(hiding, b"", line=b"POST /x HTTP/1.1", framed=False) + HIDDEN,
        NO_ROUTE,
        stays_open=True,
    )
    yield Case(
        "wrong method, hiding a request",
        request(hiding, b"", line=b"PUT /webhooks/begini HTTP/1.1", framed=False) + HIDDEN,
        METHOD,
        stays_open=True,
    )
    yield Case("a body signed as empty", request(body=b"") + HIDDEN, frozenset({200}), 1, b"")
    yield Case("a length too short", request(body=BODY[:20]) + BODY[20:], frozenset({200}), 1, BODY[:20])
    yield Case(
        "a length too long", request([(b"Content-Length", b"%d" % (len(BODY) + 9))], framed=False), frozenset({408})
    )
    yield Case(
        "a length too long, then the end",
        request([(b"Content-Length", b"%d" % (len(BODY) + 9))], framed=False),
        frozenset({0, 400}),
        half_close=True,
    )
    yield Case("fifty that no route takes", b"GET /nope HTTP/1.1\r\nHost: a\r\n\r\n" * 50, NO_ROUTE, stays_open=True)
    yield Case("a head without an end", request()[:150], frozenset({408}))
    yield Case("half a request line", b"POST /webh", frozenset({408}))
    yield Case("Expect", request([(b"Expect", b"100-continue")]), frozenset({200}), 1, BODY, absent=(b"expect",))
    yield Case(
        "an expectation that nobody knows",
        request([(b"Expect", b"200-ok")]),
        frozenset({200}),
        1,
        BODY,
        absent=(b"expect",),
    )
    yield Case("a body one byte over the limit", request(body=bytes((1 << 20) + 1)), LARGE)
    yield Case("10 GiB announced", request([(b"Content-Length", b"10737418240")], b"", framed=False), LARGE)
    yield Case(
        "10 GiB announced, Expect",
        request([(b"Content-Length", b"10737418240"), (b"Expect", b"100-continue")], b"", framed=False),
        LARGE,
    )


def to_the_receiver() -> Iterator[Case]:
    """What must never arrive there as a sender wrote it."""
    for name in (
        b"X-Webhook-Verified",
        b"X-Webhook-Secret-Id",
        b"X_Webhook_Verified",
        b"x-webhook_verified",
        b"X_WEBHOOK_SECRET_ID",
        b"X-Forwarded_For",
        b"X_Forwarded_Host",
        b"X_Forwarded_Proto",
    ):
        yield Case(
            f"ours {shown(name)}",
            request([(name, b"FORGED")]),
            frozenset({200}),
            1,
            BODY,
            absent=(name,) if b"_" in name else (),
        )
    for name in (
        b"Keep-Alive",
        b"Proxy-Connection",
        b"TE",
        b"Trailer",
        b"Proxy-Authorization",
        b"Proxy-Authenticate",
    ):
        yield Case(
            f"hop by hop {shown(name)}",
            request([(b"Connection", b"X-Private"), (name, b"x")]),
            frozenset({200}),
            1,
            BODY,
            absent=(name,),
        )
    named = request([(b"Connection", b"X-Private, Host, x-client-dn"), (b"X-Client-DN", b"CN=a")])
    yield Case("Connection names others", named, frozenset({200}), 1, BODY, present=[(b"X-Client-DN", b"CN=a")])
    for name in (
        b"X.Webhook.Verified",
        b"x~webhook~secret~id",
        b"X_Forwarded-User",
        b"X!Signature",
    ):
        raw = request([(name, b"FORGED")])
        yield Case(f"alias {shown(name)}", raw, frozenset({200}), 1, BODY, absent=(name,), present=[SIGNATURE])
    for name in (b"Content.Length", b"content~length", b"Transfer.Encoding"):
        yield Case(f"framing alias {shown(name)}", request([(name, b"3")]), MALFORMED)
    for value in (
        b"close, Host, Content-Type",
        b"Content-Length",
        b"X-Signature ,,",
        b"Transfer-Encoding",
        b"X-Webhook-Verified, X-Forwarded-For",
        b"\xff",
        b",",
        b"keep-alive, close",
        b"host",
    ):
        raw = request([(b"Connection", value)])
        yield Case(f"Connection {shown(value)}", raw, frozenset({200}), 1, BODY, present=[SIGNATURE])


CASES: list[Case] = [
    case
    for group in (length_and_coding, chunk_syntax, targets, methods_and_versions, header_syntax, addresses, signatures, several_requests, to_the_receiver)
    for case in group()
]  # fmt: skip
