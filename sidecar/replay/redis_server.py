"""One server of a shared store, and the steps that it is asked to do. The connection is redis-py's."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha1
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from sidecar.replay.redis_steps import MAX_STEPS, SCRIPT, Step

_SHA: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

#: What a process marked and claimed lately: a server that it connects to again may have lost that.
Repeat = Callable[[], Sequence[Step]]


class Server:
    """It has one connection, on which one request is made at a time; the caller sees to that.

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
        connection, replies = self._connection, list[Any]()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    replies.append(await connection.read_response(disable_decoding=True))
                except ResponseError as error:
                    replies.append(error)
        except BaseException:  # whatever comes on this connection is no reply to what is sent next
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
            replies = await self.send(*(command(each) for each in steps))
            if unknown := [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]:
                again = await self.send(*(command(steps[at], whole=True) for at in unknown))
                for at, reply in zip(unknown, again, strict=True):
                    replies[at] = reply
            return [reply[0] if isinstance(reply, list) and len(reply) == 1 else reply for reply in replies]
        (reply,) = await self.send(command(*steps))
        if isinstance(reply, NoScriptError):
            (reply,) = await self.send(command(*steps, whole=True))
        if isinstance(reply, Exception):
            raise reply
        if not isinstance(reply, list) or len(reply) != len(steps):
            raise ValueError("another number of answers than of steps")
        return reply


def command(*steps: Step, whole: bool = False) -> tuple[str, ...]:
    """The command that runs the script, by its hash or with the whole text, which the server then remembers."""
    script = ("EVAL", SCRIPT) if whole else ("EVALSHA", _SHA)
    return (*script, str(len(steps)), *(each.name for each in steps), *(each.argument for each in steps))
