"""`sidecar demo` does what it says, and the README shows what it prints."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_demo_goes_as_it_claims_and_the_readme_shows_what_it_prints() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "sidecar", "demo"], check=False, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stderr) == (0, "")
    printed = dict(re.findall(r"^\* (.*)\n((?:  .*\n)+)", run.stdout, re.MULTILINE))
    assert len(printed) == 5
    copy = printed["the genuine delivery again"]
    assert '  response  200 {"detail":"Already delivered"}\n  receiver  saw nothing\n' in copy
    shown = re.findall(r"^\* (.*)\n((?:  .*\n)+)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) >= 2
    for title, lines in shown:
        for line in lines.splitlines():
            assert line in printed[title].splitlines()
