"""`sidecar explain`: a captured request walked through the stages of the data path, each with its decision and why.

The stages are the data path's own functions, called in its order; nothing is decided here. What a stage found is told in
form (which header, how many bytes, how old), never in value: no secret, no MAC, no body.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sidecar.config.settings import Config
from sidecar.diagnosis.capture import Capture
from sidecar.diagnosis.diagnose import DIAGNOSABLE, REMEDIES, THOROUGH, Finding, diagnose
from sidecar.http1.head import RequestHead
from sidecar.outcomes import Hint, Reason, Rejected
from sidecar.routing.access import check_address, check_method
from sidecar.routing.client_ip import Client, resolve_client
from sidecar.routing.routes import Route, foreign_secrets
from sidecar.secret import Secret
from sidecar.verify.claim import Claim
from sidecar.verify.handshake import Shape
from sidecar.verify.message import PublicURL
from sidecar.verify.scheme import (
    BEARER_KINDS,
    DIGEST_SIZES,
    PUBLIC_KEY_KINDS,
    Encoding,
    HeaderValue,
    JsonValue,
    Piece,
    Scheme,
)
from sidecar.verify.verifier import Verifier

#: What to do about refusals that need no diagnosis.
_TRY = {
    Reason.NO_ROUTE: "compare the path with `sidecar check`: routes match byte for byte",
    Reason.METHOD_NOT_ALLOWED: "add the method to the route's `methods:`, or have the sender use another",
    Reason.MALFORMED_REQUEST: "have the sender, or the proxy before us, send plain HTTP/1.1",
    Reason.IP_NOT_ALLOWED: "add the address to `allow:`; if it is your load balancer's, add that to `trusted_proxies:`",
    Reason.CLIENT_IP_UNREADABLE: "look at what your proxy writes into X-Forwarded-For",
    Reason.SIGNATURE_MISSING: "set the secret at the provider, and look for what drops headers on the way",
    Reason.TIMESTAMP_MISSING: "look for what drops headers on the way",
    Reason.TIMESTAMP_TOO_OLD: "an old capture? give --now the time it was made; live: compare the clocks (NTP)",
    Reason.TIMESTAMP_IN_FUTURE: "compare the clocks of sender and sidecar (NTP); for a capture give --now",
    Reason.TOKEN_MISMATCH: "compare the token at the provider with the one here",
    Reason.BODY_TOO_LARGE: "raise `limits: {body: ...}` of the route",
}


class Stage(NamedTuple):
    """One step: `passed`, `rejected`, or `skipped` where it could not be judged."""

    name: str
    decision: str
    why: str


@dataclass
class Explanation:
    """What became of a request, stage by stage."""

    stages: list[Stage] = field(default_factory=list)
    remarks: Sequence[str] = ()
    route: str | None = None
    client: str | None = None
    reason: Reason | None = None
    detail: str = ""
    secret: str | None = None
    finding: Finding | None = None
    shadow: bool = False
    handshake: str | None = None

    @property
    def verdict(self) -> str:
        """accepted or rejected."""
        return "accepted" if self.reason is None else "rejected"

    @property
    def advice(self) -> str:
        """In one line what to try; empty if accepted."""
        if self.finding is not None:
            return REMEDIES[self.finding.hint]
        return _TRY.get(self.reason, "see docs/reasons.md") if self.reason is not None else ""

    def as_json(self) -> str:
        """For programs; keys are never left out."""
        made: dict[str, Any] = {
            "verdict": self.verdict,
            "reason": self.reason,
            "secret": self.secret,
            "hint": self.finding.hint if self.finding is not None else None,
            "because": self.finding.because if self.finding is not None else "",
            "detail": self.detail,
            "try": self.advice,
            "route": self.route,
            "client": self.client,
            "handshake": self.handshake,
            "shadow": self.shadow,
            "stages": [stage._asdict() for stage in self.stages],
            "remarks": list(self.remarks),
        }
        return json.dumps(made, indent=2)

    def as_text(self) -> str:
        """For people."""
        marks = {"passed": "+", "rejected": "x", "skipped": "-"}
        lines = [f"{marks[stage.decision]} {stage.name:<10} {stage.why}" for stage in self.stages]
        lines += [f"! {remark}" for remark in self.remarks]
        if self.reason is None:
            by = f", by the secret {self.secret}" if self.secret else ""
            lines.append(f"accepted{by}" if self.handshake is None else f"handshake {self.handshake}")
        else:
            lines.append(f"rejected: {self.reason}")
            if self.finding is not None:
                lines.append(f"hint: {self.finding.hint}{_because(self.finding)}")
            lines.append(f"try: {self.advice}")
        if self.shadow and self.reason is not None:
            lines.append("note: the route is in shadow mode, so live traffic is forwarded all the same")
        return "\n".join(lines)


def _because(finding: Finding) -> str:
    return f" (it matches {finding.because})" if finding.because else ""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a capture is held against: a whole configuration, or a verifier alone."""

    config: Config | None = None
    verifier: Verifier | None = None  #: without a configuration
    secrets: Sequence[Secret] = ()  #: in place of the configuration's, if there are any
    unusable: Sequence[tuple[Secret, str]] = ()  #: given ones that are not in the scheme's form, and why
    public_url: str = ""  #: in place of the configuration's
    peer_known: bool = False  #: whether the capture's head says where the connection came from


