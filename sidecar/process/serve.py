"""Puts together what the configuration asks for, and runs it: the composition root of `sidecar serve`."""

import asyncio
import socket
from collections.abc import Mapping

import uvloop

from sidecar.config.files import FileRecorder
from sidecar.config.settings import Config
from sidecar.http1.sockets import ListenError, bind, bind_shared, bound_address, remove
from sidecar.http1.uvicorn_server import quiet_uvicorn
from sidecar.process.data_plane import tune_process
from sidecar.process.data_processes import DataProcesses, SingleProcess
from sidecar.process.program import Program
from sidecar.telemetry.log_writer import LogWriter, open_log

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
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(config, files, env, data_sockets, admin_socket))


async def _run(
    config: Config,
    files: FileRecorder,
    env: Mapping[str, str],
    data_sockets: list[socket.socket],
    admin_socket: socket.socket,
) -> int:
    loop = asyncio.get_running_loop()
    writer = LogWriter(shared=config.workers > 1)
    log = open_log(config.log, loop, writer)
    data_processes: DataProcesses
    if config.workers == 1:
        data_processes = SingleProcess(config, loop, log, data_sockets[0])
    else:
        from sidecar.process.supervisor import Supervisor  # noqa: PLC0415 - saves memory with one process

        data_processes = Supervisor(config, files, loop, log, data_sockets)
    program = Program(config, env, loop, files=files, log=log, writer=writer, data_processes=data_processes)
    return await program.run(bound_address(config.listen, data_sockets[0]), admin_socket)
