"""The writer of log lines: whole lines, a limit, and no wait."""

import asyncio
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.telemetry.log import Level, LogFormat, LogSettings
from sidecar.telemetry.log_writer import BATCH_BYTES, LogWriter, open_log


class Pipe:
    """A pipe that is read when the test says so."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.text = b""
        self.reader: threading.Thread | None = None

    def start_reading(self) -> None:
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        while data := os.read(self.read_end, 1 << 16):
            self.text += data

    def end(self) -> bytes:
        """Everything that was written. The writer must be idle."""
        os.close(self.write_end)
        if self.reader is None:
            self.start_reading()
        assert self.reader is not None
        self.reader.join()
        os.close(self.read_end)
        return self.text


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("shared", [False, True])
def test_lines_arrive_whole_and_in_order(pipe: Pipe, shared: bool) -> None:
    writer = LogWriter(pipe.write_end, shared=shared)
    pipe.start_reading()
    texts = [f"{number} {'x' * (number * 7919 % 9000)}\n" for number in range(300)]
    for text in texts:
        writer.write(text)
    writer.close(10)
    assert pipe.end().decode() == "".join(texts)
    assert writer.dropped[0] == 0


def test_processes_that_share_a_pipe_do_not_mix_their_lines(pipe: Pipe) -> None:
    """Two writers, as in two processes; all lines are shorter than PIPE_BUF."""
    writers = [LogWriter(pipe.write_end, shared=True) for _ in range(2)]
    pipe.start_reading()
    for number in range(3000):
        for name, writer in zip("ab", writers):
            writer.write(f"{name} {number} {name * (number % 1000)}\n")
    for writer in writers:
        writer.close(10)
    lines = pipe.end().decode().splitlines()
    for name in "ab":
        expected = [f"{name} {number} {name * (number % 1000)}" for number in range(3000)]
        assert [line for line in lines if line[0] == name] == expected


@pytest.mark.parametrize("limit", [{"max_bytes": 100_000}, {"max_lines": 1000}])
def test_a_full_queue_drops_and_counts_and_reports_once_it_has_room_again(pipe: Pipe, limit: Any) -> None:
    writer = LogWriter(pipe.write_end, **limit)
    resumed: list[int] = []
    writer.on_resumed = resumed.append
    line = "x" * 99 + "\n"
    began = time.monotonic()
    for _ in range(10_000):
        writer.write(line)
    assert time.monotonic() - began < 2  # nobody waited
    dropped = writer.dropped[0]
    assert dropped >= 8000
    assert resumed == []
    pipe.start_reading()
    wait_for(lambda: resumed)
    writer.write("after\n")
    writer.close(10)
    assert resumed == [dropped]
    lines = pipe.end().decode().splitlines()
    assert lines[-1] == "after"
    assert len(lines) == 10_001 - dropped


def test_closing_does_not_wait_for_a_stuck_reader(pipe: Pipe) -> None:
    writer = LogWriter(pipe.write_end)
    writer.write("x" * (BATCH_BYTES - 1) + "\n")
    began = time.monotonic()
    writer.close(0.2)
    assert 0.15 < time.monotonic() - began < 2
    pipe.start_reading()
    writer.close(10)
    assert len(pipe.end()) == BATCH_BYTES


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    flags = fcntl.fcntl(pipe.write_end, fcntl.F_GETFL)
    fcntl.fcntl(pipe.write_end, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    writer = LogWriter(pipe.write_end)
    for number in range(2000):
        writer.write(f"{number} {'x' * 100}\n")
    time.sleep(0.2)
    pipe.start_reading()
    writer.close(10)
    assert [int(line.split()[0]) for line in pipe.end().splitlines()] == list(range(2000))
    assert writer.dropped[0] == 0


def test_lines_that_can_not_be_written_are_counted_and_later_ones_tried() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        writer = LogWriter(full.fileno())
        writer.write("a\nb\n")
        writer.close(10)
        assert writer.dropped[0] == 2
        writer.write("c\n")
        writer.close(10)
        assert writer.dropped[0] == 3


def test_the_log_reports_dropped_lines_at_every_level(pipe: Pipe) -> None:
    async def run() -> None:
        writer = LogWriter(pipe.write_end, max_lines=10)
        log = open_log(LogSettings(Level.ERROR, True, LogFormat.JSON), asyncio.get_running_loop(), writer)
        writer.write("x\n" * 11)
        assert writer.dropped[0] == 11
        writer.write("y\n")
        await asyncio.sleep(0.1)
        log.flush()
        writer.close(10)

    asyncio.run(run())
    first, second = pipe.end().splitlines()
    assert first == b"y"
    line = json.loads(second)
    assert (line["event"], line["level"], line["lines"]) == ("log_lines_dropped", "error", 11)
