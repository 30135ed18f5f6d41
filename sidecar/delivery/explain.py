"""`sidecar explain`: the decision of each stage about a captured request, and the reason.

`decide.py` decides, as on live traffic; this module only puts its decisions into words. It reports the form of things (which
header, how many bytes, how old) and never their value: no secret, no MAC, no body.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sidecar.config.settings import Config
from sidecar.delivery import decide
from sidecar.delivery.explain_forward import describe_forwarding
from sidecar.delivery.explanation import Explanation, Stage
from sidecar.diagnosis.capture import MAX_CAPTURE, Capture
from sidecar.diagnosis.diagnose import DIAGNOSABLE, Finding, diagnose
from sidecar.diagnosis.effort import THOROUGH
from sidecar.diagnosis.other_provider import find_other_provider
from sidecar.diagnosis.token import read_parts
from sidecar.http1.head import RequestHead
from sidecar.http1.upstream import UpstreamAddress
from sidecar.outcomes import DEFAULT_REJECTION, Hint, Reason, Rejected
from sidecar.replay.store import Replay
from sidecar.routing.client_ip import Client, resolve_client
from sidecar.routing.routes import HIDDEN, Route, foreign_secrets
from sidecar.secret import Secret
from sidecar.verify.claim import Claim
from sidecar.verify.composite import Combine, Composite
from sidecar.verify.handshake import Handshakes, Shape
from sidecar.verify.message import PublicURL
from sidecar.verify.published import KeyNeeded
from sidecar.verify.route_handshakes import make_handshakes
from sidecar.verify.scheme import Scheme
from sidecar.verify.template import Piece, describe_template
from sidecar.verify.verifier import Verifier


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The configuration, or only the verifier, to check a capture against."""

    config: Config | None = None
    verifier: Verifier | None = None  #: without a configuration
    secrets: Sequence[Secret] = ()  #: in place of the configuration's, if there are any
    unusable: Sequence[tuple[Secret, str]] = ()  #: given ones that are not in the form that the scheme needs, and why
    public_url: str = ""  #: in place of the configuration's
    peer_known: bool = False  #: whether the capture's head says where the connection came from


def explain(capture: Capture, subject: Subject, *, now: float) -> Explanation:  # noqa: PLR0912 - one straight line
    """Asks the stages. `now` is unix time in seconds. Raises `KeyFormError`, `ValueError` for unusable secrets or URLs."""
    explanation = Explanation(remarks=capture.remarks)
    head, body = capture.head, capture.body
    path = _path_to_show(head, subject)
    explanation.passed(
        "request", f"{head.method} {_shown(path)}, {_count(len(head.names.listed), 'header field')}, {_body(capture)}"
    )
    if capture.fault is not None:
        return explanation.rejected("request", capture.fault)
    decisions = decide.Decisions(head)
    others: Sequence[tuple[str, Secret]] = ()
    if subject.config is None:
        assert subject.verifier is not None
        explanation.remarks = [*capture.remarks, *(f"the secret {secret.id} {why}" for secret, why in subject.unusable)]
        decisions.route = _route_of(subject.verifier, head)
    else:
        decisions.client = _client(explanation, head, subject, subject.config)
        rejected = decide.find_route(decisions, subject.config.routes)
        if rejected is not None:
            return explanation.rejected("route", rejected)
        explanation.route, explanation.shadow = decisions.route.name, decisions.route.shadow
        others = [] if subject.secrets else foreign_secrets(subject.config.routes.routes, decisions.route)
        _report_tenant(explanation, decisions, subject)
        decisions.route = _with_given(decisions.route, subject)

    rejected = decide.admit(decisions, now)
    route = decisions.route
    if subject.config is not None and not _report_route(explanation, decisions, rejected):
        assert rejected is not None
        return explanation.rejected(_stage_of(rejected), rejected)
    if rejected is None and decisions.handshake is None and len(body) > route.body_limit:
        return explanation.rejected("body", Rejected(Reason.BODY_TOO_LARGE, f"the limit is {route.body_limit:,} bytes"))
    if route.verifier is not None and (rejected is not None or decisions.claim is not None):
        if rejected is None:
            _report_claim(explanation, capture, route.verifier, decisions.claim, now)
            rejected = _verify(explanation, decisions, body)
        else:
            _report_claim(explanation, capture, route.verifier, None, now)
        _report_token(explanation, capture, route.verifier)
        if rejected is not None:
            return _diagnose(explanation, capture, decisions, rejected, _Diagnosis(subject.unusable, others, now))
        _report_verified(explanation, decisions)
    if decisions.handshake is not None:
        if subject.verifier is not None and (unknown := _unknown_to_preset(decisions.handshake, subject.verifier)):
            explanation.handshake = "unchecked"
            explanation.skipped(
                "handshake", f"a handshake of {subject.verifier.scheme.name or 'the scheme'}; {unknown}"
            )
            return explanation
        return _report_handshake(explanation, capture, decisions)
    if route.open:
        explanation.skipped("verify", "the route is open: everything passes unverified")
    elif route.verifier is None:
        explanation.skipped("verify", "verify: none; the address alone decides")
    if route.replay is not None:
        explanation.skipped("once", _once(decisions, route.replay))
    usual = subject.config.timeouts if subject.config is not None else None
    if forwarding := describe_forwarding(route, head, usual):
        explanation.passed("forward", forwarding)
    return explanation


