"""The secrets of tenants: a directory with a file for each, read once at the start and again when a file changes.

Every pass reads each file's state (a system call), and reads those that changed. Files of a volume that Kubernetes or the CSI
driver swaps as a whole (`..data`) are checked only after a swap. A file that was changed a moment ago may be half written,
so it is left for the next pass.

No name leads out of the directory: names are those of directory entries that `is_name` accepts, and a symbolic link counts only
if it ends in the directory.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from sidecar.config.secrets import MAX_SECRET_BYTES, describe_disguise, without_newline
from sidecar.secret import Secret
from sidecar.verify.tenants import CURRENT, PREVIOUS, Store, TenantSecrets, is_name

#: The placeholder of the tenant in a file's name and in a route's path.
PLACE: Final = "{tenant}"
#: The end of the name of a file with a tenant's previous secret.
PREVIOUS_END: Final = ".previous"
#: Nanoseconds for which a file that was changed is left alone.
SETTLE: Final = 200_000_000
#: Nanoseconds in which a second change may leave the same state, because a file system counts in steps.
COARSE: Final = 3_000_000_000
OUTSIDE: Final = "is a link to a file outside of the directory; it is not followed"
#: Files between two pauses of a pass.
SLICE: Final = 200


@dataclass(frozen=True, slots=True)
class TenantFileSettings:
    """`secrets:` of a route with tenants: the directory, and the name of a tenant's file in it."""

    dir: str
    name: str = PLACE


class TenantFileProblem(NamedTuple):
    """A file that can't be used, or whose secret looks wrong."""

    tenant: str
    file: str
    problem: str


class _Known:
    """A file as it was read."""

    __slots__ = ("secret", "seen", "state")

    def __init__(self) -> None:
        self.seen = 0  #: the number of the last pass that found it
        self.state = 0  #: a digest of its place, size and times
        self.secret: Secret | None = None  #: None if it can't be used


