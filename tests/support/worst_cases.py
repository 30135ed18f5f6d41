"""The most expensive inputs of strangers, for a search: one strategy for each stage of a delivery.

Each strategy composes legal and illegal input, up to the stage's limits, from pieces that are expensive for their size, and makes
a `Case` of it. `measure` reports the cost of one. Diagnosis has its own search in tests/properties/test_diagnosis.py.
"""

import gzip
import ipaddress
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any, NamedTuple

from fake_loop import FakeLoop, FakeTransport
from hypothesis import strategies as st

from sidecar.config.presets import load_preset, preset_names
from sidecar.delivery.body import Body, Budget
from sidecar.delivery.delivery import ON_LOOP_BYTES, PARSED_ON_LOOP_BYTES
from sidecar.delivery.upstream_head import HeaderFilter, filtered_head, forwarding_lines, unchanged_head
from sidecar.http1.admission import ConnectionCount, Deadlines, Listener
from sidecar.http1.connection import DataProtocol
from sidecar.http1.head import make_head
from sidecar.http1.incoming import Incoming
from sidecar.http1.request_parser import MAX_FIELDS, MAX_HEAD, MAX_TARGET
from sidecar.http1.upstream import Connection, Timeouts, Upstream, UpstreamAddress
from sidecar.outcomes import DEFAULT_REJECTION, Outcome, Reason, Rejected
from sidecar.routing.client_ip import ClientHeader, resolve_client
from sidecar.routing.networks import Networks
from sidecar.routing.routes import Route, RouteTable
from sidecar.secret import Secret
from sidecar.telemetry.log import Log, LogFormat, LogSettings
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recent_rejections import RecentRejections
from sidecar.telemetry.record import DeliveryRecord
from sidecar.verify.claim import MAX_SIGNATURES, Claim
from sidecar.verify.composite import Combine, Composite
from sidecar.verify.handshake import Handshakes
from sidecar.verify.keys import KeyForm
from sidecar.verify.template import Piece
from sidecar.verify.verifier import MAX_SECRETS, Verifier

NOW = 1_795_579_411.0
FORM = b"application/x-www-form-urlencoded"
#: Bytes of the largest body that a search tries.
MEBIBYTE = 1 << 20
PEER = "192.0.2.1"


class Case(NamedTuple):
    """One input, ready to be tried."""

    what: str
    size: int  #: the stranger's bytes
    prepare: Callable[[], Callable[[], object]]  #: makes the call to measure


class Cost(NamedTuple):
    seconds: float  #: seconds of processor time, the least of several tries
    memory: int  #: bytes used besides the input, at most


def measure(case: Case, tries: int = 3) -> Cost:
    seconds = float("inf")
    for _ in range(tries):  # the least of several: other processes use the same caches
        call = case.prepare()
        began = time.thread_time()
        with suppress(Rejected):
            call()
        seconds = min(seconds, time.thread_time() - began)
    call = case.prepare()
    tracemalloc.start()
    with suppress(Rejected):
        call()
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Cost(seconds, memory)


