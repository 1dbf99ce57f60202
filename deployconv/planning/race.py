"""Which of several sessions is faster than the first, beyond the noise.

All run in turns on the same inputs. A session is judged by the ratios of its runs to those of
the first that were taken side by side: what slows the machine for a moment slows both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, sqrt

import numpy as np

from deployconv.backends.base import Feeds, Session
from deployconv.backends.timing import time_interleaved

_FIRST = 2
"""Rounds before the first look."""
_ROUNDS = 6
"""Rounds between two later looks; as many give an interval that holds the median."""
_NARROW = 0.01
"""An interval of this width, relative to 1, needs no more rounds."""
_FAR = 0.8
"""Who is never faster than this drops out at the first look, where runs take long."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one session, and how many times as fast as the first it is.

    ``low`` to ``high`` holds the median of the ratios with 95 % confidence, from six runs on.
    """

    median_ms: float
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, own: Sequence[float], first: Sequence[float]) -> Timing:
        """From runs taken side by side; the interval comes from order statistics."""
        ratios = np.sort(np.divide(first, own))
        # As many ratios lie below the median as coins show heads: a binomial number.
        begin = max(0, floor(len(ratios) / 2 - 0.98 * sqrt(len(ratios)) - 0.5))
        low, high = ratios[begin], ratios[len(ratios) - 1 - begin]
        return cls(float(np.median(own)), float(np.median(ratios)), float(low), float(high))

    @property
    def faster(self) -> bool:
        """Faster than the first, whatever the noise."""
        return self.low > 1.0

    @property
    def slower(self) -> bool:
        """Slower than the first, whatever the noise."""
        return self.high < 1.0


def race(sessions: Sequence[Session], feeds: Feeds, seconds: float) -> list[Timing]:
    """Time ``sessions`` against the first for at most about ``seconds``.

    Who is clearly slower than the first drops out, and the race ends when the intervals of the
    others are narrow. Where runs are long for the time there is, whoever is far slower goes
    after two; its interval is then the range of these.
    """
    times: list[list[float]] = [[] for _ in sessions]
    firsts: list[list[float]] = [[] for _ in sessions]
    running = list(range(len(sessions)))
    start = time.monotonic()
    while True:
        rounds = _ROUNDS if times[0] else _FIRST
        taken = time_interleaved([sessions[i] for i in running], feeds, runs=rounds, warmup=1)
        for position, i in enumerate(running):
            times[i] += taken[position]
            firsts[i] += taken[0]
        timings = [Timing.of(own, first) for own, first in zip(times, firsts, strict=True)]
        spent = time.monotonic() - start
        judged = len(times[0]) >= _ROUNDS
        limit = 1.0 if judged else _FAR if spent > seconds / 10 else 0.0
        running = [i for i in running if i == 0 or timings[i].high >= limit]
        open_ones = [i for i in running[1:] if timings[i].high - timings[i].low > _NARROW]
        done = judged and (not open_ones or spent > seconds)
        if done or len(running) == 1:
            return timings
