"""The limit of memory is the narrowest of those that hold."""

from pathlib import Path

import pytest

from sidecar.telemetry.process_metrics import memory_limit

GIB = 1 << 30
MEMINFO = "MemTotal:        8388608 kB\nMemFree:          123456 kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 0),
        ({"proc/meminfo": MEMINFO}, 8 * GIB),
        # in a container: the group's own files are the mount's root
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"}, GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 8 * GIB),
        # on a machine: a service in a slice that allows less
        (
            {
                "proc/self/cgroup": "0::/system.slice/hooks.service\n",
                "sys/fs/cgroup/system.slice/hooks.service/memory.max": f"{3 * GIB}\n",
                "sys/fs/cgroup/system.slice/memory.max": f"{2 * GIB}\n",
            },
            2 * GIB,
        ),
        # version 1, whose "no limit" is a very large number; in a container the path is not below the mount
        (
            {
                "proc/self/cgroup": "5:devices:/\n4:memory:/docker/abc\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
            },
            GIB,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/service\n",
                "sys/fs/cgroup/memory/service/memory.limit_in_bytes": "9223372036854771712\n",
            },
            8 * GIB,
        ),
    ],
    ids=[
        "nothing to read",
        "no groups",
        "container",
        "container without a limit",
        "slice",
        "version 1",
        "v1, no limit",
    ],
)
def test_the_narrowest_limit_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, text in ({"proc/meminfo": MEMINFO} | files if files else files).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == expected


def test_this_machine_has_a_limit() -> None:
    assert memory_limit() > 0
