"""What the parent of several workers decides before any of them runs."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.files import FileRecorder
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.process.forked import Fleet
from sidecar.process.key_store import KeyStore
from sidecar.process.supervisor import Supervisor
from sidecar.routing.routes import RouteTable
from sidecar.telemetry.log import Log
from sidecar.telemetry.shared_counts import SharedCounts


def test_a_reload_with_more_routes_than_there_is_room_to_count_is_refused(make_route: Any, tmp_path: Path) -> None:
    """Counts of routes that are gone are kept, so the room is for all routes since the start."""
    file = tmp_path / "sidecar.yaml"
    file.write_text("workers: 2\nupstream: http://127.0.0.1:3000\nroutes: [{path: /, open: true}]\n")
    config = load_config(str(file), {})
    made = [make_route(f"/hooks/{number}", secrets=[]) for number in range(30_000)]

    async def reloads() -> None:
        loop = asyncio.get_running_loop()
        fleet = Fleet([], SharedCounts.create(2), [])
        workers = Supervisor(
            config, FileRecorder(), loop, Log(config.log, loop, lambda text: None), fleet, keys=KeyStore()
        )
        await workers.apply(replace(config, routes=RouteTable(made[:15_000])), FileRecorder())
        with pytest.raises(ConfigError) as refused:
            await workers.apply(replace(config, routes=RouteTable(made[15_000:])), FileRecorder())
        (problem,) = refused.value.problems
        assert (problem.file, problem.path) == (str(file), "routes")
        assert "has more routes than there is room to count until a restart; restart to apply" in problem.message
        await workers.apply(
            replace(config, routes=RouteTable(made[:15_000])), FileRecorder()
        )  # what was at work still is

    asyncio.run(reloads())
