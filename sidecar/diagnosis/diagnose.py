"""Why a signature did not match: one hint of a closed list, found by trying the mistakes that people make.

The verifier itself is asked again, with one thing changed at a time: another encoding or algorithm, the secret with a newline
or decoded in another way, the secret of another route, the body with another end or written anew as JSON, another public
URL. Nothing is ever accepted by it: the answer was given before, and a hint is a word for the operator's log and metric.

It is no oracle for senders. What matches here was signed with a secret of the operator's, which whoever sent it must know;
everything else ends in `unknown` after the same bounded work (`Effort`). No hint holds a MAC, a secret or a body.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from sidecar.diagnosis.alternatives import other_ends, other_json, other_line_endings, other_urls, with_target
from sidecar.diagnosis.other_secrets import other_prefix, other_routes, other_whitespace
from sidecar.http1.head import RequestHead
from sidecar.outcomes import Hint, Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.claim import SignatureReader
from sidecar.verify.document import find_value, read_document
from sidecar.verify.encoding import Encoding
from sidecar.verify.keys import KeyForm, key_problem
from sidecar.verify.kinds import KINDS
from sidecar.verify.scheme import Scheme, SignatureField, Unit
from sidecar.verify.timestamp import READERS
from sidecar.verify.verifier import Verifier

#: What each hint asks its reader to do. docs/troubleshooting.md says more.
REMEDIES = {
    Hint.WRONG_ALGORITHM: "name the algorithm that the sender uses in `algorithm:`, or choose the preset of that version",
    Hint.WRONG_ENCODING: "name the encoding that the sender uses in `encoding:`, or correct the sender",
    Hint.PREFIX_MISSING: "write `prefix:` as the sender does, or have the sender put it before the signature",
    Hint.SECRET_HAS_WHITESPACE: "take the newline or blank off where the secret is stored (printf, not echo), on both sides",
    Hint.SECRET_DECODED_DIFFERENTLY: "copy the secret as the provider shows it, and set `key:` to how the sender reads it",
    Hint.SECRET_OF_ANOTHER_ROUTE: "give this route its own secret, or correct the URL at the provider",
    Hint.BODY_NEWLINE_CHANGED: "find what adds or takes a final newline: a proxy, or the tool that saved the body",
    Hint.BODY_LINE_ENDINGS_CHANGED: "find what changes line ends on the way; send and save the body as binary",
    Hint.BODY_JSON_RESERIALISED: "find what parses the JSON and writes it anew before it gets here; the raw bytes are signed",
    Hint.BODY_EMPTY: "the sender signs before it has a body, or the body was put in on the way",
    Hint.TIMESTAMP_UNIT: "set `timestamp: {unit: ...}` to what the sender writes",
    Hint.URL_MISMATCH: "set `public_url` to exactly what is registered at the provider: scheme, host, port, path and query",
    Hint.UNKNOWN: "compare the secret at the provider with the one here; then look for what changes the body on the way",
}

#: Refusals that can be diagnosed.
DIAGNOSABLE = frozenset(
    {
        Reason.SIGNATURE_MISMATCH,
        Reason.SIGNATURE_MALFORMED,
        Reason.TOKEN_MISMATCH,
        Reason.TIMESTAMP_MALFORMED,
        Reason.TIMESTAMP_TOO_OLD,
        Reason.TIMESTAMP_IN_FUTURE,
    }
)
_TIMESTAMPS = frozenset({Reason.TIMESTAMP_MALFORMED, Reason.TIMESTAMP_TOO_OLD, Reason.TIMESTAMP_IN_FUTURE})
#: Nobody's clock is wrong by this much; a unit is.
_DECADE = 10 * 365 * 86400.0


class Finding(NamedTuple):
    """A hint, and in a few words what was changed for the signature to match."""

    hint: Hint
    because: str = ""


class Effort(NamedTuple):
    """How much may be tried."""

    hashed: int  #: bytes
    json: int  #: largest body that is parsed as JSON and written anew
    indented: int  #: largest one that is written with indentation too
    others: int  #: secrets of other routes


#: On live traffic, behind the answer: a few milliseconds at most.
LIVE = Effort(hashed=4 * 1024**2, json=16 * 1024, indented=4 * 1024, others=200)
#: Larger bodies are not diagnosed on live traffic.
MAX_LIVE_BODY = 256 * 1024
#: In a command that somebody waits for.
THOROUGH = Effort(hashed=16 * 1024**3, json=16 * 1024**2, indented=16 * 1024**2, others=100_000)


class _Try(NamedTuple):
    """One mistake that somebody may have made: what would match if they did."""

    hint: Hint
    because: str  #: empty: the id of the secret that matches says it
    verifier: Verifier
    head: RequestHead
    body: bytes


def diagnose(
    reason: Reason,
    verifier: Verifier,
    head: RequestHead,
    body: bytes,
    *,
    now: float,
    effort: Effort,
    others: Sequence[tuple[str, Secret]] = (),
) -> Finding | None:
    """The mistake that explains a refusal for `reason`; None where the reason says it all.

    `others` are the secrets of other routes, with the routes' names. A malformed signature is judged by its form alone, so
    the body may be left empty then.
    """
    if reason in _TIMESTAMPS:
        return _diagnose_timestamp(verifier.scheme, head, body, now)
    if reason is Reason.SIGNATURE_MALFORMED:
        return _diagnose_form(verifier.scheme, head)
    hashed = 0
    for each in _tries(verifier, head, body, others, effort):
        hashed += (len(each.body) + 256) * len(each.verifier.secrets)
        if hashed > effort.hashed:
            break
        try:
            matched = each.verifier.verify(each.verifier.read_claim(each.head, None), each.head, [each.body])
        except Rejected:
            continue
        return Finding(each.hint, each.because or matched.secret_id)
    if not body and verifier.scheme.binds_body:
        return Finding(Hint.BODY_EMPTY, "the body arrived empty, and an empty one was not signed")
    return Finding(Hint.UNKNOWN)


# -- by form: what stands in the head is not what the scheme expects there --


def _diagnose_timestamp(scheme: Scheme, head: RequestHead, body: bytes, now: float) -> Finding | None:
    """Another unit, if the time makes sense in it and not in the scheme's own."""
    clock = scheme.timestamp
    stamp = _find_stamp(scheme, head, body)
    if clock is None or stamp is None or _is_near(clock.unit, stamp, now):
        return None
    for unit in Unit:
        if _is_near(unit, stamp, now):
            return Finding(Hint.TIMESTAMP_UNIT, f"the time is written as {unit}, the scheme expects {clock.unit}")
    if any(_is_near(unit, stamp.partition(b".")[0], now) for unit in (Unit.SECONDS, Unit.MILLISECONDS)):
        return Finding(Hint.TIMESTAMP_UNIT, f"the time has a fraction, the scheme expects {clock.unit}")
    return None


