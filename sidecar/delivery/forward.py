"""Stages 7 to 9: once, forward, response."""

import functools
import hashlib
import os
from collections.abc import Callable
from typing import Final

from sidecar.delivery import decide
from sidecar.delivery.delivery import SMALL_BYTES, Delivery
from sidecar.delivery.upstream_head import upstream_head
from sidecar.http1.upstream import Connection
from sidecar.outcomes import Reason, Rejected
from sidecar.replay.once import ReplayTurn
from sidecar.replay.store import Store, StoreUnavailableError
from sidecar.routing.access import Waived
from sidecar.verify.standard_webhooks import message_id
from sidecar.verify.upstream_request import UpstreamRequest
from sidecar.verify.verifier import Verified

#: Seconds that a claim in the replay store outlives the longest time that its delivery can be with the receiver. The claims
#: of a process that is killed stay for that long.
PENDING_MARGIN: Final = 2.0


class Forwarder:
    """Hands deliveries to their receivers, and the responses back."""

    def __init__(self, replays: Store, *, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._replays = replays
        self._now = now
        self._monotonic = monotonic

    async def claim_turn(self, delivery: Delivery, longest: float, *, wait: bool) -> None:
        """Stage 7, of a verified delivery on a route with `replay:`. Sets `turn`, which must be ended or abandoned.

        `longest` is for how many seconds the delivery can be with its receiver. A copy waits for its end with `wait`.
        Raises `Rejected` for a copy. If the store can't be reached, the delivery goes on unchecked where the route allows that.
        """
        route, claim = delivery.route, delivery.claim
        assert route.verifier is not None
        assert route.replay is not None
        assert claim is not None
        assert delivery.verified is not None
        verifier, replay, scope = route.verifier, route.replay, delivery.scope
        deciding = verifier.proven_by(delivery.verified, claim, delivery.head)[0]
        ident = verifier.delivery_id(delivery.head) if replay.by_id else b""
        if ident:
            turn = ReplayTurn(self._replays, _fingerprint_of_id(scope, ident), replay, route.name)
        elif replay.by_id and deciding.scheme.signature.kind.bearer:
            return  # nothing distinguishes it from a similar one
        else:
            others = deciding.other_fingerprints(delivery.head, scope=scope)
            head, pieces = delivery.head, delivery.body.pieces
            if delivery.body.size <= SMALL_BYTES and not delivery.expands:  # most are
                keys = verifier.replay_keys(delivery.verified, claim, head, pieces, scope=scope)
            else:
                keys = await delivery.compute(
                    functools.partial(verifier.replay_keys, delivery.verified, claim, head, pieces, scope=scope)
                )
            turn = ReplayTurn(self._replays, keys.own, replay, route.name, others, items=keys.items, also=keys.also)
        try:
            if not turn.begin_at_once():
                await turn.begin(longest + PENDING_MARGIN, wait=wait)
        except StoreUnavailableError as error:
            if not replay.fail_open:
                raise Rejected(Reason.REPLAY_STORE_UNAVAILABLE, str(error)) from None
            delivery.record.unchecked = True
            delivery.record.detail = f"forwarded unchecked: {error}"
            return
        delivery.turn = turn

    async def forward(self, delivery: Delivery) -> None:
        """Stages 8 and 9. Raises `Rejected` before the response has begun, `Aborted` after."""
        # (8) forward
        permission = decide.leave(delivery)
        record, body, turn = delivery.record, delivery.body, delivery.turn
        began = self._monotonic()
        if record.trace is not None:
            record.trace.upstream_began = began
        signed = await self.sign(delivery, permission) if delivery.route.upstream_signer is not None else b""
        upstream = delivery.snapshot.upstreams[delivery.route]
        head = upstream_head(delivery, permission, signed)
        connection = await upstream.send(head, body.pieces, body.size, no_body=record.method == "HEAD")

        # (9) response
        try:
            record.status = record.upstream_status = connection.status
            if turn is not None and connection.complete:  # before the sender gets it
                evicted = turn.end_at_once(connection.status)
                record.evicted = await turn.end(connection.status) if evicted is None else evicted
            delivery.incoming.start(
                connection.status, connection.lines, sized=connection.has_length, hold=connection.has_piece
            )
            if not _pass_on(delivery, connection):
                await _stream(delivery, connection)
        finally:
            upstream.finish(connection)
            record.upstream_seconds = self._monotonic() - began

    async def sign(self, delivery: Delivery, permission: Verified | Waived) -> bytes:
        """The header lines that sign a delivery for the receiver; none for one that nothing vouches for."""
        if isinstance(permission, Waived) and not permission.admitted:
            return b""
        return await delivery.compute(functools.partial(_signature_lines, delivery, self._now()))


def _fingerprint_of_id(scope: str, ident: bytes) -> bytes:
    """The fingerprint shared by all deliveries with this id; never equal to that of a signed message."""
    return hashlib.sha256(b"%b\0id\0%b" % (scope.encode(), ident)).digest()


def _signature_lines(delivery: Delivery, now: float) -> bytes:
    route, body, head = delivery.route, delivery.body.pieces, delivery.head
    assert route.upstream_signer is not None
    fresh = os.urandom(16).hex().encode()
    verifier, claim, verified = route.verifier, delivery.claim, delivery.verified
    if verifier is not None and claim is not None and verified is not None:
        verifier, claim = verifier.proven_by(verified, claim, delivery.head)
    url, message = (verified.url, verified.message) if verified is not None else (b"", 0)
    ident = message_id(verifier, claim, head, body, scope=delivery.scope, fresh=fresh, url=url, message=message)
    host = route.host or next(iter(head.values(b"host")), route.upstream.authority)
    signed = verifier.signed_fields(head) if verifier is not None and verified is not None else ()
    return route.upstream_signer.lines(UpstreamRequest(head.method, head.target, host, ident, signed, now, body))


def _pass_on(delivery: Delivery, connection: Connection) -> bool:
    """Passes on the part of the response's body that has arrived; returns whether that was its end."""
    piece, more = connection.take()
    delivery.record.answer_bytes += len(piece)
    delivery.incoming.write(piece, more=more)
    return not more


async def _stream(delivery: Delivery, connection: Connection) -> None:
    """The rest of a response that did not come in one piece. While the sender reads too slowly, the receiver waits too."""
    turn, done = delivery.turn, False
    while not done:
        await delivery.incoming.writable()
        if not connection.has_piece:
            await connection.news()
        if turn is not None and connection.complete:
            evicted = await turn.end(connection.status)
            delivery.record.evicted |= evicted
        done = _pass_on(delivery, connection)
