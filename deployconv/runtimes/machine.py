"""The machine that a timing was taken on: a figure without it cannot be compared."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def usable_cpus() -> int:
    """Logical processors that this process may run on (its affinity, not the whole machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_machine() -> str:
    """Processor name and usable logical processors, e.g. ``AMD EPYC 7763, 2 CPUs``."""
    name = _processor_name(_CPUINFO) or platform.processor() or platform.machine()
    cpus = usable_cpus()
    return f"{name}, {cpus} {'CPU' if cpus == 1 else 'CPUs'}"


def _processor_name(cpuinfo: Path) -> str | None:
    """The first ``model name`` of a Linux cpuinfo file; None where there is none."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return " ".join(value.split())
    return None
