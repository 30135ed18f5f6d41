"""Searches everything that the program wrote during a whole test run for secrets, signatures and bodies.

Tests register texts that must never appear (`marker`, `signature`) and the outputs that could show them (`shown`): of processes
and commands, pages of the admin listener, rejections. At the end of the run every output is searched for every marker, across all
tests and test processes. One match fails the run, even if every test passed.

The functions named pytest_* are hooks; tests/conftest.py imports them.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

_WHERE = "LEAK_WATCH"
#: Characters of a signature that are as good as all of it, to anyone who reads a log.
_ENOUGH = 20
_TOKEN = re.compile(rb"[A-Za-z0-9+/_-]{%d,}" % _ENOUGH)

_markers: set[bytes] = set()
_signatures: set[bytes] = set()
_shown: dict[bytes, str] = {}  # each line once: pages of metrics are much the same


def marker(*values: bytes) -> None:
    """Secrets, or marks that are part of bodies."""
    _markers.update(value for value in values if value)


def signature(value: bytes) -> None:
    """A signature's text, hexadecimal or base64."""
    _signatures.add(value[:_ENOUGH])


def shown(where: str, data: bytes) -> None:
    """An output of the program that others than the receiver can read."""
    for line in data.splitlines():
        _shown.setdefault(line, where)


def leaks(markers: set[bytes], signatures: set[bytes], outputs: list[tuple[str, bytes]]) -> list[str]:
    """The outputs that contain a marker, and the first one with each signature; a line for each."""
    everything = b"\n".join(data for _, data in outputs)
    found = []
    for value in sorted(markers):
        if value in everything:
            found += [f"{where} shows {value!r}" for where, data in outputs if value in data]
    tokens: dict[bytes, str] = {}  # each once: most are names of metrics
    for where, data in outputs:
        for token in _TOKEN.findall(data):
            tokens.setdefault(token, where)
    for token, where in tokens.items():
        starts = range(len(token) - _ENOUGH + 1) if len(token) < 400 else (0,)
        if hit := next((token[at:] for at in starts if token[at : at + _ENOUGH] in signatures), None):
            found.append(f"{where} shows a signature: {hit[:40]!r}...")
    return found


def pytest_configure(config: pytest.Config) -> None:
    if _WHERE not in os.environ:
        os.environ[_WHERE] = config.leak_watch = tempfile.mkdtemp(prefix="leak-watch-")  # type: ignore[attr-defined]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Each process of the run saves its texts; the one that started the run searches them."""
    directory = Path(os.environ[_WHERE])
    own = {
        "markers": [value.decode("latin-1") for value in _markers],
        "signatures": [value.decode("latin-1") for value in _signatures],
        "shown": [(where, line.decode("latin-1")) for line, where in _shown.items()],
    }
    (directory / f"{os.getpid()}.json").write_text(json.dumps(own))
    if not hasattr(session.config, "leak_watch"):
        return
    parts = [json.loads(file.read_text()) for file in directory.glob("*.json")]
    shutil.rmtree(directory)
    del os.environ[_WHERE]
    markers = {value.encode("latin-1") for part in parts for value in part["markers"]}
    signatures = {value.encode("latin-1") for part in parts for value in part["signatures"]}
    outputs = [(where, data.encode("latin-1")) for part in parts for where, data in part["shown"]]
    size = sum(len(data) for _, data in outputs)
    found = leaks(markers, signatures, outputs)
    what = f"{len(markers)} secrets and marks and {len(signatures)} signatures: {len(found)} found"
    summary = f"{len(outputs)} different lines, {size / 1e6:.1f} MB, searched for {what}"
    session.config.leak_report = (summary, found)  # type: ignore[attr-defined]
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    summary, found = getattr(config, "leak_report", ("", []))
    if not summary:
        return
    terminalreporter.section("leaks" if found else "no leaks", sep="-")
    terminalreporter.line(summary)
    for line in found[:50]:
        terminalreporter.line(f"LEAK: {line}")
