"""Several schemes on one route: `any_of` (one must accept) and `all_of` (every one must).

A composite has the interface of a verifier, so the delivery's path doesn't know about it, and a route with one scheme pays
nothing for it. It keeps no state between its two steps: `match` reads the claim of each scheme again, which costs microseconds.

Every scheme is asked before a delivery is rejected. With `all_of` the response time would otherwise show a forger
which of several secrets is already right.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.claim import Claim
from sidecar.verify.keys import KeyFormError, key_problem
from sidecar.verify.kinds.kind import Matcher
from sidecar.verify.published import KeyNeeded
from sidecar.verify.scheme import Scheme
from sidecar.verify.verifier import MAX_SCHEMES, ReplayKeys, Verified, Verifier

__all__ = ["MAX_SCHEMES", "Combine", "Composite", "Verdict", "name_schemes", "strongest", "weakest"]


class Combine(StrEnum):
    """How the decisions of a route's schemes are combined."""

    ANY = "any_of"
    ALL = "all_of"

    @property
    def word(self) -> str:
        """Between the names of the schemes, for people."""
        return "or" if self is Combine.ANY else "and"


class Verdict(NamedTuple):
    """The decision of one of the schemes; exactly one of the last two is set."""

    name: str
    member: Verifier
    claim: Claim | None  #: None if the head was rejected
    verified: Verified | None
    rejected: Rejected | None
    needed: KeyNeeded | None = None  #: why it was rejected, if only a key is missing


def strongest(schemes: Sequence[Scheme]) -> int:
    """The index of the scheme that binds most of a delivery: its body, then its time, then its id. The first of equals."""
    return max(range(len(schemes)), key=lambda index: (_strength(schemes[index]), -index))


def _strength(scheme: Scheme) -> tuple[bool, bool, bool, bool]:
    signs = not scheme.signature.kind.bearer
    return signs, scheme.binds_body, signs and scheme.timestamp is not None, signs and scheme.signs_id


def weakest(combine: Combine, schemes: Sequence[Scheme]) -> Sequence[Scheme]:
    """The schemes that limit what the route proves: with `any_of` each one, with `all_of` the strongest."""
    return schemes if combine is Combine.ANY else (schemes[strongest(schemes)],)


def name_schemes(schemes: Sequence[Scheme]) -> list[str]:
    """A name for each, for people: that of the preset, or its place."""
    return [scheme.name or f"scheme {number}" for number, scheme in enumerate(schemes, 1)]


