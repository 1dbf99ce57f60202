"""Time sessions in turns in one process, so that a drift of the machine's speed affects all alike.

A deployed model runs again and again. A run that comes after another model's finds the caches full
of that model's data. If that model took long, a virtual machine may have taken this model's memory
away, and the next run takes up to five times as long. Such a run is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import inf

from deployconv.runtimes.base import Feeds, Session

_SECONDS = 2.0
_WARMUP = 2
_FEWEST_RUNS = 5
_MOST_RUNS = 200
_COUNTED_RUNS = 2
"""Runs of one turn that are counted."""
_UNCOUNTED_RUNS = 0.5
"""Runs of one turn that are not, on average: of two sessions, each has every other turn right after
its own last one."""
_SHORT_WAIT = 0.25
"""A wait of up to this part of its own run does not slow a session down."""


def time_interleaved(
    sessions: Sequence[Session],
    feeds: Feeds,
    runs: int | None = None,
    seconds: float = _SECONDS,
    warmup: int = _WARMUP,
) -> list[list[float]]:
    """Time each run of each session, in turns: A B, B A, A B, ...

    Reversing every other round cancels a linear drift, such as a processor that warms up. A turn is
    two runs, after one that is not counted if the session had to wait for others.

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
    if runs is None:
        runs = runs_within(seconds, elapsed, _FEWEST_RUNS, _MOST_RUNS)
    return take_turns(sessions, feeds, runs)


def warm_up(sessions: Sequence[Session], feeds: Feeds, runs: int) -> float:
    """Run each session at least once; return the milliseconds of their last runs together."""
    elapsed = 0.0
    for session in sessions:
        for _ in range(max(runs, 1)):
            last = _milliseconds(session, feeds)
        elapsed += last
    return elapsed


def runs_within(seconds: float, elapsed: float, fewest: int, most: int) -> int:
    """How many runs of each session ``seconds`` allow if one of each takes ``elapsed`` ms."""
    each = elapsed * (1 + _UNCOUNTED_RUNS / _COUNTED_RUNS)
    return round(min(max(1e3 * seconds / max(each, 1e-3), fewest), most))


def take_turns(sessions: Sequence[Session], feeds: Feeds, runs: int) -> list[list[float]]:
    """Time ``runs`` runs of each session in turns, see `time_interleaved`."""
    times: list[list[float]] = [[] for _ in sessions]
    own = [0.0] * len(sessions)
    waited = [inf if len(sessions) > 1 else 0.0] * len(sessions)
    order = list(range(len(sessions)))

    def run(at: int) -> float:
        own[at] = _milliseconds(sessions[at], feeds)
        for other in range(len(sessions)):
            waited[other] = 0.0 if other == at else waited[other] + own[at]
        return own[at]

    for first in range(0, runs, _COUNTED_RUNS):
        for at in order:
            if waited[at] > _SHORT_WAIT * own[at]:
                run(at)
            counted = min(_COUNTED_RUNS, runs - first)
            times[at] += [run(at) for _ in range(counted)]
        order.reverse()
    return times


def _milliseconds(session: Session, feeds: Feeds) -> float:
    start = time.perf_counter()
    measured = session.timed_run(feeds)
    return measured if measured is not None else 1e3 * (time.perf_counter() - start)
