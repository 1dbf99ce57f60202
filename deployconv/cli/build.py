"""``deployconv build``: whether TensorRT takes the model, for which GPUs, and at what size."""

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
from deployconv.errors import CheckFailed
from deployconv.options import BuildCommand


@click.command
@model_argument
@with_options(BuildCommand)
@json_flag
def build(model: Path, options: BuildCommand, json: bool) -> None:
    """Compile a model with TensorRT, or convert it with the toolchain of a target.

    MODEL is an ONNX model file, or - for standard input.
    """
    from deployconv import api
    from deployconv.report import console, conversions, document
    from deployconv.report.lines import failure_line

    with progress(f"compiling {model}"):
        report = api.build(model_from(model), **arguments(options))
    if json:
        document.write(document.of_build(report))
    elif any(built.conversion for built in report.targets):
        conversions.print_conversions(console.stdout(), report)
    else:
        console.print_build(console.stdout(), report)
    failed = next((built for built in report.targets if not built.builds or built.misread), None)
    if failed is not None:
        raise CheckFailed(f"{model}: {failure_line(failed)}")
