"""Which of several sessions is faster than the first, beyond the noise.

All run in turns on the same inputs. A session is judged by the ratios of its runs to those of
the first that were taken side by side: what slows the machine for a moment slows both.
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
_FIRST = 2
"""Rounds before the first look at more than one rival."""
_STUDENT = 12.7
"""Standard errors of the mean of two values that hold the true one with 95 %."""
_ROUNDS = 6
"""Rounds between two later looks; as many give an interval that holds the median."""
_ENOUGH = 12
"""Rounds that tell small gains from the noise, where the time allows as many."""
_MOOD = 1.0
"""Seconds that a mood of the machine may last: what is decided sooner may be its doing."""
_NARROW = 0.01
"""An interval of this width, relative to 1, needs no more rounds."""
_FAR = 0.8
"""Who is never faster than this drops out at the first look, where runs take long."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one session, and how many times as fast as the first it is.

    ``low`` to ``high`` holds the ratio with 95 % confidence: the median of the ratios of six
    runs or more, the mean of those of two.
    """

    median_ms: float
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, own: Sequence[float], first: Sequence[float]) -> Timing:
        """From runs taken side by side; the interval comes from order statistics."""
        ratios = np.sort(np.divide(first, own))
        median_ms, ratio = float(np.median(own)), float(np.median(ratios))
        if len(ratios) == _FIRST:
            middle, half = log(ratios[0] * ratios[1]) / 2, log(ratios[1] / ratios[0]) / 2
            low, high = exp(middle - _STUDENT * half), exp(middle + _STUDENT * half)
            return cls(median_ms, ratio, min(low, ratio), max(high, ratio))
        # As many ratios lie below the median as coins show heads: a binomial number.
        begin = max(0, floor(len(ratios) / 2 - 0.98 * sqrt(len(ratios)) - 0.5))
        low, high = ratios[begin], ratios[len(ratios) - 1 - begin]
        return cls(median_ms, ratio, float(low), float(high))

    @property
    def faster(self) -> bool:
        """Faster than the first, whatever the noise."""
        return self.low > 1.0

    @property
    def slower(self) -> bool:
        """Slower than the first, whatever the noise."""
        return self.high < 1.0

    @property
    def narrow(self) -> bool:
        """Known so well that more rounds would tell nothing new."""
        return self.high - self.low <= _NARROW

    @property
    def worth(self) -> bool:
        """Faster than the first beyond the noise, and by enough to take its place."""
        return self.low > 1.0 + MARGIN

    @property
    def likely(self) -> bool:
        """Faster than the first as measured, and hardly slower, whatever the noise."""
        return self.ratio > 1.0 and self.low > 1.0 - MARGIN

    @property
    def decided(self) -> bool:
        """Worth it or slower, whatever the noise, or so close that it does not matter."""
        return self.worth or self.slower or self.narrow


def race(
    sessions: Sequence[Session],
    feeds: Feeds,
    seconds: float,
    until_decided: bool = False,
) -> list[Timing]:
    """Time ``sessions`` against the first for at most about ``seconds``.

    Who is clearly slower than the first drops out, and the race ends when the intervals of the
    others are narrow. Where runs are long for the time there is, whoever is far slower goes after
    two rounds, and the better half has the rest of the time if it is too short for all.

    ``until_decided`` ends it when it is known of each whether it is worth it, but not within
    the first second.
    """
    times: list[list[float]] = [[] for _ in sessions]
    firsts: list[list[float]] = [[] for _ in sessions]
    running = list(range(len(sessions)))
    start = time.monotonic()
    while True:
        rounds = _ROUNDS if times[0] or len(sessions) <= 2 else _FIRST
        taken = time_interleaved([sessions[i] for i in running], feeds, runs=rounds, warmup=1)
        for position, i in enumerate(running):
            times[i] += taken[position]
            firsts[i] += taken[0]
        timings = [Timing.of(own, first) for own, first in zip(times, firsts, strict=True)]
        spent = time.monotonic() - start
        judged = len(times[0]) >= _ROUNDS
        if until_decided and spent < min(_MOOD, seconds):
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
    """Which rivals of the first go on after a first look that took ``spent`` seconds."""
    rivals = list(range(1, len(ratios)))
    if spent > seconds / 10:
        rivals = [i for i in rivals if ratios[i].max() >= _FAR]
    round_of_all = spent / (_FIRST + 1) * (len(rivals) + 1) / len(ratios)
    if seconds - spent < _ENOUGH * round_of_all:
        best_first = sorted(rivals, key=lambda i: float(np.median(ratios[i])), reverse=True)
        rivals = sorted(best_first[: ceil(len(rivals) / 2)])
    return rivals
