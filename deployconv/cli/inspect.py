"""``deployconv inspect``: what is in the model and what would become of it."""

from __future__ import annotations

from deployconv.cli.parameters import Json, Model
from deployconv.cli.terminal import progress


def inspect(model: Model, json: Json = False) -> None:
    """List the upsampling layers and what rewrite would do."""
    from deployconv import api
    from deployconv.report import console, document

    with progress(f"reading {model}"):
        inspection = api.inspect(model)
    if json:
        document.write(document.of_inspection(inspection))
    else:
        console.print_inspection(console.stdout(), inspection)