def explain(capture: Capture, subject: Subject, *, now: float) -> Explanation:
    """Walks the stages. `now` is unix time in seconds. Raises `KeyFormError`, `ValueError` for unusable secrets or URLs."""
    made = Explanation(remarks=capture.remarks)
    head = capture.head
    made.stages.append(
        Stage(
            "request",
            "passed",
            f"{head.method} {_shown(head.path)}, {len(head.names.listed)} header fields, {_body(capture)}",
        )
    )
    try:
        if capture.fault is not None:
            raise _At("request", capture.fault)
        if subject.config is None:
            assert subject.verifier is not None
            made.remarks = [*capture.remarks, *(f"the secret {secret.id} {why}" for secret, why in subject.unusable)]
            _verify(made, capture, subject.verifier, now, unusable=[secret for secret, _ in subject.unusable])
        else:
            _walk(made, capture, subject, subject.config, now)
    except _At as stopped:
        made.reason, made.detail = stopped.rejected.reason, stopped.rejected.detail
        made.stages = [stage for stage in made.stages if stage.name != stopped.stage]
        made.stages.append(Stage(stopped.stage, "rejected", made.detail or made.reason))
    return made


class _At(Exception):
    """A refusal, and the stage that made it."""

    def __init__(self, stage: str, rejected: Rejected) -> None:
        super().__init__(stage)
        self.stage = stage
        self.rejected = rejected


def _walk(made: Explanation, capture: Capture, subject: Subject, config: Config, now: float) -> None:
    head = capture.head
    client = _client(made, head, subject, config)
    try:
        route = config.routes.find(head.path)
    except Rejected as rejected:
        raise _At("route", rejected) from None
    made.route, made.shadow = route.name, route.shadow
    shape = route.handshakes.begun_by(head) if route.handshakes is not None else None
    if shape is None:
        try:
            check_method(route, head.method)
        except Rejected as rejected:
            raise _At("route", rejected) from None
    made.stages.append(Stage("route", "passed", f"{route.name} ({route.pattern}) takes {head.method}"))
    _address(made, route, client, subject)
    if shape is not None and route.handshakes is not None:
        _handshake(made, capture, route, shape)
        return
    if len(capture.body) > route.body_limit:
        raise _At("body", Rejected(Reason.BODY_TOO_LARGE, f"the limit is {route.body_limit:,} bytes"))
    if route.open:
        made.stages.append(Stage("verify", "skipped", "the route is open: everything passes unverified"))
    elif route.verifier is None:
        made.stages.append(Stage("verify", "skipped", "verify: none; the address alone decides"))
    else:
        own = route.verifier
        if subject.secrets or subject.public_url:
            own = Verifier(own.scheme, subject.secrets or own.secrets, subject.public_url or own.public_url)
        others = [] if subject.secrets else foreign_secrets(config.routes.routes, route)
        _verify(made, capture, own, now, others=others)
        if route.handshakes is not None:
            try:
                shape = route.handshakes.carried_by(head, [capture.body])
            except Rejected as rejected:
                made.secret = None
                raise _At("verify", rejected) from None
            if shape is not None:
                _handshake(made, capture, route, shape)


