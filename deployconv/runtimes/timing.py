"""Time sessions in turns in one process, so that a drift of the machine's speed affects all alike.

A deployed model runs again and again, so a run that finds the caches full of another model's data
is not counted: it may take a quarter longer, or less, than one after a run of the same model.
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
"""Milliseconds: for a shorter run it matters what the caches hold when it begins."""
_COUNTED_RUNS = 2
"""How many runs are counted after one that is not, if runs are brief."""


def time_interleaved(
    sessions: Sequence[Session],
    feeds: Feeds,
    runs: int | None = None,
    seconds: float = _SECONDS,
    warmup: int = _WARMUP,
) -> list[list[float]]:
    """Time each run of each session, in turns: A B, B A, A B, ...

    Reversing every other round cancels a linear drift, such as a processor that warms up. If runs
    are brief, a turn is one run that is not counted and two that are.

    Args:
        sessions: all take ``feeds``.
        feeds: the same arrays for every run.
        runs: how many of each session; default: what ``seconds`` allow, but 5 to 200.
        seconds: for all sessions together, used without ``runs``.
        warmup: runs of each session before the first that counts, at least one.

    Returns:
        Milliseconds: one list per session, all of one length. The i-th entries were taken one
        right after the other.
    """
    elapsed = warm_up(sessions, feeds, warmup)
    brief = is_brief(sessions, elapsed)
    if runs is None:
        runs = runs_within(seconds, elapsed, brief, _FEWEST_RUNS, _MOST_RUNS)
    return take_turns(sessions, feeds, runs, brief)


def warm_up(sessions: Sequence[Session], feeds: Feeds, runs: int) -> float:
    """Run each session at least once; return the milliseconds of their last runs together."""
    elapsed = 0.0
    for session in sessions:
        for _ in range(max(runs, 1)):
            last = _milliseconds(session, feeds)
        elapsed += last
    return elapsed


def is_brief(sessions: Sequence[Session], elapsed: float) -> bool:
    """Whether runs are so short that it matters what the caches hold when they begin."""
    return elapsed < _BRIEF * len(sessions)


def runs_within(seconds: float, elapsed: float, brief: bool, fewest: int, most: int) -> int:
    """How many runs of each session ``seconds`` allow if one of each takes ``elapsed`` ms."""
    turn = _COUNTED_RUNS if brief else 1
    each = elapsed * (turn + brief) / turn
    return round(min(max(1e3 * seconds / max(each, 1e-3), fewest), most))


def take_turns(
    sessions: Sequence[Session], feeds: Feeds, runs: int, brief: bool
) -> list[list[float]]:
    """Time ``runs`` runs of each session in turns, see `time_interleaved`."""
    turn = _COUNTED_RUNS if brief else 1
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
