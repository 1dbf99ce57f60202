"""The worker process that loads TensorRT, and the stages that a compilation goes through."""

from __future__ import annotations

from functools import partial

from deployconv.results import StageName
from deployconv.runtimes.worker_process import (
    DEFAULT_LIMITS,
    Limits,
    RestartingWorker,
    Worker,
    python_module,
)

STAGES: tuple[StageName, ...] = ("check", "parse", "build", "deserialize", "run", "profile")


def tensorrt_worker(limits: Limits = DEFAULT_LIMITS) -> RestartingWorker:
    """Return a worker that answers the requests of `worker.TensorRtAnswers`."""
    command = python_module("deployconv.runtimes.tensorrt.worker")
    return RestartingWorker(partial(Worker, "TensorRT", command, limits))
