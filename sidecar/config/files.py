"""The files that a configuration is made of: read, remembered, looked at again, and read again from memory.

A worker process must work by the very configuration that its parent checked, also when it is started a week later and
the files have changed since. So the parent remembers what it read, and the worker reads that. What it remembers also tells
whether a file has changed since.
"""

import errno
import os
import stat
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

#: Reads a file's bytes, at most so many. Raises `OSError`, or `ValueError` for what is no file name.
ReadFile = Callable[[str, int], bytes]


def read_file(name: str, size: int) -> bytes:
    """A `ReadFile` that reads files."""
    with Path(name).open("rb") as handle:
        return handle.read(size)


#: What differs when a file does: where it is, its size, the times of its last changes, and whether the last one is so recent
#: that another could have the same time. None: no file.
FileState = tuple[int, ...] | None
#: Nanoseconds. Some file systems count in steps of two seconds.
RECENT = 3_000_000_000


def read_file_state(name: str) -> FileState:
    """The file behind `name`, symbolic links followed: a mounted ConfigMap or Secret changes by another link."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None  # a pipe can be read once
    recent = time.time_ns() - found.st_ctime_ns < RECENT
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, recent


class Remembered:
    """A `ReadFile` that keeps what was read, the absence of a file included; each file is read once."""

    def __init__(self) -> None:
        self.texts: dict[str, str | int] = {}  #: base64, or the number of the error; can be sent as JSON
        self.states: dict[str, FileState] = {}  #: from before the file was read, so that a change meanwhile shows
        self._sizes: dict[str, int] = {}

    def __call__(self, name: str, size: int) -> bytes:
        if self._sizes.get(name, 0) < size:
            look = read_file_state(name)
            self.texts[name] = _read(name, size)
            self.states[name] = look
            self._sizes[name] = size
        return recall(self.texts, name, size)

    def current_states(self) -> dict[str, FileState]:
        """As `states`, but now."""
        return {name: read_file_state(name) for name in self.states}

    def differs(self) -> bool:
        """Whether any file's content is another now. If none is, only their looks are remembered anew."""
        states = self.current_states()
        if any(_read(name, size) != self.texts[name] for name, size in self._sizes.items()):
            return True
        self.states = states
        return False


class Recalled:
    """A `ReadFile` from what was remembered."""

    def __init__(self, texts: Mapping[str, str | int]) -> None:
        self.texts = texts

    def __call__(self, name: str, size: int) -> bytes:
        return recall(self.texts, name, size)


def recall(texts: Mapping[str, str | int], name: str, size: int) -> bytes:
    """What was read, or the error that was raised, again."""
    text = texts.get(name, errno.ENOENT)
    if isinstance(text, int):
        raise OSError(text, os.strerror(text), name)
    return b64decode(text)[:size]


def _read(name: str, size: int) -> str | int:
    try:
        return b64encode(read_file(name, size)).decode("ascii")
    except OSError as error:
        return error.errno or errno.EIO
