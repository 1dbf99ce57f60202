"""``deployconv targets``: where a model can be rewritten for, and what is known of it."""

from __future__ import annotations

from typing import Annotated

import typer

from deployconv.cli.parameters import Json
from deployconv.cli.terminal import progress


def targets(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A target, or a TOML file. Default: list all."),
    ] = None,
    json: Json = False,
) -> None:
    """List the targets, or say what is known of one."""
    from deployconv import api
    from deployconv.report import console, document, targets

    with progress("reading targets"):
        found = api.targets(name)
    if json:
        document.write(document.of_targets(found))
    elif name is None:
        targets.print_targets(console.stdout(), found)
    else:
        targets.print_target(console.stdout(), found[0])