def _find_stamp(scheme: Scheme, head: RequestHead, body: bytes) -> bytes | None:
    """The timestamp as sent, if there is just one."""
    clock = scheme.timestamp
    if clock is None:
        return None
    stamps: Sequence[bytes]
    if clock.header:
        stamps = head.values(clock.header.lower().encode())
    else:
        try:
            if clock.field:
                stamp = find_value(read_document(head, [body], scheme.form_field), clock.field)
                return None if stamp is None else stamp.encode("utf-8", "surrogatepass")
            stamps = SignatureReader(scheme).read_head(head)[1]
        except Rejected:
            return None
    return stamps[0] if len(set(stamps)) == 1 else None


def _is_near(unit: Unit, text: bytes, now: float) -> bool:
    seconds = READERS[unit](text)
    return seconds is not None and abs(now - seconds) < _DECADE


def _diagnose_form(scheme: Scheme, head: RequestHead) -> Finding | None:
    """What the signature would be well-formed as, were one option another."""
    field = scheme.signature
    if field.field or _well_formed(scheme, head):
        return None  # it is malformed elsewhere, and the reason's detail says where
    for hint, because, other in _forms(field):
        if _well_formed(replace(scheme, signature=other), head):
            return Finding(hint, because)
    return Finding(Hint.UNKNOWN)


def _well_formed(scheme: Scheme, head: RequestHead) -> bool:
    try:
        SignatureReader(scheme).read_head(head)
    except Rejected:
        return False
    return True


def _forms(field: SignatureField) -> Iterator[tuple[Hint, str, SignatureField]]:
    encodings = [each for each in Encoding if each is not field.encoding]
    algorithms = [each for each in Algorithm if each is not field.algorithm] if field.kind.digest_sized else []
    bare = replace(field, prefix="", list=None)
    tagged = field != bare  # something stands before the signature
    # The signature is as the scheme says, and what should stand before it is not there.
    if tagged:
        yield Hint.PREFIX_MISSING, f"without {_before(field)!r} before it", bare
    if field.kind.bearer:
        return
    for encoding in encodings:
        yield Hint.WRONG_ENCODING, _describe_encoding(encoding, field), replace(field, encoding=encoding)
    for algorithm in algorithms:
        prefix = field.prefix.replace(field.algorithm, algorithm)
        other = replace(field, algorithm=algorithm, prefix=prefix)
        yield Hint.WRONG_ALGORITHM, f"as long as a {algorithm}, the scheme expects {field.algorithm}", other
    # Two things differ: the one that matters more is named.
    for encoding in encodings:
        if tagged:
            yield Hint.WRONG_ENCODING, _describe_encoding(encoding, field), replace(bare, encoding=encoding)
    for algorithm in algorithms:
        because = f"as long as a {algorithm}, the scheme expects {field.algorithm}"
        yield Hint.WRONG_ALGORITHM, because, replace(bare, algorithm=algorithm)
        for encoding in encodings:
            for form in (field, bare):
                yield Hint.WRONG_ALGORITHM, because, replace(form, algorithm=algorithm, encoding=encoding)


