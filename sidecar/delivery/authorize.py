"""The authorize listener: a gateway asks whether it may forward a delivery. The stages are the same; nothing is forwarded.

It differs from the proxy in four places: what the question is about (stage 1), a body that the gateway did not pass on
(stage 6), what `replay:` claims (stage 7), and the response, which is for the gateway (stages 8 and 9).

A gateway forwards after 200; Traefik and nginx do after any 2xx. So no other response has such a status, neither to a handshake
nor to a copy of a delivery that was allowed before. Gateways pass other responses on to the sender.
"""

from collections.abc import Coroutine
from typing import Any, ClassVar, Final

from sidecar.delivery import decide
from sidecar.delivery.body import Body
from sidecar.delivery.delivery import Delivery
from sidecar.delivery.proxy import Proxy
from sidecar.delivery.snapshot import Snapshot
from sidecar.delivery.upstream_head import verified_lines
from sidecar.diagnosis.alternatives import lost_gzip
from sidecar.http1.head import RequestHead
from sidecar.http1.incoming import Incoming
from sidecar.http1.status_response import send
from sidecar.outcomes import VERIFICATION, HandshakeResult, Outcome, Reason, Rejected, Response
from sidecar.replay.once import IN_PROGRESS
from sidecar.replay.store import OnFailure
from sidecar.routing.access import Waived
from sidecar.routing.question import Question, QuestionForm, is_described, read_question
from sidecar.routing.routes import RouteTable
from sidecar.verify.handshake import HandshakeMode, responds_to
from sidecar.verify.verifier import Verified, Verifier

#: Fields of ours that the gateway passes on to the receiver.
_OURS: Final = frozenset({b"x-webhook-verified", b"x-webhook-secret-id", b"x-webhook-client", b"x-webhook-tenant"})
#: Envoy removes the fields that this one names from the request to the receiver.
_REMOVE: Final = b"x-envoy-auth-headers-to-remove: "
_ALREADY_ALLOWED: Final = Response(409, "Already delivered")
#: How Envoy marks a body that is larger than its buffer.
_PARTIAL: Final = b"x-envoy-auth-partial-body"
_SETTINGS: Final = (
    "Envoy with_request_body, Istio includeRequestBodyInCheck, Envoy Gateway bodyToExtAuth, Traefik forwardBody; "
    "nginx auth_request and Caddy forward_auth can't send bodies: there let the deliveries pass through the data listener"
)
#: Some signatures are in headers that Envoy sends only if it is configured to.
_HEADER_SETTINGS: Final = (
    "if the sender sent one, the gateway left it out: Envoy allowed_headers, Istio includeRequestHeadersInCheck, "
    "Envoy Gateway headersToExtAuth, Traefik authRequestHeaders (empty: all)"
)


