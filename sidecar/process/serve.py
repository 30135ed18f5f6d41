"""Composition root of `sidecar serve`: what the configuration asks for, put together and run."""

import asyncio
import socket
from collections.abc import Mapping

import uvloop

from sidecar.config.files import Remembered
from sidecar.config.settings import Config
from sidecar.http1.sockets import ListenError, bind, bind_shared, remove, shown
from sidecar.http1.uvicorn_server import quiet_uvicorn
from sidecar.process.data_plane import tune_process
from sidecar.process.deliveries import Deliveries, OneProcess
from sidecar.process.program import Program
from sidecar.telemetry.log import Log, to_shared_stdout

__all__ = ["ListenError", "serve"]


def serve(config: Config, files: Remembered, env: Mapping[str, str]) -> int:
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
    files: Remembered,
    env: Mapping[str, str],
    data_sockets: list[socket.socket],
    admin_socket: socket.socket,
) -> int:
    loop = asyncio.get_running_loop()
    deliveries: Deliveries
    if config.workers == 1:
        log = Log(config.log, loop)
        deliveries = OneProcess(config, loop, log, data_sockets[0])
    else:
        from sidecar.process.supervisor import Workers  # noqa: PLC0415 - memory that one process does without

        log = Log(config.log, loop, to_shared_stdout)
        deliveries = Workers(config, files, loop, log, data_sockets)
    program = Program(config, env, loop, files=files, log=log, deliveries=deliveries)
    return await program.run(shown(config.listen, data_sockets[0]), admin_socket)
