"""``deployconv report``: a saved JSON document as an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployconv.cli.parameters import as_path


def report(
    saved: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.json", help="What a command printed with --json.", parser=as_path
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Default: FILE.html beside it.",
            parser=as_path,
        ),
    ] = None,
) -> None:
    """Turn a saved JSON document into a report as one HTML file."""
    from deployconv.report.page.render import read, require_libraries, require_writable, write

    target = saved.with_suffix(".html") if output is None else output
    require_libraries()
    require_writable(target)
    write(target, read(saved))
    print(f"wrote {target}")
