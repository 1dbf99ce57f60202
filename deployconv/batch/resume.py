"""Go on with an interrupted run: which models its JSON document shows to be done."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deployconv.batch.sources import Source, is_url
from deployconv.errors import UsageError
from deployconv.report.read_back import read_batch
from deployconv.results import ModelRun


def done_before(
    path: Path, command: str, options: Mapping[str, Any], sources: Sequence[Source]
) -> dict[str, ModelRun]:
    """Return the rows of a document that need not be made again, by the path of the model.

    A row is made again if its model file is another one now, or if what was written is gone.

    Raises:
        UsageError: the file cannot be read, or is from another command or other options.
    """
    report = read_batch(path, "--resume")
    if report.command != command:
        raise UsageError(f"--resume {path}: is from deployconv {report.command}, not {command}")
    if report.options != options:
        changed = [
            name
            for name in sorted({*report.options, *options})
            if report.options.get(name) != options.get(name)
        ]
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise UsageError(f"--resume {path}: was made with another {flags}: give the same options")
    named = {source.path for source in sources}
    return {run.path: run for run in report.models if run.path in named and _holds(run)}


def _holds(run: ModelRun) -> bool:
    result = run.result
    if result is None or is_url(run.path):
        return True
    output = run.rewriting.output if run.rewriting is not None else None
    if output is not None and not is_url(output.path) and not Path(output.path).exists():
        return False
    try:
        return hashlib.sha256(Path(run.path).read_bytes()).hexdigest() == result.source.sha256
    except OSError:
        return False
