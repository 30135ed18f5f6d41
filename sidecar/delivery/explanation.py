"""The output of `sidecar explain`: the decisions of the stages about a request, as text and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sidecar.diagnosis.diagnose import REMEDIES, Finding
from sidecar.outcomes import Hint, Reason, Rejected

#: The remedies for rejections that no diagnosis explains.
_TRY = {
    Reason.NO_ROUTE: "compare the path with those that `sidecar check` prints: routes match byte for byte",
    Reason.METHOD_NOT_ALLOWED: "add the method to the route's `methods:`, or have the sender use another",
    Reason.MALFORMED_REQUEST: "have the sender, or the proxy in front, send plain HTTP/1.1",
    Reason.IP_NOT_ALLOWED: "add the address to `allow:`; if it is your load balancer's, add that to `trusted_proxies:`",
    Reason.CLIENT_IP_UNREADABLE: "check what your proxy writes into X-Forwarded-For",
    Reason.CLIENT_CERTIFICATE_MISMATCH: "compare `client_certificate:` with what the proxy passes on, and `trusted_proxies:`",
    Reason.SIGNATURE_MISSING: "set the secret at the provider, and check that no proxy removes headers",
    Reason.SIGNATURE_MALFORMED: "compare what arrived with the form that is expected; another version of the provider's "
    "signature has a preset of its own",
    Reason.TIMESTAMP_MISSING: "check that no proxy removes headers",
    Reason.TIMESTAMP_TOO_OLD: "for an old capture, give --now the time it was made; live: compare the clocks (NTP)",
    Reason.TIMESTAMP_IN_FUTURE: "compare the clocks of sender and sidecar (NTP); for a capture, give --now",
    Reason.CLAIM_MISMATCH: "compare the settings of the route with the token's claims above",
    Reason.KEY_UNKNOWN: "compare the key's id with those that the provider publishes (another environment has other keys), "
    "or, where the route has the keys, with the ids of its secrets",
    Reason.KEY_UNAVAILABLE: "give --keys FILE with that document: explain fetches nothing",
    Reason.TOKEN_MISMATCH: "compare the token at the provider with the one configured here",
    Reason.BODY_TOO_LARGE: "raise `limits: {body: ...}` of the route",
}


class Stage(NamedTuple):
    """One step: `passed`, `rejected`, or `skipped` where it could not be checked."""

    name: str
    decision: str
    why: str


@dataclass
class Explanation:
    """The path of a request, stage by stage."""

    stages: list[Stage] = field(default_factory=list)
    remarks: Sequence[str] = ()
    route: str | None = None
    client: str | None = None
    reason: Reason | None = None
    detail: str = ""
    secret: str | None = None
    published: bool = False  #: whether that is a key that the provider publishes
    finding: Finding | None = None
    shadow: bool = False
    handshake: str | None = None
    key: str | None = None  #: the URL of the published key that is not available
    token: dict[str, dict[str, Any]] | None = None  #: the content of a token: header and claims
    coverage: dict[str, Any] | None = None  #: the parts that a signature claims to cover: label, covers and parameters

    def passed(self, stage: str, why: str) -> None:
        self.stages.append(Stage(stage, "passed", why))

    def skipped(self, stage: str, why: str) -> None:
        self.stages.append(Stage(stage, "skipped", why))

    def rejected(self, stage: str, rejected: Rejected) -> "Explanation":
        """The end, at this stage."""
        self.reason, self.detail = rejected.reason, rejected.detail
        self.stages = [each for each in self.stages if each.name != stage]
        self.stages.append(Stage(stage, "rejected", self.detail or self.reason))
        return self

    @property
    def verdict(self) -> str:
        """accepted or rejected."""
        return "accepted" if self.reason is None else "rejected"

    @property
    def advice(self) -> str:
        """The remedy, in one line; empty if accepted."""
        if self.finding is not None and not (
            self.finding.hint is Hint.UNKNOWN and self.reason is Reason.SIGNATURE_MALFORMED  # no secret was tried
        ):
            return REMEDIES[self.finding.hint]
        return _TRY.get(self.reason, "see docs/reasons.md") if self.reason is not None else ""

    def as_json(self) -> str:
        """For programs; keys are never left out."""
        document: dict[str, Any] = {
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
            "key": self.key,
            "token": self.token,
            "coverage": self.coverage,
            "stages": [stage._asdict() for stage in self.stages],
            "remarks": list(self.remarks),
        }
        return json.dumps(document, indent=2)

    def as_text(self) -> str:
        """For people."""
        marks = {"passed": "+", "rejected": "x", "skipped": "-"}
        lines = [f"{marks[stage.decision]} {stage.name:<10} {stage.why}" for stage in self.stages]
        lines += [f"! {remark}" for remark in self.remarks]
        if self.reason is None:
            by = f", by the secret {self.secret}" if self.secret else ""
            by = ", by a key that the provider publishes" if self.published else by
            lines.append(f"accepted{by}" if self.handshake is None else f"handshake {self.handshake}")
        else:
            lines.append(f"rejected: {self.reason}")
            if self.finding is not None:
                lines.append(f"hint: {self.finding.hint}{_because(self.finding)}")
            lines.append(f"try: {self.advice}")
        if self.shadow and self.reason is not None:
            lines.append("note: the route is in shadow mode, so live traffic is forwarded anyway")
        return "\n".join(lines)


def _because(finding: Finding) -> str:
    if not finding.because:
        return ""
    return f" (it matches {finding.because})" if finding.matches else f" ({finding.because})"
