"""The data path: one delivery from its head to its record, in a straight line.

    (1) head      what the listener found wrong with the request, if anything
    (2) client    direct connection + X-Forwarded-For → the sender's address
    (3) route     exact raw path → route; method; allowlist; a sender that was refused too often waits
    (4) claim     signature and timestamp stand there and are well-formed: all that can be refused without the body
    (5) body      read whole: bounded in size, time and memory
    (6) verify    a secret's MAC over the raw body matches, or the delivery is refused; a provider's handshake is answered
    (7) once      where the route has `replay:`, a copy of what was forwarded before ends here
    (8) forward   to the receiver, byte for byte; only with a `Verified` or a `Waived` in hand
    (9) answer    streamed back as it comes
    (10) record   once, whatever happened: log and metrics, and the last refusals

Any stage ends the delivery by raising `Rejected` (we answer; the two commonest are returned) or, once an answer was begun,
`Aborted` (the connection closes). Why each reason exists and what it is answered: outcomes.py.
"""

import asyncio
import functools
import os
import time
import traceback
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from sidecar.delivery.body import Body, Budget
from sidecar.delivery.responses import _answer
from sidecar.delivery.snapshot import Current, Site
from sidecar.delivery.upstream_head import _upstream_head
from sidecar.diagnosis.live import Hints
from sidecar.http1.connection import Incoming
from sidecar.http1.head import FORWARDING_HEADERS, RequestHead, field_lines
from sidecar.http1.upstream import Connection
from sidecar.outcomes import (
    RESPONSES,
    SHADOWED,
    VERIFICATION,
    Aborted,
    DeliveryEnd,
    HandshakeResult,
    Outcome,
    Reason,
    Rejected,
)
from sidecar.replay.once import ReplayTurn
from sidecar.replay.store import Store, StoreUnavailableError
from sidecar.routing.access import Waived, admit, waive
from sidecar.routing.client_ip import Client
from sidecar.routing.refusal_limit import RefusalLimit
from sidecar.routing.routes import Route
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.metrics import IN_FLIGHT, Metrics
from sidecar.telemetry.recent_rejections import RecentRejections
from sidecar.telemetry.record import DeliveryRecord
from sidecar.telemetry.tracing import Tracing
from sidecar.verify.claim import Claim
from sidecar.verify.handshake import Shape
from sidecar.verify.standard_webhooks import message_id
from sidecar.verify.verifier import Verified, Verifier

#: A larger body is hashed in a thread: a MiB takes over a millisecond, and hashing lets go of the interpreter's lock.
ON_LOOP_BYTES: Final = 1024 * 1024
#: Seconds that a claim in the replay store outlives the longest time that its delivery can be with the receiver. A process
#: that is killed leaves its claims behind for that long.
PENDING_MARGIN: Final = 2.0


