"""Reloading: a changed configuration replaces the one at work as a whole, and only if it is right.

Config files are polled once a second; we don't use inotify. Polling costs microseconds a file and works where notifications
don't: on network file systems, and on mounts whose links are swapped. Content decides: a file that was only touched is no
change.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Final

from sidecar.config.files import ReadFile, Remembered
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError, Problem
from sidecar.config.settings import Config
from sidecar.routing.networks import Networks

#: How often a configuration is read again because a file changed while it was read.
MAX_READS: Final = 5
#: While a configuration is read in a thread, how long that thread may keep the others waiting, seconds.
SWITCH_SECONDS: Final = 0.0005


def read_again(
    old: Config, env: Mapping[str, str], ranges: Mapping[str, Networks]
) -> tuple[Config | ConfigError, Remembered]:
    """The configuration as its files are now, or what is wrong with it, and what was read. To be called in a thread.

    Never half of it: if a file changed meanwhile, all of them are read again.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        for _ in range(MAX_READS):
            files = Remembered()
            read = _read(old, env, files, ranges)
            if files.current_states() == files.states:
                break
    finally:
        sys.setswitchinterval(interval)
    return read, files


def _read(
    old: Config, env: Mapping[str, str], files: Remembered, ranges: Mapping[str, Networks]
) -> Config | ConfigError:
    try:
        return _changed(old, env, files, ranges)
    except ConfigError as error:
        return error
    except Exception as bug:  # whatever a file may hold, the configuration at work goes on
        return ConfigError([Problem(old.file, 1, "", f"can't be read: {type(bug).__name__}, a bug of this program")])


def _changed(old: Config, env: Mapping[str, str], read: ReadFile, ranges: Mapping[str, Networks]) -> Config:
    """Raises `ConfigError`, also for what can't change while running."""
    new = load_config(old.file, env, read=read, ranges=ranges)
    fixed = (
        ("listen", old.listen, new.listen),
        ("admin", old.admin, new.admin),
        ("tracing", old.tracing or "off", new.tracing or "off"),
        ("workers", old.workers, new.workers),
        ("proxy_protocol", old.proxy_protocol, new.proxy_protocol),
        ("replay_store", old.replay_store or "memory", new.replay_store or "memory"),
    )
    problems = [
        Problem(new.file, 1, key, f"can't change from {before} to {after} while running; restart to apply")
        for key, before, after in fixed
        if before != after
    ]
    if problems:
        raise ConfigError(problems)
    return new


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
        states = await asyncio.to_thread(current().current_states)
        if states == current().states:
            continue
        for _ in range(MAX_RESTS):
            await asyncio.sleep(REST_SECONDS)
            before, states = states, await asyncio.to_thread(current().current_states)
            if states == before:
                break
        if await asyncio.to_thread(current().differs):
            return
