"""Run the models of a call in this process, or in several that can be killed.

Each process of a pool is a loky executor of its own with one worker. So a model that hangs or
brings its process down costs that process only, and it is known which model it was.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol, TypeAlias

from deployconv.batch.attempt import Task, attempt, lost
from deployconv.batch.sources import Source, is_url
from deployconv.errors import DeployconvError, Terminated
from deployconv.results import ModelRun
from deployconv.temporary import remove_abandoned


class Started(Protocol):
    """Is told which model is worked on now."""

    def __call__(self, path: str, /) -> None: ...


Runs: TypeAlias = Generator[ModelRun, None, None]
"""One row per model, in whatever order they are done. Closing it ends what was begun."""


class Pool(Protocol):
    """Runs a task on models, in some processes."""

    def __call__(self, task: Task, sources: Sequence[Source], started: Started, /) -> Runs: ...


def in_this_process(task: Task, sources: Sequence[Source], started: Started) -> Runs:
    """Run the models one after the other, here."""
    for source in sources:
        started(source.path)
        yield attempt(task, source)


@dataclass(frozen=True)
class Processes:
    """Runs up to ``jobs`` models at once, each in a process that is killed after ``timeout`` s."""

    jobs: int
    timeout: float | None = None
    threads: int | None = None
    """Threads of the runtime in each process."""

    def __call__(self, task: Task, sources: Sequence[Source], started: Started) -> Runs:
        """Yield the rows as models are done. Processes end with the iterator."""
        waiting = list(reversed(sources))
        workers = [_Worker() for _ in range(min(self.jobs, len(waiting)))]
        try:
            for worker in workers:
                worker.start()
            while any(worker.future is not None for worker in workers):
                for worker in self._ready(workers):
                    run = worker.collect(self.timeout)
                    if waiting and worker.future is None:
                        source = waiting.pop()
                        worker.submit(task, source, self.threads)
                        started(source.path)
                    if run is not None:
                        yield run
        finally:
            for worker in workers:
                worker.kill()

    def _ready(self, workers: Sequence[_Worker]) -> list[_Worker]:
        """Wait until a worker is done, was lost, or takes too long; return all that are."""
        busy = {worker.future: worker for worker in workers if worker.future is not None}
        left = None
        if self.timeout is not None:
            used = [worker.seconds for worker in busy.values() if worker.source is not None]
            left = max(0.0, self.timeout - max(used)) if used else None
        done, _ = wait(busy, timeout=left, return_when=FIRST_COMPLETED)
        late = (
            future
            for future, worker in busy.items()
            if self.timeout is not None
            and worker.source is not None
            and worker.seconds >= self.timeout
        )
        return [busy[future] for future in {*done, *late}]


def run_in_a_process(task: Task, source: Source, timeout: float) -> ModelRun:
    """Run one model in a process of its own, which is killed after ``timeout`` seconds."""
    runs = Processes(1, timeout)(task, [source], lambda path: None)
    with closing(runs):
        return next(runs)


@dataclass
class _Worker:
    """One process, and what it works on: at first on its imports, for no model."""

    source: Source | None = None
    future: Any = None
    _executor: Any = None
    _since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has worked on its model."""
        return time.monotonic() - self._since

    def start(self) -> None:
        """Start a new process."""
        from loky.process_executor import ProcessPoolExecutor

        self._executor = ProcessPoolExecutor(
            max_workers=1, initializer=_end_with_parent, initargs=(os.getpid(),)
        )
        with _without_interrupt():
            self._submit(None, import_all)

    def submit(self, task: Task, source: Source, threads: int | None) -> None:
        """Begin a model."""
        self._submit(source, _attempt, task, source, threads)

    @property
    def _folder(self) -> Path | None:
        """The folder that its model is written to, if that is on this machine."""
        output = None if self.source is None else self.source.output
        return None if output is None or is_url(output) else Path(output).parent

    def _submit(self, source: Source | None, *call: Any) -> None:
        self.source, self._since = source, time.monotonic()
        self.future = self._executor.submit(*call)

    def collect(self, timeout: float | None) -> ModelRun | None:
        """Return the row of the model that was worked on, and be free for the next one."""
        source, seconds, future = self.source, self.seconds, self.future
        error = future.exception() if future.done() else None
        if future.done() and error is None:
            self.source = self.future = None
            return future.result() if source is not None else None
        if source is None:
            raise DeployconvError(f"--jobs: a new process did not start: {error}")
        self.kill()
        self.start()
        if error is None:
            return lost(source, seconds, f"took longer than --timeout {timeout:g} and was ended")
        return lost(source, seconds, f"its process ended early ({_first_line(error)})")

    def kill(self) -> None:
        """End the process and what it started."""
        if self._executor is None:
            return
        executor, self._executor = self._executor, None
        processes = list(executor._processes.values())
        for process in processes:
            process.terminate()  # it removes its temporary folders
        for process in processes:
            process.join(_GRACE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            executor.shutdown(wait=True, kill_workers=True)
        if self._folder is not None:
            remove_abandoned(self._folder)


_GRACE = 2.0
"""Seconds that a process has to end by itself."""


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def _without_interrupt() -> Iterator[None]:
    """Block SIGINT, also in processes started meanwhile: Ctrl-C is for this process alone."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(parent: int) -> None:
    """End this process when its parent is gone, which may have been killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def import_all() -> None:
    """Import what every model needs, so that no model's time includes it."""
    import deployconv.proof.parity
    import deployconv.rewriting  # noqa: F401


def _attempt(task: Task, source: Source, threads: int | None) -> ModelRun:
    """Run one model; on SIGTERM remove its temporary folders, and end this process."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        raise Terminated(signal.Signals(number))

    before = signal.signal(signal.SIGTERM, end)
    try:
        return attempt(task, source, threads)
    except Terminated:
        os._exit(1)  # an exception would only be the result of this model
    finally:
        signal.signal(signal.SIGTERM, before)
