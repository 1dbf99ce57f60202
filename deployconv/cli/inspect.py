"""``deployconv inspect``: which upsampling layers a model has, and what rewrite would do."""

from __future__ import annotations

from deployconv.cli.many import Models, call, one_model, run_many
from deployconv.cli.parameters import Json, with_options
from deployconv.cli.terminal import progress
from deployconv.options import InspectCommand, JobOptions


@with_options(JobOptions, "many")
@with_options(InspectCommand)
def inspect(
    models: Models, options: InspectCommand, many: JobOptions, json: Json = False
) -> int | None:
    """List the upsampling layers and what rewrite would do."""
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
