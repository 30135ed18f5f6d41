"""Why a signature did not match: one hint of a closed list, found by trying common mistakes.

The verifier checks the delivery again with one change at a time: another encoding or algorithm, the secret with a newline or
decoded differently, the secret of another route, the body with another end or with its JSON serialized again, another public
URL. This never accepts a delivery: the response is sent before, and a hint goes to the operator's log and metrics only.

It is not an oracle for senders. A delivery that matches here was signed with one of the operator's secrets, so its sender knows
that secret; all others end in `unknown` or nothing after bounded work (`Effort`). No hint holds a MAC, a secret or a body.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from sidecar.diagnosis.alternatives import (
    lost_gzip,
    other_bom,
    other_ends,
    other_json,
    other_line_endings,
    other_urls,
    with_target,
)
from sidecar.diagnosis.effort import Check, Effort, unlimited
from sidecar.diagnosis.listed import diagnose_listed
from sidecar.diagnosis.other_secrets import (
    other_prefix,
    other_routes,
    other_whitespace,
    with_base64_of_line,
    with_extra_text,
    without_base64_of_line,
    without_extra_text,
)
from sidecar.diagnosis.token import diagnose_head, diagnose_token
from sidecar.http1.head import RequestHead
from sidecar.outcomes import Hint, Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.claim import SignatureReader
from sidecar.verify.encoding import Encoding
from sidecar.verify.keys import KeyForm, key_problem
from sidecar.verify.kinds import KINDS
from sidecar.verify.places import Delivery, clock_text
from sidecar.verify.scheme import Scheme, SignatureField, Unit
from sidecar.verify.timestamp import READERS
from sidecar.verify.verifier import Verifier

#: The remedy for each hint. docs/troubleshooting.md has more.
REMEDIES = {
    Hint.WRONG_ALGORITHM: "set `algorithm:` to the one that the sender uses, or choose the preset of that version",
    Hint.WRONG_ENCODING: "set `encoding:` to the one that the sender uses, or correct the sender",
    Hint.PREFIX_MISSING: "set `prefix:` to what the sender writes, or have the sender write it before the signature",
    Hint.SECRET_HAS_WHITESPACE: "remove the newline or space where the secret is stored (printf, not echo), on both sides",
    Hint.SECRET_HAS_EXTRA_TEXT: "store the secret alone, without quotes, NAME= or a byte order mark, on both sides",
    Hint.SECRET_BASE64_OF_LINE: "store the secret itself, not the output of `echo SECRET | base64`, on both sides",
    Hint.SECRET_DECODED_DIFFERENTLY: "copy the secret as the provider shows it, and set `key:` to how the sender reads it",
    Hint.SECRET_OF_ANOTHER_ROUTE: "give this route its own secret, or correct the URL at the provider",
    Hint.BODY_NEWLINE_CHANGED: "find what adds or removes a final newline: a proxy, or the tool that saved the body",
    Hint.BODY_LINE_ENDINGS_CHANGED: "find what changes line endings on the way; send and save the body as binary",
    Hint.BODY_BOM_CHANGED: "find what adds or removes a byte order mark (EF BB BF); pass on the body as binary",
    Hint.BODY_JSON_RESERIALISED: "find what parses and reserializes the JSON on the way; the raw bytes are signed",
    Hint.BODY_DECOMPRESSED: "find what decompresses the body on the way, and turn that off; the compressed bytes are signed",
    Hint.BODY_EMPTY: "find out whether the sender signs before it has a body, or something adds the body on the way",
    Hint.TIMESTAMP_UNIT: "set `timestamp: {unit: ...}` to what the sender writes",
    Hint.URL_MISMATCH: "set `public_url` to exactly the URL registered at the provider: scheme, host, port, path and query",
    Hint.WRONG_AUDIENCE: "set the audience of the route to exactly the one that is registered at the provider",
    Hint.WRONG_ISSUER: "compare the environment: a sandbox, another cloud or another tenant has its own issuer",
    Hint.WRONG_SETTING: "compare the route's settings with those at the provider: each app and environment has its own",
    Hint.COMPONENT_MISSING: "compare `components:` (of a preset `required:`) with what the sender says that it signs",
    Hint.DIGEST_MISMATCH: "find what changes the body on the way; the raw bytes are signed",
    Hint.OTHER_PROVIDER: "choose that provider's preset for this route, or correct the URL at the provider",
    Hint.UNKNOWN: "compare the secret at the provider with the one here; then find what changes the body on the way",
}

#: Rejections that can be diagnosed.
DIAGNOSABLE = frozenset(
    {
        Reason.SIGNATURE_MISMATCH,
        Reason.SIGNATURE_MALFORMED,
        Reason.TOKEN_MISMATCH,
        Reason.CLAIM_MISMATCH,
        Reason.TIMESTAMP_MALFORMED,
        Reason.TIMESTAMP_TOO_OLD,
        Reason.TIMESTAMP_IN_FUTURE,
    }
)
_TIMESTAMPS = frozenset({Reason.TIMESTAMP_MALFORMED, Reason.TIMESTAMP_TOO_OLD, Reason.TIMESTAMP_IN_FUTURE})
#: A clock is never this wrong; a wrong unit is.
_DECADE = 10 * 365 * 86400.0


class Finding(NamedTuple):
    """A hint, and the reason in a few words."""

    hint: Hint
    because: str = ""
    matches: bool = False  #: whether the signature matches with the change; False: `because` is what the form shows


class _Try(NamedTuple):
    """A mistake that someone may have made: the delivery matches if they did."""

    hint: Hint
    because: str  #: if empty, the id of the secret that matches
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
    check: Check = unlimited,
) -> Finding | None:
    """The mistake that explains a rejection for `reason`; None if the reason says enough.

    `others` are the secrets of other routes, with the routes' names. A malformed signature is diagnosed by its form, so the
    body may be empty then. Raises `OutOfTimeError` if `check` does.
    """
    if len(verifier.members()) > 1:
        if verifier.reads_body and (len(body) > effort.document or body.count(b"&") >= effort.fields):
            return Finding(Hint.UNKNOWN)
        verifier = verifier.attempted(head, [body], now)
    if verifier.scheme.signature.kind.claims:
        found = diagnose_token(reason, verifier, head, body, effort=effort, others=others, check=check)
        if found is not None:
            return Finding(*found)
        return _diagnose_form(verifier.scheme, head, check) if reason is Reason.SIGNATURE_MALFORMED else None
    if verifier.scheme.listed is not None:
        found = diagnose_listed(reason, verifier, head, body, effort=effort, others=others, check=check)
        return Finding(*found) if found is not None else None
    if verifier.scheme.published and reason is Reason.SIGNATURE_MISMATCH:
        return _diagnose_published(verifier, head, body)
    if reason in _TIMESTAMPS:
        return _diagnose_timestamp(verifier.scheme, head, body, now, effort)
    if reason is Reason.SIGNATURE_MALFORMED:
        return _diagnose_malformed(verifier, head, check)
    if verifier.reads_body and (len(body) > effort.document or body.count(b"&") >= effort.fields):
        return Finding(Hint.UNKNOWN)  # each try would parse the body
    hashed = 0
    for each in _tries(verifier, head, body, others, effort=effort, check=check):
        check()
        hashed += (len(each.body) + 256) * len(each.verifier.secrets)
        if hashed > effort.hashed:
            break
        try:
            matched = each.verifier.verify(each.verifier.read_claim(each.head, None), each.head, [each.body])
        except Rejected:
            continue
        return Finding(each.hint, each.because or matched.secret_id, matches=True)
    return _diagnose_body(verifier, head, body)


def _diagnose_published(verifier: Verifier, head: RequestHead, body: bytes) -> Finding:
    """The key is the provider's, so the signed message differs from the delivery or from the settings."""
    found = _diagnose_body(verifier, head, body)
    settings = [each.name for each in verifier.scheme.settings if each.signed]
    if found.hint is not Hint.UNKNOWN or not settings:
        return found
    return Finding(Hint.WRONG_SETTING, f"the provider's key signed something else; perhaps for another {settings[0]}")