def _client(made: Explanation, head: RequestHead, subject: Subject, config: Config) -> Client:
    header = config.client_header
    hops = head.values(header.field)
    if not subject.peer_known:
        made.stages.append(Stage("client", "skipped", "a capture has no sender's address; give --client-ip"))
        return Client(None, "", False)
    client = resolve_client(head.peer, hops, config.trusted_proxies, trust_unix=config.trust_unix, header=header)
    made.client = client.text or None
    if client.unreadable:
        why = f"unreadable: {client.unreadable}"
    elif not client.trusted_peer:
        ignored = f"; its {header.name} is not believed, because it is no trusted proxy" if hops else ""
        why = f"{client.text}, the connection's own address{ignored}"
    elif hops:
        why = f"{client.text}, from {header.name} behind the trusted proxy {head.peer}"
    else:
        why = f"{client.text}, a trusted proxy that names no client"
    made.stages.append(Stage("client", "passed", why))
    return client


def _address(made: Explanation, route: Route, client: Client, subject: Subject) -> None:
    if not subject.peer_known:
        if route.allow is not None:
            made.stages.append(Stage("allowlist", "skipped", "not checked without --client-ip"))
        return
    try:
        check_address(route, client)
    except Rejected as rejected:
        raise _At("allowlist", rejected) from None
    if route.allow is not None:
        made.stages.append(Stage("allowlist", "passed", f"{client.text} is in a network of the route's allowlist"))


def _handshake(made: Explanation, capture: Capture, route: Route, shape: Shape) -> None:
    assert route.handshakes is not None
    if not route.handshakes.answers(shape):
        made.handshake = "passed"
        made.stages.append(Stage("handshake", "passed", "a handshake, passed on to the receiver"))
        return
    try:
        answer = route.handshakes.answer(shape, capture.head, [capture.body])
    except Rejected as rejected:
        made.handshake = "refused"
        raise _At("handshake", rejected) from None
    made.handshake = "answered"
    made.stages.append(
        Stage("handshake", "passed", f"a handshake, answered here with {answer.status} and {len(answer.body)} bytes")
    )


def _verify(
    made: Explanation,
    capture: Capture,
    verifier: Verifier,
    now: float,
    *,
    others: Sequence[tuple[str, Secret]] = (),
    unusable: Sequence[Secret] = (),
) -> None:
    head, body, scheme = capture.head, capture.body, verifier.scheme
    made.stages.append(Stage("scheme", "passed", f"{scheme.name or 'own scheme'}: {scheme.summary}"))
    claim: Claim | None = None
    try:
        claim = verifier.read_claim(head, now)
        made.stages.append(Stage("signature", "passed", f"well-formed: {_expected(scheme)}"))
        if claim.age is not None:
            made.stages.append(Stage("timestamp", "passed", _age(scheme, claim.age)))
        if scheme.signature.kind not in BEARER_KINDS:
            made.stages.append(Stage("signed", "passed", _signed(verifier, capture)))
        proof = verifier.verify(claim, head, [body])
    except Rejected as rejected:
        if rejected.reason in DIAGNOSABLE:
            made.finding = diagnose(rejected.reason, verifier, head, body, now=now, effort=THOROUGH, others=others)
            if unusable and made.finding is not None and made.finding.hint is Hint.UNKNOWN:
                read_otherwise = Verifier(scheme, unusable, verifier.public_url, resolved=False)
                made.finding = diagnose(rejected.reason, read_otherwise, head, body, now=now, effort=THOROUGH)
        stage = _stage_of(rejected.reason)
        if stage == "signature" and claim is None:
            made.stages.append(Stage("expected", "skipped", _expected(scheme)))
        ids = ", ".join(dict.fromkeys(secret.id for secret in [*verifier.secrets, *unusable]))
        detail = f"no match with {ids}" if stage == "verify" else rejected.detail
        raise _At(stage, Rejected(rejected.reason, detail)) from None
    made.secret = proof.secret_id
    if proof.age is not None:
        made.stages.append(Stage("timestamp", "passed", _age(scheme, proof.age)))
    made.stages.append(Stage("verify", "passed", f"the secret {proof.secret_id} matches"))


