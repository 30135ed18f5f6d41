"""Why a signature that lists its components was rejected: one is missing, or the body, URL or secret differs.

`diagnose.py` calls it for such schemes. Like there, the work is bounded, runs after the response, and is not an oracle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sidecar.diagnosis.alternatives import other_urls, with_target
from sidecar.diagnosis.effort import Check, Effort
from sidecar.diagnosis.token import TokenFinding, Try, body_tries, secret_tries
from sidecar.http1.head import RequestHead
from sidecar.outcomes import Hint, Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.published import KeyNeeded
from sidecar.verify.verifier import Verifier


def diagnose_listed(
    reason: Reason,
    verifier: Verifier,
    head: RequestHead,
    body: bytes,
    *,
    effort: Effort,
    others: Sequence[tuple[str, Secret]],
    check: Check,
) -> TokenFinding | None:
    """The mistake that explains why a delivery was rejected for `reason`; None if the reason says enough."""
    if reason is Reason.SIGNATURE_MALFORMED:
        return _diagnose_coverage(verifier, head)
    if reason is not Reason.SIGNATURE_MISMATCH:
        return None
    genuine = _is_genuine(verifier, head, body)
    for hint, because, other, at, text in _tries(verifier, head, body, others, effort, check, genuine=genuine):
        check()
        try:
            matched = other.verify(other.read_claim(at, None), at, [text])
        except (Rejected, KeyNeeded):
            continue
        return TokenFinding(hint, because or matched.secret_id, matches=True)
    if not genuine:
        return TokenFinding(Hint.UNKNOWN)
    if not body:
        return TokenFinding(Hint.BODY_EMPTY, "the body arrived empty, and the signature is over another one")
    return TokenFinding(Hint.DIGEST_MISMATCH, "the signature is genuine, and covers the hash of another body")


def _diagnose_coverage(verifier: Verifier, head: RequestHead) -> TokenFinding | None:
    """Whether the signature would be well-formed if the scheme required no components."""
    rules = verifier.scheme.listed
    assert rules is not None
    lenient = verifier.with_scheme(replace(verifier.scheme, listed=replace(rules, required=())))
    try:
        lenient.read_claim(head, None)
    except Rejected:
        return None
    try:
        verifier.read_claim(head, None)
    except Rejected as rejected:
        return TokenFinding(Hint.COMPONENT_MISSING, rejected.detail)
    return None  # it is about the body, and the detail says what


def _is_genuine(verifier: Verifier, head: RequestHead, body: bytes) -> bool:
    """Whether the signature matches, and only the hash of the body does not."""
    try:
        return verifier.match(verifier.read_claim(head, None), head, [body]) is not None
    except KeyNeeded:
        return False
    except Rejected as rejected:
        return rejected.reason is Reason.SIGNATURE_MISMATCH


def _tries(  # noqa: PLR0917 - the arguments of `diagnose_listed`
    verifier: Verifier,
    head: RequestHead,
    body: bytes,
    others: Sequence[tuple[str, Secret]],
    effort: Effort,
    check: Check,
    *,
    genuine: bool,
) -> Iterator[Try]:
    scheme = verifier.scheme
    if genuine:
        yield from body_tries(verifier, head, body, effort, check)
        return
    if verifier.public_url:
        for because, changed, at, target in other_urls(scheme, head, verifier.public_url, effort.hosts):
            other = verifier.with_scheme(changed, public_url=at)
            yield Hint.URL_MISMATCH, because, other, with_target(head, target), body
    if scheme.shares_secret:
        yield from secret_tries(verifier, head, body, others, effort)