class Authorizer(Proxy):
    """The application of the authorize listener."""

    authorizes: ClassVar[bool] = True

    def _begin(self, incoming: Incoming) -> Delivery:
        snapshot, head = self._current.snapshot, incoming.head
        settings = snapshot.config.authorize
        question = Question(head)
        if incoming.fault is None and settings is not None:
            # The peer matters only if header fields describe the delivery.
            matters = is_described(head) or settings.form is QuestionForm.FORWARD_AUTH
            trusted = matters and snapshot.resolve_peer(head.peer).trusted_peer
            question = read_question(head, settings.form, settings.path_prefix.encode(), trusted=trusted)
        record = self.recorder.begin(question.head)
        record.authorizes = True
        record.outcome = Outcome.ALLOWED
        delivery = Delivery(incoming, snapshot, record, Body(self._budget))
        delivery.head = question.head
        delivery.question = question
        return delivery

    def _routes(self, snapshot: Snapshot) -> RouteTable:
        return snapshot.config.routes

    async def _deliver(self, delivery: Delivery) -> Rejected | None:
        question = delivery.question
        if question is not None and question.rejected is not None and delivery.incoming.fault is None:
            return question.rejected
        return await Proxy._deliver(self, delivery)

    async def _verify(self, delivery: Delivery) -> Rejected | None:
        """Stage 6. If the body is not the sender's, the rejection says why it can't verify."""
        size, head = delivery.body.size, delivery.incoming.head
        if _PARTIAL in head.fields and _is_partial(head) and _depends_on_body(delivery.route.verifier):
            return Rejected(
                Reason.BODY_NOT_FORWARDED,
                f"the gateway sent the first {size} bytes of a larger body; raise Envoy's max_request_bytes above "
                f"the largest delivery, and set allow_partial_message: false",
            )
        rejected = await Proxy._verify(self, delivery)
        if rejected is None or rejected.reason not in VERIFICATION or not _depends_on_body(delivery.route.verifier):
            return rejected
        if size:
            return _decompressed(delivery) or rejected
        return Rejected(
            Reason.BODY_NOT_FORWARDED,
            "the question has no body, and the signature is not that of an empty one; if the sender sent a body, "
            f"the gateway must send it along: {_SETTINGS}",
        )

    def _answer_handshake(self, delivery: Delivery) -> Rejected | None:
        """Rejects a handshake that we would respond to: a gateway can't pass the response on."""
        shape, handshakes, record = delivery.handshake, delivery.route.handshakes, delivery.record
        if shape is None or handshakes is None:
            return None
        if delivery.verified is not None or not handshakes.responds_to(shape):
            record.handshake = HandshakeResult.PASSED
            return None
        record.handshake = HandshakeResult.REJECTED
        remedy = "let it pass through the data listener"
        if not responds_to(shape, HandshakeMode.PASS):  # otherwise no receiver ever gets it
            remedy += ", or set `handshake: pass` so that the receiver responds"
        return Rejected(
            Reason.SIGNATURE_MISSING,
            f"a handshake, which needs a response of ours, and gateways pass on none; {remedy}",
        )

    def _claim_turn(self, delivery: Delivery) -> Coroutine[Any, Any, None]:
        """Stage 7. Nobody reports the receiver's response, so the route says what a claim means (`on_failure`).

        A copy never waits: gateways don't.
        """
        return self._forwarder.claim_turn(delivery, _longest(delivery), wait=False)

    async def _pass(self, delivery: Delivery) -> None:
        """Stages 8 and 9: yes, with the header fields that the gateway adds to the request."""
        route, turn, record = delivery.route, delivery.turn, delivery.record
        permission = decide.leave(delivery)
        if imitation := _find_imitation(delivery):
            raise Rejected(
                Reason.MALFORMED_REQUEST,
                f"a header's name imitates {imitation}, which only the sidecar writes, and not every gateway removes it",
            )
        signed = await self._forwarder.sign(delivery, permission) if route.upstream_signer is not None else b""
        if turn is not None:
            if _allows_repeat(delivery):
                record.evicted = await turn.end_unknown(_longest(delivery))
            else:
                record.evicted = await turn.end(200)
        lines = _allowed_lines(delivery, permission, signed)
        record.status = 200
        send(delivery.incoming, 200, lines, b"")

    def _reject(self, delivery: Delivery, rejected: Rejected) -> None:
        Proxy._reject(self, delivery, _for_gateway(delivery, rejected))


def _allowed_lines(delivery: Delivery, permission: Verified | Waived, signed: bytes) -> bytes:
    """The header lines of a yes. Fields that are not set are to be removed, so that no sender can write them."""
    client = delivery.client
    if isinstance(permission, Verified):
        verified, secret_id = delivery.route.name, permission.secret_id
    else:
        verified, secret_id = permission.label, ""
    lines = verified_lines(verified, secret_id)
    absent = list[bytes]()
    if not verified:
        absent.append(b"x-webhook-verified")
    if not secret_id:
        absent.append(b"x-webhook-secret-id")
    if client is not None and client.text:
        lines += b"X-Webhook-Client: %b\r\n" % client.text.encode()
    else:
        absent.append(b"x-webhook-client")
    if delivery.tenant:
        lines += b"X-Webhook-Tenant: %b\r\n" % delivery.tenant.encode()
    else:
        absent.append(b"x-webhook-tenant")
    signer, headers = delivery.route.upstream_signer, delivery.route.headers
    if signer is not None and not signed:
        absent += sorted(signer.replaces)
    if headers is not None:
        lines += headers.lines(vouched=isinstance(permission, Verified) or permission.admitted)
        names, ours = delivery.head.names, {each.name.lower().encode() for each in headers.set}
        absent += [
            name for name, folded in zip(names.lower, names.folded) if headers.removes(folded) and name not in ours
        ]
    if absent:
        lines += b"%b%b\r\n" % (_REMOVE, b",".join(absent))
    return b"%b%bcontent-length: 0\r\n" % (lines, signed)


