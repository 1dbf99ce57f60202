"""What goes to standard error: one-line diagnostics, and progress where someone is looking."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from deployconv.report.text import one_line


def diagnose(kind: str, message: str) -> None:
    """Print ``deployconv: KIND: MESSAGE`` as exactly one line, however long."""
    print(f"deployconv: {kind}: {one_line(message)}", file=sys.stderr, flush=True)


def warn(messages: Iterable[str]) -> None:
    """Print each message as a warning."""
    for message in messages:
        diagnose("warning", message)


@contextmanager
def progress(message: str) -> Iterator[None]:
    """Show a spinner while the body runs, on a terminal only.

    The body must not print: while the spinner turns, Rich sends standard output its own way.
    """
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(one_line(message))):
        yield
