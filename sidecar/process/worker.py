"""A worker process: the data listener, and nothing else. It does what its parent (workers.py) tells it.

Its parent alone is the one to signal. SIGTERM makes a worker finish what is in flight and end, whereupon it is replaced;
other signals that a terminal or a service manager sends to every process are left to the parent. If the parent is gone,
so is the worker, after what is in flight.
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

from sidecar.config.files import Recalled
from sidecar.config.loader import load_config
from sidecar.config.settings import Config
from sidecar.http1.uvicorn_server import quiet_uvicorn
from sidecar.process.channel import Channel
from sidecar.process.data_plane import DataService, tune_process
from sidecar.routing.networks import Networks
from sidecar.telemetry.log import Log, to_shared_stdout
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.shared_counts import SharedCounts

#: After SIGTERM: how long it is waited for the parent's word, who may have got the same signal, seconds.
PARENTS_WORD = 0.5


def main(arguments: Sequence[str]) -> int:
    """`arguments`: the worker's number, the number of workers, and the descriptors of channel, listener and ledger."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    number, workers, channel, listener, ledger = map(int, arguments)
    tune_process()
    quiet_uvicorn()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(number, workers, socket.socket(fileno=channel), socket.socket(fileno=listener), ledger))
    return 0


async def _work(number: int, workers: int, channel_end: socket.socket, data_socket: socket.socket, fd: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, loop.call_later, PARENTS_WORD, ended.set)
    channel = await Channel.open(channel_end)
    message = await channel.hear()
    if message is None:
        return
    ledger = SharedCounts(fd, workers, message["places"])
    config = _config(message)
    log = Log(config.log, loop, to_shared_stdout)
    metrics = Metrics(ledger.allocator(number))
    service = DataService(config, loop, log=log, metrics=metrics, gauges_of_others=ledger.gauges_of_others(number))
    service.start(data_socket)
    channel.tell({"is": "serving"})

    drain = {"accepting": 0.0, "seconds": config.drain}
    asked_to_end = asyncio.create_task(ended.wait())
    while True:
        hearing = asyncio.create_task(channel.hear())
        await asyncio.wait([hearing, asked_to_end, service.ended], return_when=asyncio.FIRST_COMPLETED)
        message = hearing.result() if hearing.done() else None
        if message is None:
            break
        if message["do"] == "drain":
            drain = message
            break
        if message["do"] == "tell":
            refusals = service.refusals.since(message["since"])
            channel.tell({"is": "told", "count": service.refusals.count, "refusals": refusals})
            continue
        ledger.places.update(message["places"])
        service.apply(await asyncio.to_thread(_config, message))
        channel.tell({"is": "configured", "number": message["number"]})
    hearing.cancel()
    asked_to_end.cancel()
    await service.drain(accepting=drain["accepting"], until=loop.time() + drain["seconds"])
    log.flush()
    channel.close()


def _config(message: dict[str, Any]) -> Config:
    ranges = {name: Networks(map(ip_network, cidrs)) for name, cidrs in message["ranges"].items()}
    return load_config(message["file"], os.environ, read=Recalled(message["texts"]), ranges=ranges)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
