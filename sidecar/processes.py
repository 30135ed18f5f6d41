"""`process_*` metrics of the program as a whole, its worker processes included."""

import resource
from collections.abc import Callable, Iterable, Iterator

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
