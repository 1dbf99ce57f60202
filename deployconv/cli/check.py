"""``deployconv check``: rewrite and prove many models, as a gate for CI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployconv.cli.many import show
from deployconv.cli.parameters import arguments, as_path, as_text, json_flag, with_options
from deployconv.cli.terminal import counted_progress
from deployconv.errors import Interrupted
from deployconv.options import CheckCommand

if TYPE_CHECKING:
    from deployconv.results import BatchReport, ModelRun


@click.command
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=as_text)
@with_options(CheckCommand)
@click.option("--junit", metavar="FILE.xml", type=as_path, help="Write a JUnit XML report as well.")
@json_flag
def check(paths: tuple[str, ...], options: CheckCommand, junit: Path | None, json: bool) -> int:
    """Rewrite and prove models in memory, as a test in CI.

    Each PATH is a model, a folder that is searched for models, or a glob.
    """
    if junit is not None:
        from deployconv.temporary import check_report_path

        check_report_path(junit, f"--junit {junit}", "name a file that ends in .xml")
    from deployconv import api
    from deployconv.report import console

    # Rows appear as models are done, unless a bar of progress is on the same terminal.
    rows = not json and not sys.stdout.isatty()

    def on_result(run: ModelRun) -> None:
        if rows:
            console.print_run(None, run)

    try:
        with counted_progress(lines=not rows) as shown:
            report = api.check(paths, **arguments(options), on_result=on_result, on_progress=shown)
    except Interrupted as stop:
        _write_junit(stop.report, junit)
        show(stop.report, json=json, rows=not rows)
        raise
    _write_junit(report, junit)
    return show(report, json=json, rows=not rows)


def _write_junit(report: BatchReport, junit: Path | None) -> None:
    if junit is not None:
        from deployconv.report.junit import write_junit

        write_junit(report, junit)
