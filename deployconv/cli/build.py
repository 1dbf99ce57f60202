"""``deployconv build``: whether TensorRT takes the model, for which GPUs, and at what size."""

from __future__ import annotations

from deployconv.cli.many import Models, call, one_model, run_many
from deployconv.cli.parameters import Json, with_options
from deployconv.cli.terminal import progress
from deployconv.errors import CheckFailed
from deployconv.options import BuildCommand, JobOptions


@with_options(JobOptions, "many")
@with_options(BuildCommand)
def build(
    models: Models, options: BuildCommand, many: JobOptions, json: Json = False
) -> int | None:
    """Compile a model with TensorRT."""
    model = one_model(models, many)
    if model is None:
        return run_many("build", models, options, many, json=json)
    from deployconv.report import console, document
    from deployconv.report.lines import failure_line

    with progress(f"compiling {model}"):
        report = call("build", model, options, many)
    if json:
        document.write(document.of_build(report))
    else:
        console.print_build(console.stdout(), report)
    failed = next((built for built in report.targets if not built.builds), None)
    if failed is not None:
        raise CheckFailed(f"{model}: {failure_line(failed)}")
    return None