# -- by form: the head or the body is not as the scheme expects --


def _needs_body(verifier: Verifier) -> bool:
    """Whether the signature depends on the body."""
    return verifier.scheme.binds_body or verifier.reads_body


def _diagnose_body(verifier: Verifier, head: RequestHead, body: bytes) -> Finding:
    """Faults of a body from which the signed message can't be restored, so nothing can be tried."""
    scheme = verifier.scheme
    is_form = scheme.reads_form
    if not body and _needs_body(verifier) and not (is_form and head.method == "GET"):  # its form is in the query
        return Finding(Hint.BODY_EMPTY, "the body arrived empty, and the scheme needs it")
    if scheme.binds_body and not is_form and lost_gzip(head, body):
        return Finding(Hint.BODY_DECOMPRESSED, "Content-Encoding says gzip, but the body is not gzip")
    return Finding(Hint.UNKNOWN)


def _diagnose_timestamp(scheme: Scheme, head: RequestHead, body: bytes, now: float, effort: Effort) -> Finding | None:
    """Another unit, if the time makes sense in it but not in the scheme's unit."""
    clock = scheme.timestamp
    if clock is None or (clock.in_body and len(body) > effort.document):
        return None
    stamp = _find_stamp(scheme, head, body)
    if stamp is None or _is_near(clock.unit, stamp, now):
        return None
    for unit in Unit:
        if _is_near(unit, stamp, now):
            return Finding(Hint.TIMESTAMP_UNIT, f"the time is written as {unit}, the scheme expects {clock.unit}")
    if any(_is_near(unit, stamp.partition(b".")[0], now) for unit in (Unit.SECONDS, Unit.MILLISECONDS)):
        return Finding(Hint.TIMESTAMP_UNIT, f"the time has a fraction, the scheme expects {clock.unit}")
    return None


