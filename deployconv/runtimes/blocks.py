"""Compare models in blocks of runs, so that noise alone is rarely taken for a difference.

Noise lasts: a neighbour on the machine may slow down one thread of one model for seconds, and the
memory addresses of a session make it faster or slower for as long as it lives. So neighbouring runs
are no independent witnesses, and an interval made of them is far too narrow. Here each block of
runs gives one ratio. A block loads its models anew, if that does not take too long, and which model
comes first in a block is drawn by chance. If two models are the same, each of the two orders would
have given the inverse ratio: a ratio above 1 is as likely as one below, whatever the noise is like.
The interval between two order statistics of the ratios rests on nothing else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import exp, floor, inf, log, sqrt

import numpy as np

from deployconv.runtimes.base import Feeds, Session
from deployconv.runtimes.timing import runs_within, take_turns, warm_up

FEWEST_RATIOS = 6
"""Ratios that give an interval of 95 %, at the least."""
GROUP = 8
"""Blocks between two evaluations. With so many, all on one side of 1 by chance are 1 in 128."""
_MOST_BLOCKS = 4 * GROUP
_MOST_RUNS = 25
"""Runs of a model in one block."""
_NARROW = 0.02
"""An interval of this width, relative to 1, needs no more blocks."""
_CLEAR = 0.5
"""Nor does one of this width, relative to its distance from 1."""
_LOADING = 0.5
"""The part of the time limit that loading models anew may take."""
_SESSION = 1.04
"""Two sessions of one model differ by up to this factor, for as long as they live."""
_WARM_UP = 2
"""Runs of a new session that are not counted: it takes memory in the second run, too."""

Prepare = Callable[[], Session]


@dataclass(frozen=True)
class Interval:
    """How many times as fast one model is as another, with 95 % confidence: ``low`` to ``high``.

    Without a confidence interval ``low`` is 0 and ``high`` infinite.
    """

    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Interval:
        """The median of independent ratios, and the order statistics that enclose it.

        The number of ratios below the true median is binomial with probability 1/2. As many are
        left out on either side as leave 98 % of the distribution (from eight ratios on): more than
        95 %, as blocks may not be quite independent.
        """
        if len(ratios) < FEWEST_RATIOS:
            return cls(float(np.median(ratios)), 0.0, inf)
        ordered = np.sort(ratios)
        begin = max(0, floor(len(ordered) / 2 - 1.163 * sqrt(len(ordered)) - 0.5))
        low, high = ordered[begin], ordered[len(ordered) - 1 - begin]
        return cls(float(np.median(ordered)), float(low), float(high))

    @property
    def faster(self) -> bool:
        """Whether it is faster with 95 % confidence."""
        return self.low > 1.0

    @property
    def slower(self) -> bool:
        """Whether it is slower with 95 % confidence."""
        return self.high < 1.0


@dataclass(frozen=True)
class Blocks:
    """The milliseconds of all runs: for each block and each model, a list of the same length.

    ``uncertain`` is a factor by which every ratio may be off because the blocks share sessions.
    """

    times: tuple[tuple[tuple[float, ...], ...], ...]
    uncertain: float = 1.0

    def of_model(self, model: int) -> list[float]:
        """All runs of one model."""
        return [ms for block in self.times for ms in block[model]]

    def ratios(self, model: int, first: int = 0) -> list[float]:
        """For each block, how many times as fast a model is as the first one: the median."""
        return [
            float(np.median(np.divide(block[first], block[model]))) if block[model] else 1.0
            for block in self.times
        ]

    def interval(self, model: int, first: int = 0) -> Interval:
        """How many times as fast a model is as the first one."""
        found = Interval.of(self.ratios(model, first))
        return Interval(found.ratio, found.low / self.uncertain, found.high * self.uncertain)

    @property
    def settled(self) -> bool:
        """Whether more blocks would tell little more.

        It follows from how far the ratios are from 1 and not from the side that they are on, so
        that ending here makes a difference by chance no more likely.
        """
        models = range(1, len(self.times[0]))
        return all(_is_settled(self.ratios(model)) for model in models)


def _is_settled(ratios: Sequence[float]) -> bool:
    distances = Interval.of([exp(abs(log(ratio))) for ratio in ratios])
    width = distances.high - distances.low
    return width <= max(_NARROW, _CLEAR * (distances.low - 1.0))


def time_in_blocks(
    sessions: Sequence[Session],
    prepare: Sequence[Prepare] | None,
    feeds: Feeds,
    *,
    seconds: float,
    limit: float,
    load_seconds: float = 0.0,
    fewest: int = FEWEST_RATIOS,
    runs: int | None = None,
    chance: random.Random | None = None,
) -> Blocks:
    """Time models in blocks; the first is what the others are compared with.

    Args:
        sessions: the models, ready to run; all take ``feeds``.
        prepare: loads each model anew; None if a session is never to be loaded twice.
        feeds: the inputs of every run.
        seconds: for all runs of the first eight blocks, roughly.
        limit: seconds after which no block begins, but for the fewest.
        load_seconds: how long it takes to load all models.
        fewest: blocks that are timed however long they take.
        runs: of each model; default: as many as ``seconds`` allow.
        chance: decides on the order of the models in each block.
    """
    chance = chance or random.Random()
    start = time.monotonic()
    elapsed = warm_up(sessions, feeds, 1)
    blocks = GROUP if runs is None else min(GROUP, runs)
    if runs is None:
        most = runs_within(seconds / GROUP, elapsed, 1, _MOST_RUNS)
        counts = [most] * _MOST_BLOCKS
    else:
        counts = [(runs + block) // blocks for block in range(blocks)]
    renewing = load_seconds + _WARM_UP * elapsed / 1e3
    anew = prepare if prepare and FEWEST_RATIOS * renewing <= _LOADING * limit else None
    uncertain = 1.0 if anew or not prepare else _SESSION
    taken: list[tuple[tuple[float, ...], ...]] = []
    orders: list[Sequence[int]] = []
    for count in counts:
        orders = orders or _orders(len(sessions), chance)
        order = orders.pop()
        if anew is not None:
            made = {model: anew[model]() for model in order}
            warm_up(list(made.values()), feeds, _WARM_UP)
        else:
            made = {model: sessions[model] for model in order}
        times = dict(zip(made, take_turns(list(made.values()), feeds, count), strict=True))
        taken.append(tuple(tuple(times[model]) for model in range(len(sessions))))
        if runs is not None:
            continue
        spent = time.monotonic() - start
        if len(taken) >= fewest and spent + spent / len(taken) > limit:
            break
        if len(taken) % GROUP == 0 and Blocks(tuple(taken)).settled:
            break
    return Blocks(tuple(taken), uncertain)


def _orders(models: int, chance: random.Random) -> list[Sequence[int]]:
    """The order of the models in each of some blocks, by chance; each model comes first equally."""
    if models == 2:
        orders: list[Sequence[int]] = [(0, 1), (1, 0)] * (GROUP // 2)
    else:
        orders = list(permutations(range(models)))
    chance.shuffle(orders)
    return orders
