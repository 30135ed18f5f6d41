"""Puts together what the configuration asks for, and runs it: the composition root of `sidecar serve`."""

import asyncio
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

import uvloop

from sidecar.config.files import FileRecorder
from sidecar.config.settings import Config
from sidecar.http1.sockets import ListenError, bind, bind_shared, bound_address, remove
from sidecar.http1.uvicorn_server import quiet_uvicorn
from sidecar.process.data_plane import tune_process
from sidecar.process.data_processes import DataProcesses, SingleProcess
from sidecar.process.program import Program
from sidecar.telemetry.log_writer import LogWriter, open_log

if TYPE_CHECKING:
    from sidecar.process.forked import Fleet

__all__ = ["ListenError", "serve"]


def serve(config: Config, files: FileRecorder, env: Mapping[str, str]) -> int:
    """Runs until stopped; returns the exit status. Raises `ListenError` before anything is served.

    `files` are those that the configuration was read from.
    """
    data_sockets = bind_shared(config.listen, config.workers)
    try:
        admin_socket = bind(config.admin)
    except ListenError:
        for data_socket in data_sockets:
            data_socket.close()
        remove(config.listen)
        raise
    tune_process()
    quiet_uvicorn()
    fleet = None
    if config.workers > 1:
        from sidecar.process.forked import fork_workers  # noqa: PLC0415 - saves memory with one process

        fleet = fork_workers(config, data_sockets, admin_socket)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(config, files, env, admin_socket, fleet or data_sockets[0]))


async def _run(
    config: Config,
    files: FileRecorder,
    env: Mapping[str, str],
    admin_socket: socket.socket,
    data: "socket.socket | Fleet",
) -> int:
    loop = asyncio.get_running_loop()
    writer = LogWriter(shared=config.workers > 1)
    log = open_log(config.log, loop, writer)
    data_processes: DataProcesses
    if isinstance(data, socket.socket):
        data_processes, data_socket = SingleProcess(config, loop, log, data), data
    else:
        from sidecar.process.supervisor import Supervisor  # noqa: PLC0415 - saves memory with one process

        data_processes, data_socket = Supervisor(config, files, loop, log, data), data.listeners[0]
    program = Program(config, env, loop, files=files, log=log, writer=writer, data_processes=data_processes)
    return await program.run(bound_address(config.listen, data_socket), admin_socket)
