"""Spreads tests over the processes that run them, so that each begins with a share of those that wait."""

import os
from itertools import groupby, islice
from pathlib import Path

import pytest

#: Seconds that a test takes, about, by its folder; of the others a hundred take one.
SECONDS = {"cluster": 8.0, "load": 4.0, "packaging": 4.0, "monitoring": 2.0, "chart": 1.0, "hostile": 1.0, "wire": 1.0}
TESTS = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each process is given a part of this list, of the same length, and takes half of another's when it has none.

    In the order of their names one process would have every test on the wire, and at the end the others would wait for a long
    test that began last. The tests of a module stay together, for its processes' sake.
    """
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if parts == 1:
        return
    slow: list[tuple[float, list[pytest.Item]]] = []
    quick: list[pytest.Item] = []
    for path, group in groupby(items, key=lambda item: item.path):
        module = list(group)
        seconds = SECONDS.get(path.relative_to(TESTS).parts[0], 0.0)
        if seconds:
            slow.append((seconds * len(module), module))
        else:
            quick += module
    shares: list[list[pytest.Item]] = [[] for _ in range(parts)]
    weights = [0.0] * parts
    for seconds, module in sorted(slow, key=lambda each: -each[0]):
        least = weights.index(min(weights))
        shares[least] += module
        weights[least] += seconds
    size = -(-len(items) // parts)
    rest = iter(quick)
    items[:] = [item for share in shares for item in (*share, *islice(rest, max(size - len(share), 0)))]
    items += rest
