"""``deployconv check``: rewrite and prove many models, as a gate for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deployconv.cli.parameters import arguments, as_path, json_flag, with_options
from deployconv.cli.terminal import diagnose
from deployconv.errors import UsageError
from deployconv.options import CheckCommand

if TYPE_CHECKING:
    from deployconv.results import ModelCheck


@click.command
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=as_path)
@with_options(CheckCommand)
@click.option("--junit", metavar="FILE.xml", type=as_path, help="Write a JUnit XML report as well.")
@json_flag
def check(paths: tuple[Path, ...], options: CheckCommand, junit: Path | None, json: bool) -> int:
    """Rewrite and prove models in memory, as a test in CI.

    Each PATH is a model, or a folder that is searched for models.
    """
    if junit is not None and not junit.parent.is_dir():
        raise UsageError(f"--junit {junit}: there is no folder {junit.parent}; create it first")
    from deployconv import api
    from deployconv.report import console, document
    from deployconv.report.junit import write_junit
    from deployconv.report.lines import check_summary

    out = console.stdout()

    def on_result(result: ModelCheck) -> None:
        if not json:
            console.print_check(out, result)

    report = api.check(list(paths), **arguments(options), on_result=on_result)
    if junit is not None:
        write_junit(report, junit)
    if json:
        document.write(document.of_check(report))
    else:
        console.print_lines(out, check_summary(report))
    if report.exit_status:
        diagnose("error", check_summary(report))
    return report.exit_status
