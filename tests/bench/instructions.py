"""The instructions that a delivery costs on the path of path.py, counted by callgrind: a guard against slow growth.

    make bench-instructions                                    # compare with instructions.json; fails above 3 %, and
                                                               # if a tenant's delivery takes 5 % more than another
    make bench-instructions BENCH_ARGS=--write                 # keep the new counts

Time depends on the machine and its state; instructions depend on the code, on the interpreter's build, and on the features of the
processor that OpenSSL and libc use. So the counts of another stack, or of the source, are shown but not compared. The
kernel's instructions are not counted, nor the start, nor as many deliveries before the counted ones.
"""

import argparse
import json
import os
import platform
import re
import ssl
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from path import COUNTED

from sidecar import is_compiled

HERE = Path(__file__).parent
KEPT = HERE / "instructions.json"
CASES = {
    "accepted": [],
    "accepted, Stripe": ["--stripe"],
    "accepted, replay: memory": ["--replay"],
    "accepted, 10,000 tenants": ["--tenants"],
    "allowed, a question": ["--question"],
    "a copy": ["--copies"],
    "wrong signature": ["--wrong"],
    "no signature": ["--unsigned"],
    "unknown path": ["--unknown"],
}
#: The run fails if a count is above the kept one by more than this share.
TOLERATED = 0.03
#: The same for a tenant's delivery above one with a single secret.
TENANTS_TOLERATED = 0.05


#: Features of a processor that valgrind passes on, and that libc or OpenSSL has faster code for.
FEATURES = ("sse4_2", "avx", "avx2", "bmi2", "erms", "movbe")


def counted(options: list[str], library: Path) -> int:
    """The instructions that a delivery takes."""
    with tempfile.TemporaryDirectory() as made:
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={made}/counts"]
        command += [sys.executable, str(HERE / "path.py"), *options, "--count", str(library)]
        env = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(HERE.parents[1])}
        run = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{run.stderr[-2000:]}")
        (total,) = re.findall(r"^totals: (\d+)", Path(made, "counts").read_text(), re.MULTILINE)
        return int(total) // COUNTED


def stack() -> dict[str, str]:
    """What the counts depend on beside our own code and the locked packages."""
    info = Path("/proc/cpuinfo")
    flags = re.findall(r"^flags\s*:(.*)$", info.read_text(), re.MULTILINE)[:1] if info.exists() else []
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)
    return {
        "interpreter": f"{sys.version}{', compiled data path' if is_compiled() else ''}",
        "OpenSSL": ssl.OPENSSL_VERSION,
        "libc": " ".join(platform.libc_ver()),
        "valgrind": valgrind.stdout.strip(),
        "processor": " ".join(flag for flag in FEATURES if flag in "".join(flags).split()) or platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"keep the counts in {KEPT.name}")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor(os.cpu_count()) as pool:
        library = Path(made, "callgrind.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "callgrind.c"], check=True)
        runs = {case: pool.submit(counted, options, library) for case, options in CASES.items()}
        found = {case: run.result() for case, run in runs.items()}
    here = stack()
    kept: dict[str, Any] = json.loads(KEPT.read_text())
    differences = [name for name, value in here.items() if kept["stack"].get(name) != value]
    if differences:
        print(f"Not compared, because of another {', '.join(differences)}.")
    grown = []
    for case, count in found.items():
        before = kept["instructions"].get(case)
        beside = f"{count / before - 1:+7.1%} of {before:,}" if before else ""
        print(f"{case:26} {count:9,} {beside}")
        if not differences and before and count > before * (1 + TOLERATED):
            grown.append(case)
    more = found["accepted, 10,000 tenants"] / found["accepted"] - 1
    if is_compiled() and more > TENANTS_TOLERATED:
        raise SystemExit(f"a tenant's delivery takes {more:.1%} more than one with a single secret")
    if chosen.write:
        KEPT.write_text(json.dumps({"stack": here, "instructions": found}, indent=1) + "\n")
    elif grown:
        raise SystemExit(f"more than {TOLERATED:.0%} above instructions.json: {', '.join(grown)}")


if __name__ == "__main__":
    main()
