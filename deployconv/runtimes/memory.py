"""Peak memory of a model: the high water of a process that does nothing else.

High water never falls, so each model is loaded and run in a process of its own::

    python -m deployconv.runtimes.memory RUNTIME MODEL FEEDS.npz THREADS
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from deployconv.runtimes.base import Feeds
from deployconv.runtimes.registry import DEFAULT_RUNTIME, get_backend

_RUNS = 3
"""The first run takes what it needs; the second what the memory pattern of the first needs."""
_LONGEST = 600.0
"""Seconds that the process may take."""


def peak_memory(
    model: Path, feeds: Feeds, threads: int, runtime: str = DEFAULT_RUNTIME
) -> int | None:
    """Bytes that loading ``model`` and running it on ``feeds`` takes at the most.

    ``runtime`` is a name of `registry.RUNTIMES` whose row says ``measures_memory``.

    None where that cannot be told: on a system that does not say it, for inputs that NumPy does
    not save, or where the process fails.
    """
    with tempfile.TemporaryDirectory(prefix="deployconv-") as folder:
        path = Path(folder) / "feeds.npz"
        # By number: savez has parameters of its own, and a name may be anything.
        arrays = {f"feed{number}": array for number, array in enumerate(feeds.values())}
        np.savez(path, names=np.array(list(feeds), np.str_), **arrays)  # type: ignore[arg-type]
        arguments = [runtime, str(model), str(path), str(threads)]
        command = [sys.executable, "-m", __name__, *arguments]
        # It imports what this process would, however that was arranged.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=env, timeout=_LONGEST
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
    return int(done.stdout) if done.returncode == 0 else None


def high_water() -> int:
    """Peak of this process's resident set, in bytes.

    On Linux a new process starts with ``ru_maxrss`` of the one that started it; what
    ``/proc`` says is its own. Raises OSError where the system does not tell.
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
