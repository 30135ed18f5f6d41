"""The programs that tests run. A test whose program is missing is skipped; it does not fail.

pytest's summary has one line for each missing program, with the number of its tests. `.ci/run` fails on any skip.
"""

import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Generator
from pathlib import Path

import pytest

import sidecar

ROOT = Path(__file__).parents[2]
#: How to get the things that `make test` installs into .venv, by the folder below .venv.
INSTALLED = {
    "engines": "make .venv/engines/installed",
    "kubernetes": "make .venv/kubernetes/kubectl",
    "node": "make .venv/node/installed",
    "release": "make .venv/release/installed",
    "site": "make site",
}
#: The Debian packages whose name is not the program's.
PACKAGES = {
    "chromedriver": "chromium-driver",
    "java": "default-jdk-headless",
    "javac": "default-jdk-headless",
    "nginx": "nginx-light",
    "node": "nodejs",
    "php": "php-cli",
    "promtool": "prometheus",
}


def needs(program: str | Path) -> str:
    """The path of a program, or of a file below .venv. If it is missing, the test is skipped.

    Call it before starting anything that the test would have to stop.
    """
    if isinstance(program, Path):
        if program.exists():
            return str(program)
        place = program.relative_to(ROOT / ".venv")
        remedy = INSTALLED[place.parts[0]]
        pytest.skip(f"NOT TESTED: {place.name} is not installed; run `{remedy}`")
    found = shutil.which(program)
    if found is None:
        pytest.skip(
            f"NOT TESTED: {program} is not installed; on Debian: apt-get install {PACKAGES.get(program, program)}"
        )
    return found


def needs_node(major: int) -> str:
    """The path of Node.js, of this major version or newer."""
    node = needs("node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < major:
        pytest.skip(f"NOT TESTED: node is {version.strip()}; install version {major} or newer")
    return node


def needs_ipv6() -> None:
    """Skips the test on a machine without IPv6, for example in some containers."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("NOT TESTED: IPv6; enable it on the loopback interface")


def needs_localhost() -> None:
    """Skips the test where no file names localhost, as in a bare chroot of Debian 12: Chromium's driver asks for it."""
    try:
        socket.getaddrinfo("localhost", None)
    except OSError:
        pytest.skip("NOT TESTED: Chromium, without the name localhost; add `127.0.0.1 localhost` to /etc/hosts")


def needs_compiled_code(pure: str = "") -> None:
    """Skips the test if the data path was not compiled, unless the test runs the source (`pure`: SIDECAR_PURE)."""
    made = Path(sidecar.__file__).with_name("compiled__mypyc" + sysconfig.get_config_var("EXT_SUFFIX"))
    if pure != "1" and not made.exists():
        pytest.skip("NOT TESTED: the compiled data path; on Debian: apt-get install gcc python3-dev, then make test")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Gives all these skips one location, so that pytest's summary folds them into one line."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and "NOT TESTED: " in report.longrepr[2]:
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report
