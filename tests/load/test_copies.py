"""A short run of the load test copies.py."""

import subprocess
import sys
from pathlib import Path

import pytest
from stores import program

KILL = ["--kill", "--store"]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("redis", []),
        ("redis", ["--kill"]),
        ("redis", ["--kill", "--workers", "2"]),
        ("redis", [*KILL, "sentinel"]),
        ("redis", [*KILL, "cluster"]),
        ("valkey", [*KILL, "sentinel"]),
        ("valkey", [*KILL, "cluster", "--workers", "2"]),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else each,
)
def test_of_copies_sent_at_once_to_two_sidecars_the_receiver_sees_one(kind: str, arguments: list[str]) -> None:
    program(kind)
    script = Path(__file__).with_name("copies.py")
    arguments = ["--deliveries", "150", "--of", kind, *arguments]
    run = subprocess.run([sys.executable, script, *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert run.stdout.endswith("holds\n")
