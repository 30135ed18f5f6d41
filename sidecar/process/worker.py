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
from typing import Any, NamedTuple

import uvloop

from sidecar.config.files import RecordedFiles
from sidecar.config.loader import load_config
from sidecar.config.settings import Config
from sidecar.http1.uvicorn_server import quiet_uvicorn
from sidecar.process.channel import Channel
from sidecar.process.data_plane import DataPlane, tune_process
from sidecar.process.key_channel import WorkerKeys
from sidecar.routing.networks import Networks
from sidecar.telemetry.log import Log
from sidecar.telemetry.log_writer import LogWriter, open_log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.shared_counts import SharedCounts

#: After SIGTERM: how long to wait for the parent's instructions, which may have got the same signal. Seconds.
PARENT_SECONDS = 0.5


#: The number of the configuration that a forked worker inherits from its parent.
FORKED_WITH = 1


class Place(NamedTuple):
    """The things that a worker gets from its parent."""

    number: int
    workers: int  #: how many there are
    channel: socket.socket
    counts: int  #: the descriptor of the shared counts
    listeners: Sequence[socket.socket]  #: of data and, with `authorize:`, of questions


def main(arguments: Sequence[str]) -> int:
    """`arguments`: the fields of `Place`, with descriptors for sockets."""
    number, workers, channel, counts, *listeners = map(int, arguments)
    tune_process()
    quiet_uvicorn()
    sockets = [socket.socket(fileno=listener) for listener in listeners]
    run(Place(number, workers, socket.socket(fileno=channel), counts, sockets), None)
    return 0


def run(place: Place, forked_with: Config | None) -> None:
    """Returns when the worker has drained. `forked_with` is the configuration of the parent that it was forked from."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(place, forked_with))


async def _work(place: Place, forked_with: Config | None) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, loop.call_later, PARENT_SECONDS, ended.set)
    channel = await Channel.open(place.channel)
    message = await channel.receive()
    if message is None:
        return
    shared_counts = SharedCounts(place.counts, place.workers, message["places"])
    keys = WorkerKeys()
    keys.receive(message["keys"])
    config = _first_config(forked_with, message, keys)
    metrics = Metrics(shared_counts.allocator(place.number))
    writer = LogWriter(shared=True, dropped=metrics.log)
    log = open_log(config.log, loop, writer)
    others = shared_counts.gauges_of_others(place.number)
    data_plane = DataPlane(config, loop, log=log, metrics=metrics, keys=keys, gauges_of_others=others)
    if message["closing"]:
        data_plane.close_connections()
    data_plane.start(place.listeners)
    channel.send({"is": "serving"})

    drain = {"accepting": 0.0, "seconds": config.drain}
    keys.start(channel)
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
        if (answer := _answer(data_plane, message)) is not None:
            channel.send(answer)
            continue
        if message["do"] == "keys":
            keys.receive(message)
            continue
        shared_counts.places.update(message["places"])
        data_plane.apply(await asyncio.to_thread(_load, message, keys))
        channel.send({"is": "configured", "number": message["number"]})
    receiving.cancel()
    keys.stop()
    asked_to_end.cancel()
    cut_off = await data_plane.drain(accepting=drain["accepting"], until=loop.time() + drain["seconds"])
    channel.send({"is": "drained", "cut_off": cut_off})
    _close(log, writer, channel)


def _send_refusals(channel: Channel, data_plane: DataPlane, since: int) -> None:
    refusals = data_plane.refusals
    channel.send({"is": "refusals", "count": refusals.count, "refusals": refusals.since(since)})


def _close(log: Log, writer: LogWriter, channel: Channel) -> None:
    log.end_window()
    log.flush()
    writer.close()
    channel.close()


def _answer(data_plane: DataPlane, message: dict[str, Any]) -> dict[str, Any] | None:
    """Handles a message that needs no wait, and returns the answer; None for any other message."""
    if message["do"] == "send rejections":
        refusals = data_plane.refusals.since(message["since"])
        return {"is": "refusals", "count": data_plane.refusals.count, "refusals": refusals}
    if message["do"] == "close connections":
        data_plane.close_connections()
        return {"is": "configured", "number": message["number"]}
    if message["do"] == "answer":
        return {"is": "answer", "number": message["number"], "answer": data_plane.answer(message["question"])}
    return None


def _first_config(forked_with: Config | None, message: dict[str, Any], keys: WorkerKeys) -> Config:
    """The configuration that this process was forked with, if it is still the one to use."""
    if forked_with is None or message["number"] != FORKED_WITH:
        return _load(message, keys)
    # One with published keys looks for them in the parent's store, and a fork has only a copy of that.
    return _load(message, keys) if forked_with.key_names else forked_with


def _load(message: dict[str, Any], keys: WorkerKeys) -> Config:
    ranges = {name: Networks(map(ip_network, cidrs)) for name, cidrs in message["ranges"].items()}
    return load_config(message["file"], os.environ, read=RecordedFiles(message["texts"]), ranges=ranges, published=keys)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
