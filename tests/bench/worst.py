"""The processor time and memory of the most expensive input of each stage that a search finds.

    python tests/bench/worst.py [--seconds 30] [STAGE ...]

It prints the table of docs/reliability.md, and the inputs. Hypothesis searches, guided by the time that an example takes.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from hypothesis import HealthCheck, Phase, given, settings, target
from worst_cases import STAGES, Case, Cost, measure


def search(stage: str, seconds: float) -> tuple[tuple[Cost, Case], tuple[Cost, Case]]:
    """The input that takes the most time, and the one that takes the most memory."""
    found: list[tuple[Cost, Case]] = []
    ends = time.monotonic() + seconds

    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.target],
        suppress_health_check=list(HealthCheck),
    )
    @given(STAGES[stage].cases)
    def look(case: Case) -> None:
        cost = measure(case)
        found.append((cost, case))
        target(cost.seconds, label="seconds")
        target(float(cost.memory), label="memory")

    while time.monotonic() < ends:
        look()
    found.sort(key=lambda each: each[0].seconds, reverse=True)
    again = [
        (measure(case, 10), case) for _, case in found[:30]
    ]  # an input that was slow by chance is not the slowest now
    return max(again, key=lambda each: each[0].seconds), max(found, key=lambda each: each[0].memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of search for each stage")
    parser.add_argument("stages", nargs="*", default=list(STAGES), metavar="STAGE")
    arguments = parser.parse_args()
    print("| stage | processor time | by | memory | by |\n|---|---|---|---|---|", flush=True)
    for stage in arguments.stages:
        (slowest, slow), (largest, large) = search(stage, arguments.seconds)
        print(
            f"| {stage} | {slowest.seconds * 1000:.2f} ms | {slow.what} "
            f"| {largest.memory / 1000:.0f} kB | {large.what} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
