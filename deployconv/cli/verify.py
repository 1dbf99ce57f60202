"""``deployconv verify``: whether two models compute the same."""

from __future__ import annotations

from pathlib import Path

import click

from deployconv.cli.parameters import arguments, as_path, json_flag, model_from, with_options
from deployconv.cli.terminal import progress
from deployconv.errors import CheckFailed
from deployconv.options import VerifyCommand


@click.command
@click.argument("reference", metavar="REFERENCE", type=as_path)
@click.argument("candidate", metavar="CANDIDATE", type=as_path)
@with_options(VerifyCommand)
@json_flag
def verify(reference: Path, candidate: Path, options: VerifyCommand, json: bool) -> None:
    """Compare the outputs of two models on the same inputs.

    REFERENCE is the model to match, CANDIDATE the model to check. Both have the same inputs and
    outputs.
    """
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
