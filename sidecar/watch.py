"""Waits for the files of a configuration to change.

Their looks are compared once a second, which costs microseconds a file and works where notifications don't (network file
systems, mounts whose links are exchanged). Content decides: a file that was only touched is no change.
"""

import asyncio
from collections.abc import Callable

from sidecar.config.files import Remembered

LOOK_SECONDS = 1.0
#: A file that is being written is left alone until it has looked the same for this long, but not for ever.
REST_SECONDS = 0.25
MAX_RESTS = 20


async def wait_for_change(current: Callable[[], Remembered]) -> None:
    """Returns when what was last read is no longer what stands in the files, and they are no longer being written.

    `current()` is what was last read; it may change while this waits. Files are touched in a thread: a network file system may
    take its time.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        looks = await asyncio.to_thread(current().look_again)
        if looks == current().looks:
            continue
        for _ in range(MAX_RESTS):
            await asyncio.sleep(REST_SECONDS)
            before, looks = looks, await asyncio.to_thread(current().look_again)
            if looks == before:
                break
        if await asyncio.to_thread(current().differs):
            return
