"""One server of a shared store, and the steps that it is asked to do. The connection is redis-py's."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from sidecar.replay.redis_steps import MAX_STEPS, Step, pack, unpack

#: Seconds in which a connection must be open, and in which the replies to what is sent must be there.
STEP_SECONDS: Final = 1.0

#: A process's recent marks and claims, which a server may have lost when the process connects to it again.
Repeat = Callable[[], Sequence[Step]]


class Server:
    """It has one connection. The caller makes one request at a time.

    A server that runs scripts over keys of one slot only (`together` is false) gets a command for each step.
    """

    def __init__(self, connection: AbstractConnection, *, together: bool) -> None:
        self._connection = connection
        self._together = together
        self._was_open = False

    @property
    def is_open(self) -> bool:
        return bool(self._connection.is_connected)

    async def ask(self, steps: Sequence[Step], repeat: Repeat) -> list[Any]:
        """The answer to each step, an exception if the server sent an error. Raises what the connection raises.

        A connection that was open may have been closed by a server that was restarted, so it is opened again once.
        """
        if self.is_open:
            with suppress(RedisConnectionError):
                return await self._ask(steps, repeat)
        return await self._ask(steps, repeat)

    async def send(self, *commands: tuple[str, ...]) -> list[Any]:
        """The reply to each command, an exception if it is an error."""
        packed = [b"".join(self._connection.pack_command(*each)) for each in commands]
        return await self.send_packed(packed)

    async def send_packed(self, commands: Sequence[bytes]) -> list[Any]:
        """The same for commands that are already in the protocol's form."""
        connection, replies = self._connection, list[Any]()
        try:
            if not self.is_open:
                async with asyncio.timeout(STEP_SECONDS):
                    await connection.connect()  # type: ignore[no-untyped-call]
            async with asyncio.timeout(STEP_SECONDS):
                await connection.send_packed_command(commands, check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response(disable_decoding=True))
                    except ResponseError as error:
                        replies.append(error)
        except BaseException:  # the next reply on this connection would belong to an earlier command
            await connection.disconnect(nowait=True)
            raise
        return replies

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)

    async def _ask(self, steps: Sequence[Step], repeat: Repeat) -> list[Any]:
        if not self.is_open:
            await self._connection.connect()  # type: ignore[no-untyped-call]
            if self._was_open:
                again = repeat()
                for start in range(0, len(again), MAX_STEPS):
                    await self._run(again[start : start + MAX_STEPS])
            self._was_open = True
        return await self._run(steps)

    async def _run(self, steps: Sequence[Step]) -> list[Any]:
        if not self._together:
            replies = await self.send_packed([pack([each]) for each in steps])
            if unknown := [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]:
                again = await self.send_packed([pack([steps[at]], whole=True) for at in unknown])
                for at, reply in zip(unknown, again, strict=True):
                    replies[at] = reply
            return replies
        (reply,) = await self.send_packed([pack(steps)])
        if isinstance(reply, NoScriptError):
            (reply,) = await self.send_packed([pack(steps, whole=True)])
        if isinstance(reply, Exception):
            raise reply
        if not isinstance(reply, bytes):
            raise TypeError("another answer than the script's")
        return unpack(reply, len(steps))
