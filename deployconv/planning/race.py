"""Which of several sessions is faster than the first, beyond the noise.

All run in turns on the same inputs. A session is judged by the ratios of its runs to those of
the first that were taken side by side: what slows the machine for a moment slows both.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt

import numpy as np

from deployconv.backends.base import Feeds, Session
from deployconv.backends.timing import time_interleaved

_ROUNDS = 5
"""Rounds between two looks at the figures."""
_NARROW = 0.01
"""An interval of this width, relative to 1, needs no more rounds."""
_FEWEST = 10
"""Rounds before anything is decided."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one session, and how many times as fast as the first it is.

    ``low`` to ``high`` holds the median of the ratios with 95 % confidence.
    """

    median_ms: float
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, own: Sequence[float], first: Sequence[float]) -> Timing:
        """From runs taken side by side; the interval comes from order statistics."""
        ratios = np.sort(np.divide(first, own))
        spread = 0.98 * sqrt(len(ratios))
        low = ratios[max(0, floor(len(ratios) / 2 - spread))]
        high = ratios[min(len(ratios) - 1, ceil(len(ratios) / 2 + spread))]
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

    Who is clearly slower than the first drops out; the race ends when the intervals of the
    others are narrow.
    """
    times: list[list[float]] = [[] for _ in sessions]
    firsts: list[list[float]] = [[] for _ in sessions]
    running = list(range(len(sessions)))
    deadline = time.monotonic() + seconds
    while True:
        taken = time_interleaved([sessions[i] for i in running], feeds, runs=_ROUNDS, warmup=1)
        for position, i in enumerate(running):
            times[i] += taken[position]
            firsts[i] += taken[0]
        timings = [Timing.of(own, first) for own, first in zip(times, firsts, strict=True)]
        if len(times[0]) < _FEWEST:
            continue
        running = [i for i in running if i == 0 or not timings[i].slower]
        open_ones = [i for i in running[1:] if timings[i].high - timings[i].low > _NARROW]
        if not open_ones or time.monotonic() > deadline:
            return timings
