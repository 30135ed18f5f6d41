"""Follows a page: runs its commands, in its order, on other ports."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

#: The variables that the quick start exports.
SECRETS = {"GITHUB_SECRET": "it-is-a-secret-to-everybody"}


@contextmanager
def running(command: str, where: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    with (where / "output").open("a") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=where, env=env or environment(), stdout=output, stderr=output
        )
    try:
        yield process  # type: ignore[misc]
    finally:
        process.send_signal(signal.SIGINT)  # like Ctrl-C; after SIGTERM the sidecar continues for some seconds
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # a signal that comes while bash starts the program is lost
            process.kill()
            process.wait()


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | SECRETS | more


def answer(url: str) -> bytes:
    """The page at `url`, as soon as there is a response."""
    for _ in range(200):
        try:
            with urlopen(url, timeout=5) as response:
                return bytes(response.read())
        except (URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError(f"nobody answers at {url}")
