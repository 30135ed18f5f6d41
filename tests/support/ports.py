"""TCP ports for programs that can't choose one themselves.

They are below those that the kernel gives to connections and to listeners on port 0 (32768 and up, by Linux's default), of which
the other tests use thousands. Each test process has its own part of them.
"""

import itertools
import os
import socket

_FIRST, _EACH = 12_000, 1_000
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20
_offsets = itertools.count(os.getpid())


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Several different ports. A port is not given out again for a long time."""
    found: list[int] = []
    for offset in itertools.islice(_offsets, _EACH):
        port = _FIRST + _WORKER * _EACH + offset % _EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"fewer than {count} of {_EACH} ports from {_FIRST + _WORKER * _EACH} on are free")
