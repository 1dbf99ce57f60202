"""Run models on the workers of a Dask cluster.

A model whose worker is lost is run again by Dask, on another one. How often a model was begun is
counted at the scheduler, which outlives the workers.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from deployconv.batch.attempt import Task, attempt, lost
from deployconv.batch.jobs import Runs, Started, import_all
from deployconv.batch.remote import named_as
from deployconv.batch.sources import Source
from deployconv.errors import UsageError
from deployconv.results import ModelRun

_TRIES = 3
"""How often a model is begun whose worker is lost each time."""
_CONNECT_SECONDS = 10
"""How long the scheduler has to answer, and a worker to be there."""
_AHEAD = 4
"""Models that are submitted for each thread of the cluster: it never waits for the next one."""
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Cluster:
    """Submits models to the Dask scheduler at ``address``, a few at a time."""

    address: str
    timeout: float | None = None

    def __call__(self, task: Task, sources: Sequence[Source], started: Started) -> Runs:
        """Yield the rows as models are done. What was submitted is cancelled with the iterator.

        A model whose worker is lost is tried again twice; then its row is an error.

        Raises:
            UsageError: Dask is not installed, or no scheduler answers, or it has no worker.
        """
        dask, client = _distributed(), _connected(self.address)
        try:
            call, waiting = uuid.uuid4().hex, list(reversed(sources))
            submitted: dict[str, tuple[Source, float, _Notes]] = {}

            def submit(source: Source, notes: _Notes | None = None) -> Any:
                notes = notes or _Notes.of(f"deployconv-{call}-{source.path}", client)
                there = source.absolute()  # a worker has another folder
                worker_call = (_run_on_worker, notes.name, task, there, self.timeout)
                future = client.submit(*worker_call, pure=False)
                submitted[future.key] = source, time.monotonic(), notes
                return future

            ahead = max(1, sum(client.nthreads().values())) * _AHEAD
            running = dask.as_completed(loop=client.loop)
            while waiting or submitted:
                while waiting and len(submitted) < ahead:
                    source = waiting.pop()
                    started(source.path)
                    running.add(submit(source))
                future = next(running)
                source, since, notes = submitted.pop(future.key)
                error = future.exception()
                if isinstance(error, dask.KilledWorker):
                    # Dask suspects what waited at a lost worker, too: it may never have begun.
                    running.add(submit(source, notes))
                    continue
                notes.close()
                if error is not None:
                    message = f"{type(error).__name__} on the cluster: {error}"
                    yield lost(source, time.monotonic() - since, message)
                else:
                    run = future.result()
                    yield replace(run, path=source.path, result=named_as(source, run.result))
        finally:
            client.close()


def _distributed() -> Any:
    """Import Dask Distributed. Raises UsageError if it is not installed."""
    try:
        return import_module("distributed")
    except ImportError as error:
        raise UsageError(
            "--cluster: needs Dask Distributed: pip install 'deployconv[cluster]'"
        ) from error


def _connected(address: str) -> Any:
    """Return a client of the scheduler at ``address``."""
    try:
        client = _distributed().Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(f"--cluster {address}: no scheduler answers there: start one") from error
    try:
        client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except TimeoutError as error:
        client.close()
        raise UsageError(f"--cluster {address}: has no worker: start some") from error
    return client


@dataclass(frozen=True)
class _Notes:
    """What the scheduler knows of one model: an entry for each time it was begun, and its row.

    A row that only its worker has would be lost with the worker, and made again.
    """

    name: str
    begun: Any
    row: Any

    @classmethod
    def of(cls, name: str, client: Any) -> _Notes:
        queue = _distributed().Queue
        return cls(name, queue(name, client=client), queue(f"{name}-row", client=client))

    def close(self) -> None:
        """Give the notes up; the last one who does removes them."""
        self.begun.close()
        self.row.close()


def _run_on_worker(name: str, task: Task, source: Source, timeout: float | None) -> ModelRun:
    """Run one model on the worker that this is called on, with all threads of the worker."""
    dask = _distributed()
    with _ONE_AT_A_TIME:
        notes = _Notes.of(name, dask.get_client())
        if notes.row.qsize():
            run: ModelRun = pickle.loads(notes.row.get())
        else:
            tries = notes.begun.qsize()
            if tries >= _TRIES:
                run = lost(source, 0.0, f"its worker was lost {_TRIES} times")
            else:
                notes.begun.put(True)
                source = replace(source, again=tries > 0)
                threads = dask.get_worker().state.nthreads
                run = (
                    attempt(task, source, threads)
                    if timeout is None
                    else _run_in_a_process(task, source, threads, timeout)
                )
        notes.row.put(pickle.dumps(run))
        notes.close()
    return run


def _run_in_a_process(task: Task, source: Source, threads: int, timeout: float) -> ModelRun:
    """Run one model in a process of its own. The process of a worker may start no other kind."""
    call = pickle.dumps((task, source, threads))
    command = [sys.executable, "-m", __name__]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere) as process:
        assert process.stdout is not None
        process.stdout.read(len(_READY))  # the imports are not part of the model's time
        since = time.monotonic()
        try:
            answer, _ = process.communicate(call, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            return lost(source, timeout, f"took longer than --timeout {timeout:g} and was ended")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        message = f"its process ended early (status {process.returncode})"
        return lost(source, time.monotonic() - since, message)
    run: ModelRun = pickle.loads(answer)
    return run


_READY = b"ready"


def _main() -> None:
    """Run the model that standard input names, and write its row to standard output."""
    import_all()
    output, sys.stdout = sys.stdout.buffer, sys.stderr
    output.write(_READY)
    output.flush()
    task, source, threads = pickle.loads(sys.stdin.buffer.read())
    output.write(pickle.dumps(attempt(task, source, threads)))


if __name__ == "__main__":
    _main()