def _before(field: SignatureField) -> str:
    listed = field.list
    tag = "" if listed is None else (listed.versions[0] if listed.versions else listed.tag)
    return tag + field.prefix


def _describe_encoding(encoding: Encoding, field: SignatureField) -> str:
    name = "hex in upper case" if encoding is Encoding.HEX_ANY_CASE else str(encoding)
    return f"written in {name}, the scheme expects {field.encoding}"


# -- by trying: the signature is well-formed, and of something else --


def _tries(
    verifier: Verifier, head: RequestHead, body: bytes, others: Sequence[tuple[str, Secret]], effort: Effort
) -> Iterator[_Try]:
    """The commonest and cheapest first. Impossible ones are left out."""
    scheme, own, url = verifier.scheme, verifier.secrets, verifier.public_url
    kind = scheme.signature.kind

    def with_secrets(hint: Hint, form: KeyForm, secrets: Iterable[Secret]) -> Iterator[_Try]:
        """All at once; the id of the one that matches says what was changed."""
        changed = replace(scheme, key=form)
        usable = [secret for secret in secrets if not key_problem(changed, secret)]
        if usable:
            yield _Try(hint, "", Verifier(changed, usable, url), head, body)

    yield from with_secrets(Hint.SECRET_HAS_WHITESPACE, scheme.key, other_whitespace(own))
    for form in kind.misread_as:
        if form is not scheme.key:
            because = _READINGS[form]
            yield from with_secrets(Hint.SECRET_DECODED_DIFFERENTLY, form, [each.with_id(because) for each in own])
    if KeyForm.WHSEC in kind.misread_as:
        yield from with_secrets(Hint.SECRET_DECODED_DIFFERENTLY, KeyForm.UTF8, other_prefix(own))
    yield from with_secrets(Hint.SECRET_OF_ANOTHER_ROUTE, scheme.key, other_routes(own, others[: effort.others]))
    secrets = [secret for secret in own if not key_problem(scheme, secret)]
    if not secrets:
        return
    for prefix in kind.other_prefixes:
        prefixed = replace(scheme, signature=replace(scheme.signature, prefix=prefix))
        yield _Try(
            Hint.PREFIX_MISSING, f"with {prefix.strip()!r} before it", Verifier(prefixed, secrets, url), head, body
        )
    if kind.bearer:
        return
    for because, changed, at, target in other_urls(scheme, head, url):
        yield _Try(Hint.URL_MISMATCH, because, Verifier(changed, secrets, at), with_target(head, target), body)
    yield from _body_tries(verifier, head, body, effort)
    for because, name, parts in kind.constructions(scheme.parts):
        changed = replace(scheme, signature=replace(scheme.signature, kind=KINDS[name]), parts=parts)
        yield _Try(Hint.WRONG_ALGORITHM, because, Verifier(changed, secrets, url), head, body)
    if not kind.digest_sized:  # without a fixed length many texts are well-formed
        for encoding in Encoding:
            changed = replace(scheme, signature=replace(scheme.signature, encoding=encoding))
            because = _describe_encoding(encoding, scheme.signature)
            yield _Try(Hint.WRONG_ENCODING, because, Verifier(changed, secrets, url), head, body)


def _body_tries(verifier: Verifier, head: RequestHead, body: bytes, effort: Effort) -> Iterator[_Try]:
    for because, text in other_ends(body):
        yield _Try(Hint.BODY_NEWLINE_CHANGED, because, verifier, head, text)
    for because, text in other_line_endings(body):
        yield _Try(Hint.BODY_LINE_ENDINGS_CHANGED, because, verifier, head, text)
    if body:
        yield _Try(Hint.BODY_EMPTY, "with an empty body", verifier, head, b"")
    if len(body) <= effort.json:
        for because, text in other_json(body, indented=len(body) <= effort.indented):
            yield _Try(Hint.BODY_JSON_RESERIALISED, because, verifier, head, text)


#: How a sender may have read a secret's text.
_READINGS = {form: f"with the secret read as {form}" for form in KeyForm} | {
    KeyForm.UTF8: "with the secret as text",
    KeyForm.HEX: "with the secret decoded from hex",
    KeyForm.WHSEC: "with the secret decoded from base64, without 'whsec_'",
}
