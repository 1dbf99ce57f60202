"""``deployconv verify``: whether two models compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployconv.cli.parameters import Json, arguments, as_path, model_from, with_options
from deployconv.cli.terminal import progress
from deployconv.errors import CheckFailed
from deployconv.options import VerifyCommand


@with_options(VerifyCommand)
def verify(
    reference: Annotated[
        Path,
        typer.Argument(metavar="REFERENCE", help="The model to match.", parser=as_path),
    ],
    candidate: Annotated[
        Path,
        typer.Argument(
            metavar="CANDIDATE",
            help="The model to check; the same inputs, outputs.",
            parser=as_path,
        ),
    ],
    options: VerifyCommand,
    json: Json = False,
) -> None:
    """Compare the outputs of two models on the same inputs."""
    from deployconv import api
    from deployconv.report import console, document
    from deployconv.report.lines import parity_line

    with progress(f"comparing {candidate} with {reference}"):
        checks = api.verify(model_from(reference), model_from(candidate), **arguments(options))
    if json:
        document.write(document.of_verification(checks))
    else:
        console.print_parity(console.stdout(), checks)
    failed = [check for check in checks if not check.passed]
    if failed:
        raise CheckFailed(f"{candidate} against {reference}: {parity_line(failed[0])}")
