"""Draws the figures of bench.py: python tests/bench/plots.py FIGURES.json FOLDER. Needs matplotlib, which `make bench` installs.

It draws medians of the rounds, with whiskers from the least to the greatest: one plot for each measured part that has one.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "performance"  # the same figures give the same bytes
mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["font.size"] = 9

from matplotlib import pyplot as plt  # noqa: E402

OURS, VERIFY_TOO, FORWARD_ONLY = "#1f77b4", "#7f8c99", "#c5ccd3"
NO_METADATA = {"Creator": None, "Date": None}
#: The figures of bench.py for a case, round by round, and for a part, case by case.
Rounds = list[dict[str, Any]]
Part = dict[str, Rounds]
FORWARDING = ("envoy", "caddy", "traefik")


def colour(label: str) -> str:
    if label.startswith("sidecar"):
        return OURS
    return FORWARD_ONLY if label in FORWARDING else VERIFY_TOO


def values(rounds: Rounds, name: str) -> list[float]:
    return [figures["load"].get(name, figures.get(name)) for figures in rounds]


def bars(axes: Any, part: Part, name: str, scale: float = 1.0) -> None:
    """A bar for each case, the first one on top."""
    cases = {label: [value * scale for value in values(rounds, name)] for label, rounds in part.items()}
    labels = [f"{label} *" if label in FORWARDING else label for label in cases]
    middle = [statistics.median(found) for found in cases.values()]
    spread = [
        [at - min(found) for at, found in zip(middle, cases.values(), strict=True)],
        [max(found) - at for at, found in zip(middle, cases.values(), strict=True)],
    ]
    axes.barh(labels, middle, xerr=spread, color=[colour(label) for label in cases], ecolor="#555555", capsize=2)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def peers(parts: dict[str, Part], file: Path) -> None:
    figure, (cpu, memory) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    bars(cpu, parts["peers"], "cpu_us")
    cpu.set_title("CPU for each accepted 1 KiB delivery, µs")
    bars(memory, parts["peers"], "loaded_mb")
    memory.set_title("Memory under that load, MB (PSS)")
    figure.supxlabel("* forwards only, verifies nothing", fontsize=8, x=0.98, ha="right")
    figure.savefig(file, metadata=NO_METADATA)


def latency(parts: dict[str, Part], file: Path) -> None:
    figure, all_axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    found = {part.removeprefix("latency, "): cases for part, cases in parts.items() if part.startswith("latency")}
    names = [label for label in next(iter(found.values())) if label != "direct"]
    for axes, name in zip(all_axes, ("p50_ms", "p99_ms"), strict=True):
        for at, label in enumerate(names):
            heights = [
                statistics.median(
                    ours - direct
                    for ours, direct in zip(values(cases[label], name), values(cases["direct"], name), strict=True)
                )
                for cases in found.values()
            ]
            shade = ("#1f77b4", "#5d6d7e", "#aab7b8", "#d5dbdb")[at]
            axes.bar([place + 0.2 * at for place in range(len(found))], heights, 0.18, label=label, color=shade)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.set_xticks([place + 0.1 * (len(names) - 1) for place in range(len(found))], list(found))
        axes.set_title(f"Added latency, {name[:3]}, ms")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].legend(frameon=False)
    figure.savefig(file, metadata=NO_METADATA)


def sizes(parts: dict[str, Part], file: Path) -> None:
    found = {part.removeprefix("sizes, "): cases for part, cases in parts.items() if part.startswith("sizes")}
    figure, all_axes = plt.subplots(1, len(found), figsize=(9, 2), layout="constrained", squeeze=False)
    for axes, (size, cases) in zip(all_axes[0], found.items(), strict=True):
        bars(axes, cases, "cpu_us", scale=1e-3)
        axes.set_title(f"CPU for {size}, ms")
    figure.savefig(file, metadata=NO_METADATA)


def refusals(parts: dict[str, Part], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 2.4), layout="constrained")
    bars(axes, parts["refusals"], "cpu_us")
    axes.set_title("CPU for each delivery, µs")
    figure.savefig(file, metadata=NO_METADATA)


def main() -> None:
    parts = json.loads(Path(sys.argv[1]).read_text())["parts"]
    for plot, needed in ((peers, "peers"), (latency, "latency"), (sizes, "sizes"), (refusals, "refusals")):
        if any(part.startswith(needed) for part in parts):
            plot(parts, Path(sys.argv[2], f"performance-{needed}.svg"))


if __name__ == "__main__":
    main()
