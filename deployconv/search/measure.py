"""Interleaved timing of several sessions against the first of them.

All sessions run in turns on the same inputs. Each run of a session is compared with the run of the
first session in the same turn: what slows the machine for a moment slows both, and their ratio
stays.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, log, sqrt

import numpy as np

from deployconv.runtimes.base import Array, Feeds, Session
from deployconv.runtimes.timing import take_turns

MARGIN = 0.01
"""A gain below this is not worth another graph."""
_FIRST_ROUNDS = 2
"""Rounds before the first evaluation."""
FIRST_RUNS = _FIRST_ROUNDS + 1
"""The runs of each session until then."""
_STUDENT = {2: 12.7, 3: 4.3, 4: 3.18, 5: 2.78}
"""Half width of the 95 % confidence interval of a mean of so many values, in standard errors."""
_WIDEST = 10.0
"""Few runs say little; the interval reaches at most this factor to either side."""
_BLOCKS = 12
"""Ratios of so many rounds or more are taken in so many blocks: neighbours are not independent."""
_ROUNDS = 6
"""Rounds between two later evaluations: the fewest that give a 95 % interval of the median."""
_ENOUGH = 12
"""Rounds that distinguish small gains from noise; fewer if the time is short."""
_NARROW = 0.01
"""An interval of this width, relative to 1, needs no more rounds."""
_FAR_SLOWER = 0.8
"""A session whose ratios are all below this is dropped at once if runs take long."""


@dataclass(frozen=True)
class Timing:
    """The time of one session, and how many times as fast as the first session it is.

    Attributes:
        median_ms: median of its runs, in milliseconds.
        ratio: time of the first session divided by its own, the median over the turns.
        low: lower end of the 95 % confidence interval of the ratio: of the median of six ratios or
            more, of the mean of fewer.
        high: upper end of that interval.
    """

    median_ms: float
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, own: Sequence[float], first: Sequence[float]) -> Timing:
        """Compare runs with those of the first session in the same turns, all in milliseconds.

        The interval comes from order statistics. At least two turns are needed.
        """
        ratios = np.divide(first, own)
        median_ms, ratio = float(np.median(own)), float(np.median(ratios))
        if len(ratios) in _STUDENT:
            logs = np.log(ratios)
            error = float(logs.std(ddof=1)) / sqrt(len(logs))
            middle, half = float(logs.mean()), min(_STUDENT[len(logs)] * error, log(_WIDEST))
            low, high = exp(middle - half), exp(middle + half)
            return cls(median_ms, ratio, min(low, ratio), max(high, ratio))
        if len(ratios) >= 2 * _BLOCKS:
            ratios = np.array([np.median(block) for block in np.array_split(ratios, _BLOCKS)])
        ordered = np.sort(ratios)
        # The number of ratios below the true median is binomial with probability 1/2.
        begin = max(0, floor(len(ordered) / 2 - 0.98 * sqrt(len(ordered)) - 0.5))
        low, high = ordered[begin], ordered[len(ordered) - 1 - begin]
        return cls(median_ms, ratio, min(float(low), ratio), max(float(high), ratio))

    @property
    def faster(self) -> bool:
        """Whether it is faster than the first with 95 % confidence."""
        return self.low > 1.0

    @property
    def slower(self) -> bool:
        """Whether it is slower than the first with 95 % confidence."""
        return self.high < 1.0

    @property
    def narrow(self) -> bool:
        """Whether the ratio is known so well that more rounds would add nothing."""
        return self.high - self.low <= _NARROW

    @property
    def worth(self) -> bool:
        """Whether it is faster with 95 % confidence, by enough to take the place of the first."""
        return self.low > 1.0 + MARGIN


def time_against_first(
    sessions: Sequence[Session],
    feeds: Feeds,
    seconds: float,
) -> list[Timing]:
    """Time ``sessions`` against the first of them for at most about ``seconds``.

    A session that is slower with 95 % confidence is dropped. The time is divided into equal stages,
    and after each the worse half of the others is dropped, until one is left for the last stage
    (successive halving). Timing ends early when the intervals of those that are left are narrow. If
    runs take long for the time there is, sessions that are far slower are dropped after two rounds,
    and only the better half goes on if the time is too short for all.

    Args:
        sessions: all take ``feeds``; the first is what the others are compared with.
        feeds: the inputs of every run.
        seconds: for all sessions together; at least one evaluation takes place.

    Returns:
        A timing per session, in their order; of a dropped session, from the runs that it had.
    """
    times: list[list[float]] = [[] for _ in sessions]
    firsts: list[list[float]] = [[] for _ in sessions]
    running = list(range(len(sessions)))
    stages, stages_done = len(sessions).bit_length(), 1
    start = time.monotonic()
    rounds = _FIRST_ROUNDS
    while True:
        before = time.monotonic()
        taken = take_turns([sessions[i] for i in running], feeds, rounds)
        for position, i in enumerate(running):
            times[i] += taken[position]
            firsts[i] += taken[0]
        timings = [Timing.of(own, first) for own, first in zip(times, firsts, strict=True)]
        now = time.monotonic()
        spent, one_run = now - start, (now - before) / (rounds * len(running))
        judged = len(times[0]) >= _ROUNDS
        if judged:
            running = [i for i in running if i == 0 or not timings[i].slower]
            if spent > stages_done * seconds / stages:
                running = [0, *_better_half(timings, running[1:])]
                stages_done += 1
        else:
            ratios = [np.divide(first, own) for own, first in zip(times, firsts, strict=True)]
            running = [0, *_promising(ratios, spent, seconds)]
        if len(running) == 1 or (judged and all(timings[i].narrow for i in running[1:])):
            return timings
        rounds = min(_ROUNDS, int((seconds - spent) / max(one_run * len(running), 1e-9)))
        if rounds < 1:
            return timings


def _better_half(timings: Sequence[Timing], others: Sequence[int]) -> list[int]:
    """The sessions with the better ratios, in their order."""
    best_first = sorted(others, key=lambda i: timings[i].ratio, reverse=True)
    return sorted(best_first[: ceil(len(others) / 2)])


def _promising(ratios: Sequence[Array], spent: float, seconds: float) -> list[int]:
    """The sessions that go on after a first evaluation that took ``spent`` seconds."""
    others = list(range(1, len(ratios)))
    if spent > seconds / 10:
        others = [i for i in others if ratios[i].max() >= _FAR_SLOWER]
    one_round = spent / _FIRST_ROUNDS * (len(others) + 1) / len(ratios)
    if seconds - spent < _ENOUGH * one_round:
        best_first = sorted(others, key=lambda i: float(np.median(ratios[i])), reverse=True)
        others = sorted(best_first[: ceil(len(others) / 2)])
    return others
