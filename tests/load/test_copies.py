"""The load test of copies.py, in small."""

import subprocess
import sys
from pathlib import Path

import pytest
from needs import needs


@pytest.mark.parametrize("arguments", [[], ["--kill"], ["--kill", "--workers", "2"]])
def test_of_copies_sent_at_once_to_two_sidecars_the_receiver_sees_one(arguments: list[str]) -> None:
    needs("redis-server")
    script = Path(__file__).with_name("copies.py")
    arguments = ["--deliveries", "150", *arguments]
    run = subprocess.run([sys.executable, script, *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert run.stdout.endswith("holds\n")
