"""``deployconv inspect``: which upsampling layers a model has, and what rewrite would do."""

from __future__ import annotations

import click

from deployconv.cli.many import call, one_model, run_many
from deployconv.cli.parameters import json_flag, models_argument, with_options
from deployconv.cli.terminal import progress
from deployconv.options import InspectCommand, JobOptions


@click.command
@models_argument
@with_options(InspectCommand)
@with_options(JobOptions, "many")
@json_flag
def inspect(
    models: tuple[str, ...], options: InspectCommand, many: JobOptions, json: bool
) -> int | None:
    """List the upsampling layers and what rewrite would do.

    Each MODEL is an ONNX model file, a folder of them, or a glob; - is standard input.
    """
    model = one_model(models, many)
    if model is None:
        return run_many("inspect", models, options, many, json=json)
    from deployconv.report import console, document

    with progress(f"reading {model}"):
        inspection = call("inspect", model, options, many)
    if json:
        document.write(document.of_inspection(inspection))
    else:
        console.print_inspection(console.stdout(), inspection)
    return None
