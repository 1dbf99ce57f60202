"""Choose the processes that the models of a call are run in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployconv.batch.jobs import Pool, Processes, in_this_process
from deployconv.options import BatchOptions
from deployconv.runtimes.machine import usable_cpus


def pool_for(
    command: str, options: Mapping[str, Any], many: BatchOptions
) -> tuple[Pool, tuple[str, ...]]:
    """Return what runs the models of a call, and warnings about it.

    Raises:
        UsageError: ``--cluster`` needs a library that is not installed, or does not answer.
    """
    if many.cluster is not None:
        from deployconv.batch.cluster import Cluster

        return Cluster(many.cluster, many.timeout), ()
    jobs, warnings = many.jobs, []
    if jobs > 1 and _measures_time(command, options):
        jobs = 1
        warnings.append(
            f"--jobs {many.jobs}: one model at a time, as times are measured; with --no-bench, "
            "--policy all and cost measure none"
        )
    if jobs == 1 and many.timeout is None:
        return in_this_process, tuple(warnings)
    threads = max(1, usable_cpus() // jobs) if jobs > 1 else None
    return Processes(jobs, many.timeout, threads), tuple(warnings)


def _measures_time(command: str, options: Mapping[str, Any]) -> bool:
    timed = options.get("bench", True) or options.get("policy") == "fastest"
    return command == "rewrite" and bool(timed)