def _once(decisions: decide.Decisions, replay: Replay) -> str:
    """How a copy of the request would be recognized."""
    by = ""
    if replay.by_id:
        verifier = decisions.route.verifier
        present = verifier is not None and verifier.delivery_id(decisions.head)
        by = ", known by its delivery id" if present else "; it has no delivery id, so what was signed counts"
    return f"not checked: a copy within {replay.seconds:g} s is not forwarded{by}"


def _path_to_show(head: RequestHead, subject: Subject) -> bytes:
    """The path without a segment that is a secret."""
    if subject.config is not None:
        return subject.config.routes.shown_path(head.path)
    return b"/" + HIDDEN if subject.verifier is not None and subject.verifier.hides_path else head.path


def _verify(explanation: Explanation, decisions: decide.Decisions, body: bytes) -> Rejected | None:
    """Stage 6. A key that isn't available ends it, because nothing is fetched here."""
    try:
        return decide.verify(decisions, [body])
    except KeyNeeded as needed:
        explanation.key = needed.source.url
        asks = f" (key id {needed.source.id})" if needed.source.id else ""
        return Rejected(needed.reason, f"{needed.detail}: {needed.source.url}{asks}")


def _report_token(explanation: Explanation, capture: Capture, verifier: Verifier) -> None:
    """The content of the first token, and the key that it names; or the parts that a signature covers. Never the signature."""
    for member in verifier.members():
        if member.scheme.listed is not None:
            _report_coverage(explanation, capture, member)
    if not verifier.scheme.signature.kind.is_jws:
        return
    parts = read_parts(verifier, capture.head, capture.body)
    if parts is None:
        return
    head, claims = ({name: _shown_claim(name, value) for name, value in each.items()} for each in parts)
    explanation.token = {"header": head, "claims": claims}
    listed = ", ".join(f"{name}={json.dumps(value)}" for name, value in head.items())
    explanation.passed("token", f"header: {listed}")
    if verifier.scheme.signature.kind.claims:
        listed = ", ".join(f"{name}={json.dumps(value)}" for name, value in claims.items())
        explanation.passed("claims", listed)


def _report_coverage(explanation: Explanation, capture: Capture, verifier: Verifier) -> None:
    """The parts that a signature lists as covered, and its parameters. The list is the sender's, and may be anything."""
    described = verifier.describe_listed(capture.head)
    if described is None:
        return
    covers = [each[:100] for each in described.covers]
    parameters = {name: _shown_claim(name, value) for name, value in described.parameters.items()}
    explanation.coverage = {"label": described.label, "covers": covers, "parameters": parameters}
    listed = "".join(f"; {name}={json.dumps(value)}" for name, value in parameters.items())
    named = f"{described.label}: " if described.label else ""
    explanation.passed("covers", f"{named}{', '.join(covers) or 'nothing'}{listed}")


def _shown_claim(name: str, value: Any) -> Any:
    """A claim as the operator may read it: short, and without the credentials that some senders put into tokens."""
    if any(word in name.lower() for word in ("token", "secret", "password", "x5c")):
        return "(not shown)"
    if isinstance(value, str):
        return "(a token)" if value.startswith("eyJ") else value[:100] + ("..." if len(value) > 100 else "")
    if isinstance(value, list) and len(value) <= 5 and all(isinstance(each, str) for each in value):
        return [_shown_claim(name, each) for each in value]
    if isinstance(value, list):
        return f"(a list of {len(value)})"
    return f"(an object with {len(value)} members)" if isinstance(value, dict) else value


