"""A short run of the request fuzzer; `make fuzz` makes a long one."""

import asyncio
import subprocess
import sys
from pathlib import Path

import fuzz_requests
from fuzz_requests import fuzz


def test_2000_mutated_requests_break_nothing(tmp_path: Path) -> None:
    violations, statuses = asyncio.run(fuzz(count=2000, seed=20261125, directory=tmp_path))
    assert not violations, f"{len(violations)} violations\n" + "\n".join(violations[:10])
    assert {200, 400, 403, 408} <= set(statuses)  # it does reach every stage


def test_the_command_runs_by_itself() -> None:
    command = [sys.executable, fuzz_requests.__file__, "--count", "30", "--seed", "9"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("30 requests, seed 9, ")
    assert ended.stdout.endswith("0 violations\n")
