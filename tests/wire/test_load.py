"""Small versions of the measurements in tests/load: what must hold there holds here too, without their times."""

import subprocess
import sys
from pathlib import Path

import pytest

LOAD = Path(__file__).parents[1] / "load"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("burst.py --senders 120 --size 1048576", id="more large bodies at once than the buffer holds"),
        pytest.param("burst.py --senders 20 --size 100000 --chunk 1", id="large bodies in chunks of one byte"),
        pytest.param("rolling.py --deliveries 2000 --cycles 2 --senders 8 --pace 0.02", id="replaced under load"),
    ],
)
def test_it_holds_under_load(command: str) -> None:
    script, *arguments = command.split()
    ended = subprocess.run(
        [sys.executable, str(LOAD / script), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