def _stage_of(reason: Reason) -> str:
    if reason in (Reason.SIGNATURE_MISSING, Reason.SIGNATURE_MALFORMED):
        return "signature"
    return "timestamp" if reason.startswith("timestamp") else "verify"


def _expected(scheme: Scheme) -> str:
    """The form of the signature: where it stands, what it begins with, how long it is."""
    signature = scheme.signature
    before = f"{signature.prefix!r} and " if signature.prefix else ""
    if signature.list is not None:
        tags = signature.list.versions or (signature.list.tag,)
        before = f"items that begin with {' or '.join(map(repr, tags))}, each " if any(tags) else "items, each "
    if signature.kind in BEARER_KINDS:
        what = "the secret itself" if scheme.signature.kind.value == "token" else "user and password in base64"
    elif signature.kind in PUBLIC_KEY_KINDS:
        what = f"an {signature.kind} signature in {signature.encoding}"
    else:
        size = DIGEST_SIZES[signature.algorithm]
        hexadecimal = signature.encoding in (Encoding.HEX, Encoding.HEX_ANY_CASE)
        length = 2 * size if hexadecimal else 4 * -(-size // 3)
        what = f"{length} characters of {signature.encoding}"
    return f"{signature.place}: {before}{what}"


def _age(scheme: Scheme, age: float) -> str:
    clock = scheme.timestamp
    assert clock is not None
    limit = f"tolerance {clock.tolerance:g} s either way" if clock.tolerance is not None else "any age is taken"
    when = f"{age:.0f} s ago" if age >= 0 else f"{-age:.0f} s ahead of our clock"
    return f"{clock.place}: signed {when}; {limit}"


def _signed(verifier: Verifier, capture: Capture) -> str:
    """The signed message in form: `timestamp "." body (1,024 bytes)`."""
    names = []
    for part in verifier.scheme.parts:
        if isinstance(part, bytes):
            names.append(json.dumps(part.decode()))
        elif isinstance(part, HeaderValue):
            names.append(f"header {part.name.decode()}")
        elif isinstance(part, JsonValue):
            names.append(f"JSON value {part.path}")
        elif part is Piece.BODY:
            names.append(_body(capture))
        elif part in (Piece.URL, Piece.URL_WITHOUT_QUERY):
            url = PublicURL(verifier.public_url).of(capture.head.target)
            if part is Piece.URL_WITHOUT_QUERY:
                url = url.partition(b"?")[0]
            names.append(f"URL {_shown(url)}")
        else:
            names.append(part.value)
    return " ".join(names)


def _body(capture: Capture) -> str:
    return f"body ({len(capture.body):,} bytes)"


def _shown(text: bytes) -> str:
    """A path or URL as a line may hold it; what a query holds is not shown, only that there is one."""
    path, mark, query = text.decode("latin-1").partition("?")
    shown = "".join(char if "!" <= char <= "~" else "?" for char in path[:200])
    return shown + (f"?({len(query)} characters of query)" if mark else "")
