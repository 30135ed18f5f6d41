"""Stage 6 without the provider's key: wait a little for it and verify again, or reject.

key_unknown        the provider itself said within the last minute that it has no such key: rejected like any forgery
key_unavailable    nobody knows: never fetched, older than `keep`, the key server is down, too slow or asked too often;
                   503 with Retry-After, because the provider should send again
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from sidecar.outcomes import Reason, Rejected
from sidecar.verify.published import KeyNeeded, KeySource, PublishedKeys

#: How long one delivery waits for keys, in all.
WAIT_SECONDS: Final = 3.0
#: Documents that one delivery may wait for: an OpenID configuration and the keys that it names.
MAX_DOCUMENTS: Final = 2


class RefreshableKeys(PublishedKeys, Protocol):
    """The documents of this process, and what it knows about them."""

    async def refresh(self, source: KeySource, seconds: float = WAIT_SECONDS) -> bool:
        """As `PublishedKeys.refresh`; waits for at most `seconds`."""
        ...

    def confirm(self, route: str, url: str) -> bool:
        """Has a subscription's confirmation address called, now or soon; False if that is not possible now."""
        ...

    def is_current(self, source: KeySource) -> bool:
        """Whether the provider confirmed the document within the interval."""
        ...


async def verify_with_new_keys(
    needed: KeyNeeded, keys: RefreshableKeys | None, verify: Callable[[], Awaitable[Rejected | None]]
) -> Rejected | None:
    """The result of `verify()` once the key that it raised `needed` for has arrived; otherwise the rejection."""
    if keys is not None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_SECONDS
        for _ in range(MAX_DOCUMENTS):
            # A thread may have verified while the document arrived.
            is_new = keys.get(needed.source) is not needed.seen
            if not is_new and not await keys.refresh(needed.source, deadline - loop.time()):
                break
            try:
                return await verify()
            except KeyNeeded as still:
                needed = still
    needed.__traceback__ = None  # leads to frames that hold the delivery: a reference cycle
    known = keys is not None and keys.is_current(needed.source)
    reason = Reason.KEY_UNAVAILABLE if needed.reason is Reason.KEY_UNKNOWN and not known else needed.reason
    return Rejected(reason, needed.detail)
