"""``deployconv report``: a saved JSON document as an HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from deployconv.cli.parameters import as_path


@click.command
@click.argument("saved", metavar="FILE.json", type=as_path)
@click.option(
    "--output", "-o", metavar="OUT", type=as_path, help="Default: FILE.html beside FILE.json."
)
def report(saved: Path, output: Path | None) -> None:
    """Turn a saved JSON document into a report as one HTML file.

    FILE.json is what a command printed with --json.
    """
    from deployconv.report.document import read_document
    from deployconv.report.page.render import require_libraries, require_writable, write

    target = saved.with_suffix(".html") if output is None else output
    require_libraries()
    require_writable(target)
    write(target, read_document(saved, str(saved), "deployconv --json"))
    print(f"wrote {target}")
