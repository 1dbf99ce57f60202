"""Write the report of a call as an HTML page, and show results in notebooks."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from deployconv.errors import UsageError
from deployconv.results import Displayed, Inspection, Parity, Rewriting


def check_report(path: Path | None) -> None:
    """Raise UsageError before any work if a report cannot be drawn or written."""
    if path is not None:
        from deployconv.report.page.render import require_libraries, require_writable

        require_libraries()
        require_writable(path)


def write_report(path: Path, document: dict[str, Any]) -> None:
    """Render a document as one HTML file."""
    from deployconv.report.page.render import write

    write(path, document)


def drawn(result: Displayed) -> str | None:
    """Return a result as HTML for a notebook; None if a library that draws it is missing."""
    from deployconv.report.document import of_inspection, of_rewriting, of_verification
    from deployconv.report.page.render import embedded

    with suppress(UsageError):
        if isinstance(result, Inspection):
            return embedded(of_inspection(result))
        if isinstance(result, Rewriting):
            return embedded(of_rewriting(result))
        if isinstance(result, Parity):
            return embedded(of_verification([result]))
    return None
