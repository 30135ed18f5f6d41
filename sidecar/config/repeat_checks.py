"""Checks of repeated deliveries: copies, `reject: resend`, and the store of `replay:`.

As in `checks.py`, each function checks one thing and reports it.
"""

from sidecar.config.combination import Combination
from sidecar.config.problems import Path, Report
from sidecar.config.settings import RESEND, FileSettings, ReplayBy, ReplaySettings, RouteMode, RouteSettings
from sidecar.outcomes import DEFAULT_REJECTION, RejectionResponse
from sidecar.replay.store import StoreKind
from sidecar.verify.composite import Combine, name_schemes
from sidecar.verify.handshake import HandshakeMode, responds_to
from sidecar.verify.scheme import Scheme

#: The status of `reject: resend` unless the preset says otherwise: a temporary failure, after which most providers send again.
RESEND_STATUS = 503


def provider_name(scheme: Scheme | None) -> str:
    """The provider's name in messages."""
    return (scheme.name if scheme is not None else "") or "the provider"


def can_replay(route: RouteSettings) -> bool:
    """Whether deliveries can be told apart: only a signature differs between any two of them, or the provider's id."""
    if route.replay is not None and route.replay.by is ReplayBy.DELIVERY_ID:
        return any(scheme.delivery_id is not None for scheme in route.schemes)
    return bool(route.weakest) and not any(scheme.signature.kind.bearer for scheme in route.weakest)


def fails_open(route: RouteSettings, file: FileSettings) -> bool:
    """Whether deliveries are forwarded unchecked while the replay store is unavailable."""
    return file.replay_fail_open if route.replay_fail_open is None else route.replay_fail_open


def is_asked(file: FileSettings, report: Report) -> bool:
    """Whether gateways ask, or would if `authorize:` had no mistake."""
    return file.authorize is not None or report.is_wrong(("authorize",))


def check_question(at: Path, route: RouteSettings, report: Report) -> None:
    """Warns about responses that a gateway can't pass on."""
    scheme = route.scheme
    own = [shape for each in route.schemes for shape in each.handshake]
    mode = route.handshake if isinstance(route.handshake, HandshakeMode) else None
    shapes = [each for each in (*own, *route.added_handshakes) if responds_to(each, mode)]
    if shapes:
        remedy = "let this path pass through the data listener (`listen`)"
        if not any(responds_to(each, HandshakeMode.PASS) for each in shapes):
            remedy += ", or set `handshake: pass` so that the receiver responds"
        elif route.handshake is HandshakeMode.PASS:
            remedy += "; `handshake: pass` does not apply to it, because it never reaches a receiver"
        report.warn(
            at,
            "gets no response to the provider's handshake through `authorize`, because gateways pass none on; "
            + remedy,
        )
    if route.reject == RESEND and resend_status(scheme) >= 500:
        report.warn(
            (*at, "reject"),
            "has a status of 500 or more, which Envoy treats as a failure of the authorizer: it responds with its own "
            "status_on_error, and with failure_mode_allow it forwards what was rejected; remove it, or set "
            "status_on_error and never failure_mode_allow",
        )


def resend_status(scheme: Scheme | None) -> int:
    """The status of `reject: resend`."""
    if scheme is not None and scheme.delivery.resend_status is not None:
        return scheme.delivery.resend_status
    # A response that the provider requires stays: another one would fail its probes, and it counts this one as a failure too.
    return scheme.reject.status if scheme is not None and scheme.reject is not None else RESEND_STATUS


def resend_response(scheme: Scheme | None) -> RejectionResponse:
    """The response of `reject: resend`."""
    required = scheme.reject if scheme is not None else None
    return (required or DEFAULT_REJECTION)._replace(status=resend_status(scheme))


def _check_on_failure(at: Path, replay: ReplaySettings, file: FileSettings, report: Report) -> None:
    asked = is_asked(file, report)
    if asked and replay.on_failure is None:
        report.add(
            (*at, "replay"),
            "needs `on_failure` beside `authorize`, because the receiver's response is unknown: {for: 10m, "
            "on_failure: lost} rejects every copy of what was allowed, also if the receiver failed; allow_repeat rejects "
            "copies only while the receiver may be at work",
        )
    elif not asked and replay.on_failure is not None:
        report.add((*at, "replay", "on_failure"), "can't be used without `authorize`; remove it")


