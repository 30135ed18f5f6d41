"""Installs the Debian packages of programs that are missing: debian_packages.py [--quiet] PROGRAM-OR-FILE:PACKAGE...

Only root on Debian can install. For other users it prints what is missing, unless --quiet is given. The exit status is always 0,
because the caller can continue without them. While another process holds a lock of apt or dpkg, this one waits.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

#: Seconds to wait for a lock that another process holds, and between two tries.
PATIENCE = 600.0
PAUSE = 2.0
DEBIAN = Path("/etc/debian_version")


def main(arguments: list[str]) -> None:
    quiet = "--quiet" in arguments
    pairs = [each.rpartition(":") for each in arguments if each != "--quiet"]
    missing = sorted({package for program, _, package in pairs if not _is_there(program)})
    if not missing:
        return
    names = " ".join(missing)
    if os.geteuid() != 0 or not DEBIAN.exists() or shutil.which("apt-get") is None:
        if not quiet:
            print(f"Not installed, so what needs them can't run: {names}", flush=True)
        return
    print(f"Installing {names} ...", flush=True)
    until = time.monotonic() + PATIENCE
    # Continue if the index can't be updated: an older one may be good enough.
    _apt(until, "update")
    problem = _apt(until, "install", "--no-install-recommends", *missing)
    if problem:
        print(f"That failed, so what needs them can't run: {names} ({problem})", flush=True)


def _is_there(program: str) -> bool:
    return os.path.exists(program) if "/" in program else shutil.which(program) is not None


def _apt(until: float, *arguments: str) -> str:
    """The failure in one line; empty if there was none."""
    while True:
        left = until - time.monotonic()
        ended = subprocess.run(
            ["apt-get", "-qq", "-y", "-o", f"DPkg::Lock::Timeout={max(left, 0):.0f}", *arguments],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if ended.returncode == 0:
            return ""
        # apt waits for dpkg's lock by itself, but not for that of its lists.
        if left > PAUSE and "Could not get lock" in ended.stderr:
            time.sleep(PAUSE)
            continue
        said = [line for line in ended.stderr.splitlines() if line.startswith("E:")] or ended.stderr.splitlines()
        return said[0] if said else f"apt-get ended with exit status {ended.returncode}"


if __name__ == "__main__":
    main(sys.argv[1:])
