"""What is written to standard error: one-line diagnostics, and progress on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from deployconv.report.lines import one_line


def diagnose(kind: str, message: str) -> None:
    """Print ``deployconv: KIND: MESSAGE`` as exactly one line of any length."""
    print(f"deployconv: {kind}: {one_line(message)}", file=sys.stderr, flush=True)


def warn(messages: Iterable[str]) -> None:
    """Print each message as a warning."""
    for message in messages:
        diagnose("warning", message)


@contextmanager
def progress(message: str) -> Iterator[Callable[[float], None]]:
    """Show a spinner while the body runs, on a terminal only.

    Yields a function that takes the part that is done, 0 to 1; its first call turns the spinner
    into a bar with the time left. The body must not print, as Rich redirects standard output.
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