def _for_gateway(delivery: Delivery, rejected: Rejected) -> Rejected:
    """The rejection with the facts that a gateway's operator needs, and never with a status that a gateway reads as a yes."""
    reason, detail, response = rejected.reason, rejected.detail, rejected.response
    if reason is Reason.REPLAYED and response is None:
        if _allows_repeat(delivery):
            return Rejected(reason, "allowed before, and the receiver may still be at work", response=IN_PROGRESS)
        return Rejected(reason, detail.replace("delivered", "allowed"), response=_ALREADY_ALLOWED)
    question, head = delivery.question, delivery.incoming.head
    if reason in (Reason.NO_ROUTE, Reason.METHOD_NOT_ALLOWED) and question is not None and question.disbelieved:
        detail += (
            "; the question's X-Forwarded-Method and -Uri are not believed, because the gateway isn't a trusted proxy: "
            f"add {head.peer or 'unix:'} to trusted_proxies"
        )
    elif reason is Reason.SIGNATURE_MISSING and delivery.handshake is None:
        detail += f"; {_HEADER_SETTINGS}"
    elif reason is Reason.BODY_TIMEOUT and not delivery.body.size and delivery.incoming.head.content_length:
        reason = Reason.BODY_NOT_FORWARDED
        detail = (
            f"the question announces a body of {head.content_length} bytes and none came: nginx's auth_request can't "
            'send bodies; let the deliveries pass through the data listener (and set proxy_set_header Content-Length "")'
        )
    else:
        return rejected
    return Rejected(reason, detail, response=response)


def _decompressed(delivery: Delivery) -> Rejected | None:
    """Why a body can't verify that Content-Encoding calls gzip but that isn't gzip.

    Other changes to a body take longer to find: delivery/recorder.py, `blame_gateway`.
    """
    if not lost_gzip(delivery.head, b"".join(delivery.body.pieces[:2])):  # the first piece may be a single byte
        return None
    return Rejected(
        Reason.BODY_NOT_FORWARDED,
        "Content-Encoding says gzip, and the body isn't: the gateway decompressed it; have it ask before it decompresses "
        "(Envoy: ext_authz before the decompressor filter)",
    )


def _allows_repeat(delivery: Delivery) -> bool:
    replay = delivery.route.replay
    return replay is not None and replay.on_failure is OnFailure.ALLOW_REPEAT


def _longest(delivery: Delivery) -> float:
    """Seconds that the receiver may take, in all."""
    timeouts = delivery.snapshot.config.timeouts
    return timeouts.connect + timeouts.total


def _is_partial(head: RequestHead) -> bool:
    return any(value.lower() != b"false" for value in head.values(_PARTIAL))


def _depends_on_body(verifier: Verifier | None) -> bool:
    """Whether any part of the verified message is in the body."""
    if verifier is None:
        return False
    schemes = [member.scheme for member in verifier.members()]
    return verifier.reads_body or any(each.binds_body and not each.signature.kind.bearer for each in schemes)


def _find_imitation(delivery: Delivery) -> str:
    """One of our names that some receivers read a sender's header as: `X_Webhook_Verified`."""
    names, signer = delivery.head.names, delivery.route.upstream_signer
    if names.irregular:
        ours = _OURS | signer.replaces if signer is not None else _OURS
        for name, folded in zip(names.lower, names.folded):
            if name != folded and folded in ours:
                return folded.decode()
    return ""
