"""The worker process that loads TensorRT, and the stages that a compilation goes through."""

from __future__ import annotations

from deployconv.results import StageName
from deployconv.runtimes.worker_process import DEFAULT_LIMITS, Limits, Worker, python_module

STAGES: tuple[StageName, ...] = ("check", "parse", "build", "deserialize", "run", "profile")


def start_worker(limits: Limits = DEFAULT_LIMITS) -> Worker:
    """Start a process that answers the requests of `worker.TensorRtAnswers`."""
    return Worker("TensorRT", python_module("deployconv.runtimes.tensorrt.worker"), limits)
