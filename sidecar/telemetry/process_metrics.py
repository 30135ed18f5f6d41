"""`process_*` metrics of the whole program, worker processes included, and the memory that it may use."""

import re
import resource
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from prometheus_client import Metric, ProcessCollector
from prometheus_client.registry import Collector


class Processes(Collector):
    """prometheus-client's families, added up over this process and its living children."""

    def __init__(self, children: Callable[[], Iterable[int]] = tuple) -> None:
        """`children` are process ids."""
        self._children = children

    def collect(self) -> Iterator[Metric]:
        totals = {family.name: family for family in ProcessCollector(registry=None).collect()}
        for pid in self._children():
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                if family.name not in ("process_start_time_seconds", "process_max_fds"):
                    _add(totals[family.name], family.samples[0].value)
        if "process_cpu_seconds" in totals:
            of_the_dead = resource.getrusage(resource.RUSAGE_CHILDREN)  # else the counter would go back
            _add(totals["process_cpu_seconds"], of_the_dead.ru_utime + of_the_dead.ru_stime)
        yield from totals.values()


def _add(family: Metric, value: float) -> None:
    family.samples[0] = family.samples[0]._replace(value=family.samples[0].value + value)


_TOTAL = re.compile(r"^MemTotal: +([0-9]+) kB$", re.MULTILINE)


def memory_limit(root: Path = Path("/")) -> int:
    """The memory that the program may use, in bytes: what its control groups allow, else all of the machine's. 0 if unknown.

    `root` is where proc and sys are mounted. In a container the files of its own group are at the mount's root; elsewhere
    they are at the path that /proc/self/cgroup names, and each group above may allow less.
    https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max), cgroup-v1/memory.html (memory.limit_in_bytes).
    """
    limits = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif controllers == "memory":
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        limits += [_number(mount / each / name) for each in (group, *group.parents)]
    if total := _TOTAL.search(_text(root / "proc/meminfo")):
        limits.append(int(total[1]) * 1024)
    return min(filter(None, limits), default=0)


def _number(file: Path) -> int:
    text = _text(file).strip()
    return int(text) if text.isdigit() else 0  # "max" is no limit


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
