"""``deployconv inspect``: which upsampling layers a model has, and what rewrite would do."""

from __future__ import annotations

from pathlib import Path

import click

from deployconv.cli.parameters import (
    arguments,
    json_flag,
    model_argument,
    model_from,
    with_options,
)
from deployconv.cli.terminal import progress
from deployconv.options import InspectCommand


@click.command
@model_argument
@with_options(InspectCommand)
@json_flag
def inspect(model: Path, options: InspectCommand, json: bool) -> None:
    """List the upsampling layers and what rewrite would do.

    MODEL is an ONNX model file, or - for standard input.
    """
    from deployconv import api
    from deployconv.report import console, document

    with progress(f"reading {model}"):
        inspection = api.inspect(model_from(model), **arguments(options))
    if json:
        document.write(document.of_inspection(inspection))
    else:
        console.print_inspection(console.stdout(), inspection)