class Proxy:
    """What stands behind the data listener."""

    def __init__(
        self,
        current: Current,
        *,
        budget: Budget,
        metrics: Metrics,
        log: Log,
        refusals: RecentRejections,
        refusal_limit: RefusalLimit,
        replays: Store,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.current = current
        self.budget = budget
        self.metrics = metrics
        self.log = log
        self.refusals = refusals
        self.refusal_limit = refusal_limit
        self.replays = replays
        self.now = now
        self.monotonic = monotonic
        self.hints = Hints(monotonic)
        self.draining = False
        self.tracing: Tracing | None = None
        self._count = 0
        self._warned: set[str] = set()  # routes whose allowlist may be judging a proxy's address

    async def __call__(self, incoming: Incoming) -> None:
        head = incoming.head
        exchange = self._begin(head.peer, head.method, head.path, head)
        body = Body(self.budget)
        self.metrics.gauges[IN_FLIGHT] += 1
        try:
            refusal = await self._deliver(incoming, exchange, body)
            if refusal is not None:
                self._refuse(incoming, exchange, refusal)
        except Rejected as rejected:
            self._refuse(incoming, exchange, rejected)
        except Aborted as aborted:
            _note(exchange, aborted)
            incoming.abort()
        except asyncio.CancelledError:
            # The sender left, or the drain's time is over; in both cases there is nobody to tell.
            if incoming.disconnected:
                _note(exchange, Aborted(Reason.CLIENT_DISCONNECTED))
            else:
                _note(exchange, Aborted(Reason.DRAINING, "the drain's time is over", outcome=Outcome.FAILED))
            incoming.abort()
        except Exception as bug:
            failure = Rejected(Reason.INTERNAL_ERROR, _where(bug))
            if incoming.response_started:
                _note(exchange, failure)
                incoming.abort()
            else:
                self._refuse(incoming, exchange, failure)
        finally:
            self._end(exchange, head, body)

    async def _deliver(  # noqa: PLR0912 - one straight line
        self, incoming: Incoming, exchange: DeliveryRecord, body: Body
    ) -> Rejected | None:
        """Raises what ends the delivery. The two commonest refusals, of no signature and of a wrong one, are returned: raised
        through four compiled functions the first takes 6.4 µs of this program's own time and not 5.4 (`path.py --unsigned`).
        """
        site = self.current.site

        # (1) head
        if incoming.fault is not None:
            raise incoming.fault
        if self.draining:
            raise Rejected(Reason.DRAINING)
        head = incoming.head

        # (2) client
        client = site.resolve_client(head)
        exchange.client = client.text

        # (3) route, and (4) claim: all that can be refused without the body
        exchange.route = route = site.config.routes.find(head.path)
        self._hold_back(site, route, client, head)
        handshake = route.handshakes.begun_by(head) if route.handshakes is not None else None  # an unsigned one
        claim: Claim | None = None
        would_reject: Reason | None = None  # set in shadow mode only
        try:
            admit(route, head.method, client, handshake=handshake is not None)
            if route.verifier is not None and handshake is None:
                exchange.delivery_id = route.verifier.delivery_id(head)
                unsigned = route.verifier.unsigned(head)
                if unsigned is not None and not route.shadow:
                    return unsigned
                claim = route.verifier.read_claim(head, self.now())
                exchange.age = claim.age
        except Rejected as rejected:
            if not route.shadow:
                raise
            would_reject = _tolerated(exchange, rejected)

        # (5) body
        body.begin(incoming, route.body_limit)
        while body.take(incoming, route.body_limit):
            await incoming.news()

        # (6) verify
        proof: Verified | Waived | None = None
        if claim is not None and route.verifier is not None:
            try:
                proof = await self._verify(route.verifier, claim, head, body, exchange)
                if proof is None:
                    if not route.shadow:
                        return route.verifier.mismatch
                    would_reject = _tolerated(exchange, route.verifier.mismatch)
                elif route.handshakes is not None:
                    handshake = route.handshakes.carried_by(head, body.pieces)
            except Rejected as rejected:
                if not route.shadow:
                    raise
                proof, exchange.secret_id = None, ""
                would_reject = _tolerated(exchange, rejected)
        if (
            handshake is not None
            and would_reject is None
            and self._answer_handshake(incoming, exchange, handshake, body)
        ):
            return None
        if proof is None:
            proof = waive(route, would_reject, handshake=handshake is not None)

        # (7) once, (8) forward, (9) answer
        if route.replay is not None and claim is not None and type(proof) is Verified and handshake is None:
            await self._forward_once(proof, claim, client, incoming, exchange, body=body, site=site)
        else:
            await self._forward(proof, claim, client, incoming, exchange, body=body, site=site)
        return None

    async def _verify(
        self, verifier: Verifier, claim: Claim, head: RequestHead, body: Body, exchange: DeliveryRecord
    ) -> Verified | None:
        """None if no secret matches. Raises `Rejected`."""
        began = self.monotonic()
        try:
            if body.size <= ON_LOOP_BYTES:
                proof = verifier.match(claim, head, body.pieces)
            else:
                loop = asyncio.get_running_loop()
                proof = await loop.run_in_executor(None, verifier.match, claim, head, body.pieces)
        finally:
            exchange.verify_seconds = self.monotonic() - began
            if exchange.trace is not None:
                exchange.trace.verify_began = began
        if proof is not None:
            exchange.secret_id = proof.secret_id
            if proof.age is not None:
                exchange.age = proof.age
        return proof

    async def _forward_once(
        self,
        proof: Verified,
        claim: Claim,
        client: Client,
        incoming: Incoming,
        exchange: DeliveryRecord,
        *,
        body: Body,
        site: Site,
    ) -> None:
        """Steps (7) to (9) on a route with `replay:`."""
        route = exchange.route
        assert route is not None
        leave: Verified | Waived = proof
        once: ReplayTurn | None = None
        try:
            once = await self._begin_once(route, claim, incoming.head, body, exchange, site=site)
        except Rejected as rejected:
            if not route.shadow:
                raise
            leave = waive(route, _tolerated(exchange, rejected))
        try:
            await self._forward(leave, claim, client, incoming, exchange, body=body, site=site, once=once)
        finally:
            if once is not None:
                once.abandon()

    async def _begin_once(
        self, route: Route, claim: Claim, head: RequestHead, body: Body, exchange: DeliveryRecord, *, site: Site
    ) -> ReplayTurn | None:
        """This delivery's turn, which must be ended; None if it may go on unchecked. Raises `Rejected` for a copy."""
        assert route.verifier is not None
        assert route.replay is not None
        fingerprint = functools.partial(route.verifier.fingerprint, claim, head, body.pieces, scope=route.name)
        key = await _hashed(body.size, fingerprint)
        once = ReplayTurn(self.replays, key, route.replay)
        try:
            longest = site.upstreams[route.upstream].longest
            await once.begin(longest + PENDING_MARGIN, wait=not route.shadow)
        except StoreUnavailableError as error:
            if not route.replay.fail_open:
                raise Rejected(Reason.REPLAY_STORE_UNAVAILABLE, str(error)) from None
            exchange.unchecked, exchange.detail = True, f"forwarded unchecked: {error}"
            return None
        return once

    async def _forward(
        self,
        proof: Verified | Waived,
        claim: Claim | None,
        client: Client,
        incoming: Incoming,
        exchange: DeliveryRecord,
        *,
        body: Body,
        site: Site,
        once: ReplayTurn | None = None,
    ) -> None:
        """Steps (8) and (9): only with a proof in hand."""
        route = exchange.route
        assert route is not None
        # (8)
        began = self.monotonic()
        upstream = site.upstreams[route.upstream]
        signed = (
            await self._sign(proof, claim, route, incoming.head, body) if route.upstream_signer is not None else b""
        )
        trace = exchange.trace
        if trace is not None:
            trace.upstream_began = began
        made = _upstream_head(
            proof, route, incoming.head, client, body.size, header=site.config.client_header, signed=signed, trace=trace
        )
        connection = await upstream.send(made, body.pieces, body.size, no_body=exchange.method == "HEAD")
        exchange.upstream_status = connection.status

        # (9)
        try:
            exchange.status = connection.status
            if once is not None and connection.complete:  # before the sender is told
                exchange.evicted = await once.end(connection.status)
            incoming.start(connection.status, connection.lines, sized=connection.has_length, hold=connection.has_piece)
            if not _hand_on(connection, incoming, exchange):
                await _stream(connection, incoming, exchange, once)
        finally:
            upstream.finish(connection)
            exchange.upstream_seconds = self.monotonic() - began

    async def _sign(
        self, proof: Verified | Waived, claim: Claim | None, route: Route, head: RequestHead, body: Body
    ) -> bytes:
        """The lines that sign a delivery for the receiver; none for one that nobody vouches for."""
        if isinstance(proof, Waived) and not proof.admitted:
            return b""
        make = functools.partial(_signed_lines, route, claim, head, body.pieces, now=int(self.now()))
        return await _hashed(body.size, make)

    def _answer_handshake(self, incoming: Incoming, exchange: DeliveryRecord, shape: Shape, body: Body) -> bool:
        """Answers a handshake; false if the route passes it on. Raises `Rejected`."""
        assert exchange.route is not None
        handshakes = exchange.route.handshakes
        assert handshakes is not None
        if not handshakes.answers(shape):
            exchange.handshake = HandshakeResult.PASSED
            return False
        exchange.handshake = HandshakeResult.REFUSED
        answer = handshakes.answer(shape, incoming.head, body.pieces)
        exchange.handshake = HandshakeResult.ANSWERED
        exchange.status, headers, content = answer
        exchange.answer_bytes = len(content)
        incoming.start(exchange.status, field_lines(headers), sized=True, hold=True)
        incoming.write(content, more=False)
        return True

    def _hold_back(self, site: Site, route: Route, client: Client, head: RequestHead) -> None:
        """Raises `Rejected` for a sender that this route keeps refusing. Warns where the addresses are probably proxies'."""
        if _is_probably_proxied(site, head):
            self._warn_of_proxy(route, head)
        if self.refusal_limit.rate is None:
            return
        wait = self.refusal_limit.wait(route.name, client.address, self.monotonic())
        if wait:
            answer = RESPONSES[Reason.RATE_LIMITED]._replace(retry_after=wait)
            raise Rejected(Reason.RATE_LIMITED, f"more than {self.refusal_limit.rate} were refused", response=answer)

    def _count_refusal(self, exchange: DeliveryRecord, head: RequestHead) -> None:
        """Counts a refusal of the delivery itself against its sender. Never against a proxy, whose address many share."""
        site = self.current.site
        address = site.resolve_client(head).address
        if address is None or address in site.config.trusted_proxies:
            return
        if _is_probably_proxied(site, head):
            return  # it probably is a proxy's, and `_warn_of_proxy` said so
        self.refusal_limit.refused(exchange.route_name, address, self.monotonic())

    def _warn_of_proxy(self, route: Route, head: RequestHead) -> None:
        """Once for each route, if it looks at addresses."""
        if route.name not in self._warned and (route.allow is not None or self.refusal_limit.rate is not None):
            self._warned.add(route.name)
            proxied = (
                "the allowlist judges the connection's own address"
                if route.allow is not None
                else "limits.refusals leaves out deliveries with such a header, because all senders may share the address"
            )
            self.log.event(
                "forwarding_header_ignored",
                Level.WARNING,
                route=route.name,
                header=next(name for name in FORWARDING_HEADERS if name in head.fields).decode(),
                peer=head.peer or "unix:",
                detail=f"{proxied}; if that is a proxy's, name it in trusted_proxies",
            )

    def _refuse(self, incoming: Incoming, exchange: DeliveryRecord, rejected: Rejected) -> None:
        _note(exchange, rejected)
        exchange.status, lines, body = _answer(rejected, exchange.route)
        incoming.start(exchange.status, lines, sized=True, hold=True)
        incoming.write(body, more=False)
        if self.refusal_limit.rate is not None and rejected.reason in VERIFICATION:
            self._count_refusal(exchange, incoming.head)

    def refuse_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        """The answer to what never became a request, as bytes; counted under no route."""
        exchange = self._begin(peer, "", b"")
        _note(exchange, rejected)
        exchange.status, lines, body = _answer(rejected, None)
        self._record_refusal(exchange, self.monotonic())
        status = b"%d %b" % (exchange.status, HTTPStatus(exchange.status).phrase.encode())
        return b"HTTP/1.1 %b\r\n%bconnection: close\r\n\r\n%b" % (status, lines, body)

    def _begin(self, peer: str | None, method: str, path: bytes, head: RequestHead | None = None) -> DeliveryRecord:
        self._count += 1
        exchange = DeliveryRecord(number=self._count, peer=peer, started=self.monotonic(), method=method, path=path)
        if self.tracing is not None and head is not None:
            exchange.trace = self.tracing.sampler.begin(head)
        return exchange

    def _end(self, exchange: DeliveryRecord, head: RequestHead, body: Body) -> None:
        """Step (10)."""
        self.metrics.gauges[IN_FLIGHT] -= 1
        exchange.request_bytes = body.size
        ended = self.monotonic()
        reason = exchange.reason or exchange.shadow_reason
        if reason is None:
            self._record(exchange, ended)
        elif self.hints.wants(reason, exchange.route, body.size):
            # In the loop's next turn: the answer has left by then, so its time tells nothing of what is found.
            asyncio.get_running_loop().call_soon(self._record_with_hint, exchange, ended, head, body.pieces)
        else:
            self._record_refusal(exchange, ended)
        body.release()

    def _record(self, exchange: DeliveryRecord, ended: float) -> None:
        exchange.seconds = ended - exchange.started
        self.metrics.record(exchange, self.now())
        self.log.record(exchange)
        if exchange.trace is not None and self.tracing is not None:
            self.metrics.exemplify(exchange, self.now())
            try:
                self.tracing.record(exchange, ended, self.now() - self.monotonic())
            except Exception as bug:  # no delivery may suffer from it
                self.log.event("traces_lost", Level.ERROR, detail=_where(bug))

    def _record_refusal(self, exchange: DeliveryRecord, ended: float) -> None:
        self._record(exchange, ended)
        self.refusals.record(exchange, self.now())

    def _record_with_hint(
        self, exchange: DeliveryRecord, ended: float, head: RequestHead, pieces: Sequence[bytes]
    ) -> None:
        reason, route = exchange.reason or exchange.shadow_reason, exchange.route
        assert reason is not None
        assert route is not None  # `hints.wants` said so
        try:
            routes = self.current.site.config.routes.routes
            exchange.hint = self.hints.hint(reason, route, head, pieces, now=self.now(), routes=routes)
        except Exception as bug:
            self.log.event("diagnosis_failed", Level.ERROR, where=_where(bug))
        self._record_refusal(exchange, ended)


def _hand_on(connection: Connection, incoming: Incoming, exchange: DeliveryRecord) -> bool:
    """What has arrived of the answer's body goes to the sender; returns whether that was its end."""
    piece, more = connection.take()
    exchange.answer_bytes += len(piece)
    incoming.write(piece, more=more)
    return not more


async def _stream(
    connection: Connection, incoming: Incoming, exchange: DeliveryRecord, once: ReplayTurn | None
) -> None:
    """The rest of an answer that did not come in one piece. While the sender reads too slowly, the receiver waits too."""
    done = False
    while not done:
        await incoming.writable()
        if not connection.has_piece:
            await connection.news()
        if once is not None and connection.complete:
            exchange.evicted |= await once.end(connection.status)
        done = _hand_on(connection, incoming, exchange)


def _tolerated(exchange: DeliveryRecord, rejected: Rejected) -> Reason:
    """The reason to note in shadow mode for a refusal of the delivery itself; anything else is raised again."""
    if rejected.reason not in SHADOWED:
        raise rejected
    exchange.shadow_reason, exchange.detail = rejected.reason, rejected.detail
    return rejected.reason


async def _hashed(size: int, make: Callable[[], bytes]) -> bytes:
    """What `make` computes from a body of this size, see `ON_LOOP_BYTES`. `_verify`, on every way, does it in place."""
    if size <= ON_LOOP_BYTES:
        return make()
    return await asyncio.get_running_loop().run_in_executor(None, make)


def _is_probably_proxied(site: Site, head: RequestHead) -> bool:
    """Whether somebody says for whom they send, and nobody was named who may."""
    return site.trusts_nobody and head.names.forwarding


def _signed_lines(route: Route, claim: Claim | None, head: RequestHead, body: Sequence[bytes], *, now: int) -> bytes:
    assert route.upstream_signer is not None
    fresh = os.urandom(16).hex().encode()
    ident = message_id(route.verifier, claim, head, body, scope=route.name, fresh=fresh)
    return route.upstream_signer.lines(ident, now, body)


def _note(exchange: DeliveryRecord, stop: DeliveryEnd) -> None:
    exchange.reason = stop.reason
    exchange.outcome = stop.outcome
    exchange.detail = stop.detail
    # What was kept until it was raised, by a request or a connection, leads back there by its frames: a circle.
    stop.__traceback__ = None


def _where(bug: Exception) -> str:
    """The kind of a bug and the line it happened in; never its message, which may quote what a sender wrote."""
    frames = traceback.extract_tb(bug.__traceback__)
    return f"{type(bug).__name__} in {frames[-1].name}, {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}"
