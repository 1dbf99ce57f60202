"""``deployconv check``: rewrite and prove many models, as a gate for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployconv.cli.parameters import Json, arguments, as_path, with_options
from deployconv.cli.terminal import diagnose
from deployconv.errors import UsageError
from deployconv.options import CheckCommand

if TYPE_CHECKING:
    from deployconv.results import ModelCheck


@with_options(CheckCommand)
def check(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Models, or folders that are searched for them.", parser=as_path
        ),
    ],
    options: CheckCommand,
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit",
            metavar="FILE.xml",
            help="Write a JUnit XML report as well.",
            parser=as_path,
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Rewrite and prove models in memory, as a test in CI."""
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

    report = api.check(paths, **arguments(options), on_result=on_result)
    if junit is not None:
        write_junit(report, junit)
    if json:
        document.write(document.of_check(report))
    else:
        console.print_lines(out, check_summary(report))
    if report.exit_status:
        diagnose("error", check_summary(report))
    return report.exit_status
