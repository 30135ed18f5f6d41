"""Limits of this machine or container that a configuration can't exceed."""

import resource
from typing import Final, NamedTuple

from sidecar.config.problems import Report
from sidecar.config.settings import FileSettings
from sidecar.telemetry.process_metrics import memory_limit

#: Bytes that a process takes without any body; docs/performance.md has the figures.
PROCESS_BYTES: Final = 40 * 1024**2
#: Open files that a process needs besides its connections.
OTHER_FILES: Final = 64


class Machine(NamedTuple):
    """Limits of the machine; 0 for one that is unknown or absent."""

    memory: int  #: bytes
    files: int  #: open files of a process


def this_machine() -> Machine:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the program raises its soft limit to it
    return Machine(memory_limit(), hard if hard != resource.RLIM_INFINITY else 0)


def check_machine(file: FileSettings, machine: Machine, report: Report) -> None:
    """Warns of limits that can't hold here: the program would be killed, or refuse connections, before it reaches them."""
    limits = file.limits
    least = limits.buffer + PROCESS_BYTES * file.workers
    if machine.memory and least > machine.memory and not report.is_wrong(("limits", "buffer")):
        mebibytes = 1024**2
        report.warn(
            ("limits", "buffer"),
            f"can't hold: with {limits.buffer // mebibytes} MiB of bodies the program needs about {least // mebibytes} MiB, and "
            f"the memory limit is {machine.memory // mebibytes} MiB; lower limits.buffer, or raise the memory limit",
        )
    needed = 2 * limits.connections + OTHER_FILES  # each delivery has one from its sender and one to the receiver
    if machine.files and needed > machine.files and report.is_given(("limits", "connections")):
        report.warn(
            ("limits", "connections"),
            f"can't hold: {limits.connections} deliveries at a time need {needed} open files, and a process may have "
            f"{machine.files}; lower it, or raise the limit of open files (ulimit -n)",
        )