def _find_stamp(scheme: Scheme, head: RequestHead, body: bytes) -> bytes | None:
    """The timestamp as sent, if there is exactly one."""
    clock = scheme.timestamp
    if clock is None:
        return None
    stamps: Sequence[bytes]
    if clock.header:
        stamps = head.values(clock.header.lower().encode())
    else:
        try:
            if clock.in_body:
                return clock_text(clock, Delivery(head, [body], b"", b"", scheme.form_field))
            stamps = SignatureReader(scheme).read_head(head)[1]
        except Rejected:
            return None
    return stamps[0] if len(set(stamps)) == 1 else None


def _is_near(unit: Unit, text: bytes, now: float) -> bool:
    seconds = READERS[unit](text)
    return seconds is not None and abs(now - seconds) < _DECADE


def _diagnose_malformed(verifier: Verifier, head: RequestHead, check: Check) -> Finding | None:
    found = diagnose_head(verifier, head) if verifier.scheme.signature.kind.detached else None
    return Finding(*found) if found is not None else _diagnose_form(verifier.scheme, head, check)


def _diagnose_form(scheme: Scheme, head: RequestHead, check: Check) -> Finding | None:
    """The option with which the signature would be well-formed."""
    field = scheme.signature
    if field.in_body or _well_formed(scheme, head):
        return None  # something else is malformed, and the detail says what
    for hint, because, other in _forms(field):
        check()
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
    tagged = field != bare  # the scheme expects something before the signature
    # The signature is right, but what the scheme expects before it is missing.
    if tagged:
        yield Hint.PREFIX_MISSING, f"without {_before(field)!r} before it", bare
    if field.kind.bearer or field.kind.is_jws:
        return
    for encoding in encodings:
        yield Hint.WRONG_ENCODING, _describe_encoding(encoding, field), replace(field, encoding=encoding)
    for algorithm in algorithms:
        prefix = field.prefix.replace(field.algorithm, algorithm)
        other = replace(field, algorithm=algorithm, prefix=prefix)
        yield Hint.WRONG_ALGORITHM, f"as long as a {algorithm}, the scheme expects {field.algorithm}", other
    # Two options differ: name the one that matters more.
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


# -- by trying: the signature is well-formed, but signs something else --


