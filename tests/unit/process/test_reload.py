"""The current configuration: when another one replaces it, and what happens when that one can't be used."""

import asyncio
import json
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.files import FileRecorder
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError, Problem
from sidecar.config.settings import Config
from sidecar.process.ip_ranges import PublishedRanges, RangesRefresher
from sidecar.process.key_store import KeyStore
from sidecar.process.reload import Reloader
from sidecar.routing.networks import Networks
from sidecar.telemetry.log import Log

CONFIG = """\
upstream: http://127.0.0.1:3000
ip_ranges: {refresh: 24h}
routes:
  - {path: /hooks, verify: none, allow: ["preset:stripe"]}
"""
FETCHED = Networks([ip_network("203.0.113.0/24")])
Message = dict[str, Any]


class Processes:
    """As much of `DataProcesses` as a reload uses."""

    def __init__(self) -> None:
        self.applied: list[Config] = []
        self.problem: Problem | None = None

    async def apply(self, config: Config, files: FileRecorder) -> None:
        if self.problem is not None:
            raise ConfigError([self.problem])
        self.applied.append(config)


class Setup:
    """A reloader with everything around it, inside a running loop."""

    def __init__(self, file: Path, networks: Mapping[str, Networks]) -> None:
        files = FileRecorder()
        config = load_config(str(file), {}, read=files)
        self.lines: list[str] = []
        self.log = Log(config.log, asyncio.get_running_loop(), self.lines.append)
        self.processes = Processes()
        self.reloader = Reloader(
            config,
            files,
            {},
            networks=networks,
            keys=KeyStore(),
            processes=self.processes,  # type: ignore[arg-type]
            log=self.log,
        )

    def metric(self, name: str) -> float:
        values = {sample.name: sample.value for metric in self.reloader.collect() for sample in metric.samples}
        return values[f"webhook_sidecar_{name}"]

    def events(self, name: str) -> list[Message]:
        self.log.flush()
        events: list[Message] = [json.loads(line) for text in self.lines for line in text.splitlines()]
        return [event for event in events if event["event"] == name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sidecar.yaml"
    path.write_text(CONFIG)
    return path


def allowed(config: Config) -> set[str]:
    networks = config.ranges["stripe"]
    return set(networks.cidrs)


def test_a_valid_file_replaces_the_configuration(file: Path) -> None:
    async def run() -> None:
        setup = Setup(file, {})
        old = setup.reloader.config
        file.write_text(CONFIG.replace("/hooks", "/other"))
        assert await setup.reloader.reload("a test") is None
        assert setup.processes.applied == [setup.reloader.config]
        assert setup.reloader.config is not old
        assert [each["cause"] for each in setup.events("config_loaded")] == ["the start", "a test"]

    asyncio.run(run())


@pytest.mark.parametrize("broken", ["routes: []\n", CONFIG + "workers: 2\n"])
def test_a_wrong_file_changes_nothing_until_it_is_fixed(file: Path, broken: str) -> None:
    async def run() -> None:
        setup = Setup(file, {})
        old = setup.reloader.config
        file.write_text(broken)
        error = await setup.reloader.reload("a test")
        assert error is not None
        assert [setup.reloader.error] == [error]
        assert (setup.reloader.config, setup.processes.applied) == (old, [])
        loaded_at = setup.reloader.loaded_at
        assert setup.metric("config_last_reload_successful") == 0
        assert setup.metric("config_last_reload_success_timestamp_seconds") == loaded_at > 1e9
        failed = setup.events("config_reload_failed")
        assert [(each["cause"], each["kept"]) for each in failed] == [("a test", "the last good configuration")]
        file.write_text(CONFIG)
        assert await setup.reloader.reload("a test") is None
        assert setup.reloader.error is None
        assert setup.metric("config_last_reload_successful") == 1
        assert setup.metric("config_last_reload_success_timestamp_seconds") > loaded_at

    asyncio.run(run())


def test_a_configuration_that_the_processes_can_not_use_is_not_current(file: Path) -> None:
    async def run() -> None:
        setup = Setup(file, {})
        old = setup.reloader.config
        setup.processes.problem = Problem(str(file), 1, "routes", "too many")
        file.write_text(CONFIG.replace("/hooks", "/other"))
        assert await setup.reloader.reload("a test") is setup.reloader.error is not None
        assert setup.reloader.config is old

    asyncio.run(run())


def test_fetched_networks_are_applied_to_the_valid_configuration_not_to_a_broken_file(file: Path) -> None:
    async def run() -> None:
        networks: dict[str, Networks] = {}
        setup = Setup(file, networks)
        file.write_text("routes: []\n")
        await setup.reloader.reload("a test")
        networks["stripe"] = FETCHED
        await setup.reloader.use_fetched_networks()
        assert allowed(setup.reloader.config) == set(FETCHED.cidrs)
        assert setup.processes.applied == [setup.reloader.config]
        assert setup.reloader.error is not None, "the file is still broken"

    asyncio.run(run())


def test_networks_that_were_fetched_earlier_are_used_by_a_reload(file: Path) -> None:
    async def run() -> None:
        setup = Setup(file, {"stripe": FETCHED})
        assert allowed(setup.reloader.config) != set(FETCHED.cidrs)
        await setup.reloader.reload("a test")
        assert allowed(setup.reloader.config) == set(FETCHED.cidrs)

    asyncio.run(run())


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Networks], None]:
    """`fetch(networks)`: what the provider publishes from now on."""

    def publish(networks: Networks) -> None:
        async def fetch(ranges: PublishedRanges, name: str, mirror: str | None, refresh: float) -> bool:
            changed = ranges.networks.get(name) is not networks
            ranges.networks[name] = networks
            return changed

        monkeypatch.setattr(PublishedRanges, "fetch", fetch)

    return publish


