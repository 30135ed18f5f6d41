"""A worker process: the data listener and nothing else. It follows its parent (supervisor.py).

Signals should be sent to the parent only. On SIGTERM a worker finishes its deliveries in flight and exits, and is then
restarted; other signals that a terminal or a service manager sends to every process are left to the parent. If the parent
is gone, the worker finishes its deliveries in flight and exits too.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import uvloop

from sidecar.config.files import RecordedFiles
from sidecar.config.loader import load_config
from sidecar.config.settings import Config
from sidecar.http1.uvicorn_server import quiet_uvicorn
from sidecar.process.channel import Channel
from sidecar.process.data_plane import DataPlane, tune_process
from sidecar.routing.networks import Networks
from sidecar.telemetry.log_writer import LogWriter, open_log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.shared_counts import SharedCounts

#: After SIGTERM: how long to wait for the parent's instructions, which may have got the same signal. Seconds.
PARENT_SECONDS = 0.5


def main(arguments: Sequence[str]) -> int:
    """`arguments`: the worker's number, the number of workers, then three descriptors: channel, listener, shared counts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    number, workers, channel, listener, counts = map(int, arguments)
    tune_process()
    quiet_uvicorn()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(number, workers, socket.socket(fileno=channel), socket.socket(fileno=listener), counts))
    return 0


async def _work(number: int, workers: int, channel_end: socket.socket, data_socket: socket.socket, fd: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, loop.call_later, PARENT_SECONDS, ended.set)
    channel = await Channel.open(channel_end)
    message = await channel.receive()
    if message is None:
        return
    shared_counts = SharedCounts(fd, workers, message["places"])
    config = _load(message)
    metrics = Metrics(shared_counts.allocator(number))
    writer = LogWriter(shared=True, dropped=metrics.log)
    log = open_log(config.log, loop, writer)
    others = shared_counts.gauges_of_others(number)
    data_plane = DataPlane(config, loop, log=log, metrics=metrics, gauges_of_others=others)
    data_plane.start(data_socket)
    channel.send({"is": "serving"})

    drain = {"accepting": 0.0, "seconds": config.drain}
    asked_to_end = asyncio.create_task(ended.wait())
    while True:
        receiving = asyncio.create_task(channel.receive())
        await asyncio.wait([receiving, asked_to_end, data_plane.ended], return_when=asyncio.FIRST_COMPLETED)
        message = receiving.result() if receiving.done() else None
        if message is None:
            break
        if message["do"] == "drain":
            drain = message
            break
        if message["do"] == "send refusals":
            refusals = data_plane.refusals.since(message["since"])
            channel.send({"is": "refusals", "count": data_plane.refusals.count, "refusals": refusals})
            continue
        shared_counts.places.update(message["places"])
        data_plane.apply(await asyncio.to_thread(_load, message))
        channel.send({"is": "configured", "number": message["number"]})
    receiving.cancel()
    asked_to_end.cancel()
    cut_off = await data_plane.drain(accepting=drain["accepting"], until=loop.time() + drain["seconds"])
    channel.send({"is": "drained", "cut_off": cut_off})
    log.end_window()
    log.flush()
    writer.close()
    channel.close()


def _load(message: dict[str, Any]) -> Config:
    ranges = {name: Networks(map(ip_network, cidrs)) for name, cidrs in message["ranges"].items()}
    return load_config(message["file"], os.environ, read=RecordedFiles(message["texts"]), ranges=ranges)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
