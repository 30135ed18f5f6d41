"""Checks the times and claims of a token. Keys and signatures are verified elsewhere, before or after.

A rejection names the claim, and never its value: claims hold e-mail addresses and ids of customers.
"""

import hashlib
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

from sidecar.outcomes import Reason, Rejected
from sidecar.verify.claim_rules import (
    ClaimPlace,
    ClaimRule,
    ClaimSet,
    ComputedPlace,
    JsonPlace,
    RuleValue,
    TokenRules,
)
from sidecar.verify.document import find_item
from sidecar.verify.places import MAX_LISTED, Delivery
from sidecar.verify.scheme import TimestampField, Unit
from sidecar.verify.timestamp import age_of, describe_malformed

#: Larger numbers aren't times (RFC 7519, 2: NumericDate).
MAX_TIME: Final = 1e15
#: Parameters of a query that is sorted for Atlassian's hash.
MAX_PARAMETERS: Final = 1000
#: Marks a claim that is absent; None is a value.
ABSENT: Final[Any] = object()


def find_claim(payload: Any, path: str) -> Any:
    """The claim at `path` (`a.b`), or `ABSENT`. A name with `/` or `:` is one name, as in `https://acme.example/roles`."""
    for step in [path] if "/" in path or ":" in path else path.split("."):
        if not isinstance(payload, dict) or step not in payload:
            return ABSENT
        payload = payload[step]
    return payload


def check_head(head: dict[str, Any], rules: TokenRules) -> str:
    """The algorithm. Raises `Rejected` if the scheme doesn't list it, or for a member that isn't as the scheme says."""
    algorithm = head.get("alg")
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms:
        raise Rejected(Reason.SIGNATURE_MALFORMED, f"the token's alg is not {' or '.join(rules.algorithms)}")
    for name, expected in rules.head:
        if not _equal(head.get(name), expected):
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"the token's {name} is not {expected!r}")
    for name, wanted in rules.head_lists:
        listed = head.get(name)
        given = listed.lower().split(",", MAX_LISTED) if isinstance(listed, str) else []
        missing = [each for each in wanted if each.lower() not in given]
        if missing:
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"the token's {name} does not list {' and '.join(missing)}")
    return algorithm


def check_times(payload: dict[str, Any], rules: TokenRules, now: float | None) -> None:
    """`exp`, `nbf` and `iat` (RFC 7519, 4.1.4 to 4.1.6), with the scheme's skew. Raises `Rejected`.

    `now` is unix time in seconds; with None only the form is checked.
    """
    expires, not_before, issued = (_time(payload, name) for name in ("exp", "nbf", "iat"))
    if expires is None and rules.expiry:
        raise Rejected(Reason.TIMESTAMP_MISSING, "the token has no exp")
    if now is None:
        return
    if expires is not None and now >= expires + rules.skew:
        raise Rejected(Reason.TIMESTAMP_TOO_OLD, f"the token expired {now - expires:.0f} s ago (exp)")
    for name, begin in (("nbf", not_before), ("iat", issued)):
        if begin is not None and begin > now + rules.skew:
            raise Rejected(Reason.TIMESTAMP_IN_FUTURE, f"the token begins in {begin - now:.0f} s ({name})")


def _time(payload: dict[str, Any], name: str) -> float | None:
    value = payload.get(name, ABSENT)
    if value is ABSENT:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= MAX_TIME:
        raise Rejected(Reason.TIMESTAMP_MALFORMED, f"the token's {name} is not a number of seconds")
    return value


def age_of_claim(clock: TimestampField, payload: dict[str, Any], now: float | None) -> float | None:
    """The age of the claim, or member of the head, that is the scheme's signed time, in seconds. Raises `Rejected`."""
    name = clock.claim or clock.head
    value = find_claim(payload, name)
    if value is ABSENT:
        raise Rejected(Reason.TIMESTAMP_MISSING, f"the token has no {name}")
    numeric = clock.unit in (Unit.SECONDS, Unit.MILLISECONDS)
    if isinstance(value, str) is numeric or isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Rejected(Reason.TIMESTAMP_MALFORMED, describe_malformed(clock))
    text = str(value)
    if isinstance(value, int | float):
        text = str(int(value)) if abs(value) < MAX_TIME else "too large"
    return age_of(clock, text.encode("utf-8", "surrogatepass"), now)


def choose(payload: dict[str, Any], sets: Sequence[ClaimSet]) -> ClaimSet:
    """The first set of rules whose `when` holds. Raises `Rejected`."""
    for each in sets:
        if all(_holds(rule, payload, _literals) for rule in each.when):
            return each
    names = dict.fromkeys(rule.path for each in sets for rule in each.when)
    raise Rejected(Reason.CLAIM_MISMATCH, f"no set of claims has a `when` for this token's {' and '.join(names)}")


def check_claims(payload: dict[str, Any], rules: Sequence[ClaimRule], delivery: Delivery, base: bytes = b"") -> None:
    """Checks that every rule holds. Raises `Rejected`, which names the claim.

    `base` is the public URL without the request's target, for Atlassian's hash.
    """

    def resolve(value: RuleValue) -> Any:
        return resolve_value(value, payload, delivery, base)

    has_body = any(delivery.body)
    for rule in rules:
        if rule.with_body and not has_body and find_claim(payload, rule.path) is ABSENT:
            continue
        if not _holds(rule, payload, resolve):
            raise Rejected(Reason.CLAIM_MISMATCH, f"the token's {rule.path} {describe_failure(rule, payload)}")


