"""Starts the program from an interpreter that has imported it already: imports are three quarters of what a start costs.

Each process that runs tests has one such interpreter. For each request it forks twice. One fork becomes the program, with
arguments, environment, directory and standard streams of its own; from there on it runs as `python -W error -m sidecar` does. It
exits without taking the interpreter apart, object by object. The other fork waits for it and reports its exit status.
"""

import atexit
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import IO, Any, BinaryIO

#: Beginnings of environment variables that an interpreter, or what it loads, reads when it starts.
AT_START = ("PYTHON", "LD_", "MALLOC_", "OPENSSL_", "SIDECAR_PURE")

INTERPRETER = """
import atexit, json, os, signal, socket, struct, sys

from sidecar.cli.main import build_parser, main

build_parser(load=("serve",))  # which imports it


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def request():
    asked = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        text, files, _, _ = socket.recv_fds(asked, 1 << 18, 4)
        reap()
        if not text:
            os._exit(0)
        if os.fork() == 0:
            asked.close()
            return json.loads(text), files
        for file in files:
            os.close(file)


asked, (*streams, status) = request()
program = os.fork()
if program:
    os.write(status, struct.pack("i", program))
    for stream in streams:
        os.close(stream)
    _, ended = os.waitpid(program, 0)
    os.write(status, struct.pack("i", os.waitstatus_to_exitcode(ended)))
    os._exit(0)

signal.signal(signal.SIGINT, signal.default_int_handler)
for number, stream in enumerate(streams):
    os.dup2(stream, number)
os.closerange(3, max(*streams, status) + 1)
os.chdir(asked["directory"])
os.environ.clear()
os.environ.update(asked["environment"])
sys.path[0] = asked["directory"]
sys.argv = ["sidecar", *asked["arguments"]]
try:
    status = main()
except SystemExit as end:
    status = end.code
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
"""


class Preloaded:
    """The program, as far as `subprocess.Popen` would show it."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: Path | str,
        *,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
    ) -> None:
        """Without these it reads nothing and writes to a pipe, as it does to standard error."""
        self.args = list(arguments)
        self.returncode: int | None = None
        request = {"arguments": self.args, "environment": dict(environment), "directory": str(directory)}
        out, out_end = os.pipe() if stdout is None else (os.open(os.devnull, os.O_RDONLY), os.dup(stdout.fileno()))
        err, err_end = os.pipe()
        self._status, status_end = os.pipe()
        read = os.dup(stdin.fileno()) if stdin else os.open(os.devnull, os.O_RDONLY)
        given = [read, out_end, err_end, status_end]
        try:
            socket.send_fds(_interpreter(), [json.dumps(request).encode()], given)
        finally:
            for each in given:
                os.close(each)
        self.stdout: BinaryIO = os.fdopen(out, "rb")
        self.stderr: BinaryIO = os.fdopen(err, "rb")
        (self.pid,) = struct.unpack("i", os.read(self._status, 4))

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            (self.returncode,) = struct.unpack("i", os.read(self._status, 4))
            os.close(self._status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    *arguments: str | Path,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
) -> "subprocess.CompletedProcess[bytes]":
    """`sidecar ARGUMENTS` to its end, as `subprocess.run` would run it. `env` is beside the test's own environment."""
    words = [str(word) for word in arguments]
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        process = Preloaded(words, os.environ | dict(env or {}), cwd or Path.cwd(), stdin=file)
    with process.stdout, process.stderr, futures.ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(stream.read) for stream in (process.stdout, process.stderr)]
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        out, err = (each.result() for each in reading)
    return subprocess.CompletedProcess(words, status, out, err)


def run_text(*arguments: str | Path, stdin: str = "", **more: Any) -> "subprocess.CompletedProcess[str]":
    done = run(*arguments, stdin=stdin.encode(), **more)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@functools.cache
def _interpreter() -> socket.socket:
    """Where the interpreter takes requests; it ends with this process."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-W", "error", "-c", INTERPRETER, str(its.fileno())]
    interpreter = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, env=environment)
    its.close()

    def end() -> None:
        ours.close()
        interpreter.wait()

    atexit.register(end)
    return ours