def _route_of(verifier: Verifier, head: RequestHead) -> Route:
    """A route that takes any request, and verifies this one."""
    return Route(
        name="",
        path=head.path,
        prefix=False,
        methods=frozenset({head.method}),
        upstream=UpstreamAddress("http", "", 0, ""),
        body_limit=MAX_CAPTURE,
        rejection=DEFAULT_REJECTION,
        verifier=verifier,
        handshakes=_handshakes_of(verifier, head),
    )


def _handshakes_of(verifier: Verifier, head: RequestHead) -> Handshakes | None:
    """The scheme's handshakes, as on a route without `handshake:`.

    A route's verify_token and perhaps the URL are unknown here. `Handshakes` would leave out those that need them, so other
    values are given in their place, and `_unknown_to_preset` keeps them from being used.
    """
    secret = verifier.secrets[0] if verifier.secrets else None
    url = PublicURL(verifier.public_url).of(head.target).partition(b"?")[0] if verifier.public_url else head.path
    return make_handshakes(verifier, None, token=secret, url=url.decode("latin-1"))


def _unknown_to_preset(shape: Shape, verifier: Verifier) -> str:
    """The part of a handshake that a preset alone can't check, with the remedy; empty if there is none."""
    if shape.needs_token:
        return "its token is not checked: only a configuration has the route's `verify_token`; use --config"
    if shape.needs_url and not verifier.public_url:
        return "its response contains the URL; add --public-url"
    return ""


def _with_given(route: Route, subject: Subject) -> Route:
    """The route with the secrets and the URL that were given instead of the configuration's."""
    own = route.verifier
    if own is None or not (subject.secrets or subject.public_url):
        return route
    return replace(route, verifier=own.with_others(subject.secrets, subject.public_url))


def _report_tenant(explanation: Explanation, decisions: decide.Decisions, subject: Subject) -> None:
    """The tenant that the request names, on a route with tenants, and the tenant's secrets."""
    tenants = decisions.route.tenants
    if tenants is None:
        return
    place = f"header {tenants.header.decode()}" if tenants.header else "path"
    named = f"{decisions.tenant}, by the {place}" if decisions.tenant else "none"
    if subject.secrets:
        decisions.matcher = None
        explanation.skipped("tenant", f"{named}; the given secrets are used in place of the tenant's")
        return
    if problem := tenants.problem(decisions.tenant):
        explanation.skipped("tenant", f"{named}: {problem}; nothing can match")
        return
    ids = ", ".join(secret.id for secret in tenants.secrets(decisions.tenant))
    explanation.passed("tenant", f"{named}; its secrets in {tenants.directory}: {ids}")
    decisions.route = decide.with_secrets_of_tenant(decisions)


def _client(explanation: Explanation, head: RequestHead, subject: Subject, config: Config) -> Client | None:
    """Stage 2. None if the capture does not say where the connection came from."""
    header = config.client_header
    hops = head.values(header.field)
    if not subject.peer_known:
        explanation.skipped("client", "a capture has no sender's address; give --client-ip")
        return None
    client = resolve_client(head.peer, hops, config.trusted_proxies, trust_unix=config.trust_unix, header=header)
    explanation.client = client.text or None
    if client.unreadable:
        why = f"unreadable: {client.unreadable}"
    elif not client.trusted_peer:
        ignored = f"; its {header.name} is ignored, because it isn't a trusted proxy" if hops else ""
        why = f"{client.text}, the connection's own address{ignored}"
    elif hops:
        why = f"{client.text}, from {header.name} of the trusted proxy {head.peer}"
    else:
        why = f"{client.text}, a trusted proxy that names no client"
    explanation.passed("client", why)
    return client


def _report_route(explanation: Explanation, decisions: decide.Decisions, rejected: Rejected | None) -> bool:
    """Stage 3; whether it passed."""
    route, client = decisions.route, decisions.client
    stage = _stage_of(rejected) if rejected is not None else ""
    if stage == "route":
        return False
    explanation.passed("route", f"{route.name} ({route.place}) accepts {decisions.head.method}")
    if stage == "allowlist":
        return False
    if route.allow is not None and client is None:
        explanation.skipped("allowlist", "not checked without --client-ip")
    elif route.allow is not None and client is not None:
        explanation.passed("allowlist", f"{client.text} is in a network of the route's allowlist")
    if stage == "certificate":
        return False
    if route.client_certificate is not None and client is None:
        explanation.skipped("certificate", "not checked without --client-ip, the address of the proxy")
    elif route.client_certificate is not None:
        compared = ", ".join(route.client_certificate.asked)
        explanation.passed("certificate", f"{compared} of the certificate in {route.client_certificate.header} fit")
    return True