def fixed_claims(rules: Sequence[ClaimRule]) -> tuple[list[tuple[str, str | bool]], Sequence[ClaimRule]]:
    """Names and values of the claims that must be one text or truth value, which is most of them, and the other rules.

    The first can be compared without `check_claims`, which explains what fails.
    """
    fixed: list[tuple[str, str | bool]] = []
    others: list[ClaimRule] = []
    for rule in rules:
        value = rule.any_of[0] if len(rule.any_of) == 1 else None
        whole = "." not in rule.path or "/" in rule.path or ":" in rule.path
        plain = rule.there is None and not (rule.pattern or rule.holds or rule.with_body)
        if type(value) in (str, bool) and whole and plain:  # not a place, which is a kind of text
            fixed.append((rule.path, value))  # type: ignore[arg-type]  # as the line above says
        else:
            others.append(rule)
    return fixed, others


def describe_failure(rule: ClaimRule, payload: dict[str, Any]) -> str:
    """Why a rule doesn't hold, without a value of the token."""
    if find_claim(payload, rule.path) is ABSENT:
        return "is absent"
    if rule.there is False:
        return "is present"
    if any(isinstance(value, ComputedPlace) and value.startswith("body") for value in rule.any_of):
        return "is not the hash of the body"
    if any(isinstance(value, ComputedPlace) for value in rule.any_of):
        return "is not for this URL"
    return "is not what the route expects"


def _literals(value: RuleValue) -> Any:
    return value


def _holds(rule: ClaimRule, payload: dict[str, Any], resolve: Callable[[RuleValue], Any]) -> bool:
    found = find_claim(payload, rule.path)
    if rule.there is not None:
        return (found is not ABSENT) is rule.there
    if rule.pattern:
        return isinstance(found, str) and re.fullmatch(rule.pattern, found, re.DOTALL) is not None
    if rule.holds:
        return isinstance(found, list) and any(_equal(item, resolve(value)) for item in found for value in rule.holds)
    expected = [resolve(value) for value in rule.any_of]
    if rule.path == "aud" and isinstance(found, list):
        return any(_equal(item, value) for item in found for value in expected)
    return any(_equal(found, value) for value in expected)


def _equal(found: Any, expected: Any) -> bool:
    """Whether they are the same value of the same JSON type: 1 equals neither true nor "1"."""
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, str):
        return isinstance(found, str) and found == expected
    return isinstance(found, int | float) and isinstance(expected, int | float) and found == expected


def resolve_value(value: RuleValue, payload: dict[str, Any], delivery: Delivery, base: bytes = b"") -> Any:
    """The required value of a claim or a key's member; None, which equals nothing, if this delivery lacks it.

    Raises `Rejected` for a body that can't be read.
    """
    if isinstance(value, JsonPlace):
        found = find_item(delivery.document, value.path)
        return found if isinstance(found, str | int | float) else None
    if isinstance(value, ClaimPlace):
        found = find_claim(payload, value.path)
        return found if isinstance(found, str) else None
    if value is ComputedPlace.ATLASSIAN_QSH:
        return atlassian_qsh(delivery, base)
    if isinstance(value, ComputedPlace):
        return _COMPUTE[value](delivery)
    return value


def body_sha256(pieces: Sequence[bytes]) -> bytes:
    """The hash of a body, given in pieces."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


_COMPUTE: Final[dict[ComputedPlace, Callable[[Delivery], str]]] = {
    ComputedPlace.BODY_SHA256_HEX: lambda delivery: body_sha256(delivery.body).hex(),
    ComputedPlace.BODY_SHA256_B64: lambda delivery: b64encode(body_sha256(delivery.body)).decode(),
    ComputedPlace.BODY_SHA256_B64URL: lambda delivery: (
        urlsafe_b64encode(body_sha256(delivery.body)).decode().rstrip("=")
    ),
    ComputedPlace.BODY_SHA256_B64URL_PADDED: lambda delivery: urlsafe_b64encode(body_sha256(delivery.body)).decode(),
    ComputedPlace.URL: lambda delivery: delivery.url.decode("latin-1"),
    ComputedPlace.URL_SHA256_HEX: lambda delivery: hashlib.sha256(delivery.url).hexdigest(),
}


def atlassian_qsh(delivery: Delivery, base: bytes) -> str:
    """Atlassian's hash of a request: method, path below the app's base URL, sorted query.

    As `createQueryStringHash` of atlassian-jwt.
    Raises `Rejected` for a query with more than `MAX_PARAMETERS`.
    """
    path, _, query = delivery.url.removeprefix(base.rstrip(b"/")).decode("latin-1").partition("?")
    path = "/" + path.strip("/")
    items = [item for item in query.split("&") if item] if query.count("&") < MAX_PARAMETERS else None
    if items is None:
        raise Rejected(Reason.SIGNATURE_MALFORMED, f"the query has more than {MAX_PARAMETERS} parameters")
    values: dict[str, list[str]] = {}
    for item in items:
        name, _, value = item.partition("=")
        encoded = _encode(name)
        if encoded != "jwt":
            values.setdefault(encoded, []).append(_encode(value))
    canonical = "&".join(f"{name}={','.join(sorted(values[name]))}" for name in sorted(values))
    text = f"{delivery.head.method.upper()}&{path.replace('&', '%26')}&{canonical}"
    return hashlib.sha256(text.encode("latin-1", "replace")).hexdigest()


def _encode(text: str) -> str:
    return quote(unquote(text.replace("+", " "), encoding="utf-8", errors="replace"), safe="~")
