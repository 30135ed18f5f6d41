"""Collects the `process_*` metrics of the whole program, worker processes included, and its memory limit."""

import re
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from prometheus_client import Metric, ProcessCollector
from prometheus_client.registry import Collector

from sidecar.telemetry.prometheus import family


class ProcessGroup(Protocol):
    """The processes that handle deliveries."""

    exits: int  #: unexpected ones

    @property
    def serving(self) -> int:
        """How many of them accept deliveries."""
        ...

    @property
    def pids(self) -> Iterable[int]:
        """Process ids of all but this process."""
        ...


class ProcessMetrics(Collector):
    """Metrics of this process and its children, those of prometheus-client included."""

    def __init__(self, group: ProcessGroup, memory_limit: int) -> None:
        """`memory_limit` in bytes; 0 if unknown."""
        self._group = group
        self._memory_limit = memory_limit

    def collect(self) -> Iterator[Metric]:
        yield family("webhook_sidecar_workers", [((), self._group.serving)])
        yield family("webhook_sidecar_worker_exits_total", [((), self._group.exits)])
        if self._memory_limit:
            yield family("webhook_sidecar_memory_limit_bytes", [((), self._memory_limit)])
        yield from _process_families(self._group.pids)


def _process_families(children: Iterable[int]) -> Iterable[Metric]:
    """prometheus-client's `process_*` metrics, added up over this process and its living children."""
    totals = {metric.name: metric for metric in ProcessCollector(registry=None).collect()}
    for pid in children:
        for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            if metric.name not in ("process_start_time_seconds", "process_max_fds"):
                _add(totals[metric.name], metric.samples[0].value)
    if "process_cpu_seconds" in totals:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)  # without these the counter would decrease
        _add(totals["process_cpu_seconds"], ended.ru_utime + ended.ru_stime)
    return totals.values()


def _add(metric: Metric, value: float) -> None:
    metric.samples[0] = metric.samples[0]._replace(value=metric.samples[0].value + value)


_TOTAL = re.compile(r"^MemTotal: +([0-9]+) kB$", re.MULTILINE)


def memory_limit(root: Path = Path("/")) -> int:
    """The memory limit in bytes: what the control groups allow, otherwise all memory of the machine. 0 if unknown.

    `root` is where proc and sys are mounted. In a container the files of its own group are at the mount's root. Elsewhere
    they are at the path in /proc/self/cgroup, and each parent group may set a lower limit.
    https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max), cgroup-v1/memory.html (memory.limit_in_bytes).
    """
    limits = []
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif controllers == "memory":
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        limits += [_read_number(mount / each / name) for each in (group, *group.parents)]
    if total := _TOTAL.search(_read_text(root / "proc/meminfo")):
        limits.append(int(total[1]) * 1024)
    return min(filter(None, limits), default=0)


def _read_number(file: Path) -> int:
    text = _read_text(file).strip()
    return int(text) if text.isdigit() else 0  # "max" means unlimited


def _read_text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
