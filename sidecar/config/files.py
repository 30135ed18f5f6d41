"""The files of a configuration: read, recorded, checked for changes, and read again from the record.

A worker process must use the configuration that its parent checked, even if it is started a week later and the files have changed
since. So the parent records what it read, and the worker reads the record. The record also shows whether a file has changed.
"""

import errno
import os
import stat
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

#: Reads a file: its name, and the most bytes to read. Raises `OSError`, or `ValueError` if the name is not valid.
ReadFile = Callable[[str, int], bytes]


def read_file(name: str, size: int) -> bytes:
    """A `ReadFile` that reads files."""
    with Path(name).open("rb") as handle:
        return handle.read(size)


#: Values that change with the file: its place, its size, the times of its last changes, and whether the last one is so recent
#: that another change could have the same time. None: no file.
FileState = tuple[int, ...] | None
#: Nanoseconds. Some file systems count in steps of two seconds.
RECENT = 3_000_000_000


def read_file_state(name: str) -> FileState:
    """The state of the file `name`, through symbolic links: a mounted ConfigMap or Secret changes by a new link."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None  # a pipe can be read only once
    recent = time.time_ns() - found.st_ctime_ns < RECENT
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, recent


class FileRecorder:
    """A `ReadFile` that records what it reads, absent files included. Each file is read once."""

    def __init__(self) -> None:
        self.texts: dict[str, str | int] = {}  #: base64, or the number of the error; fit for JSON
        self.states: dict[
            str, FileState
        ] = {}  #: taken before the file was read, so that a change in between is noticed
        self._sizes: dict[str, int] = {}

    def __call__(self, name: str, size: int) -> bytes:
        if self._sizes.get(name, 0) < size:
            state = read_file_state(name)
            self.texts[name] = _read(name, size)
            self.states[name] = state
            self._sizes[name] = size
        return read_recorded(self.texts, name, size)

    def current_states(self) -> dict[str, FileState]:
        """`states` as they are now."""
        return {name: read_file_state(name) for name in self.states}

    def differs(self) -> bool:
        """Whether the content of any file has changed. If none has, only the recorded states are updated."""
        states = self.current_states()
        if any(_read(name, size) != self.texts[name] for name, size in self._sizes.items()):
            return True
        self.states = states
        return False


class RecordedFiles:
    """A `ReadFile` that reads a record instead of files."""

    def __init__(self, texts: Mapping[str, str | int]) -> None:
        self.texts = texts

    def __call__(self, name: str, size: int) -> bytes:
        return read_recorded(self.texts, name, size)


def read_recorded(texts: Mapping[str, str | int], name: str, size: int) -> bytes:
    """The recorded content, or the recorded error raised again."""
    text = texts.get(name, errno.ENOENT)
    if isinstance(text, int):
        raise OSError(text, os.strerror(text), name)
    return b64decode(text)[:size]


def _read(name: str, size: int) -> str | int:
    try:
        return b64encode(read_file(name, size)).decode("ascii")
    except OSError as error:
        return error.errno or errno.EIO