def _tries(
    verifier: Verifier,
    head: RequestHead,
    body: bytes,
    others: Sequence[tuple[str, Secret]],
    *,
    effort: Effort,
    check: Check,
) -> Iterator[_Try]:
    """The most common and cheapest first. Impossible ones are left out."""
    scheme, own, url = verifier.scheme, verifier.secrets, verifier.public_url
    kind = scheme.signature.kind
    # A public key takes a fraction of a millisecond for each signature.
    together = max(1, effort.batch // (len(body) + 256)) if kind.digest_sized or kind.bearer else 1

    def with_secrets(hint: Hint, form: KeyForm, secrets: Iterable[Secret]) -> Iterator[_Try]:
        """Tries several secrets at once; the id of the matching one describes the change."""
        changed = replace(scheme, key=form)
        usable: list[Secret] = []
        for secret in secrets:
            check()
            if not key_problem(changed, secret):
                usable.append(secret)
            if len(usable) >= together:
                yield _Try(hint, "", Verifier(changed, usable, url), head, body)
                usable = []
        if usable:
            yield _Try(hint, "", Verifier(changed, usable, url), head, body)

    yield from with_secrets(Hint.SECRET_HAS_WHITESPACE, scheme.key, other_whitespace(own))
    yield from with_secrets(Hint.SECRET_HAS_EXTRA_TEXT, scheme.key, without_extra_text(own))
    for form in kind.misread_as:
        if form is not scheme.key:
            because = _READINGS[form]
            yield from with_secrets(Hint.SECRET_DECODED_DIFFERENTLY, form, [each.with_id(because) for each in own])
    if KeyForm.WHSEC in kind.misread_as:
        yield from with_secrets(Hint.SECRET_BASE64_OF_LINE, KeyForm.UTF8, without_base64_of_line(own))
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
        yield from with_secrets(Hint.SECRET_HAS_EXTRA_TEXT, scheme.key, with_extra_text(own))
        return
    for because, changed, at, target in other_urls(scheme, head, url, effort.hosts):
        yield _Try(Hint.URL_MISMATCH, because, Verifier(changed, secrets, at), with_target(head, target), body)
    yield from _body_tries(verifier, head, body, effort, check)
    for because, name, parts in kind.constructions(scheme.parts):
        changed = replace(scheme, signature=replace(scheme.signature, kind=KINDS[name]), parts=parts)
        yield _Try(Hint.WRONG_ALGORITHM, because, Verifier(changed, secrets, url), head, body)
    if not kind.digest_sized:  # without a fixed length many texts are well-formed
        for encoding in Encoding:
            changed = replace(scheme, signature=replace(scheme.signature, encoding=encoding))
            because = _describe_encoding(encoding, scheme.signature)
            yield _Try(Hint.WRONG_ENCODING, because, Verifier(changed, secrets, url), head, body)
    # Last, so that a large body, for which little is tried, still gets the more common ones.
    if kind.digest_sized:
        yield from with_secrets(Hint.SECRET_HAS_EXTRA_TEXT, scheme.key, with_extra_text(own))
    if KeyForm.WHSEC in kind.misread_as:
        yield from with_secrets(Hint.SECRET_BASE64_OF_LINE, KeyForm.UTF8, with_base64_of_line(own))


def _body_tries(verifier: Verifier, head: RequestHead, body: bytes, effort: Effort, check: Check) -> Iterator[_Try]:
    if not _needs_body(verifier):
        return
    for because, text in other_ends(body):
        yield _Try(Hint.BODY_NEWLINE_CHANGED, because, verifier, head, text)
    if body.count(b"\n") <= effort.lines:
        for because, text in other_line_endings(body):
            yield _Try(Hint.BODY_LINE_ENDINGS_CHANGED, because, verifier, head, text)
    for because, text in other_bom(body):
        yield _Try(Hint.BODY_BOM_CHANGED, because, verifier, head, text)
    if body:
        yield _Try(Hint.BODY_EMPTY, "with an empty body", verifier, head, b"")
    for because, text in other_json(body, effort, check):
        yield _Try(Hint.BODY_JSON_RESERIALISED, because, verifier, head, text)


#: How a sender may have read a secret's text, in words.
_READINGS = {form: f"with the secret read as {form}" for form in KeyForm} | {
    KeyForm.UTF8: "with the secret as text",
    KeyForm.HEX: "with the secret decoded from hex",
    KeyForm.WHSEC: "with the secret decoded from base64, without 'whsec_'",
}
