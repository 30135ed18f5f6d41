"""One delivery's turn at the receiver: no copy is forwarded during the turn, nor after it ended successfully."""

import asyncio
from collections.abc import Sequence

from sidecar.outcomes import Outcome, Reason, Rejected, Response
from sidecar.replay.store import Replay, Seen, Store

#: How long a copy waits, in steps, for the one that is being forwarded, before it gets 409: 1.6 s in all.
PAUSES = (0.01, 0.04, 0.1, 0.2, 0.4, 0.85)
IN_PROGRESS = Response(409, "Delivery in progress", retry_after=5)


class ReplayTurn:
    """The turn of the delivery `key`, from `begin` until `end` or `abandon`.

    It is also a copy of a delivery with one of the keys `others`. `share` is its route. With `items`, the keys of its items,
    in an order that is the same for all, it is a copy if all of them were delivered: one that has a new item goes on.
    A copy of it may have one of the keys `also` instead: they are claimed and remembered with it.
    """

    __slots__ = ("_also", "_claimed", "_items", "_key", "_others", "_over", "_replay", "_share", "_store")

    def __init__(
        self,
        store: Store,
        key: bytes,
        replay: Replay,
        share: str,
        others: Sequence[bytes] = (),
        *,
        items: Sequence[bytes] = (),
        also: Sequence[bytes] = (),
    ) -> None:
        self._store = store
        self._key = key
        self._items = items
        self._also = also
        self._claimed: Sequence[bytes] = (key,)
        self._others = others
        self._share = share
        self._replay = replay
        self._over = False

    def begin_at_once(self) -> bool:
        """Claims the turn if that needs no waiting. If not, only `begin` can tell why."""
        if self._others or self._items or self._also:
            return False
        return self._store.begin_at_once(self._key, self._share) is Seen.NEW

    async def begin(self, pending_seconds: float, *, wait: bool) -> None:
        """Claims the turn. Raises `Rejected` if a copy had or has it, and `StoreUnavailableError`."""
        for other in self._others:
            seen = await self._store.begin(other, pending_seconds, self._share)
            if seen is not Seen.NEW:
                raise self._copy(seen)
            self._store.release(other)
        for pause in (*PAUSES, 0.0) if wait else (0.0,):
            if self._items:
                seen = await self._begin_items(pending_seconds)
            else:
                seen = await self._store.begin(self._key, pending_seconds, self._share)
            if seen is Seen.NEW:
                if self._also:
                    await self._claim_also(pending_seconds)
                return
            if seen is Seen.DONE:
                break
            if pause:
                await asyncio.sleep(pause)
        raise self._copy(seen)

    async def _begin_items(self, pending_seconds: float) -> Seen:
        """Claims the items that are new; none of them while another delivery has one."""
        claimed: list[bytes] = []
        busy = False
        try:
            for key in self._items:
                seen = await self._store.begin(key, pending_seconds, self._share)
                if seen is Seen.NEW:
                    claimed.append(key)
                elif seen is Seen.PENDING:
                    busy = True
                    break
        except BaseException:
            self._release(claimed)
            raise
        if busy:
            self._release(claimed)
            return Seen.PENDING
        self._claimed = claimed
        return Seen.NEW if claimed else Seen.DONE

    async def _claim_also(self, pending_seconds: float) -> None:
        """Raises `Rejected` for a copy that came under another key, and gives up what was claimed."""
        claimed = list(self._claimed)
        self._claimed = claimed
        try:
            for key in self._also:
                seen = await self._store.begin(key, pending_seconds, self._share)
                if seen is not Seen.NEW:
                    raise self._copy(seen)
                claimed.append(key)
        except BaseException:
            self.abandon()
            raise

    def _release(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._store.release(key)

    def _copy(self, seen: Seen) -> Rejected:
        if seen is Seen.DONE:
            return Rejected(Reason.REPLAYED, f"delivered before, within the last {self._replay.seconds:g} s")
        return Rejected(
            Reason.REPLAYED, "a copy is being forwarded at the moment", response=IN_PROGRESS, outcome=Outcome.REJECTED
        )

    def end_at_once(self, status: int) -> bool | None:
        """What `end` does and returns, if that needs no waiting; None if it does, and nothing has been done."""
        if self._over or not 200 <= status <= 299 or len(self._claimed) != 1:
            return None
        forgotten = self._store.done_at_once(self._claimed[0], self._replay.seconds, self._share)
        self._over = forgotten is not None
        return forgotten

    async def end(self, status: int) -> bool:
        """The receiver's response is complete. Returns whether another delivery was forgotten early to make room."""
        if self._over:
            return False
        if not 200 <= status <= 299:
            self.abandon()
            return False
        self._over = True
        forgotten = False
        for key in self._claimed:
            forgotten = await self._store.done(key, self._replay.seconds, self._share) or forgotten
        return forgotten

    async def end_unknown(self, seconds: float) -> bool:
        """Rejects copies for `seconds`, because nobody will report how this delivery ended. Returns what `end` returns."""
        self._over = True
        forgotten = False
        for key in self._claimed:
            forgotten = await self._store.done(key, seconds, self._share) or forgotten
        return forgotten

    def abandon(self) -> None:
        """Lets the next copy be forwarded: it is unknown whether the receiver accepted this one. No effect after `end`."""
        if not self._over:
            self._over = True
            self._release(self._claimed)