def check_replay(at: Path, route: RouteSettings, file: FileSettings, report: Report) -> None:
    if route.replay is None:
        if route.replay_fail_open is not None and not report.is_given((*at, "replay")):
            report.add((*at, "replay_fail_open"), "can't be used without `replay`; remove it, or add `replay: 10m`")
        return
    scheme = route.scheme
    if not can_replay(route):
        if not report.is_wrong((*at, "verify")):
            by_id = scheme is not None and route.replay.by is ReplayBy.DELIVERY_ID
            report.add(
                (*at, "replay"),
                f"uses the delivery id, but none is known for {provider_name(scheme)}; use `replay: 10m`"
                if by_id
                else "needs a signature, because only that distinguishes a copy from a similar delivery; remove it",
            )
        return
    _check_on_failure(at, route.replay, file, report)
    if route.replay.by is ReplayBy.DELIVERY_ID:
        return
    if isinstance(route.verify, Combination) and route.verify.combine is Combine.ANY:
        for name, scheme in zip(name_schemes(route.schemes), route.schemes, strict=True):
            if scheme.items:
                report.add(
                    (*at, "replay"),
                    f"can't be used with several schemes of which one must accept, if one of them signs items ({name}): a copy "
                    "could not be recognized by another scheme; remove one of the two",
                )
    tolerances = [scheme.timestamp.tolerance for scheme in route.weakest if scheme.timestamp is not None]
    tolerance = max((each for each in tolerances if each is not None), default=None)
    if tolerance is not None and route.replay.seconds < 2 * tolerance:
        # No error: it still stops what a provider sends twice, and a sidecar that doesn't start loses every delivery.
        report.warn(
            (*at, "replay"),
            f"forgets a delivery after {route.replay.seconds:g} s, but its signature is valid for up to {2 * tolerance:g} s, "
            f"the timestamp's tolerance in both directions; use at least {2 * tolerance:g}s to reject every replay",
        )
    for scheme in route.weakest:
        if not scheme.binds_body:
            # A signed id that ends at literal text is all that two copies must have in common.
            same = "{id}" if scheme.id_bound is not None else scheme.signed
            report.warn(
                (*at, "replay"),
                f"treats deliveries with the same {same} as copies, because the provider does not sign the body; "
                "remove it if they can be different events",
            )


def check_store(file: FileSettings, report: Report) -> None:
    """Only sentinels have the sentinels' password."""
    store, at = file.replay_store, ("replay_store", "sentinel_password")
    if (
        store.sentinel_password is not None
        and store.address is not None
        and store.address.kind is not StoreKind.SENTINEL
    ):
        report.add(at, "is for redis+sentinel://, and no sentinels are asked; remove it")


def check_unavailable(at: Path, route: RouteSettings, file: FileSettings, report: Report) -> None:
    """Warns if the provider doesn't resend after the 503 of an unavailable replay store."""
    scheme, shared = route.scheme, file.replay_store.address is not None
    if scheme is None or route.replay is None or not can_replay(route) or not shared or fails_open(route, file):
        return
    facts = scheme.delivery
    if not facts.resends:
        lost = "never resends"
    elif facts.resend_status is not None and facts.resend_status < 500:
        lost = f"is only known to resend after {facts.resend_status}"
    else:
        return
    report.warn(
        (*at, "replay"),
        f"responds 503 while the replay store is unavailable, and {provider_name(scheme)} {lost}, so these deliveries are "
        "lost; add `replay_fail_open: true` to forward them unchecked",
    )


def check_resend(at: Path, route: RouteSettings, secrets: int, status: int, report: Report) -> None:
    """Recommends `reject: resend` where it helps: in a rotation, if the provider isn't known to resend after our `status`.

    `secrets` is how many are available. An optional one is absent outside of rotations, and then nothing is recommended.
    """
    scheme = route.scheme
    if scheme is None or route.mode is RouteMode.SHADOW:
        return
    facts = scheme.delivery
    if route.reject == RESEND and not facts.resends:
        report.warn((*at, "reject"), f"has no effect, because {provider_name(scheme)} never resends; remove it")
    elif secrets > 1 and facts.resend_status not in (None, status) and not report.is_given((*at, "reject")):
        report.warn(
            (*at, "secrets"),
            f"are in rotation, and {provider_name(scheme)} is only known to resend after {facts.resend_status}, not {status}, "
            "so a wrong secret loses deliveries; add `reject: resend` meanwhile, at the cost of repeated rejections "
            "(forgers are not affected)",
        )
