"""Why a token was rejected: another audience or issuer, an algorithm of another kind, a changed secret or body.

`diagnose.py` calls it for schemes with tokens. Like there, the work is bounded, runs after the response, and is not an oracle. No
hint contains a token's values.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sidecar.diagnosis.alternatives import (
    other_bom,
    other_ends,
    other_json,
    other_line_endings,
    other_urls,
    with_target,
)
from sidecar.diagnosis.effort import Check, Effort
from sidecar.diagnosis.other_secrets import (
    other_routes,
    other_whitespace,
    without_base64_of_line,
    without_extra_text,
)
from sidecar.http1.head import RequestHead
from sidecar.outcomes import Hint, Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.claim import SignatureReader
from sidecar.verify.claim_rules import ComputedPlace
from sidecar.verify.keys import KeyForm, key_problem
from sidecar.verify.places import Delivery
from sidecar.verify.published import KeyNeeded
from sidecar.verify.scheme import Scheme
from sidecar.verify.verifier import Verifier


class TokenFinding(NamedTuple):
    """A hint for a token, and the reason in a few words."""

    hint: Hint
    because: str = ""
    matches: bool = False


def diagnose_token(
    reason: Reason,
    verifier: Verifier,
    head: RequestHead,
    body: bytes,
    *,
    effort: Effort,
    others: Sequence[tuple[str, Secret]],
    check: Check,
) -> TokenFinding | None:
    """The mistake that explains why a token was rejected for `reason`; None if the reason says enough."""
    parts = read_parts(verifier, head, body)
    if parts is None:
        return None
    token_head, payload = parts
    if reason is Reason.SIGNATURE_MALFORMED:
        return _diagnose_algorithm(verifier.scheme, token_head)
    if reason is Reason.CLAIM_MISMATCH:
        found = _diagnose_claims(verifier, payload)
        if found is not None:
            return found
    if reason not in (Reason.CLAIM_MISMATCH, Reason.SIGNATURE_MISMATCH):
        return None
    for hint, because, other, at, text in _tries(reason, verifier, head, body, others, effort, check):
        check()
        try:
            matched = other.verify(other.read_claim(at, None), at, [text])
        except (Rejected, KeyNeeded):
            continue
        return TokenFinding(hint, because or matched.secret_id, matches=True)
    if reason is Reason.CLAIM_MISMATCH and not body and verifier.scheme.binds_body:
        return TokenFinding(Hint.BODY_EMPTY, "the body arrived empty, and the token is for another one")
    return TokenFinding(Hint.UNKNOWN) if reason is Reason.SIGNATURE_MISMATCH else None


def diagnose_head(verifier: Verifier, head: RequestHead) -> TokenFinding | None:
    """Whether the head of a detached token explains why it is malformed: the algorithm, or another environment's address."""
    parts = read_parts(verifier, head, b"")
    rules = verifier.scheme.token
    if parts is None or rules is None:
        return None
    for name, expected in rules.head:
        sent = parts[0].get(name)
        if isinstance(sent, str) and isinstance(expected, str) and sent != expected and expected.startswith("https://"):
            return TokenFinding(Hint.WRONG_ISSUER, f"the signature's {name} is another one than the scheme's")
    return _diagnose_algorithm(verifier.scheme, parts[0])


