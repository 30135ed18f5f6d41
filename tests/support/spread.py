"""Spreads tests over the processes that run them, so that each begins with a share of those that wait.

Each process also reads the modules in another order, so that it finds in the cache what others have rewritten. In the same order
all of them would rewrite the asserts of each module at the same moment.
"""

import os
from itertools import groupby, islice
from pathlib import Path

import pytest

#: Seconds that a test takes beside seven others, about, by its folder or module; of the rest a hundred take one.
SECONDS = {
    "cluster": 10.0,
    "packaging": 10.0,
    "wire/test_vectors.py": 10.0,
    "load": 8.0,
    "chart/test_helm_runs.py": 8.0,
    "hostile": 5.0,
    "monitoring": 5.0,
    "wire/test_published_keys.py": 5.0,
    "wire/test_replay_fleets.py": 5.0,
    "docs/test_site.py": 2.0,
    "wire": 0.6,
    "chart": 0.5,
}
TESTS = Path(__file__).parent.parent


def rotate_folders(config: pytest.Config) -> None:
    """Lets a test process begin its collection with another folder than the others do."""
    worker = getattr(config, "workerinput", None)
    if worker is None:
        return
    parts: list[str] = []
    for given in config.args:
        place = config.invocation_params.dir / given
        parts += _parts(place, config.getini("python_files")) if place.is_dir() else [given]
    first = len(parts) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    config.args[:] = parts[first:] + parts[:first]


def _parts(place: Path, patterns: list[str]) -> list[str]:
    """The folders of tests in it, and the modules that lie beside such a folder."""
    modules = {each for pattern in patterns for each in place.rglob(pattern)}
    folders = {each.parent for each in modules}
    above = {each for folder in folders for each in folder.parents}
    return sorted({str(each if each.parent in above else each.parent) for each in modules})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each process is given a part of this list, of the same length, and takes half of another's when it has none.

    In the order of their names one process would have every test on the wire, and at the end the others would wait for a long
    test that began last. The tests of a module stay together, for its processes' sake.
    """
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if parts == 1:
        return
    items.sort(key=lambda item: item.path)
    slow: list[tuple[float, list[pytest.Item]]] = []
    quick: list[pytest.Item] = []
    for path, group in groupby(items, key=lambda item: item.path):
        module = list(group)
        place = path.relative_to(TESTS)
        seconds = SECONDS.get(place.as_posix(), SECONDS.get(place.parts[0], 0.0))
        if seconds:
            slow.append((seconds, module))
        else:
            quick += module
    shares: list[list[pytest.Item]] = [[] for _ in range(parts)]
    weights = [0.0] * parts
    # Those whose tests take the longest begin: what is left at the end can then be shared out.
    for seconds, module in sorted(slow, key=lambda each: (-each[0], -len(each[1]))):
        least = weights.index(min(weights))
        shares[least] += module
        weights[least] += seconds * len(module)
    size = -(-len(items) // parts)
    rest = iter(quick)
    items[:] = [item for share in shares for item in (*share, *islice(rest, max(size - len(share), 0)))]
    items += rest