def _report_members(explanation: Explanation, capture: Capture, verifier: Composite, now: float) -> None:
    """The decision of each of several schemes: one line for each."""
    explanation.passed("scheme", _COMBINED[verifier.combine])
    verdicts = verifier.judge(capture.head, [capture.body], now)
    for number, (name, member) in enumerate(zip(verifier.names, verifier.members(), strict=True)):
        stage = f"{verifier.combine}[{number}]"
        what = f"{name}: {member.scheme.summary}"
        if number >= len(verdicts):
            explanation.skipped(stage, f"{what}; not asked, because another one has accepted")
            continue
        verdict = verdicts[number]
        if verdict.verified is not None:
            explanation.passed(stage, f"{what}; the secret {verdict.verified.secret_id} matches")
        elif verdict.rejected is not None:
            because = f"{verdict.rejected.reason}: {verdict.rejected.detail}"
            expected = f"; expected in {_expected(member.scheme)}" if verdict.claim is None else ""
            explanation.stages.append(Stage(stage, "rejected", f"{what}; {because}{expected}"))


_COMBINED = {
    Combine.ANY: "any_of: one of these schemes must accept",
    Combine.ALL: "all_of: each of these schemes must accept",
}


def _report_claim(
    explanation: Explanation, capture: Capture, verifier: Verifier, claim: Claim | None, now: float
) -> None:
    """Stage 4, if it passed, and what is signed."""
    if isinstance(verifier, Composite):
        _report_members(explanation, capture, verifier, now)
        return
    scheme = verifier.scheme
    explanation.passed("scheme", f"{scheme.name or 'custom scheme'}: {scheme.summary}")
    if claim is None:
        return
    explanation.passed("signature", f"well-formed: {_expected(scheme)}")
    if claim.age is not None:
        explanation.passed("timestamp", _age(scheme, claim.age))
    if scheme.listed is None and not (scheme.signature.kind.bearer or scheme.signature.kind.claims):
        explanation.passed("signed", _signed(verifier, capture))


def _report_verified(explanation: Explanation, decisions: decide.Decisions) -> None:
    """Stage 6, if it passed."""
    verified, verifier = decisions.verified, decisions.route.verifier
    if verified is None or verifier is None or decisions.claim is None:
        return
    deciding = verifier.proven_by(verified, decisions.claim, decisions.head)[0]
    explanation.secret, explanation.published = verified.secret_id, deciding.scheme.published
    if verified.age is not None:
        explanation.passed("timestamp", _age(deciding.scheme, verified.age))
    also = f", and {' and '.join(verified.also)}" if verified.also else ""
    matching = "the provider's key matches" if deciding.scheme.published else f"the secret {verified.secret_id} matches"
    explanation.passed("verify", f"{matching}{also}")


def _report_handshake(explanation: Explanation, capture: Capture, decisions: decide.Decisions) -> Explanation:
    handshakes, shape = decisions.route.handshakes, decisions.handshake
    assert handshakes is not None
    assert shape is not None
    if not handshakes.responds_to(shape):
        explanation.handshake = "passed"
        explanation.passed("handshake", "a handshake, passed on to the receiver")
        return explanation
    try:
        response = handshakes.respond(shape, capture.head, [capture.body])
    except Rejected as rejected:
        explanation.handshake = "rejected"
        return explanation.rejected("handshake", rejected)
    explanation.handshake = "answered"
    if shape.confirm is not None:
        try:
            host = urlsplit(handshakes.address(shape, capture.head, [capture.body])).netloc
        except Rejected as rejected:
            explanation.handshake = "rejected"
            return explanation.rejected("handshake", rejected)
        explanation.skipped("confirm", f"live, the sidecar then calls an address of {host}; explain calls nothing")
    explanation.passed("handshake", f"a handshake, answered here with {response.status} and {len(response.body)} bytes")
    return explanation


