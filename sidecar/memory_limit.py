"""How much memory the program may hold: what its control groups allow, or all that the machine has.

Control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max) and cgroup-v1/memory.html
(memory.limit_in_bytes). In a container the files of its own group stand at the mount's root; elsewhere at the path that
/proc/self/cgroup names, and each group above may allow less.
"""

import re
from pathlib import Path, PurePosixPath

_TOTAL = re.compile(r"^MemTotal: +([0-9]+) kB$", re.MULTILINE)


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes; 0 if neither can be read. `root` is where proc and sys are mounted."""
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
