"""Sessions timed in turns in one process, so that what drifts drifts for all.

A model runs again and again where it is deployed, so a run that finds the caches full of another
model's data is not counted: it may take a quarter longer, or shorter, than one behind its like.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from deployconv.runtimes.base import Feeds, Session

_SECONDS = 2.0
_WARMUP = 2
_FEWEST_RUNS = 5
_MOST_RUNS = 200
_BRIEF = 20.0
"""Milliseconds of a run for which it matters what the caches hold when it begins."""
_TURN = 2
"""Runs that are counted behind one that is not."""


def time_interleaved(
    sessions: Sequence[Session],
    feeds: Feeds,
    runs: int | None = None,
    seconds: float = _SECONDS,
    warmup: int = _WARMUP,
) -> list[list[float]]:
    """Milliseconds of each run of each session, taken in turns: A B, B A, A B, ...

    Reversing every other round cancels a linear drift, such as a processor that warms up. Where
    runs are brief, a turn is one run that is not counted and two that are.

    Args:
        sessions: all take ``feeds``.
        feeds: the same arrays for every run.
        runs: of each session; default: what ``seconds`` allow, but 5 to 200.
        seconds: for all sessions together, used without ``runs``.
        warmup: runs of each session that are not counted, at least one.

    Returns:
        One list per session, all of one length: the i-th entries were taken side by side.
    """
    elapsed = 0.0
    for session in sessions:
        for _ in range(max(warmup, 1)):
            last = _milliseconds(session, feeds)
        elapsed += last
    brief = elapsed < _BRIEF * len(sessions)
    turn = _TURN if brief else 1
    if runs is None:
        each = elapsed * (turn + brief) / turn
        runs = round(min(max(1e3 * seconds / max(each, 1e-3), _FEWEST_RUNS), _MOST_RUNS))
    times: list[list[float]] = [[] for _ in sessions]
    turns = list(zip(sessions, times, strict=True))
    for first in range(0, runs, turn):
        for session, taken in turns:
            if brief:
                _milliseconds(session, feeds)
            taken += [_milliseconds(session, feeds) for _ in range(first, min(first + turn, runs))]
        turns.reverse()
    return times


def _milliseconds(session: Session, feeds: Feeds) -> float:
    start = time.perf_counter()
    measured = session.timed_run(feeds)
    return measured if measured is not None else 1e3 * (time.perf_counter() - start)
