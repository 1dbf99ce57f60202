"""``deployconv targets``: where a model can be rewritten for, and what is known of it."""

from __future__ import annotations

import click

from deployconv.cli.parameters import json_flag


@click.command
@click.argument("name", metavar="[NAME]", required=False)
@json_flag
def targets(name: str | None, json: bool) -> None:
    """List the targets, or describe one.

    NAME is a target, or a TOML file.
    """
    from deployconv import api
    from deployconv.report import console, document, targets

    found = api.list_targets(name)
    if json:
        document.write(document.of_targets(found))
    elif name is None:
        targets.print_targets(console.stdout(), found)
    else:
        targets.print_target(console.stdout(), found[0])
