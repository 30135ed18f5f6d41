"""The straight line: one delivery from its head to its record. See the package's docstring for the map."""

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from sidecar.delivery import decide
from sidecar.delivery.body import Body, Budget
from sidecar.delivery.delivery import SMALL_BYTES, Delivery
from sidecar.delivery.forward import Forwarder
from sidecar.delivery.missing_key import RefreshableKeys, verify_with_new_keys
from sidecar.delivery.recorder import Recorder, note_end, place_of
from sidecar.delivery.responses import answer_handshake, send_rejection, unparsed_rejection
from sidecar.delivery.snapshot import CurrentSnapshot, Snapshot
from sidecar.delivery.throttle import Throttle
from sidecar.http1.incoming import Incoming
from sidecar.outcomes import Aborted, HandshakeResult, Outcome, Reason, Rejected
from sidecar.replay.store import Store
from sidecar.routing.routes import RouteTable
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recent_rejections import RecentRejections
from sidecar.verify.published import KeyNeeded


class Proxy:
    """The application of the data listener. `Authorizer` answers the questions of gateways by the same line."""

    authorizes: ClassVar[bool] = False

    def __init__(
        self,
        current: CurrentSnapshot,
        *,
        budget: Budget,
        metrics: Metrics,
        log: Log,
        rejections: RecentRejections,
        replays: Store,
        keys: RefreshableKeys | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.perf_counter,
        recorder: Recorder | None = None,
    ) -> None:
        """`recorder` is that of another listener, so that both count and log as one."""
        self.draining = False
        self.cut_off = 0  #: deliveries that were cut off at the end of the drain
        self.recorder = recorder or Recorder(
            log=log, metrics=metrics, rejections=rejections, now=now, monotonic=monotonic
        )
        self._current = current
        self._budget = budget
        self._throttle = Throttle(log, monotonic)
        self._forwarder = Forwarder(replays, now=now, monotonic=monotonic)
        self._keys = keys
        self._now = now
        self._monotonic = monotonic

    async def __call__(self, incoming: Incoming) -> None:
        """Takes one request to its end, and records it."""
        delivery = self._begin(incoming)
        record = delivery.record
        try:
            rejected = await self._deliver(delivery)
            if rejected is not None:
                self._reject(delivery, rejected)
        except Rejected as rejected:
            self._reject(delivery, rejected)
        except Aborted as aborted:
            note_end(record, aborted)
            incoming.abort()
        except asyncio.CancelledError:
            # The sender left, or `drain` is over; in both cases nobody waits for a response.
            if incoming.disconnected:
                note_end(record, Aborted(Reason.CLIENT_DISCONNECTED))
            elif incoming.more_body:  # never whole, so never verified
                note_end(record, Aborted(Reason.DRAINING, "cut off at the end of `drain`"))
            else:
                self.cut_off += 1
                note_end(record, Aborted(Reason.DRAINING, "cut off at the end of `drain`", outcome=Outcome.FAILED))
            incoming.abort()
        except Exception as bug:
            failure = Rejected(Reason.INTERNAL_ERROR, place_of(bug))
            if incoming.response_started:
                note_end(record, failure)
                incoming.abort()
            else:
                self._reject(delivery, failure)
        finally:
            # (10) record
            self.recorder.end(delivery)

    def _begin(self, incoming: Incoming) -> Delivery:
        return Delivery(incoming, self._current.snapshot, self.recorder.begin(incoming.head), Body(self._budget))

    async def _deliver(self, delivery: Delivery) -> Rejected | None:  # noqa: PLR0912 - one straight line
        """Returns or raises the early end of the delivery. Rejections that anybody can cause at any rate are returned."""
        # (1) head
        incoming, snapshot, record = delivery.incoming, delivery.snapshot, delivery.record
        if incoming.fault is not None:
            return incoming.fault
        if self.draining:
            return Rejected(Reason.DRAINING)

        # (2) client
        delivery.client = snapshot.resolve_client(delivery.head)

        # (3) route
        rejected = decide.find_route(delivery, self._routes(snapshot))
        if rejected is not None:
            return rejected
        record.route = route = delivery.route
        rejected = self._throttle.check(delivery)
        if rejected is not None:
            return rejected

        # (3) method and address, (4) claim
        rejected = decide.admit(delivery, self._now())
        if rejected is not None and not decide.tolerates(delivery, rejected):
            return rejected

        # (5) body
        body = delivery.body
        body.begin(incoming, route.body_limit)
        while body.take(incoming, route.body_limit):
            await incoming.news()

        # (6) verify
        if delivery.claim is not None:
            rejected = await self._verify(delivery)
            if rejected is not None and not decide.tolerates(delivery, rejected):
                return rejected
        if delivery.handshake is not None and delivery.tolerated is None:
            rejected = self._answer_handshake(delivery)
            if rejected is not None or record.handshake is HandshakeResult.ANSWERED:
                return rejected

        # (7) once
        if route.replay is not None and delivery.verified is not None and delivery.handshake is None:
            try:
                await self._claim_turn(delivery)
            except Rejected as copy:
                if not decide.tolerates(delivery, copy):
                    return copy

        # (8) forward, (9) response
        if delivery.verified is not None:
            incoming.recognize()
        try:
            await self._pass(delivery)
        finally:
            if delivery.turn is not None:
                delivery.turn.abandon()
        return None

    def _routes(self, snapshot: Snapshot) -> RouteTable:
        return snapshot.forwarding

    def _answer_handshake(self, delivery: Delivery) -> Rejected | None:
        return answer_handshake(delivery, self._keys.confirm if self._keys is not None else None)

    def _claim_turn(self, delivery: Delivery) -> Coroutine[Any, Any, None]:
        """Stage 7. Raises `Rejected`."""
        route = delivery.route
        return self._forwarder.claim_turn(delivery, delivery.snapshot.upstreams[route].longest, wait=not route.shadow)

    def _pass(self, delivery: Delivery) -> Coroutine[Any, Any, None]:
        """Stages 8 and 9."""
        return self._forwarder.forward(delivery)

    async def _verify(self, delivery: Delivery) -> Rejected | None:
        """Stage 6, timed, with the wait for a key that the provider publishes."""
        record, body = delivery.record, delivery.body
        began = self._monotonic()
        if record.trace is not None:
            record.trace.verify_began = began
        try:
            try:
                if body.size <= SMALL_BYTES and not delivery.expands:  # most are
                    return decide.verify(delivery, body.pieces)
                return await self._verify_large(delivery)
            except KeyNeeded as missing:
                needed = missing
            return await verify_with_new_keys(needed, self._keys, functools.partial(self._verify_large, delivery))
        finally:
            record.verify_seconds = self._monotonic() - began

    async def _verify_large(self, delivery: Delivery) -> Rejected | None:
        """Stage 6 of a body of any size."""
        return await delivery.compute(functools.partial(decide.verify, delivery, delivery.body.pieces))

    def _reject(self, delivery: Delivery, rejected: Rejected) -> None:
        note_end(delivery.record, rejected)
        delivery.record.status = send_rejection(delivery.incoming, rejected, delivery.record.route)
        self._throttle.count(delivery, rejected.reason)

    def reject_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        """The whole response, as bytes, to input that never became a request; counted under no route."""
        record = self.recorder.begin_unparsed(peer)
        record.authorizes = self.authorizes
        note_end(record, rejected)
        record.status, response = unparsed_rejection(rejected)
        self.recorder.end_rejected(record)
        return response
