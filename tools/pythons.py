"""Runs the tests on other Pythons, from source and compiled: pythons.py [--releases NAME...] [--python PATH...]

As root where mmdebstrap can be had, each Python is that of a Debian release, in a fresh chroot: bookworm has 3.11, trixie
3.13 and sid 3.14. Otherwise, and for versions that no release has, the interpreters on the PATH are used (python3.11 to
python3.14, or those that --python names), each with a virtual environment of its own.

A chroot is given this machine's resolver, certificates, and settings of apt and pip, so that it reaches the same packages.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import debian_packages

ROOT = Path(__file__).parent.parent
#: Debian releases, and the Python of each.
RELEASES = {"bookworm": "3.11", "trixie": "3.13", "sid": "3.14"}
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
INCLUDE = "python3,python3-venv,python3-dev,gcc,libc6-dev,make,git,ca-certificates"
#: The whole of `make quick`, and of the wire what a receiver can do wrong: the errors of an event loop end there.
SUITE = "tests/unit tests/config tests/vectors tests/wire/test_receiver_faults.py tests/commands/test_demo.py"
#: The same without what is not compiled, and so was tested from source: how a configuration is read.
COMPILED_SUITE = SUITE.replace("tests/config ", "")
SETTINGS = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--releases", nargs="*", choices=RELEASES, help="Debian releases; default: all, as root")
    parser.add_argument("--python", nargs="*", help="interpreters; default: python3.11 to python3.14 where they are")
    parser.add_argument("--suite", help=f"what pytest runs; . for everything; default: {SUITE}")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a chroot is removed
    root = os.geteuid() == 0
    if root and options.releases != []:
        debian_packages.main(["mmdebstrap:mmdebstrap"])
    releases = options.releases
    if releases is None:
        releases = list(RELEASES) if root and shutil.which("mmdebstrap") and options.python is None else []
    elif releases and not (root and shutil.which("mmdebstrap")):
        sys.exit("chroots need root and mmdebstrap; without --releases the Pythons on the PATH are used")
    pythons = options.python
    if pythons is None:
        had = {RELEASES[release] for release in releases}
        pythons = [] if options.releases else [f"python{version}" for version in VERSIONS if version not in had]

    failed: list[str] = []
    told: list[str] = []
    for release in releases:
        with chroot(release) as place:
            failed += tried(release, told, partial(inside, place), "python3", options.suite)
    for python in pythons:
        if not works(python):
            told.append(f"{python}: not tested, because there is none here")
            continue
        with tempfile.TemporaryDirectory(prefix="sidecar-") as made:
            copy(Path(made) / "repo")
            failed += tried(python, told, partial(here, Path(made)), python, options.suite)
    print("\n".join(["", *told]))
    if not any(" passed" in line for line in told):
        sys.exit("no Python was tested")
    sys.exit(1 if failed else 0)


def tried(name: str, told: list[str], run: Callable[[str], int], python: str, suite: str | None) -> list[str]:
    """Both programs on one Python; the names of those that failed."""
    failed = []
    programs = (("source", "1", "packages-dev", SUITE), ("compiled", "0", "installed-dev", COMPILED_SUITE))
    for program, pure, target, usual in programs:
        began = time.monotonic()
        print(f"== {name}, {program}", flush=True)
        status = run(
            f"export SIDECAR_PURE={pure} SIDECAR_COMPILE=1; make PYTHON={python} .venv/{target} && "
            f".venv/bin/python -VV && .venv/bin/python -m pytest -q -n 2 {suite or usual}"
        )
        if status:
            failed.append(f"{name}, {program}")
        told.append(f"{name}, {program}: {'FAILED' if status else 'passed'} in {time.monotonic() - began:.0f} s")
    return failed


def copy(to: Path) -> None:
    """The files of this checkout that git knows, as they are now."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in files.split("\0"):
        if name and (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=to, check=True)


def works(python: str) -> bool:
    try:
        ended = subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, check=False)
    except OSError:
        return False
    return ended.returncode == 0


def here(place: Path, command: str) -> int:
    return subprocess.run(["bash", "-c", command], cwd=place / "repo", check=False).returncode


@contextmanager
def chroot(release: str) -> Iterator[Path]:
    """A fresh one, with a user, and this checkout in the user's home."""
    made = Path(tempfile.mkdtemp(prefix=f"sidecar-{release}-"))
    made.chmod(0o755)
    try:
        valid = subprocess.run(
            ["apt-config", "dump", "--format=%v", "Acquire::Check-Valid-Until"],
            capture_output=True,
            text=True,
            check=False,
        )
        options = [f'--aptopt=Acquire::Check-Valid-Until "{valid.stdout}"'] if valid.stdout else []
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={INCLUDE}", *options, release, str(made)]
        subprocess.run(command, check=True)
        for name in SETTINGS:
            if Path("/", name).exists():
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path("/", name), made / name)
        subprocess.run(["chroot", made, "useradd", "--create-home", "user"], check=True)
        copy(made / "home/user/repo")
        subprocess.run(["chroot", made, "chown", "-R", "user:user", "/home/user"], check=True)
        yield made
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", made], check=False)


#: Mounts in a namespace of its own end with it, so there is nothing to unmount.
ENTER = """
for folder in dev proc; do mount --rbind /$folder "$0/$folder"; done
exec chroot --userspec=user:user "$0" env -i "$@"
"""


def inside(place: Path, command: str) -> int:
    """As an ordinary user, with nothing of this process's environment but what pip is to use."""
    kept = [
        f"{name}={value}" for name, value in os.environ.items() if name.startswith("PIP_") or name == "SSL_CERT_FILE"
    ]
    environment = [f"PATH={PATH}", "HOME=/home/user", "LANG=C.UTF-8", *kept]
    shell = ["bash", "-c", f"cd /home/user/repo && {command}"]
    entered = [
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        "sh",
        "-e",
        "-c",
        ENTER,
        str(place),
        *environment,
        *shell,
    ]
    return subprocess.run(entered, check=False).returncode


if __name__ == "__main__":
    main()
