"""Puts together what the configuration asks for, and runs it: the composition root of `sidecar serve`."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import uvloop

from sidecar.config.files import FileRecorder
from sidecar.config.settings import Config
from sidecar.http1.sockets import ListenError, bind, bind_shared, remove
from sidecar.http1.uvicorn_server import quiet_uvicorn
from sidecar.process.data_plane import tune_process
from sidecar.process.data_processes import DataProcesses, SingleProcess
from sidecar.process.key_store import KeyStore
from sidecar.process.program import Program
from sidecar.telemetry.log_writer import LogWriter, open_log

if TYPE_CHECKING:
    from sidecar.process.forked import Fleet

__all__ = ["ListenError", "serve"]


def serve(config: Config, files: FileRecorder, env: Mapping[str, str], keys: KeyStore) -> int:
    """Runs until stopped; returns the exit status. Raises `ListenError` before anything is served.

    `files` are those that the configuration was read from, and `keys` are those that its routes verify with.
    """
    addresses = [config.listen, *([config.authorize.listen] if config.authorize is not None else [])]
    sockets: list[list[socket.socket]] = []
    try:
        sockets += (bind_shared(address, config.workers) for address in addresses)
        admin_socket = bind(config.admin)
    except ListenError:
        for address, listener in zip(addresses, sockets, strict=False):
            for each in listener:
                each.close()
            remove(address)
        raise
    tune_process()
    quiet_uvicorn()
    fleet = None
    if config.workers > 1:
        from sidecar.process.forked import fork_workers  # noqa: PLC0415 - saves memory with one process

        fleet = fork_workers(config, list(zip(*sockets, strict=True)), admin_socket)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        data = fleet or [listener[0] for listener in sockets]
        return runner.run(_run(config, files, env, admin_socket, data, keys=keys))


async def _run(
    config: Config,
    files: FileRecorder,
    env: Mapping[str, str],
    admin_socket: socket.socket,
    data: "list[socket.socket] | Fleet",
    *,
    keys: KeyStore,
) -> int:
    loop = asyncio.get_running_loop()
    writer = LogWriter(shared=config.workers > 1)
    log = open_log(config.log, loop, writer)
    data_processes: DataProcesses
    sockets: Sequence[socket.socket]
    if isinstance(data, list):
        data_processes, sockets = SingleProcess(config, loop, log, data, keys), data
    else:
        from sidecar.process.supervisor import Supervisor  # noqa: PLC0415 - saves memory with one process

        data_processes, sockets = Supervisor(config, files, loop, log, data, keys=keys), data.listeners[0]
    program = Program(config, env, loop, files=files, log=log, writer=writer, data_processes=data_processes, keys=keys)
    return await program.run(sockets, admin_socket)