class Composite(Verifier):
    """The verifiers of several schemes, as one."""

    __slots__ = ("_all", "_lacks", "_members", "_strongest", "_unsigned", "combine", "names")

    def __init__(self, combine: Combine, members: Sequence[Verifier]) -> None:
        """At least one member, at most `MAX_SCHEMES`."""
        self.combine = combine
        self._all = combine is Combine.ALL
        self._members = tuple(members)
        schemes = [member.scheme for member in members]
        self.names = name_schemes(schemes)
        self._strongest = strongest(schemes)
        #: The strongest scheme. For anything about each single scheme, ask `members()`.
        self.scheme = schemes[self._strongest]
        unique = {secret.id: secret for member in members for secret in member.secrets}
        self.secrets = tuple(unique.values())
        self.secret_ids = list(dict.fromkeys([name for member in members for name in member.secret_ids]))
        self.key_sources = tuple(dict.fromkeys([source for member in members for source in member.key_sources]))
        self.key_names = tuple(dict.fromkeys([name for member in members for name in member.key_names]))
        self.tokens = None
        self._listed = None
        self.hides_path = any(member.hides_path for member in members)
        self.public_url = members[0].public_url
        self.schemes = len(members)
        self.passes = sum([member.passes for member in members])
        self.decompresses = any(member.decompresses for member in members)
        self.reads_body = any(member.reads_body for member in members)
        self.mismatch = members[0].mismatch  # `match` raises its rejections itself
        missing = [f"{name}: no {member.scheme.signature.place}" for name, member in zip(self.names, members)]
        #: The rejections of deliveries without the signature of one scheme, or of any; to be returned, never raised.
        self._lacks = [Rejected(Reason.SIGNATURE_MISSING, detail) for detail in missing]
        self._unsigned = Rejected(Reason.SIGNATURE_MISSING, ", ".join(missing))

    def members(self) -> tuple[Verifier, ...]:
        return self._members

    def headers(self) -> frozenset[bytes]:
        return frozenset().union(*[member.headers() for member in self._members])

    def delivery_id(self, head: RequestHead) -> bytes:
        """The first id that is there: schemes of one provider have the same one."""
        for member in self._members:
            sent = member.delivery_id(head)
            if sent:
                return sent
        return b""

    def unsigned(self, head: RequestHead) -> Rejected | None:
        for member, lacks in zip(self._members, self._lacks):
            if (member.unsigned(head) is not None) is self._all:
                return lacks if self._all else None
        return None if self._all else self._unsigned

    def read_claim(self, head: RequestHead, now: float | None) -> Claim:
        """The time of the first scheme whose head is well-formed. Raises `Rejected` if none is, with `all_of` if one is not."""
        age: float | None = None
        accepted = 0
        verdicts: list[Verdict] = []
        for name, member in zip(self.names, self._members):
            try:
                claim = member.read_claim(head, now)
            except Rejected as rejected:
                verdicts.append(Verdict(name, member, None, None, rejected))
                continue
            accepted += 1
            age = claim.age if age is None else age
        if accepted < (len(self._members) if self._all else 1):
            raise self._rejection(verdicts)
        return Claim((), b"", age, now)

    def judge(self, head: RequestHead, body: Sequence[bytes], now: float | None) -> list[Verdict]:
        """The decision of each scheme, in the order of the configuration; with `any_of` up to the first that accepts."""
        verdicts: list[Verdict] = []
        for name, member in zip(self.names, self._members):
            claim: Claim | None = None
            try:
                claim = member.read_claim(head, now)
                verified = member.verify(claim, head, body)
            except KeyNeeded as needed:
                verdicts.append(Verdict(name, member, claim, None, Rejected(needed.reason, needed.detail), needed))
                continue
            except Rejected as rejected:
                verdicts.append(Verdict(name, member, claim, None, rejected))
                continue
            verdicts.append(Verdict(name, member, claim, verified, None))
            if not self._all:
                break
        return verdicts

    def match(
        self, claim: Claim, head: RequestHead, body: Sequence[bytes], matcher: Matcher | None = None
    ) -> Verified | None:
        """Raises `Rejected` with the most useful reason; never returns None. There is no other `matcher`: that of a tenant
        serves one scheme.
        """
        verdicts = self.judge(head, body, claim.now)
        if self._all:
            if any(verdict.rejected is not None for verdict in verdicts):
                # A key is worth waiting for only if nothing else is wrong.
                if all(verdict.needed is not None for verdict in verdicts if verdict.rejected is not None):
                    raise _first_needed(verdicts)
                raise self._rejection([verdict for verdict in verdicts if verdict.needed is None])
            decisive = self._strongest
        else:
            decisive = len(verdicts) - 1
            if verdicts[decisive].verified is None:
                if any(verdict.needed is not None for verdict in verdicts):
                    raise _first_needed(verdicts)
                raise self._rejection(verdicts)
        deciding = verdicts[decisive]
        verified, own = deciding.verified, deciding.claim
        assert verified is not None
        assert own is not None
        others = [other.verified.secret_id for other in verdicts if other.verified is not None]
        also = tuple([secret_id for secret_id in dict.fromkeys(others) if secret_id != verified.secret_id])
        age = own.age if verified.age is None else verified.age
        return Verified(verified.secret_id, age, verified.url, verified.message, decisive, also)

    def attempted(self, head: RequestHead, body: Sequence[bytes], now: float | None) -> Verifier:
        rejected = self._most_useful(self.judge(head, body, now))
        return rejected.member if rejected is not None else self._members[0]

    def proven_by(self, verified: Verified, claim: Claim, head: RequestHead) -> tuple[Verifier, Claim]:
        member = self._members[verified.member]
        return member, member.read_claim(head, claim.now)

    def replay_keys(
        self, verified: Verified, claim: Claim, head: RequestHead, body: Sequence[bytes], *, scope: str
    ) -> ReplayKeys:
        """With `any_of` also those of the other schemes that accept it: a copy may lack the signature of the first."""
        first, own_claim = self.proven_by(verified, claim, head)
        keys = first.replay_keys(verified, own_claim, head, body, scope=scope)
        if self._all:
            return keys
        also: list[bytes] = []
        for member in self._members:
            if member is first:
                continue
            try:
                own_claim = member.read_claim(head, claim.now)
                accepted = member.match(own_claim, head, body)
            except (Rejected, KeyNeeded):
                continue
            if accepted is not None:
                key = member.replay_keys(accepted, own_claim, head, body, scope=scope).own
                if key != keys.own and key not in also:
                    also.append(key)
        return ReplayKeys(keys.own, keys.items, also)

    def with_others(self, secrets: Sequence[Secret], public_url: str) -> Verifier:
        """Each scheme gets those of the secrets that are in its form. Raises `KeyFormError` if a scheme gets none."""
        made = []
        for name, member in zip(self.names, self._members):
            fitting = [secret for secret in secrets if not key_problem(member.scheme, secret)]
            if secrets and not fitting and not member.scheme.published:
                raise KeyFormError(f"is not in the form of {name}; it {key_problem(member.scheme, secrets[0])}")
            made.append(member.with_others(fitting, public_url))
        return Composite(self.combine, made)

    def _most_useful(self, verdicts: Sequence[Verdict]) -> Verdict | None:
        """The most informative rejection; with `all_of` the first. None if there is none."""
        found: Verdict | None = None
        for verdict in verdicts:
            if verdict.rejected is not None and (found is None or (not self._all and _says_more(verdict, found))):
                found = verdict
        return found

    def _rejection(self, verdicts: Sequence[Verdict]) -> Rejected:
        """A new one for each delivery, because an exception keeps the frames that it was raised through."""
        found = self._most_useful(verdicts)
        assert found is not None
        assert found.rejected is not None
        return Rejected(found.rejected.reason, f"{found.name}: {found.rejected.detail}")


def _first_needed(verdicts: Sequence[Verdict]) -> KeyNeeded:
    return next(verdict.needed for verdict in verdicts if verdict.needed is not None)


def _says_more(one: Verdict, other: Verdict) -> bool:
    """Whether `one` is more informative than `other`."""
    assert one.rejected is not None
    assert other.rejected is not None
    return _PROGRESS.get(one.rejected.reason, 1) > _PROGRESS.get(other.rejected.reason, 1)


#: How far a scheme got before it rejected a delivery. The sender probably used the one that got furthest.
_PROGRESS: Final[dict[Reason, int]] = {
    Reason.SIGNATURE_MISSING: 0,
    Reason.SIGNATURE_MALFORMED: 1,
    Reason.TIMESTAMP_MISSING: 2,
    Reason.TIMESTAMP_MALFORMED: 3,
    Reason.TIMESTAMP_TOO_OLD: 4,
    Reason.TIMESTAMP_IN_FUTURE: 4,
    Reason.KEY_UNAVAILABLE: 5,
    Reason.KEY_UNKNOWN: 5,
    Reason.TOKEN_MISMATCH: 5,
    Reason.SIGNATURE_MISMATCH: 6,
    Reason.CLAIM_MISMATCH: 7,
}
