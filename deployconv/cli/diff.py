"""``deployconv diff``: what differs between two models."""

from __future__ import annotations

from pathlib import Path

import click

from deployconv.cli.parameters import as_path, json_flag, model_from


@click.command
@click.argument("before", metavar="A", type=as_path)
@click.argument("after", metavar="B", type=as_path)
@json_flag
def diff(before: Path, after: Path, json: bool) -> int:
    """Show the nodes, the weights and the interface that differ between two models.

    Ends with status 0 if the models are equal, with 1 if they differ.
    """
    from deployconv import api
    from deployconv.report import console, document
    from deployconv.report.lines import difference_lines

    found = api.diff(model_from(before), model_from(after))
    if json:
        document.write(document.of_difference(found))
    else:
        console.print_lines(console.stdout(), *difference_lines(found))
    return 0 if found.equal else 1
