"""How fast `check` goes through a zoo of models: one process, several, and a Dask cluster.

    python scripts/bench_zoo.py                 2,000 models; --jobs 1 and 2, and a cluster of 2
    python scripts/bench_zoo.py --models 200    fewer

The models are those of ``tests/spellings``, again and again under other names. For each way it
prints models per second, how much faster it is than one process, the peak memory of the parent and
of its children in the first and in the last quarter of the run, and the overhead of the parent: the
processor time that it takes for each model besides the work on it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import deployconv
from deployconv.batch.progress import Progress
from tests.spellings.corpus import rows

_INTERVAL = 0.5
"""Seconds between two looks at the memory."""


@dataclass
class Memory:
    """The memory of this process and of all that it started, looked at from time to time."""

    megabytes: list[float] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Memory:
        threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self.megabytes.append(sum(map(_resident, _family(os.getpid()))) / 1e6)

    def quarters(self) -> tuple[float, float]:
        """The peak in the first and in the last quarter of the run, the start left out."""
        looked = self.megabytes[len(self.megabytes) // 20 :] or [0.0]
        quarter = max(1, len(looked) // 4)
        return max(looked[:quarter]), max(looked[-quarter:])


def _family(parent: int) -> list[int]:
    """A process and all that it started, at any depth."""
    parents = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            stat = (entry / "stat").read_text()
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [parent]
    for one in found:
        found += [child for child, of in parents.items() if of == one]
    return found


def _resident(process: int) -> int:
    """The bytes of memory that a process holds; 0 if it is gone."""
    with contextlib.suppress(OSError):
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


def write_zoo(folder: Path, number: int) -> None:
    """Write ``number`` models of all kinds and sizes."""
    for at, row in enumerate(islice(cycle(rows()), number)):
        place = folder / f"{at % 20:02}"
        place.mkdir(exist_ok=True)
        (place / f"{at:05}_{row.id}.onnx").write_bytes(row.data())


@contextlib.contextmanager
def cluster_of(workers: int) -> Iterator[str]:
    """A Dask cluster of processes with one thread each, on this machine; yields its address."""
    distributed: Any = import_module("distributed")
    options = {"dashboard_address": ":0", "silence_logs": 50}
    with distributed.LocalCluster(n_workers=workers, threads_per_worker=1, **options) as cluster:
        yield cluster.scheduler_address


def measure(name: str, folder: Path, alone: float | None, **options: object) -> float:
    """Run `check` on the folder, print a line, and return the models per second.

    The clock starts when the first model is done, so that the start of processes is not counted.
    """
    done: list[float] = []
    own: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.last is not None:
            done.append(time.perf_counter())
            own.append(time.process_time())

    with Memory() as memory:
        report = deployconv.check([folder], on_progress=watch, **options)  # type: ignore[arg-type]
    rate = (len(done) - 1) / (done[-1] - done[0])
    first, last = memory.quarters()
    gain = "" if alone is None else f", {rate / alone:.2f} times one process"
    overhead = (own[-1] - own[0]) / (len(done) - 1) * 1e3
    statuses = {run.status for run in report.models}
    spare = "" if name == "--jobs 1" else f", parent {overhead:.2f} ms per model"
    print(
        f"{name:12} {rate:7.1f} models/s{gain}, memory {first:.0f} MB -> {last:.0f} MB{spare} "
        f"({len(report.models)} models: {', '.join(sorted(statuses))})",
        flush=True,
    )
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-cluster", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_zoo(folder, given.models)
        alone = measure("--jobs 1", folder, None)
        measure(f"--jobs {given.jobs}", folder, alone, jobs=given.jobs)
        if not given.no_cluster:
            with cluster_of(given.jobs) as address:
                measure("--cluster", folder, alone, cluster=address)


if __name__ == "__main__":
    main()
