"""Connecting to the receiver: the one coroutine of the data path that an `asyncio.Task` runs.

It is not compiled, and must not be. When something that a task waits for fails, the task throws the exception into its
coroutine. A coroutine compiled by mypyc passes it on to what it awaits as `throw(type, value, traceback)`, which Python
deprecated in 3.12 (mypyc/lib-rt/misc_ops.c, `CPy_YieldFromErrorHandle`). With warnings as errors, a refused connection
then ended as a DeprecationWarning, so the sender got 500 in place of 502. A `LightTask` never throws into what a
compiled coroutine awaits, other than into a `Signal`, which is compiled as well.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from sidecar.outcomes import Reason, Rejected

if TYPE_CHECKING:
    from sidecar.http1.upstream import UpstreamAddress

P = TypeVar("P", bound=asyncio.Protocol)

#: First pause between attempts to connect to a receiver that refuses; it doubles up to the maximum.
RETRY_PAUSE: Final = 0.02
MAX_RETRY_PAUSE: Final = 0.5


async def connect(
    loop: asyncio.AbstractEventLoop,
    address: "UpstreamAddress",
    seconds: float,
    tls: ssl.SSLContext | None,
    protocol: Callable[[], P],
) -> P:
    """A new connection; a receiver that refuses is tried again within `seconds`, because it may be restarting."""
    deadline = loop.time() + seconds
    pause = RETRY_PAUSE
    while True:
        left = deadline - loop.time()
        try:
            async with asyncio.timeout(left):
                return await _open(loop, address, tls, protocol)
        except TimeoutError:
            raise Rejected(Reason.UPSTREAM_UNREACHABLE, f"no connection to {address} within {seconds:g} s") from None
        except ssl.SSLError as error:
            raise Rejected(Reason.UPSTREAM_UNREACHABLE, f"TLS with {address} failed: {_tls_problem(error)}") from None
        except OSError as error:
            if loop.time() + pause >= deadline:
                problem = error.strerror or type(error).__name__
                raise Rejected(Reason.UPSTREAM_UNREACHABLE, f"no connection to {address}: {problem}") from None
        await asyncio.sleep(pause)
        pause = min(pause * 2, MAX_RETRY_PAUSE)


async def _open(
    loop: asyncio.AbstractEventLoop, address: "UpstreamAddress", tls: ssl.SSLContext | None, protocol: Callable[[], P]
) -> P:
    if address.scheme == "unix":
        _, connection = await loop.create_unix_connection(protocol, address.path)
    else:
        _, connection = await loop.create_connection(
            protocol, address.host, address.port, ssl=tls, server_hostname=address.host if tls else None
        )
    return connection


def _tls_problem(error: ssl.SSLError) -> str:
    if error.reason == "WRONG_VERSION_NUMBER":
        return "the receiver speaks no TLS; is its URL http://?"
    return getattr(error, "verify_message", "") or error.reason or type(error).__name__