def runs(pieces: list[bytes], sizes: list[int], *, most: int = 3) -> st.SearchStrategy[bytes]:
    """Up to `most` runs, each of the same piece, cut to one of `sizes` bytes in total."""

    def compose(drawn: list[tuple[bytes, int]], size: int) -> bytes:
        text = b"".join([piece * min(count, size // len(piece) + 1) for piece, count in drawn])
        return text[:size]

    counts = st.sampled_from([1, 2, 63, 64, 1000, *[10**7] * 5])
    return st.builds(
        compose, st.lists(st.tuples(st.sampled_from(pieces), counts), min_size=1, max_size=most), st.sampled_from(sizes)
    )


def short(text: bytes) -> str:
    return f"{text[:24]!r}{'...' if len(text) > 24 else ''} ({len(text)})"


# (1) Head

NAMES = [
    b"a",
    b"X-Same",
    b"Connection",
    b"x_y",
    b"Content.Length",
    b"Forwarded",
    b"%",
    b"X-Forwarded-A",
    b"!#$%&'*+-.^_`|~",
]
VALUES = [b"a", b"a,", b" \t", b"\xff", b"upgrade, ", b"%b"]


@st.composite
def header_fields(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    """Heads up to and beyond the limits of number and size of their fields, with names that no earlier head had."""
    number = draw(st.sampled_from([0, 1, 39, 40, 190, 250, 10_000]))
    name, value = draw(runs(NAMES, [1, 4, 40, 300, 5000])), draw(runs(VALUES, [0, 1, 40, 300, 5000, 60_000]))
    same = draw(st.booleans())
    fresh = draw(st.integers(0, 10**9))  # otherwise the facts about these names are already known
    fields, size = [], 0
    for count in range(number):
        field = name if same else name + b"%x" % count
        size += len(field) + len(value) + 4
        if size > 2 * MAX_HEAD:
            break
        fields.append((field, value))
    return [(b"Host", b"h"), (b"X-%x" % fresh, b""), *fields]


TARGETS = runs(
    [b"/", b"/a", b"%2e", b";", b"?", b"&", b"a=b&", b"/..;", b"\\", b"//", b"!"], [1, 100, 2000, MAX_TARGET - 1]
).map(lambda text: b"/" + text)


class Reject:
    """An application that rejects every request."""

    async def __call__(self, incoming: Incoming) -> None:
        incoming.start(404, b"content-length: 0\r\n", sized=True, hold=True)
        incoming.write(b"", more=False)

    def reject_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        return b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def connect(application: Any) -> tuple[FakeLoop, DataProtocol]:
    loop = FakeLoop()  # type: ignore[abstract]  # it has everything that is used
    deadlines = Deadlines(loop, head=10, body=30)
    protocol = DataProtocol(
        application,
        deadlines=deadlines,
        listener=Listener(deadlines, 1000, ConnectionCount([0.0], 0)),
        connections=set(),
        tasks=set(),
    )
    protocol.connection_made(FakeTransport(peername=(PEER, 4000)))
    return loop, protocol


def feed(application: Any, segments: list[bytes]) -> None:
    loop, protocol = connect(application)
    for segment in segments:
        protocol.data_received(segment)
        loop.turn()


def cut(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw), size)]


@st.composite
def heads(draw: st.DrawFn) -> Case:
    fields, target = draw(header_fields()), draw(TARGETS)
    method = draw(st.sampled_from([b"GET", b"POST", b"CONNECT", b"PATCH"]))
    extra = draw(st.sampled_from([b"", b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"Transfer-Encoding: chunked\r\n"]))
    raw = b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, target, b"".join([b"%b:%b\r\n" % field for field in fields]), extra)
    again = draw(st.sampled_from([1, 2]))
    raw = (raw * again)[: 2 * MAX_HEAD]
    segments = cut(raw, draw(st.sampled_from([1460, 10**6])))
    what = f"{len(fields)} fields such as {short(fields[-1][0])}: {short(fields[-1][1])}, target {short(target)}, {again} times"
    return Case(what, len(raw), lambda: partial(feed, Reject(), segments))


# (2) Client

HOPS = [
    b",",
    b" ",
    b"1.2.3.4,",
    b"10.0.0.1, ",
    b"::1,",
    b"[::1]:80,",
    b"for=",
    b'for="[::1]:80";',
    b'for="\\a',
    b"a=b;",
    b'"',
    b"\\",
    b"by=_x,",
]
INTERNAL = Networks(
    map(
        ipaddress.ip_network,
        ["10.0.0.0/8", "192.0.2.0/24", "fd00::/8", *(f"100.64.{n}.0/24" for n in range(0, 256, 2))],
    )
)


@st.composite
def client_fields(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(["X-Forwarded-For", "Forwarded", "X-Real-IP"]))
    line = draw(runs(HOPS, [10, 300, 5000, MAX_HEAD]))
    number = draw(st.sampled_from([1, 2, 199]))
    lines = [line[: MAX_HEAD // number]] * number
    header = ClientHeader(name)
    call = partial(resolve_client, PEER, lines, INTERNAL, header=header)
    return Case(f"{number} x {name}: {short(lines[0])}", sum(map(len, lines)), lambda: call)


# (3) Route, and its handshakes


def route(path: bytes, *, prefix: bool) -> Route:
    return Route(
        name="r",
        path=path,
        prefix=prefix,
        methods=frozenset({"POST"}),
        upstream=UpstreamAddress("http", "127.0.0.1", 3000, ""),
        body_limit=MEBIBYTE,
        rejection=DEFAULT_REJECTION,
        verifier=None,
    )


@cache
def table() -> RouteTable:
    """A thousand routes, half of them prefixes of 200 lengths: more than any real configuration."""
    exact = [route(b"/exact/%d" % number, prefix=False) for number in range(500)]
    below = [route(b"/" + b"p" * (number % 200) + b"%d/" % number, prefix=True) for number in range(500)]
    return RouteTable([*exact, *below, route(b"/", prefix=True)])


@st.composite
def paths(draw: st.DrawFn) -> Case:
    target = draw(TARGETS)
    path = target.partition(b"?")[0]
    return Case(short(path), len(path), lambda: partial(table().find, path))


@cache
def handshakes() -> list[Handshakes]:
    """The handshakes of every preset that has some."""
    token = Secret("token", b"a verify token")
    shapes = [load_preset(name).handshake for name in preset_names()]
    return [Handshakes(each, None, secret=token, token=token, url="https://h/") for each in shapes if each]


@st.composite
def queries(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from([b"hub.challenge", b"challenge", b"%", b"a"]))
    target = b"/?" + draw(
        runs([b"&", b"%41", b"+", name + b"=", b"hub.mode=subscribe&", b"%zz"], [100, 5000, MAX_TARGET - 2])
    )
    shapes = draw(st.sampled_from(handshakes()))
    head = make_head("GET", target, [(b"Host", b"h")], PEER)

    def answer() -> object:
        shape = shapes.find_unsigned(head)
        return shape and shapes.respond(shape, head)

    return Case(short(target), len(target), lambda: answer)


# (4) Claim, (6) verify, (7) once


@cache
def verifier(preset: str, secrets: int) -> Verifier | None:
    scheme = load_preset(preset)
    if scheme.signature.kind.read_private_key is not None:
        return None
    text = {KeyForm.WHSEC: b"whsec_", KeyForm.AFTER_COLON: b"name:", KeyForm.SHA1_AFTER_COLON: b"name:"}.get(
        scheme.key, b""
    )
    raw = [b"%032d" % number for number in range(secrets)]
    if scheme.signature.kind.name == "basic":
        text = b"user:"
    return Verifier(scheme, [Secret(each.decode(), text + each) for each in raw], "https://hooks.example.com/base")


def _different() -> list[str]:
    """One preset of each form: presets that differ only in names or texts cost the same."""
    found = {}
    for name in preset_names():
        made = verifier(name, 1)
        if made is not None:
            scheme, field = made.scheme, made.scheme.signature
            parts = tuple(part if isinstance(part, Piece) else type(part) for part in scheme.parts)
            place = bool(field.field), bool(field.form), bool(field.query), field.path
            form = (field.kind.name, field.algorithm, field.encoding, field.list, place, parts)
            body = (
                scheme.body_hash,
                scheme.form_field,
                scheme.any_port,
                scheme.url_unescaped,
                bool(scheme.delivery_id),
                len(scheme.alternatives),
                bool(scheme.items),
                scheme.decompressed,
                field.prehash,
                field.names_key,
            )
            found[form, body] = name
    return list(found.values())


SHARED = _different()
#: Presets that parse the body.
PARSING = [name for name in SHARED if (made := verifier(name, 1)) is not None and made.reads_body]


def pieces_of(preset: str) -> list[bytes]:
    """The pieces of this scheme's signatures."""
    field = load_preset(preset).signature
    found = [b"0", b"A", b"=", b" ", b",", b"t=1795579411,", b"0" * 64, b"A" * 43 + b"=", field.prefix.encode()]
    if field.list is not None:
        found += [field.list.tag.encode(), *(b"%b=" % version.encode() for version in field.list.versions)]
        found += [b"%b%b%b" % (field.list.tag.replace("*", "x").encode(), b"0" * 64, field.list.separator[:1].encode())]
    return [piece for piece in found if piece]


def signed_fields(draw: st.DrawFn, preset: str, sizes: list[int]) -> list[tuple[bytes, bytes]]:
    scheme = load_preset(preset)
    names = [
        scheme.signature.header,
        *scheme.signature.also,
        scheme.delivery_id or "",
        scheme.timestamp.header if scheme.timestamp else "",
    ]
    if scheme.signature.header.endswith("{n}"):
        names = [scheme.signature.header.replace("{n}", str(number)) for number in range(1, MAX_FIELDS)]
    value = draw(runs(pieces_of(preset), sizes))
    fields = [(name.encode(), value) for name in names if name]
    fields += [(name.encode(), required.encode()) for name, required in scheme.require]
    return [(b"Host", b"h"), *fields]


@st.composite
def claims(draw: st.DrawFn) -> Case:
    preset = draw(st.sampled_from(SHARED))
    made = verifier(preset, 1)
    assert made is not None
    fields = signed_fields(draw, preset, [64, 300, 5000, 8192, 60_000])
    target = b"/?" + draw(runs([b"&", b"%74", b"+", b"token=", b"%zz", b"=%41"], [1, 1000, MAX_TARGET - 2]))
    head = make_head("POST", target, fields, PEER)
    return Case(
        f"{preset}: {short(fields[-1][1])}, {short(target)}",
        sum(map(len, head.field_values)) + len(target),
        lambda: partial(made.read_claim, head, NOW),
    )


BODIES = [
    b"[",
    b"]",
    b"{",
    b'{"a":',
    b"0,",
    b'"":0,',
    b"1e-300,",
    b'"\\u00e9",',
    b'"</&>",',
    b"a&",
    b"a=b&",
    b"%41",
    b"%",
    b"\r\n--b",
    b" ",
    b"9",
    b"x" * 1000,
    b'{"NotificationRequestItem":{"additionalData":{"hmacSignature":"%b="}}},' % (b"A" * 43),
    b'\r\n--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n',
]


@st.composite
def verifications(draw: st.DrawFn, *, on_loop: bool) -> Case:
    preset = draw(st.sampled_from(draw(st.sampled_from([SHARED, PARSING]))))
    secrets = draw(st.sampled_from([1, MAX_SECRETS, MAX_SECRETS]))
    made = verifier(preset, secrets)
    assert made is not None
    if draw(st.booleans()):
        others = [verifier(name, secrets) for name in draw(st.lists(st.sampled_from(PARSING), min_size=1, max_size=3))]
        made = Composite(draw(st.sampled_from(Combine)), [made, *(each for each in others if each is not None)])
    shared = PARSED_ON_LOOP_BYTES // made.schemes
    most = shared if made.reads_body else max(shared, ON_LOOP_BYTES // made.passes)
    if not on_loop:
        most = 5 * MEBIBYTE  # the default of `limits.body`
    body = draw(runs(BODIES, [100, most // 10, most, most, most]))
    around = [
        (b"", b""),
        (b"[", b"0]"),
        (b'{"a":[', b"0]}"),
        (b"payload=", b""),
        (b'{"notificationItems":[', b"0]}"),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n', b"\r\n--b--"),
    ]
    opened, closed = draw(st.sampled_from(around))
    body = opened + body[: most - 80] + closed
    fields = [
        *signed_fields(draw, preset, [64, 300, 5000]),
        (b"Content-Type", draw(st.sampled_from([FORM, b"application/json", b"multipart/form-data; boundary=b"]))),
    ]
    if made.decompresses and not on_loop and draw(st.booleans()):
        fields.append((b"Content-Encoding", b"gzip"))
        body = gzip.compress(body, draw(st.sampled_from([1, 9])))
    target = b"/" + draw(st.sampled_from([b"", b"?", b"a?b=%2e" + b"%2E" * 5000]))
    head = make_head("POST", target, fields, PEER)

    claim = Claim((b"0" * draw(st.sampled_from([20, 32, 64])),) * MAX_SIGNATURES, b"1795579411", None, NOW)
    what = f"{preset} of {made.schemes}, {secrets} secret(s), {short(body)}"
    return Case(what, len(body), lambda: partial(made.match, claim, head, [body]))


@st.composite
def fingerprints(draw: st.DrawFn) -> Case:
    preset = draw(st.sampled_from([name for name in SHARED if load_preset(name).delivery_id]))
    made = verifier(preset, 1)
    assert made is not None
    body = draw(runs(BODIES, [100, 60_000]))
    bound = made.scheme.id_bound
    separator = bound.separator if bound is not None and bound.separator else b"."
    ident = draw(runs([separator, b"a", separator + b"a"], [8, 1000, 60_000]))
    head = make_head("POST", b"/", [(b"Host", b"h"), (str(made.scheme.delivery_id).encode(), ident)], PEER)
    claim = Claim((), b"1795579411", None, NOW)

    def call() -> None:
        made.other_fingerprints(head, scope="r")
        made.fingerprint(claim, head, [body], scope="r", url=b"https://h/")

    return Case(f"{preset}: id {short(ident)}, {short(body)}", len(ident) + len(body), lambda: call)


# (5) Body


class ReadAll:
    """An application that reads the body as the proxy does, and then rejects."""

    def __init__(self, budget: Budget, limit: int) -> None:
        self.budget = budget
        self.limit = limit

    async def __call__(self, incoming: Incoming) -> None:
        body = Body(self.budget)
        try:
            if incoming.fault is not None:
                raise incoming.fault
            body.begin(incoming, self.limit)
            while body.take(incoming, self.limit):
                await incoming.news()
        except Rejected:
            pass
        await Reject.__call__(Reject(), incoming)
        body.release()

    def reject_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        return Reject().reject_unparsed(peer, rejected)


@st.composite
def framed_bodies(draw: st.DrawFn) -> Case:
    size = draw(st.sampled_from([1000, 100_000, MEBIBYTE]))
    chunk = draw(st.sampled_from([0, 1, 2, 8, 100, 1023, 1024, 5000, 70_000]))
    extension = draw(st.sampled_from([b"", b";a=b", b";" + b"x" * 50, b";" + b"x" * 60_000]))
    segment = draw(st.sampled_from([100, 1460, 65_536, 262_144]))
    if chunk:
        framed = b"%x%b\r\n%b\r\n" % (chunk, extension, b"x" * chunk)
        body = framed * (size // len(framed) + 1) + b"0\r\n\r\n"
        framing = b"Transfer-Encoding: chunked"
    else:
        body = b"x" * size
        framing = b"Content-Length: %d" % size
    segments = [b"POST / HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % framing, *cut(body, segment)]
    what = f"chunks of {chunk}{'' if not extension else f', extension of {len(extension)}'}, in segments of {segment}"
    gauges = Metrics().gauges
    return Case(what, len(body), lambda: partial(feed, ReadAll(Budget(64 * MEBIBYTE, gauges), 10 * MEBIBYTE), segments))


# (8) Forward


@st.composite
def forwarded_heads(draw: st.DrawFn) -> Case:
    fields = draw(header_fields())[:MAX_FIELDS]
    lines = draw(st.sampled_from([0, 1, 100]))
    fields += [
        (draw(st.sampled_from([b"X-Forwarded-For", b"x-forwarded-host", b"X_Webhook_Id"])), b"1.2.3.4, " * 20)
    ] * lines
    fields = fields[:MAX_FIELDS]
    head = make_head("POST", b"/" * 100, fields, PEER)
    client = resolve_client(PEER, head.values(b"x-forwarded-for"), INTERNAL)
    read = frozenset(load_preset(draw(st.sampled_from(["github", "docusign", "standard-webhooks"]))).headers)

    def call() -> None:
        added = forwarding_lines(head, client)
        if not unchanged_head(head, 10, added):
            filtered_head(head, 10, added, HeaderFilter(read=read, trusted_peer=client.trusted_peer))

    return Case(f"{len(fields)} fields such as {short(fields[-1][0])}", sum(map(len, head.field_values)), lambda: call)


# (9) Response


@st.composite
def response_heads(draw: st.DrawFn) -> Case:
    name, value = draw(runs(NAMES, [1, 4, 300])), draw(runs(VALUES, [0, 1, 40, 5000]))
    fields = b"".join(
        [b"%b%x:%b\r\n" % (name, count, value) for count in range(draw(st.sampled_from([1, 200, 20_000])))]
    )
    informational = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * draw(st.sampled_from([0, 1, 10_000]))
    options = draw(
        st.sampled_from([b"", b"Connection: " + b",".join([b"a%x" % count for count in range(10_000)]) + b"\r\n"])
    )
    raw = (informational + b"HTTP/1.1 200 OK\r\n" + fields + options)[: 2 * MAX_HEAD] + b"Content-Length: 0\r\n\r\n"
    segments = cut(raw, draw(st.sampled_from([1460, 10**6])))

    def prepare() -> Callable[[], object]:
        address = UpstreamAddress("http", "127.0.0.1", 3000, "")
        connection = Connection(Upstream(address, Timeouts(), FakeLoop()))  # type: ignore[abstract]
        connection.connection_made(FakeTransport())
        connection.write(b"", (), 0, no_body=False)

        def call() -> None:
            for segment in segments:
                connection.data_received(segment)

        return call

    return Case(f"fields {short(fields)}, {short(informational)}, {short(options)}", len(raw), prepare)


# (10) Record


@st.composite
def records(draw: st.DrawFn) -> Case:
    text = draw(runs([b'"', b"\\", b"\x00", b"\xff", b"a", b"\n"], [10, 1000, MAX_TARGET, MAX_HEAD]))
    style = draw(st.sampled_from(list(LogFormat)))

    def prepare() -> Callable[[], object]:
        record = DeliveryRecord(number=1, peer=PEER, started=0.0, method="M" * 24, path=text)
        record.delivery_id = text
        record.detail = text[:200].decode("latin-1")
        record.reason, record.outcome = Reason.NO_ROUTE, Outcome.REJECTED
        metrics, rejections, lines = Metrics(), RecentRejections(), list[str]()
        log = Log(LogSettings(format=style, rejected=None), FakeLoop(), lines.append)  # type: ignore[abstract]

        def call() -> None:
            metrics.record(record, NOW)
            log.record(record)
            log.flush()
            rejections.record(record, NOW)

        return call

    return Case(f"{style}: path and id {short(text)}", 2 * len(text), prepare)


class Limit(NamedTuple):
    """The most that an input may cost. docs/reliability.md has measured costs; slow machines and coverage take much more."""

    cases: st.SearchStrategy[Case]
    milliseconds: float
    kilobytes: float


STAGES = {
    "head": Limit(heads(), 200, 2000),
    "client": Limit(client_fields(), 200, 2000),
    "route": Limit(paths(), 80, 500),
    "handshake": Limit(queries(), 80, 500),
    "claim": Limit(claims(), 80, 1000),
    "body": Limit(framed_bodies(), 2000, 5000),
    "verify on the loop": Limit(verifications(on_loop=True), 400, 20_000),
    "verify in a thread": Limit(verifications(on_loop=False), 8000, 100_000),
    "once": Limit(fingerprints(), 80, 500),
    "forward": Limit(forwarded_heads(), 80, 1000),
    "response": Limit(response_heads(), 400, 5000),
    "record": Limit(records(), 40, 500),
}
