"""``deployconv inspect``: what is in the model and what would become of it."""

from __future__ import annotations

from typing import Annotated

import typer

from deployconv.cli.parameters import Json, Model
from deployconv.cli.terminal import progress


def inspect(
    model: Model,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="dla",
            help="Say of each layer what keeps it off the DLA of a Jetson, as exported and "
            "rewritten, as NVIDIA documents it.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the upsampling layers and what rewrite would do."""
    from deployconv import api
    from deployconv.report import console, document

    with progress(f"reading {model}"):
        inspection = api.inspect(model, target=target)
    if json:
        document.write(document.of_inspection(inspection))
    else:
        console.print_inspection(console.stdout(), inspection)
