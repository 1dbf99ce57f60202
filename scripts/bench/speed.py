"""Time two models in turns, in several pairs of sessions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.subjects import Shapes


@dataclass(frozen=True)
class Effort:
    """How to measure: ``runs`` of each model, or as many as ``seconds`` allow, on ``backend``."""

    seconds: float
    budget: float
    """Seconds for ``--policy fastest`` to choose."""
    runs: int | None = None
    backend: str = "ort"
    max_memory: float = 1.1
    """What ``--policy fastest`` may take, in multiples of the original's peak memory."""


PAIRS = 6
"""Sessions of each model. All runs of a session have its tensors at the same place in memory, which
may be a good or a bad one: two sessions of one model differ by up to 4 %, and the session that is
loaded first is more often the slower one."""

THOROUGH, QUICK = Effort(seconds=10.0, budget=60.0), Effort(seconds=1.0, budget=5.0)


@dataclass(frozen=True)
class Speed:
    """Median times, and the ratio original / rewritten with its spread, from ``runs`` of each.

    ``low`` to ``high`` is the 95 % confidence interval of the median ratio.
    """

    runs: int
    before_ms: float
    after_ms: float
    ratio: float
    low: float
    high: float
    quartiles: tuple[float, float]


def time_pair(
    original: Path, rewritten: Path, shapes: Shapes, threads: int, effort: Effort
) -> Speed:
    """Time both models in turns (`deployconv.runtimes.timing`), in `PAIRS` pairs of sessions."""
    import numpy as np

    from deployconv.options import FeedOptions
    from deployconv.proof.inputs import make_feeds
    from deployconv.runtimes import get_backend
    from deployconv.runtimes.timing import time_interleaved
    from deployconv.search.measure import Timing

    backend = get_backend(effort.backend)
    paths = [original, rewritten]
    taken: tuple[list[float], list[float]] = ([], [])
    pairs = PAIRS if effort.runs is None else min(PAIRS, effort.runs)
    runs = None if effort.runs is None else -(-effort.runs // pairs)
    for _ in range(pairs):
        sessions = {path: backend.prepare(path, threads=threads) for path in paths}
        feeds = make_feeds(sessions[original].inputs, FeedOptions(shapes)).arrays
        times = time_interleaved(list(sessions.values()), feeds, runs, effort.seconds / pairs)
        of_path = dict(zip(sessions, times, strict=True))
        taken[0].extend(of_path[original])
        taken[1].extend(of_path[rewritten])
        paths.reverse()
    before, after = taken
    timing = Timing.of(after, before)
    lower, upper = np.percentile(np.divide(before, after), [25, 75])
    return Speed(
        runs=len(before),
        before_ms=float(np.median(before)),
        after_ms=timing.median_ms,
        ratio=timing.ratio,
        low=timing.low,
        high=timing.high,
        quartiles=(float(lower), float(upper)),
    )
