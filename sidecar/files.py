"""The files that a configuration is made of: read, remembered, and read again from memory.

A worker process must work by the very configuration that its parent checked, also when it is started a week later and
the files have changed since. So the parent remembers what it read, and the worker reads that.
"""

import errno
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

#: Reads a file's bytes, at most so many. Raises `OSError`, or `ValueError` for what is no file name.
ReadFile = Callable[[str, int], bytes]


def read_file(name: str, size: int) -> bytes:
    """A `ReadFile` that reads files."""
    with Path(name).open("rb") as handle:
        return handle.read(size)


class Remembered:
    """A `ReadFile` that keeps what was read, the absence of a file included."""

    def __init__(self) -> None:
        self.texts: dict[str, str | int] = {}  #: base64, or the number of the error; can be sent as JSON

    def __call__(self, name: str, size: int) -> bytes:
        try:
            text = read_file(name, size)
        except OSError as error:
            self.texts[name] = error.errno or errno.EIO
            raise
        self.texts[name] = b64encode(text).decode("ascii")
        return text


class Recalled:
    """A `ReadFile` from what was remembered."""

    def __init__(self, texts: Mapping[str, str | int]) -> None:
        self.texts = texts

    def __call__(self, name: str, size: int) -> bytes:
        text = self.texts.get(name, errno.ENOENT)
        if isinstance(text, int):
            raise OSError(text, os.strerror(text), name)
        return b64decode(text)[:size]
