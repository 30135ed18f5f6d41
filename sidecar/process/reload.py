"""Reloading: a changed configuration replaces the current one as a whole, and only if it is valid.

Config files are polled once a second; we don't use inotify. Polling costs microseconds a file and works where notifications
don't: on network file systems, and on mounts whose links are swapped. Only content counts: a file that was merely touched
has not changed.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from sidecar.config.files import FileRecorder, ReadFile, RecordedFiles
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError, Problem
from sidecar.config.settings import Config
from sidecar.http1.sockets import ListenAddress
from sidecar.process.data_processes import DataProcesses
from sidecar.process.key_store import KeyStore
from sidecar.routing.networks import Networks
from sidecar.secret import mask_url
from sidecar.telemetry.log import Level, Log
from sidecar.telemetry.prometheus import family
from sidecar.verify.published import PublishedKeys

#: How often a configuration is read again because a file changed while it was being read.
MAX_READS: Final = 5
POLL_SECONDS = 1.0
#: A file that is being written is left alone until it has not changed for this long, but only MAX_SETTLES times.
SETTLE_SECONDS = 0.25
MAX_SETTLES = 20


class Reloader(Collector):
    """Holds the current configuration, and replaces it."""

    def __init__(
        self,
        config: Config,
        files: FileRecorder,
        env: Mapping[str, str],
        *,
        networks: Mapping[str, Networks],
        keys: KeyStore,
        processes: DataProcesses,
        log: Log,
    ) -> None:
        """`files` are those that the configuration was read from; `networks` are the fetched lists, by preset.

        `keys` are the keys that providers publish.
        """
        self.config = config
        self.loaded_at = 0.0  #: unix time
        self.error: ConfigError | None = None  #: of the last reload, if it failed
        self._networks = networks
        self._keys = keys
        self._files = files  # as last read, valid or not
        self._valid_files = files  # those that `config` was read from
        self._env = env
        self._processes = processes
        self._log = log
        self._lock = asyncio.Lock()
        self._record_success("the start")

    async def reload(self, cause: str) -> ConfigError | None:
        """Reads the configuration again. On any mistake nothing changes, and the error is returned."""
        async with self._lock:
            read, self._files = await asyncio.to_thread(read_again, self.config, self._env, self._networks, self._keys)
            try:
                if isinstance(read, ConfigError):
                    raise read
                await self._processes.apply(read, self._files)
            except ConfigError as error:
                self._record_failure(error, cause)
                return error
            self.config, self._valid_files = read, self._files
            self._keys.apply(read, self._log)
            self._record_success(cause)
            return None

    async def watch(self) -> None:
        """Reloads whenever a file changes; runs until cancelled."""
        while True:
            try:
                await wait_for_change(lambda: self._files)
                await self.reload("a file changed")
            except Exception as bug:  # keep watching
                self._log.event("config_watch_failed", Level.ERROR, what=type(bug).__name__)

    async def use_fetched_networks(self) -> None:
        """Applies the current configuration with the fetched lists. Its files are not read: they may be half written."""
        async with self._lock:
            read, ranges = RecordedFiles(self._valid_files.texts), dict(self._networks)
            config = await asyncio.to_thread(
                load_config, self.config.file, self._env, read=read, ranges=ranges, published=self._keys
            )
            await self._processes.apply(config, self._valid_files)
            self.config = config

    def collect(self) -> Iterator[Metric]:
        """The metrics of the configuration."""
        yield family("webhook_sidecar_config_last_reload_successful", [((), int(self.error is None))])
        yield family("webhook_sidecar_config_last_reload_success_timestamp_seconds", [((), self.loaded_at)])
        retirements = [
            ((route.name, secret.id), secret.retire_by)
            for route in self.config.routes.routes
            for secret in (route.verifier.secrets if route.verifier else ())
            if secret.retire_by is not None
        ]
        yield family("webhook_sidecar_secret_retire_by_timestamp_seconds", retirements)

    def _record_success(self, cause: str) -> None:
        config = self.config
        self.error = None
        self._log.settings = config.log
        self.loaded_at = time.time()
        for warning in config.warnings:
            self._log.event("config_warning", Level.WARNING, detail=str(warning))
        self._log.event("config_loaded", cause=cause, file=config.file, routes=len(config.routes.routes))

    def _record_failure(self, error: ConfigError, cause: str) -> None:
        self.error = error
        kept = "the last good configuration"
        for problem in error.problems:
            self._log.event("config_reload_failed", Level.ERROR, cause=cause, detail=str(problem), kept=kept)


def read_again(
    old: Config, env: Mapping[str, str], ranges: Mapping[str, Networks], published: PublishedKeys | None = None
) -> tuple[Config | ConfigError, FileRecorder]:
    """The configuration as its files are now, or the mistakes in it, and the files that were read. Call it in a thread.

    If a file changes in the meantime, all of them are read again, so that the configuration is never a mix of old and new.
    """
    for _ in range(MAX_READS):
        files = FileRecorder()
        read = _read(old, env, files, ranges, published)
        if files.current_states() == files.states:
            break
    return read, files


def _read(
    old: Config,
    env: Mapping[str, str],
    files: FileRecorder,
    ranges: Mapping[str, Networks],
    published: PublishedKeys | None,
) -> Config | ConfigError:
    try:
        return _load(old, env, files, ranges, published)
    except ConfigError as error:
        return error
    except Exception as bug:  # whatever a file holds, the current configuration stays in use
        return ConfigError(
            [Problem(old.file, 1, "", f"can't be read: {type(bug).__name__}, a bug in this program; report it")]
        )


def _load(
    old: Config,
    env: Mapping[str, str],
    read: ReadFile,
    ranges: Mapping[str, Networks],
    published: PublishedKeys | None,
) -> Config:
    """Raises `ConfigError`, also for settings that can't change while the program runs."""
    new = load_config(old.file, env, read=read, ranges=ranges, published=published)
    fixed = (
        ("listen", old.listen, new.listen),
        ("admin", old.admin, new.admin),
        ("authorize", _listens_for_questions(old), _listens_for_questions(new)),
        ("tracing", old.tracing or "off", new.tracing or "off"),
        ("workers", old.workers, new.workers),
        ("proxy_protocol", old.proxy_protocol, new.proxy_protocol),
        ("replay_store", old.replay_store or "memory", new.replay_store or "memory"),
    )
    problems = [
        Problem(
            new.file,
            1,
            key,
            f"can't change from {mask_url(str(before))} to {mask_url(str(after))} while running; restart to apply",
        )
        for key, before, after in fixed
        if before != after
    ]
    if problems:
        raise ConfigError(problems)
    return new


def _listens_for_questions(config: Config) -> ListenAddress | str:
    return config.authorize.listen if config.authorize is not None else "off"


async def wait_for_change(current: Callable[[], FileRecorder]) -> None:
    """Returns when a file's content differs from what was last read, and the files are no longer being written.

    `current()` is what was last read; it may change while this waits. Files are read in a thread, because a network file
    system may be slow.
    """
    while True:
        await asyncio.sleep(POLL_SECONDS)
        states = await asyncio.to_thread(current().current_states)
        if states == current().states:
            continue
        for _ in range(MAX_SETTLES):
            await asyncio.sleep(SETTLE_SECONDS)
            before, states = states, await asyncio.to_thread(current().current_states)
            if states == before:
                break
        if await asyncio.to_thread(current().differs):
            return
