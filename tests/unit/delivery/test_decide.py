"""The decisions that the proxy and `explain` share."""

import hashlib
import hmac
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from sidecar.config.presets import load_preset
from sidecar.delivery import decide
from sidecar.http1.head import make_head
from sidecar.outcomes import SHADOWED, Reason, Rejected
from sidecar.routing.access import Waived
from sidecar.routing.client_ip import Client
from sidecar.routing.networks import Networks
from sidecar.routing.routes import Route, RouteTable
from sidecar.secret import Secret
from sidecar.verify.handshake import HandshakeMode, Handshakes
from sidecar.verify.verifier import Verified, Verifier

MakeRoute = Callable[..., Route]
BODY = b'{"score":712}'
KEY = b"key of current"
NOW = 1_800_000_000.0


def begini(body: bytes = BODY) -> bytes:
    return hmac.new(KEY, body, hashlib.sha512).hexdigest().encode()


def on(route: Route, *, signature: bytes | None = None, method: str = "POST", client: str = "203.0.113.7") -> Any:
    """The decisions about a request to this route, before its first stage."""
    headers = [(b"Host", b"hooks.example.com")]
    if signature is not None:
        headers.append((b"X-Signature", signature))
    decisions = decide.Decisions(make_head(method, route.path, headers, client))
    decisions.client = Client(ip_address(client), client, False)
    decisions.route = route
    return decisions


def reason(rejected: Rejected | None) -> Reason | None:
    return rejected.reason if rejected is not None else None


def test_a_path_without_a_route_is_rejected_and_sets_none(make_route: MakeRoute) -> None:
    decisions = decide.Decisions(make_head("POST", b"/other", [], "203.0.113.7"))
    assert reason(decide.find_route(decisions, RouteTable([make_route()]))) is Reason.NO_ROUTE
    with pytest.raises(AttributeError):
        _ = decisions.route


def test_the_route_of_a_path_is_set(make_route: MakeRoute) -> None:
    route = make_route()
    decisions = decide.Decisions(make_head("POST", route.path, [], "203.0.113.7"))
    assert decide.find_route(decisions, RouteTable([route])) is None
    assert decisions.route is route


def test_the_head_alone_rejects_in_the_order_method_address_signature(make_route: MakeRoute) -> None:
    route = make_route(allow=Networks([ip_network("192.0.2.0/24")]))
    assert reason(decide.admit(on(route, method="PUT"), NOW)) is Reason.METHOD_NOT_ALLOWED
    assert reason(decide.admit(on(route), NOW)) is Reason.IP_NOT_ALLOWED
    assert reason(decide.admit(on(route, client="192.0.2.1"), NOW)) is Reason.SIGNATURE_MISSING
    assert reason(decide.admit(on(route, client="192.0.2.1", signature=b"zz"), NOW)) is Reason.SIGNATURE_MALFORMED


def test_an_unknown_client_is_not_checked_against_the_allowlist(make_route: MakeRoute) -> None:
    """A captured request may not say where it came from."""
    decisions = on(make_route(allow=Networks([ip_network("192.0.2.0/24")])), signature=begini())
    decisions.client = None
    assert decide.admit(decisions, NOW) is None


def test_a_genuine_request_is_verified_and_may_be_forwarded(make_route: MakeRoute) -> None:
    decisions = on(make_route(), signature=begini())
    assert decide.admit(decisions, NOW) is None
    assert decide.verify(decisions, [BODY[:3], BODY[3:]]) is None
    assert decisions.verified == Verified("current")
    assert decide.leave(decisions) is decisions.verified


def test_a_changed_body_is_rejected_and_verifies_nothing(make_route: MakeRoute) -> None:
    decisions = on(make_route(), signature=begini())
    assert decide.admit(decisions, NOW) is None
    assert reason(decide.verify(decisions, [BODY + b" "])) is Reason.SIGNATURE_MISMATCH
    assert decisions.verified is None


def test_what_was_never_verified_has_no_leave(make_route: MakeRoute) -> None:
    decisions = on(make_route(), signature=begini())
    with pytest.raises(RuntimeError):
        decide.leave(decisions)
    assert decide.admit(decisions, NOW) is None
    with pytest.raises(RuntimeError):
        decide.leave(decisions)


def test_an_open_route_needs_no_signature(make_route: MakeRoute) -> None:
    decisions = on(make_route(secrets=[], open=True))
    assert decide.admit(decisions, NOW) is None
    assert decide.verify(decisions, [BODY]) is None
    assert decide.leave(decisions) == Waived("")


@pytest.mark.parametrize("of", list(Reason))
def test_shadow_mode_tolerates_rejections_of_the_delivery_itself_and_no_others(
    make_route: MakeRoute, of: Reason
) -> None:
    enforced, shadow = on(make_route()), on(make_route(shadow=True))
    assert not decide.tolerates(enforced, Rejected(of))
    assert decide.tolerates(shadow, Rejected(of)) == (of in SHADOWED)
    assert enforced.tolerated is None
    assert reason(shadow.tolerated) is (of if of in SHADOWED else None)


def test_what_shadow_mode_tolerated_is_forwarded_as_rejected(make_route: MakeRoute) -> None:
    decisions = on(make_route(shadow=True), signature=begini())
    assert decide.admit(decisions, NOW) is None
    rejected = decide.verify(decisions, [b"another"])
    assert rejected is not None
    assert decide.tolerates(decisions, rejected)
    assert decide.leave(decisions) == Waived("shadow-rejected")


def test_a_copy_that_shadow_mode_tolerated_is_not_called_verified(make_route: MakeRoute) -> None:
    decisions = on(make_route(shadow=True), signature=begini())
    assert decide.admit(decisions, NOW) is None
    assert decide.verify(decisions, [BODY]) is None
    assert decide.tolerates(decisions, Rejected(Reason.REPLAYED))
    assert decide.leave(decisions) == Waived("shadow-rejected")


def test_an_unsigned_handshake_has_its_own_method_and_no_claim(make_route: MakeRoute) -> None:
    scheme = load_preset("meta")
    secret = Secret("current", KEY)
    handshakes = Handshakes(scheme.handshake, HandshakeMode.PASS, secret=secret, token=secret)
    route = make_route(verifier=Verifier(scheme, [secret]), handshakes=handshakes)
    query = b"?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=" + KEY.replace(b" ", b"+")
    decisions = decide.Decisions(make_head("GET", route.path + query, [(b"Host", b"a")], "203.0.113.7"))
    decisions.route = route
    assert decide.admit(decisions, NOW) is None
    assert decisions.handshake is not None
    assert decisions.claim is None
    assert decide.leave(decisions) == Waived("")


def test_the_age_is_the_claims_or_that_of_a_timestamp_in_the_body(make_route: MakeRoute) -> None:
    secret = Secret("current", KEY)
    route = make_route(verifier=Verifier(load_preset("slack"), [secret]))
    stamp = int(NOW) - 7
    mac = hmac.new(KEY, b"v0:%d:" % stamp + BODY, hashlib.sha256).hexdigest().encode()
    headers = [(b"Host", b"a"), (b"X-Slack-Request-Timestamp", b"%d" % stamp), (b"X-Slack-Signature", b"v0=" + mac)]
    decisions = decide.Decisions(make_head("POST", route.path, headers, "203.0.113.7"))
    decisions.route = route
    assert decide.age(decisions) is None
    assert decide.admit(decisions, NOW) is None
    assert decide.age(decisions) == 7
    decisions.verified = Verified("current", 3.0)
    assert decide.age(decisions) == 3
