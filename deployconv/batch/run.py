"""Run many models: those that an earlier run has done are not run again."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from deployconv.batch.attempt import Task
from deployconv.batch.jobs import Pool
from deployconv.batch.progress import Tracker, Watcher
from deployconv.batch.sources import Source
from deployconv.errors import Interrupted, Terminated
from deployconv.results import BatchReport, ModelRun

Done = Callable[[ModelRun], None]
"""Is told of each model as it is done."""


def run_models(
    command: str,
    options: Mapping[str, Any],
    sources: Sequence[Source],
    task: Task,
    pool: Pool,
    *,
    before: Mapping[str, ModelRun],
    on_result: Done | None = None,
    watcher: Watcher | None = None,
) -> BatchReport:
    """Run ``task`` on every model that is not in ``before``.

    Args:
        command: the name of the command, for the report.
        options: its options that are not the defaults, for the report.
        sources: the models.
        task: what is done with each.
        pool: in which processes.
        before: what an earlier run has done, by path.
        on_result: called with each row as it is known.
        watcher: told how far the run is.

    Raises:
        Interrupted: Ctrl-C or a signal ended it; its report has the models that were done.
    """
    done = dict(before)

    def report(interrupted: str | None = None) -> BatchReport:
        rows = tuple(done[source.path] for source in sources if source.path in done)
        left = tuple(source.path for source in sources if source.path not in done)
        return BatchReport(rows, command, options, interrupted, left)

    waiting = [source for source in sources if source.path not in before]
    tracker = Tracker(len(sources), watcher, Counter(run.status for run in before.values()))
    try:
        with closing(pool(task, waiting, tracker.begin)) as runs:
            for run in runs:
                done[run.path] = run
                tracker.finish(run)
                if on_result is not None:
                    on_result(run)
    except KeyboardInterrupt as stop:
        _remove_unreported(waiting, tracker)
        raise Interrupted(report(signal.SIGINT.name), signal.SIGINT) from stop
    except Terminated as stop:
        _remove_unreported(waiting, tracker)
        (number,) = stop.args
        raise Interrupted(report(number.name), number) from stop
    return report()


def _remove_unreported(sources: Sequence[Source], tracker: Tracker) -> None:
    """Remove the outputs of models that were worked on: those without a row are made again."""
    for source in sources:
        if source.path in tracker.running:
            source.remove_output()
