"""``deployconv build``: whether TensorRT takes the model, for which GPUs, and at what size."""

from __future__ import annotations

import click

from deployconv.cli.many import call, one_model, run_many
from deployconv.cli.parameters import json_flag, models_argument, with_options
from deployconv.cli.terminal import progress
from deployconv.errors import CheckFailed
from deployconv.options import BuildCommand, JobOptions


@click.command
@models_argument
@with_options(BuildCommand)
@with_options(JobOptions, "many")
@json_flag
def build(
    models: tuple[str, ...], options: BuildCommand, many: JobOptions, json: bool
) -> int | None:
    """Compile a model with TensorRT, or convert it with the toolchain of a target.

    Each MODEL is an ONNX model file, a folder of them, or a glob; - is standard input.
    """
    model = one_model(models, many)
    if model is None:
        return run_many("build", models, options, many, json=json)
    from deployconv.report import console, conversions, document
    from deployconv.report.lines import failure_line

    with progress(f"compiling {model}"):
        report = call("build", model, options, many)
    if json:
        document.write(document.of_build(report))
    elif any(built.conversion for built in report.targets):
        conversions.print_conversions(console.stdout(), report)
    else:
        console.print_build(console.stdout(), report)
    failed = next((built for built in report.targets if not built.builds or built.misread), None)
    if failed is not None:
        raise CheckFailed(f"{model}: {failure_line(failed)}")
    return None
