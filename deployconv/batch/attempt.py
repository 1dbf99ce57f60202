"""Run the task of one model and turn whatever comes of it into a row of the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from deployconv.batch.remote import local_copy, named_as
from deployconv.batch.sources import Source
from deployconv.errors import BackendUnavailable, CheckFailed, DeployconvError
from deployconv.report.lines import failure_line
from deployconv.results import BuildReport, Inspection, ModelRun, Rewriting, Verdict

Result: TypeAlias = "Inspection | Rewriting | BuildReport"
Task = Callable[[Source, "int | None"], Result]
"""What is done with one model, on so many threads; None for all processors.

It can be pickled, to be run by another process.
"""


def attempt(task: Task, source: Source, threads: int | None = None) -> ModelRun:
    """Run ``task`` on one model; an error of any kind becomes a row.

    The rewritten model is left out of the row: those of a large folder would not fit into memory.
    """
    start = time.perf_counter()
    result: Result | None = None
    message: str | None = None
    status: Verdict = "passed"
    try:
        with local_copy(source) as here:
            result = named_as(source, task(here, threads))
        if isinstance(result, BuildReport):
            faults = [one for one in result.targets if not one.builds or one.misread]
            if faults:
                status, message = "failed", failure_line(faults[0])
    except CheckFailed as failure:
        status, message = "failed", str(failure)
        result = named_as(source, failure.result) if failure.result is not None else None
    except BackendUnavailable as missing:
        status, message = "not-run", str(missing)
    except DeployconvError as error:
        status, message = "error", str(error)
    except Exception as error:
        status, message = "error", f"internal error: {type(error).__name__}: {error}"
    if isinstance(result, Rewriting):
        result = replace(result, model=None)
    return ModelRun(source.path, status, time.perf_counter() - start, result, message)


def lost(source: Source, seconds: float, message: str) -> ModelRun:
    """Return the row of a model whose process did not return any."""
    return ModelRun(source.path, "error", seconds, None, f"{source.path}: {message}")


def result_of(run: ModelRun) -> Result:
    """Return the result of one model, or raise the error that its row tells of.

    Raises:
        CheckFailed: a check did not hold.
        BackendUnavailable: a backend is missing or cannot run the model.
        DeployconvError: the call or the model is at fault, or its process was lost.
    """
    message = run.message or run.status
    if run.status == "not-run":
        raise BackendUnavailable(message)
    if run.status == "failed" and run.rewriting is not None:
        raise CheckFailed(message, run.rewriting)
    if run.result is None:
        raise CheckFailed(message) if run.status == "failed" else DeployconvError(message)
    return run.result
