"""What goes to standard error: one-line diagnostics, and progress where someone is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from deployconv.report.lines import one_line


def diagnose(kind: str, message: str) -> None:
    """Print ``deployconv: KIND: MESSAGE`` as exactly one line, however long."""
    print(f"deployconv: {kind}: {one_line(message)}", file=sys.stderr, flush=True)


def warn(messages: Iterable[str]) -> None:
    """Print each message as a warning."""
    for message in messages:
        diagnose("warning", message)


@contextmanager
def progress(message: str) -> Iterator[Callable[[float], None]]:
    """Show a spinner while the body runs, on a terminal only.

    Yields a function for the part that is done, 0 to 1: from its first call on there is a bar
    with the time left. The body must not print: meanwhile Rich sends standard output its own
    way.
    """
    if not sys.stderr.isatty():
        yield lambda part: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(one_line(message), total=None)
        yield lambda part: bar.update(task, total=1.0, completed=part)