def read_parts(verifier: Verifier, head: RequestHead, body: bytes) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The head and the claims of the first token of a request, unverified; None if there is none that can be read.

    A detached token has no claims.
    """
    from sidecar.verify.token import MAX_BODY_TOKEN, TokenError, read_object, read_token  # noqa: PLC0415

    try:
        if verifier.scheme.signature.kind.detached:
            return read_token(SignatureReader(verifier.scheme).read_head(head)[0][0], b"").head, {}
        claim = verifier.read_claim(head, None)
        texts = verifier.token_texts(claim, Delivery(head, [body], b"", b"", verifier.scheme.form_field))
        token = read_token(texts[0], most=MAX_BODY_TOKEN)
        return token.head, read_object(token.payload, "payload")
    except (Rejected, TokenError):
        return None


def _diagnose_algorithm(scheme: Scheme, token_head: dict[str, Any]) -> TokenFinding | None:
    sent, allowed = token_head.get("alg"), scheme.signature.algorithms
    if not isinstance(sent, str) or sent in allowed:
        return None
    expected = " or ".join(allowed)
    if sent.startswith("HS") and not allowed[0].startswith("HS"):
        why = f"signed with a shared secret ({sent[:8]}), the scheme expects a published key ({expected})"
        return TokenFinding(Hint.WRONG_ALGORITHM, why)
    if allowed[0].startswith("HS") and sent[:2] in ("RS", "PS", "ES", "Ed"):
        why = f"signed with a private key ({sent[:8]}), the scheme expects a shared secret ({expected})"
        return TokenFinding(Hint.WRONG_ALGORITHM, why)
    return TokenFinding(Hint.WRONG_ALGORITHM, f"the token has another algorithm than {expected}")


def _diagnose_claims(verifier: Verifier, payload: dict[str, Any]) -> TokenFinding | None:
    """Whether the token is for somebody else, or from another issuer. Its values may be anything, and are not repeated."""
    rules = verifier.scheme.token
    assert rules is not None
    wanted: dict[str, list[Any]] = {"iss": [], "aud": []}
    for each in rules.claims:
        for rule in each.rules:
            if rule.path in wanted:
                wanted[rule.path] += [value for value in rule.any_of if not isinstance(value, ComputedPlace)]
    issuer, audience = payload.get("iss"), payload.get("aud")
    if wanted["iss"] and issuer not in wanted["iss"]:
        return TokenFinding(Hint.WRONG_ISSUER, "the token is of another issuer than the scheme's")
    audiences = audience if isinstance(audience, list) else [audience]
    if wanted["aud"] and not any(each in wanted["aud"] for each in audiences):
        near = [str(each).rstrip("/") for each in wanted["aud"]]
        if any(str(each).rstrip("/") in near for each in audiences):
            return TokenFinding(Hint.WRONG_AUDIENCE, "the token's audience differs in a slash at the end")
        return TokenFinding(Hint.WRONG_AUDIENCE, "the token is for another audience than the route's")
    return None


#: A possible mistake: the hint, the reason in a few words, and the verifier, head and body that match if it was made.
Try = tuple[Hint, str, Verifier, RequestHead, bytes]


def _tries(  # noqa: PLR0917 - the arguments of `diagnose_token`
    reason: Reason,
    verifier: Verifier,
    head: RequestHead,
    body: bytes,
    others: Sequence[tuple[str, Secret]],
    effort: Effort,
    check: Check,
) -> Iterator[Try]:
    scheme = verifier.scheme
    if reason is Reason.SIGNATURE_MISMATCH:
        if not scheme.published and scheme.key is not KeyForm.PEM:
            yield from secret_tries(verifier, head, body, others, effort)
        return
    if scheme.needs_url:
        for because, changed, at, target in other_urls(scheme, head, verifier.public_url, effort.hosts):
            yield (
                Hint.URL_MISMATCH,
                because,
                verifier.with_scheme(changed, public_url=at),
                with_target(head, target),
                body,
            )
    if scheme.binds_body and not scheme.signature.in_body:
        yield from body_tries(verifier, head, body, effort, check)


def secret_tries(
    verifier: Verifier, head: RequestHead, body: bytes, others: Sequence[tuple[str, Secret]], effort: Effort
) -> Iterator[Try]:
    """The secret as it may have been stored or copied wrongly."""
    scheme, own = verifier.scheme, verifier.secrets
    for hint, secrets in (
        (Hint.SECRET_HAS_WHITESPACE, other_whitespace(own)),
        (Hint.SECRET_HAS_EXTRA_TEXT, without_extra_text(own)),
        (Hint.SECRET_BASE64_OF_LINE, without_base64_of_line(own)),
        (Hint.SECRET_OF_ANOTHER_ROUTE, other_routes(own, others[: effort.others])),
    ):
        for secret in secrets:
            if not key_problem(scheme, secret):
                yield hint, "", verifier.with_scheme(scheme, secrets=[secret]), head, body
    for form in (KeyForm.HEX, KeyForm.BASE64, KeyForm.UTF8):
        changed = replace(scheme, key=form)
        usable = [secret for secret in own if not key_problem(changed, secret)]
        if form is not scheme.key and usable:
            because = f"with the secret read as {form}"
            yield Hint.SECRET_DECODED_DIFFERENTLY, because, verifier.with_scheme(changed, secrets=usable), head, body


def body_tries(verifier: Verifier, head: RequestHead, body: bytes, effort: Effort, check: Check) -> Iterator[Try]:
    """The body as it may have been before it was changed on the way."""
    for because, text in other_ends(body):
        yield Hint.BODY_NEWLINE_CHANGED, because, verifier, head, text
    if body.count(b"\n") <= effort.lines:
        for because, text in other_line_endings(body):
            yield Hint.BODY_LINE_ENDINGS_CHANGED, because, verifier, head, text
    for because, text in other_bom(body):
        yield Hint.BODY_BOM_CHANGED, because, verifier, head, text
    if body:
        yield Hint.BODY_EMPTY, "with an empty body", verifier, head, b""
    for because, text in other_json(body, effort, check):
        yield Hint.BODY_JSON_RESERIALISED, because, verifier, head, text
