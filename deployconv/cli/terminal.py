"""What is written to standard error: one-line diagnostics, and progress on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from deployconv.report.lines import one_line

if TYPE_CHECKING:
    from deployconv.batch.progress import Progress as Counts
    from deployconv.batch.progress import Watcher

LINE_SECONDS = 10.0
"""How often a line tells how far a long run is, where there is no terminal."""


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


@contextmanager
def counted_progress(lines: bool = True) -> Iterator[Watcher]:
    """Show how many of several models are done while the body runs.

    On a terminal that is a bar with the counts, the model that is worked on and the time left.
    Elsewhere it is one line from time to time, if ``lines`` are wanted. The body must not print to
    a terminal.
    """
    if not sys.stderr.isatty():
        yield _Lines() if lines else lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn())
    text = TextColumn("{task.description}", markup=False)
    with Progress(*columns, text, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None)

        def show(progress: Counts) -> None:
            run = progress.last
            if run is not None and run.status != "passed":
                where = f"{run.status:<8}{one_line(run.path)}"
                console.print(where, markup=False, highlight=False, soft_wrap=True)
            described = _described(progress)
            bar.update(task, total=progress.total, completed=progress.done, description=described)

        yield show


class _Lines:
    """Prints now and then a line on how far a run is."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, progress: Counts) -> None:
        now = time.monotonic()
        if progress.last is None or now - self._last < LINE_SECONDS:
            return
        self._last = now
        counts = f"{progress.done} of {progress.total} models done"
        line = ", ".join((counts, _described(progress)))
        print(f"deployconv: {line}", file=sys.stderr, flush=True)


def _described(progress: Counts) -> str:
    """The counts by verdict, the time left, and the models that are worked on."""
    faults = (f"{n} {name}" for name, n in progress.verdicts.items() if name != "passed")
    left = progress.seconds_left
    clock = None if left is None else f"{timedelta(seconds=round(left))} left"
    return ", ".join(filter(None, (*faults, clock, *map(one_line, progress.running))))
