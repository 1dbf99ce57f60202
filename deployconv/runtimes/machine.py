"""The machine that models run on: its name, processors and memory, and whether it is busy."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from deployconv.errors import UsageError

_CPUINFO = Path("/proc/cpuinfo")
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_OWN_LOAD = 0.5
"""The load may be this much above the number of processors if nothing else is running."""


def usable_cpus() -> int:
    """Count the logical processors that this process may run on, which may not be all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chosen_threads(threads: int | None) -> int:
    """Return how many threads to use: as many as were asked for, else one per usable processor.

    Raises UsageError if ``threads`` is not positive.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}: give at least 1")
    return threads or usable_cpus()


def describe_machine() -> str:
    """Name the processor and count the usable ones, e.g. ``AMD EPYC 7763, 2 CPUs``."""
    name = _processor_name(_CPUINFO) or platform.processor() or platform.machine()
    cpus = usable_cpus()
    return f"{name}, {cpus} {'CPU' if cpus == 1 else 'CPUs'}"


def granted_cpus(limit: Path = _CPU_LIMIT) -> float:
    """Count the logical processors that this process may use at once, by a control group too."""
    cpus = float(usable_cpus())
    try:
        quota, period = limit.read_text(encoding="ascii").split()
        return min(cpus, int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no limit, or another kind of system
        return cpus


def physical_memory() -> int | None:
    """Bytes of memory of this machine; None if the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def busy_machine() -> str | None:
    """Say that more is running than there are processors; None if not, or if it is not known."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
    cpus = granted_cpus()
    if load <= cpus + _OWN_LOAD:
        return None
    noun = "processor" if cpus == 1 else "processors"
    return f"the machine is busy: a load of {load:.1f} on {cpus:g} {noun}"


def _processor_name(cpuinfo: Path) -> str | None:
    """Return the first ``model name`` of a Linux cpuinfo file; None if there is none."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return " ".join(value.split())
    return None
