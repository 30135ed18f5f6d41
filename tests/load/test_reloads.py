"""A short run of the load test reloads.py."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_delivery_fails_for_a_reload_and_each_is_judged_by_exactly_one_configuration(workers: str) -> None:
    script = Path(__file__).with_name("reloads.py")
    arguments = ["--reloads", "30", "--senders", "6", "--watched", "24", "--workers", workers]
    run = subprocess.run([sys.executable, script, *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert run.stdout.endswith("holds\n")
