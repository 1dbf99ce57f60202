"""``deployconv inspect``: which upsampling layers a model has, and what rewrite would do."""

from __future__ import annotations

from deployconv.cli.parameters import Json, Model, arguments, model_from, with_options
from deployconv.cli.terminal import progress
from deployconv.options import InspectCommand


@with_options(InspectCommand)
def inspect(model: Model, options: InspectCommand, json: Json = False) -> None:
    """List the upsampling layers and what rewrite would do."""
    from deployconv import api
    from deployconv.report import console, document

    with progress(f"reading {model}"):
        inspection = api.inspect(model_from(model), **arguments(options))
    if json:
        document.write(document.of_inspection(inspection))
    else:
        console.print_inspection(console.stdout(), inspection)