class TenantDirectory:
    """Keeps the `store` of one directory up to date. Only one thread at a time may call `passes`."""

    def __init__(self, settings: TenantFileSettings, now: Callable[[], int] = time.time_ns) -> None:
        self.settings = settings
        self.store: Store = {}
        self.problems: dict[str, TenantFileProblem] = {}  #: by file name, as of the last pass
        self.doubts: dict[str, TenantFileProblem] = {}  #: doubts about files that are used all the same, by file name
        self.unreadable = ""  #: why the directory can't be read
        self._now = now
        self._begin, self._end = settings.name.split(PLACE)
        self._known: dict[str, _Known] = {}
        self._number = 0  # of the pass
        self._swapped: str | None = None  # the target of `..data` when everything was last checked

    def load(self) -> None:
        """Reads everything, however recent."""
        for _ in self.passes(settle=0):
            pass

    def passes(self, *, settle: int = SETTLE) -> Iterator[None]:
        """One pass; yields regularly, so that the caller can pause.

        If the directory can't be read, known secrets stay.
        """
        directory = self.settings.dir
        try:
            swapped = _link(f"{directory}/..data")
            if swapped is not None and swapped == self._swapped:
                return
            root = os.path.realpath(directory)
            listed = os.scandir(directory)
        except OSError as error:
            self.unreadable = error.strerror or type(error).__name__
            return
        self._number += 1
        changed: set[str] = set()
        settled = True
        with listed:
            for count, entry in enumerate(self._entries(listed)):
                if count % SLICE == SLICE - 1:
                    yield
                tenant = self._tenant(entry.name)
                if not tenant:
                    continue
                known = self._known.get(entry.name)
                if known is None:
                    known = self._known[entry.name] = _Known()
                known.seen = self._number
                before = known.secret
                settled &= self._look(entry, tenant, root, known, settle)
                if known.secret is not before:
                    changed.add(tenant)
        if self.unreadable:  # the list may be incomplete, so no tenant is dropped
            return
        gone = [name for name, known in self._known.items() if known.seen != self._number]
        for name in gone:
            del self._known[name]
            self.problems.pop(name, None)
            self.doubts.pop(name, None)
            changed.add(self._tenant(name))
        self._swapped = swapped if settled else None
        for tenant in changed:
            self._publish(tenant)

    def _entries(self, listed: Iterator["os.DirEntry[str]"]) -> Iterator["os.DirEntry[str]"]:
        self.unreadable = ""
        try:
            yield from listed
        except OSError as error:
            self.unreadable = error.strerror or type(error).__name__

    def _tenant(self, file: str) -> str:
        """The tenant of a file name; empty if it isn't a tenant's."""
        plain = file.removesuffix(PREVIOUS_END)
        if not plain.startswith(self._begin) or not plain.endswith(self._end):
            return ""
        tenant = plain[len(self._begin) : len(plain) - len(self._end)]
        return tenant if is_name(os.fsencode(tenant)) else ""

    def _look(self, entry: "os.DirEntry[str]", tenant: str, root: str, known: _Known, settle: int) -> bool:
        """Brings `known` up to date. Returns False if it must be checked again even if nothing changes."""
        try:
            state = entry.stat()
        except OSError as error:  # a link to nowhere, or gone since
            self._report(entry, tenant, f"can't be read: {error.strerror}")
            if isinstance(error, FileNotFoundError):
                known.secret = None
            return False
        digest = hash((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
        age = self._now() - state.st_ctime_ns
        if known.state == digest and age >= COARSE:
            return True
        if 0 <= age < settle:
            return False
        content, problem = _read(entry, root)
        known.state = digest
        if problem or content is None:
            self._report(entry, tenant, problem)
            if problem == OUTSIDE:
                known.secret = None  # otherwise it keeps its last good secret, as a configuration does
            return False
        self.problems.pop(entry.name, None)
        if doubt := describe_disguise(content):
            self.doubts[entry.name] = TenantFileProblem(tenant, f"{self.settings.dir}/{entry.name}", doubt)
        else:
            self.doubts.pop(entry.name, None)
        if known.secret is None or not known.secret.matches(content):
            known.secret = Secret(PREVIOUS if entry.name.endswith(PREVIOUS_END) else CURRENT, content)
        return age >= COARSE

    def _report(self, entry: "os.DirEntry[str]", tenant: str, problem: str) -> None:
        self.problems[entry.name] = TenantFileProblem(tenant, f"{self.settings.dir}/{entry.name}", problem)

    def _publish(self, tenant: str) -> None:
        plain = f"{self._begin}{tenant}{self._end}"
        current, previous = (self._known.get(name) for name in (plain, plain + PREVIOUS_END))
        secrets = TenantSecrets(
            current.secret if current is not None else None, previous.secret if previous is not None else None
        )
        if secrets.listed:
            self.store[tenant] = secrets
        else:
            self.store.pop(tenant, None)


def _link(name: str) -> str | None:
    try:
        return os.readlink(name)
    except OSError:
        return None


def _read(entry: "os.DirEntry[str]", root: str) -> tuple[bytes | None, str]:
    """The content of a file in `root` without its final newline, or a problem."""
    path = entry.path
    if entry.is_symlink():
        path = os.path.realpath(entry.path)
        if not Path(path).is_relative_to(root):
            return None, OUTSIDE
    try:
        # O_NONBLOCK: a pipe without a writer must not hold up all others. O_NOFOLLOW: the link was followed above.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return None, f"can't be read: {error.strerror}"
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None, "is not a file"
        content = os.read(descriptor, MAX_SECRET_BYTES + 1)
    except OSError as error:
        return None, f"can't be read: {error.strerror}"
    finally:
        os.close(descriptor)
    if len(content) > MAX_SECRET_BYTES:
        return None, f"is larger than {MAX_SECRET_BYTES} bytes; check that it is the right file"
    value = without_newline(content)
    return (value, "") if value.strip() else (None, "is empty, so anyone could sign with it; set one")
