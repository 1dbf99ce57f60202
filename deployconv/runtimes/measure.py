"""Time and peak memory of models, and the machine that both were measured on.

Sessions are timed in turns in one process, so that a drift of the machine's speed affects all of
them. A deployed model runs again and again, so a run that finds the caches full of another model's
data is not counted: it may take a quarter longer, or less, than one after a run of the same model.

The peak of a process's memory never falls, so each model is loaded and run in a process of its
own::

    python -m deployconv.runtimes.measure RUNTIME MODEL FEEDS.npz THREADS
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from deployconv.errors import UsageError
from deployconv.options import DEFAULT_RUNTIME
from deployconv.runtimes.base import Feeds, Session
from deployconv.runtimes.registry import get_backend
from deployconv.runtimes.worker_process import python_environment, python_module
from deployconv.temporary import temporary_folder

_SECONDS = 2.0
_WARMUP = 2
_FEWEST_RUNS = 5
_MOST_RUNS = 200
_BRIEF = 20.0
"""Milliseconds: for a shorter run it matters what the caches hold when it begins."""
_COUNTED_RUNS = 2
"""How many runs are counted after one that is not, if runs are brief."""
_CPUINFO = Path("/proc/cpuinfo")
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_OWN_LOAD = 0.5
"""The load may be this much above the number of processors if nothing else is running."""
_MEMORY_RUNS = 3
"""onnxruntime takes more memory in the second run, by a plan that it makes of the first."""
_MEMORY_TIMEOUT = 600.0
"""Seconds that the process may take."""


def time_interleaved(
    sessions: Sequence[Session],
    feeds: Feeds,
    runs: int | None = None,
    seconds: float = _SECONDS,
    warmup: int = _WARMUP,
) -> list[list[float]]:
    """Time each run of each session, in turns: A B, B A, A B, ...

    Reversing every other round cancels a linear drift, such as a processor that warms up. If runs
    are brief, a turn is one run that is not counted and two that are.

    Args:
        sessions: all take ``feeds``.
        feeds: the same arrays for every run.
        runs: how many of each session; default: what ``seconds`` allow, but 5 to 200.
        seconds: for all sessions together, used without ``runs``.
        warmup: runs of each session before the first that counts, at least one.

    Returns:
        Milliseconds: one list per session, all of one length. The i-th entries were taken one
        right after the other.
    """
    elapsed = warm_up(sessions, feeds, warmup)
    brief = is_brief(sessions, elapsed)
    if runs is None:
        runs = runs_within(seconds, elapsed, brief, _FEWEST_RUNS, _MOST_RUNS)
    return take_turns(sessions, feeds, runs, brief)


def warm_up(sessions: Sequence[Session], feeds: Feeds, runs: int) -> float:
    """Run each session at least once; return the milliseconds of their last runs together."""
    elapsed = 0.0
    for session in sessions:
        for _ in range(max(runs, 1)):
            last = _milliseconds(session, feeds)
        elapsed += last
    return elapsed


def is_brief(sessions: Sequence[Session], elapsed: float) -> bool:
    """Whether runs are so short that it matters what the caches hold when they begin."""
    return elapsed < _BRIEF * len(sessions)


def runs_within(seconds: float, elapsed: float, brief: bool, fewest: int, most: int) -> int:
    """How many runs of each session ``seconds`` allow if one of each takes ``elapsed`` ms."""
    turn = _COUNTED_RUNS if brief else 1
    each = elapsed * (turn + brief) / turn
    return round(min(max(1e3 * seconds / max(each, 1e-3), fewest), most))


def take_turns(
    sessions: Sequence[Session], feeds: Feeds, runs: int, brief: bool
) -> list[list[float]]:
    """Time ``runs`` runs of each session in turns, see `time_interleaved`."""
    turn = _COUNTED_RUNS if brief else 1
    times: list[list[float]] = [[] for _ in sessions]
    turns = list(zip(sessions, times, strict=True))
    for first in range(0, runs, turn):
        for session, taken in turns:
            if brief:
                _milliseconds(session, feeds)
            taken += [_milliseconds(session, feeds) for _ in range(first, min(first + turn, runs))]
        turns.reverse()
    return times


def _milliseconds(session: Session, feeds: Feeds) -> float:
    start = time.perf_counter()
    measured = session.timed_run(feeds)
    return measured if measured is not None else 1e3 * (time.perf_counter() - start)


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


def peak_memory(
    model: Path,
    feeds: Feeds,
    threads: int,
    runtime: str = DEFAULT_RUNTIME,
    timeout: float = _MEMORY_TIMEOUT,
) -> int | None:
    """Measure the peak memory of loading ``model`` and running it on ``feeds``, in bytes.

    Args:
        model: a model file.
        feeds: its inputs by name.
        threads: how many the runtime may use.
        runtime: a name in `registry.RUNTIMES` whose row says ``measures_memory``.
        timeout: seconds after which the process is ended.

    Returns:
        None if it cannot be measured: the system does not report it, NumPy does not save the
        inputs, or the process fails or takes too long.
    """
    with temporary_folder() as folder:
        path = folder / "feeds.npz"
        # Numbered, as the name of an input may be that of a parameter of savez.
        arrays = {f"feed{number}": array for number, array in enumerate(feeds.values())}
        np.savez(path, names=np.array(list(feeds), np.str_), **arrays)  # type: ignore[arg-type]
        arguments = [runtime, str(model), str(path), str(threads)]
        command = python_module("deployconv.runtimes.measure", *arguments)
        env = python_environment()
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout)
        except (OSError, subprocess.TimeoutExpired):
            return None
    return int(done.stdout) if done.returncode == 0 else None


def high_water() -> int:
    """Return the peak of this process's resident set, in bytes.

    On Linux ``ru_maxrss`` of a new process begins at that of its parent, so ``/proc`` is read.
    Raises OSError if the system does not report it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    if find_spec("resource") is None:
        raise OSError("this system does not tell the peak of the resident set")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main(runtime: str, model: str, feeds: str, threads: str) -> None:
    backend = get_backend(runtime)
    with np.load(feeds) as saved:
        names = saved["names"].tolist()
        arrays = {name: saved[f"feed{number}"] for number, name in enumerate(names)}
    before = high_water()
    session = backend.prepare(Path(model), threads=int(threads))
    for _ in range(_MEMORY_RUNS):
        session.timed_run(arrays)
    print(high_water() - before)


if __name__ == "__main__":
    _main(*sys.argv[1:])
