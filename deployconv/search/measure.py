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
from deployconv.runtimes.measure import time_interleaved

MARGIN = 0.01
"""A gain below this is not worth another graph."""
_FIRST_ROUNDS = 2
"""Rounds before the first evaluation of more than two sessions."""
_STUDENT = 12.7
"""Half width of the 95 % confidence interval of a mean of two values, in standard errors."""
_ROUNDS = 6
"""Rounds between two later evaluations: the fewest that give a 95 % interval of the median."""
_ENOUGH = 12
"""Rounds that distinguish small gains from noise; fewer if the time is short."""
_SETTLED = 1.0
"""Seconds before a decision: the state of the machine may favour one session for as long."""
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
            more, of the mean of two.
        high: upper end of that interval.
    """

    median_ms: float
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, own: Sequence[float], first: Sequence[float]) -> Timing:
        """Compare runs with those of the first session in the same turns, all in milliseconds.

        The interval comes from order statistics.
        """
        ratios = np.sort(np.divide(first, own))
        median_ms, ratio = float(np.median(own)), float(np.median(ratios))
        if len(ratios) == _FIRST_ROUNDS:
            middle, half = log(ratios[0] * ratios[1]) / 2, log(ratios[1] / ratios[0]) / 2
            low, high = exp(middle - _STUDENT * half), exp(middle + _STUDENT * half)
            return cls(median_ms, ratio, min(low, ratio), max(high, ratio))
        # The number of ratios below the true median is binomial with probability 1/2.
        begin = max(0, floor(len(ratios) / 2 - 0.98 * sqrt(len(ratios)) - 0.5))
        low, high = ratios[begin], ratios[len(ratios) - 1 - begin]
        return cls(median_ms, ratio, float(low), float(high))

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

    @property
    def likely(self) -> bool:
        """Whether it was measured to be faster, and is at most slightly slower."""
        return self.ratio > 1.0 and self.low > 1.0 - MARGIN

    @property
    def decided(self) -> bool:
        """Whether more rounds cannot change if it is worth taking."""
        return self.worth or self.slower or self.narrow


def time_against_first(
    sessions: Sequence[Session],
    feeds: Feeds,
    seconds: float,
    until_decided: bool = False,
) -> list[Timing]:
    """Time ``sessions`` against the first of them for at most about ``seconds``.

    A session that is slower with 95 % confidence is dropped. Timing ends when the intervals of the
    others are narrow. If runs take long for the time there is, sessions that are far slower are
    dropped after two rounds, and only the better half goes on if the time is too short for all.

    Args:
        sessions: all take ``feeds``; the first is what the others are compared with.
        feeds: the inputs of every run.
        seconds: for all sessions together; at least one evaluation takes place.
        until_decided: end as soon as it is known of each session whether it is worth taking, but
            not within the first second.

    Returns:
        A timing per session, in their order; of a dropped session, from the runs that it had.
    """
    times: list[list[float]] = [[] for _ in sessions]
    firsts: list[list[float]] = [[] for _ in sessions]
    running = list(range(len(sessions)))
    start = time.monotonic()
    while True:
        rounds = _ROUNDS if times[0] or len(sessions) <= 2 else _FIRST_ROUNDS
        taken = time_interleaved([sessions[i] for i in running], feeds, runs=rounds, warmup=1)
        for position, i in enumerate(running):
            times[i] += taken[position]
            firsts[i] += taken[0]
        timings = [Timing.of(own, first) for own, first in zip(times, firsts, strict=True)]
        spent = time.monotonic() - start
        judged = len(times[0]) >= _ROUNDS
        if until_decided and spent < min(_SETTLED, seconds):
            continue
        if judged:
            running = [i for i in running if i == 0 or not timings[i].slower]
        else:
            ratios = [np.divide(first, own) for own, first in zip(times, firsts, strict=True)]
            running = [0, *_promising(ratios, spent, seconds)]
        known = [t.decided if until_decided else t.narrow for t in timings]
        done = judged and (all(known[i] for i in running[1:]) or spent > seconds)
        if done or len(running) == 1:
            return timings


def _promising(ratios: Sequence[Array], spent: float, seconds: float) -> list[int]:
    """The sessions that go on after a first evaluation that took ``spent`` seconds."""
    others = list(range(1, len(ratios)))
    if spent > seconds / 10:
        others = [i for i in others if ratios[i].max() >= _FAR_SLOWER]
    one_round = spent / (_FIRST_ROUNDS + 1) * (len(others) + 1) / len(ratios)
    if seconds - spent < _ENOUGH * one_round:
        best_first = sorted(others, key=lambda i: float(np.median(ratios[i])), reverse=True)
        others = sorted(best_first[: ceil(len(others) / 2)])
    return others