def test_a_fetched_list_is_applied_once_and_logged(file: Path, fetch: Callable[[Networks], None]) -> None:
    fetch(FETCHED)

    async def run() -> None:
        ranges = PublishedRanges(lambda: 0.0)
        setup = Setup(file, ranges.networks)
        refresher = RangesRefresher(ranges, setup.reloader, setup.log)
        for _ in range(2):
            running = asyncio.create_task(refresher.run())
            await asyncio.sleep(0.2)
            running.cancel()
        assert allowed(setup.reloader.config) == set(FETCHED.cidrs)
        assert len(setup.processes.applied) == 1
        logged = [(each["preset"], each["networks"], each["changed"]) for each in setup.events("ip_ranges_fetched")]
        assert logged == [("stripe", 1, True), ("stripe", 1, False)]

    asyncio.run(run())


def test_metrics_name_the_secrets_to_retire_and_the_lists_in_use(file: Path) -> None:
    secret = '  - {path: /b, verify: begini, secrets: [{id: old, file: "%s", retire_by: 2030-01-01}, {id: new, file: "%s"}]}\n'
    keys = [str(file.with_name(name)) for name in ("old", "new")]
    for key in keys:
        Path(key).write_text(key)
    file.write_text(CONFIG + secret % tuple(keys))

    async def run() -> None:
        ranges = PublishedRanges(lambda: 2_000_000_000.0)
        ranges.failures["stripe"] = 3
        ranges.failures["github"] = 1  # not in use
        setup = Setup(file, ranges.networks)
        owners = (setup.reloader, RangesRefresher(ranges, setup.reloader, setup.log))
        samples = {
            (sample.name.removeprefix("webhook_sidecar_"), *sample.labels.values()): sample.value
            for owner in owners
            for metric in owner.collect()
            for sample in metric.samples
        }
        retire_by = {key[1:]: value for key, value in samples.items() if key[0].startswith("secret_retire_by")}
        assert retire_by == {("b", "old"): 1_893_542_400.0}, "the end of 1 January 2030"
        lists = {key: value for key, value in samples.items() if key[0].startswith("ip_ranges")}
        assert lists.keys() == {("ip_ranges_age_seconds", "stripe"), ("ip_ranges_fetch_failures_total", "stripe")}
        assert lists["ip_ranges_fetch_failures_total", "stripe"] == 3
        assert lists["ip_ranges_age_seconds", "stripe"] > 3 * 365 * 86400

    asyncio.run(run())
