"""The steps of deliveries in a shared store, several to a round trip.

While one request is under way, steps wait for the next one. So an idle store is asked at once, and a busy one gets few, large
requests: most of the cost of a step is that of its request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from hashlib import sha1
from typing import Final, NamedTuple

from sidecar.replay.store import StoreUnavailableError

#: Steps of one request. The store does nothing else in the meantime, which is well under a millisecond.
MAX_STEPS: Final = 100


class Verb(StrEnum):
    """The script's action for a step."""

    BEGIN = "begin"
    DONE = "done"
    RELEASE = "release"


#: The one argument has a line for each key: a verb, a claim and milliseconds, with a space between them. Returns the answers,
#: with a comma between them.
#:
#:     begin    sets the claim for that time, unless there is another value, which it answers. Repeating it is harmless.
#:     done     sets "done" for that time
#:     release  deletes the claim, and no other value
SCRIPT: Final = """
local answers = {}
local line = string.gmatch(ARGV[1], '(%l+) (%S+) (%d+)')
for i, key in ipairs(KEYS) do
  local verb, claim, milliseconds = line()
  answers[i] = ''
  if verb == 'done' then
    redis.call('SET', key, 'done', 'PX', milliseconds)
  else
    local there = redis.call('GET', key)
    if verb == 'release' then
      if there == claim then redis.call('DEL', key) end
    elseif there and there ~= claim then
      answers[i] = there
    else
      redis.call('SET', key, claim, 'PX', milliseconds)
    end
  end
end
return table.concat(answers, ',')
"""
_HASH: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
_BY_HASH: Final = f"$7\r\nEVALSHA\r\n${len(_HASH)}\r\n{_HASH}\r\n"
_WHOLE: Final = f"$4\r\nEVAL\r\n${len(SCRIPT)}\r\n{SCRIPT}\r\n"


class Step(NamedTuple):
    """One delivery's step."""

    verb: Verb
    name: str  #: of the key in the store
    claim: str  #: without spaces
    seconds: float  #: for how long the claim or "done" counts

    @property
    def argument(self) -> str:
        """The step as the script's input."""
        return f"{self.verb} {self.claim} {int(self.seconds * 1000)}"


def pack(steps: Sequence[Step], *, whole: bool = False) -> bytes:
    """The command that runs the script for these steps, as the server reads it (RESP, arrays of bulk strings).

    By the script's hash, or with its `whole` text, which the server then remembers. redis-py packs a command an argument at a
    time and reads a list an answer at a time, which together took half of what a shared store cost (docs/performance.md).
    """
    arguments = "\n".join([each.argument for each in steps])
    numbered = str(len(steps))
    keys = "".join([f"${len(each.name)}\r\n{each.name}\r\n" for each in steps])
    command = f"*{4 + len(steps)}\r\n{_WHOLE if whole else _BY_HASH}${len(numbered)}\r\n{numbered}\r\n{keys}"
    return f"{command}${len(arguments)}\r\n{arguments}\r\n".encode("ascii")


def unpack(reply: bytes, count: int) -> list[bytes]:
    """The answers to `count` steps. Raises `ValueError`."""
    answers = reply.split(b",")
    if len(answers) != count:
        raise ValueError("another number of answers than of steps")
    return answers


class StepQueue:
    """Hands steps to `send`, which returns an answer to each, or raises `StoreUnavailableError`.

    A step is answered or fails within `seconds`, the time that it waits for its turn included.
    """

    def __init__(self, send: Callable[[list[Step], float], Awaitable[list[bytes]]], seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self._waiting: list[tuple[Step, asyncio.Future[bytes], float]] = []
        self._sender: asyncio.Task[None] | None = None

    def add(self, step: Step) -> asyncio.Future[bytes]:
        """The future of the step's answer. The step is sent even if nobody waits for it any longer."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._waiting.append((step, answer, loop.time() + self._seconds))
        if self._sender is None:  # it starts in the next turn of the loop, so that the steps of this turn go together
            self._sender = loop.create_task(self._send_all())
        return answer

    async def close(self, seconds: float) -> None:
        """Waits for the steps that were added, but not longer than `seconds`."""
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=seconds)

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                some = self._waiting[:MAX_STEPS]
                del self._waiting[:MAX_STEPS]
                _, _, until = some[0]
                try:
                    answers = await self._send([step for step, _, _ in some], until - loop.time())
                except StoreUnavailableError as error:
                    for _, future, _ in some:
                        _fail(future, error)
                else:
                    for (_, future, _), answer in zip(some, answers, strict=True):
                        if not future.done():
                            future.set_result(answer)
        finally:
            self._sender = None


def _fail(future: asyncio.Future[bytes], error: StoreUnavailableError) -> None:
    if not future.done():
        future.set_exception(StoreUnavailableError(str(error)))
        future.exception()  # retrieved, so that asyncio does not log one that nobody waits for
