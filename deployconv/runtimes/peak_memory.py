"""The peak memory of a model.

The peak of a process's memory never falls, so each model is loaded and run in a process of its
own::

    python -m deployconv.runtimes.peak_memory RUNTIME MODEL FEEDS.npz THREADS
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from deployconv.options import DEFAULT_RUNTIME
from deployconv.runtimes.base import Feeds
from deployconv.runtimes.registry import get_backend
from deployconv.runtimes.worker_process import python_environment, python_module
from deployconv.temporary import temporary_folder

_RUNS = 3
"""onnxruntime takes more memory in the second run, by a plan that it makes of the first."""
_TIMEOUT = 600.0
"""Seconds that the process may take."""


def peak_memory(
    model: Path,
    feeds: Feeds,
    threads: int,
    runtime: str = DEFAULT_RUNTIME,
    timeout: float = _TIMEOUT,
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
        command = python_module("deployconv.runtimes.peak_memory", *arguments)
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
    for _ in range(_RUNS):
        session.timed_run(arrays)
    print(high_water() - before)


if __name__ == "__main__":
    _main(*sys.argv[1:])
