"""Commands on several models: progress while they run, then one table or one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deployconv.cli.parameters import arguments, model_from
from deployconv.cli.terminal import counted_progress, diagnose, warn
from deployconv.errors import Interrupted, UsageError
from deployconv.flags import Command
from deployconv.options import JobOptions

if TYPE_CHECKING:
    from deployconv.results import BatchReport


def one_model(paths: Sequence[str], many: JobOptions) -> Path | None:
    """The only model that a command is about; None if it is about several.

    Options that are for several models make it a command about several, even if they name one.
    """
    from deployconv.batch.sources import names_one_model

    if not names_one_model(paths) or _given(many, "resume") or _given(many, "cluster"):
        return None
    return Path(paths[0])


def _given(many: JobOptions, option: str) -> bool:
    return getattr(many, option, None) is not None


def call(
    command: Literal["inspect", "rewrite", "build"],
    model: Path,
    options: Command,
    many: JobOptions,
    **more: Any,
) -> Any:
    """Run a command on one model: here, or with ``--timeout`` in a process that can be ended."""
    from deployconv import api

    if many.timeout is None:
        return getattr(api, command)(model_from(model), **arguments(options), **more)
    if str(model) == "-":
        raise UsageError("--timeout: not for a model from standard input: name a file")
    return api.run_one(command, model, many.timeout, **arguments(options))


def run_many(
    command: Literal["inspect", "rewrite", "build"],
    paths: Sequence[str],
    options: Command,
    many: JobOptions,
    *,
    json: bool,
) -> int:
    """Run a command on every model, show the report, and return the exit status."""
    if "-" in paths:
        raise UsageError("-: standard input is one model: name no other")
    from deployconv import api

    given = {**arguments(options), **arguments(many)}
    try:
        with counted_progress() as shown:
            report = api.run_all(command, paths, **given, on_progress=shown)
    except Interrupted as stop:
        show(stop.report, json=json)
        raise
    return show(report, json=json)


def show(report: BatchReport, *, json: bool, rows: bool = True) -> int:
    """Print the report of several models and return the exit status.

    Warnings about a model begin with its path.

    Args:
        report: the models.
        json: whether to print the JSON document.
        rows: whether the table has not been printed yet, row by row.
    """
    from deployconv.report import console, document
    from deployconv.report.lines import batch_lines, batch_summary

    warn(report.warnings)
    for run in report.models:
        warn(f"{run.path}: {said}" for said in (run.rewriting.warnings if run.rewriting else ()))
    out = console.stdout()
    if json:
        document.write(document.of_batch(report))
    else:
        if rows:
            for run in report.models:
                console.print_run(out, run)
        console.print_lines(out, *batch_lines(report))
    if report.exit_status:
        diagnose("error", batch_summary(report))
    return report.exit_status
