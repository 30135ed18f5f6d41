"""Keeps the tenants' secrets up to date while the program runs. Each process does so for itself, in a thread."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from sidecar.config.tenant_files import TenantDirectory, TenantFileProblem
from sidecar.telemetry.log import Level, Log

#: Seconds between two passes. With the time for a pass and for a file to settle, a change is used within 2 s.
PASS_SECONDS: Final = 1.0
#: Pause of the thread after some files, in seconds, so that deliveries get the processor.
PAUSE: Final = 0.001
#: The most problems of one pass that are logged.
MAX_LOGGED: Final = 10


class TenantWatch:
    """Runs until cancelled."""

    def __init__(self, directories: Callable[[], Sequence[TenantDirectory]], log: Log | None) -> None:
        """`directories()` are those of the current configuration. Without a log, problems are left to another process."""
        self._directories = directories
        self._log = log
        self._known: dict[tuple[str, str], str] = {}  # problems that were logged, by file
        self._thread: ThreadPoolExecutor | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PASS_SECONDS)
            for directory in self._directories():
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "tenants")
                try:
                    await loop.run_in_executor(self._thread, _pass, directory)
                    if self._log is not None:
                        self._report(directory, self._log)
                except Exception as bug:  # keep watching
                    if self._log is not None:
                        self._log.event("tenant_watch_failed", Level.ERROR, what=type(bug).__name__)

    def _report(self, directory: TenantDirectory, log: Log) -> None:
        """Logs problems and doubts that are new since the last pass."""
        where = directory.settings.dir
        problems = list(directory.problems.values())
        if directory.unreadable:
            problems.append(
                TenantFileProblem(
                    "", where, f"can't be read: {directory.unreadable}; the secrets read before stay in use"
                )
            )
        doubts = list(directory.doubts.values())
        for tenant, detail in self._news(where, problems):
            log.event("tenant_secret_unusable", Level.WARNING, tenant=tenant, detail=detail)
        for tenant, detail in self._news(where, doubts):
            log.event("tenant_secret_doubtful", Level.WARNING, tenant=tenant, detail=detail)
        now = {(where, each.file): each.problem for each in (*doubts, *problems)}
        self._known = {key: value for key, value in self._known.items() if key[0] != where} | now

    def _news(self, where: str, found: Sequence[TenantFileProblem]) -> Iterator[tuple[str, str]]:
        """Tenant and detail of each problem of the directory `where` that is new, and how many more there are."""
        new = [each for each in found if self._known.get((where, each.file)) != each.problem]
        for each in new[:MAX_LOGGED]:
            yield each.tenant, f"the file {each.file} {each.problem}"
        if len(new) > MAX_LOGGED:
            yield "", f"{len(new) - MAX_LOGGED} more files in {where}"


def _pass(directory: TenantDirectory) -> None:
    for _ in directory.passes():
        time.sleep(PAUSE)