class _Diagnosis(NamedTuple):
    """The secrets that a diagnosis may try besides the route's own, and the time."""

    unusable: Sequence[tuple[Secret, str]]
    others: Sequence[tuple[str, Secret]]
    now: float


def _diagnose(
    explanation: Explanation, capture: Capture, decisions: decide.Decisions, rejected: Rejected, given: _Diagnosis
) -> Explanation:
    """A rejection by verification, and the mistake that explains it."""
    verifier = decisions.route.verifier
    assert verifier is not None
    head, body = capture.head, capture.body
    several = isinstance(verifier, Composite)
    verifier = verifier.attempted(head, [body], given.now)
    scheme = verifier.scheme
    unusable = [secret for secret, _ in given.unusable]
    if rejected.reason in DIAGNOSABLE:
        now = given.now
        explanation.finding = diagnose(
            rejected.reason, verifier, head, body, now=now, effort=THOROUGH, others=given.others
        )
        if unusable and explanation.finding is not None and explanation.finding.hint is Hint.UNKNOWN:
            read_otherwise = Verifier(scheme, unusable, verifier.public_url, resolved=False)
            explanation.finding = diagnose(rejected.reason, read_otherwise, head, body, now=now, effort=THOROUGH)
    elif rejected.reason is Reason.SIGNATURE_MISSING and (other := find_other_provider(scheme, head)) is not None:
        explanation.finding = Finding(Hint.OTHER_PROVIDER, str(other))
    stage = _stage_of(rejected)
    if stage == "signature" and decisions.claim is None and not several:
        explanation.skipped("expected", _expected(scheme))
    detail = rejected.detail
    if rejected is verifier.mismatch:
        ids = ", ".join(dict.fromkeys(secret.id for secret in [*verifier.secrets, *unusable]))
        detail = f"no match with {ids}"
    return explanation.rejected(stage, Rejected(rejected.reason, detail))


def _stage_of(rejected: Rejected) -> str:
    """The stage that a rejection by `decide` comes from."""
    reason = rejected.reason
    if reason in (Reason.NO_ROUTE, Reason.METHOD_NOT_ALLOWED):
        return "route"
    if reason in (Reason.IP_NOT_ALLOWED, Reason.CLIENT_IP_UNREADABLE):
        return "allowlist"
    if reason is Reason.CLIENT_CERTIFICATE_MISMATCH:
        return "certificate"
    if reason in (Reason.SIGNATURE_MISSING, Reason.SIGNATURE_MALFORMED):
        return "signature"
    return "timestamp" if reason.startswith("timestamp") else "verify"


def _expected(scheme: Scheme) -> str:
    """The form of the signature: where it is, what it starts with, how long it is."""
    signature = scheme.signature
    before = f"{signature.prefix!r} and " if signature.prefix else ""
    if signature.list is not None:
        tags = signature.list.versions or (signature.list.tag,)
        before = f"items that start with {' or '.join(map(repr, tags))}, each " if any(tags) else "items, each "
    return f"{signature.place}: {before}{signature.kind.describe_form(signature)}"


def _age(scheme: Scheme, age: float) -> str:
    clock = scheme.timestamp
    assert clock is not None
    limit = f"tolerance {clock.tolerance:g} s either way" if clock.tolerance is not None else "any age is accepted"
    when = f"{age:.0f} s ago" if age >= 0 else f"{-age:.0f} s ahead of our clock"
    return f"{clock.place}: signed {when}; {limit}"


def _signed(verifier: Verifier, capture: Capture) -> str:
    """The signed message in form: `timestamp "." body (1,024 bytes)`."""
    shown = {Piece.BODY: _body(capture)}
    if verifier.scheme.needs_url:
        url = PublicURL(verifier.public_url).of(capture.head.target)
        shown[Piece.URL] = f"URL {_shown(url)}"
        shown[Piece.URL_WITHOUT_QUERY] = f"URL {_shown(url.partition(b'?')[0])}"
    return " or ".join(describe_template(message.parts, shown) for message in verifier.scheme.messages)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _body(capture: Capture) -> str:
    return f"body ({len(capture.body):,} bytes)"


def _shown(text: bytes) -> str:
    """A path or URL for one line of text. The query is not shown, only that there is one."""
    path, mark, query = text.decode("latin-1").partition("?")
    shown = "".join(char if "!" <= char <= "~" else "?" for char in path[:200])
    return shown + (f"?({len(query)} characters of query)" if mark else "")
