"""The instructions that a delivery costs on the path of path.py, counted by callgrind: a guard against slow growth.

    make bench-instructions                                    # compare with instructions.json; fails above 5 %, and
                                                               # if a tenant's delivery takes 5 % more than another
    make bench-instructions BENCH_ARGS=--write                 # keep the new counts

Time depends on the machine and its state; instructions depend on the code, on the interpreter's build, and on the features of the
processor that OpenSSL and libc use. So the counts of another interpreter, or of the source, are shown but not compared. The
kernel's instructions are not counted. Only rejections that are never diagnosed are counted, because ten a second of the others
are diagnosed, which depends on time. Two runs of different lengths are counted and the difference is divided, so that the start
costs nothing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sidecar import is_compiled

HERE = Path(__file__).parent
KEPT = HERE / "instructions.json"
CASES = {
    "accepted": [],
    "accepted, Stripe": ["--stripe"],
    "accepted, replay: memory": ["--replay"],
    "accepted, 10,000 tenants": ["--tenants"],
    "allowed, a question": ["--question"],
    "no signature": ["--unsigned"],
    "unknown path": ["--unknown"],
}
SHORT, LONG = 640, 3840
#: The run fails if a count is above the kept one by more than this share.
TOLERATED = 0.05
#: The same for a tenant's delivery above one with a single secret.
TENANTS_TOLERATED = 0.05


def counted(options: list[str], deliveries: int) -> int:
    """The instructions of a whole run with this many deliveries."""
    with tempfile.TemporaryDirectory() as made:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={made}/counts", sys.executable]
        command += [str(HERE / "path.py"), *options, "--count", str(deliveries)]
        env = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(HERE.parents[1])}
        run = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{run.stderr[-2000:]}")
        return int(re.findall(r"^(?:totals|summary): (\d+)", Path(made, "counts").read_text(), re.MULTILINE)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"keep the counts in {KEPT.name}")
    chosen = parser.parse_args()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {
            case: [pool.submit(counted, options, count) for count in (SHORT, LONG)] for case, options in CASES.items()
        }
        found = {case: (long.result() - short.result()) // (LONG - SHORT) for case, (short, long) in runs.items()}
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {"interpreter": "", "instructions": {}}
    program = f"{sys.version}{', compiled data path' if is_compiled() else ''}"
    comparable = kept["interpreter"] == program
    grown = []
    for case, count in found.items():
        before = kept["instructions"].get(case)
        beside = f"{count / before - 1:+7.1%} of {before:,}" if before else ""
        print(f"{case:26} {count:9,} {beside}{'' if comparable or not before else ' (another interpreter)'}")
        if comparable and before and count > before * (1 + TOLERATED):
            grown.append(case)
    more = found["accepted, 10,000 tenants"] / found["accepted"] - 1
    if more > TENANTS_TOLERATED:
        raise SystemExit(f"a tenant's delivery takes {more:.1%} more than one with a single secret")
    if chosen.write:
        KEPT.write_text(json.dumps({"interpreter": program, "instructions": found}, indent=1) + "\n")
    elif grown:
        raise SystemExit(f"more than {TOLERATED:.0%} above instructions.json: {', '.join(grown)}")


if __name__ == "__main__":
    main()
