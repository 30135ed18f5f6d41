"""Runs a rendered configuration on this machine, and sends to it with `sidecar send` as a test pod does."""

import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from ports import free_port
from preloaded import Preloaded, run_text
from waiting import PATIENCE

Ask = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@contextmanager
def trial(config: dict[str, Any], folder: Path) -> Generator[Ask]:
    """An authorizer with the configuration of a ConfigMap. Yields a function that runs a test container's arguments with it.

    All files below /run/secrets hold the same secret.
    """
    asked, admin = free_port(), free_port()
    here = config | {"listen": f"127.0.0.1:{free_port()}", "admin": f"127.0.0.1:{admin}", "drain": "100ms"}
    here["authorize"] = config["authorize"] | {"listen": f"127.0.0.1:{asked}"}
    secrets = folder / "secrets"
    text = yaml.safe_dump(here)
    for path in set(re.findall(r"/run/secrets/(\S+)", text)):
        (secrets / path).parent.mkdir(parents=True, exist_ok=True)
        (secrets / path).write_text("a-secret-that-nobody-guesses")
    file = folder / "config.yaml"
    file.write_text(text.replace("/run/secrets", str(secrets)))

    def ask(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        words = [re.sub("^http://[^/]+", f"http://127.0.0.1:{asked}", word) for word in arguments]
        words = [word.replace("/etc/sidecar/config.yaml", str(file)) for word in words]
        return run_text(*words)

    with Path(os.devnull).open("wb") as nowhere:
        sidecar = Preloaded(["serve", "--config", str(file)], os.environ, folder, stdout=nowhere)
    with sidecar.stdout, sidecar.stderr:
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=2).close()
                    break
                except OSError:
                    assert sidecar.poll() is None
                    time.sleep(0.05)
            yield ask
        finally:
            sidecar.terminate()
            sidecar.wait(PATIENCE)
