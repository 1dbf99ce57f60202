"""Latency: two models interleaved in one process, so that what drifts drifts for both."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from deployconv.backends import get_backend
from deployconv.backends.base import Feeds, ModelSource, Session
from deployconv.backends.machine import describe_machine
from deployconv.errors import UsageError
from deployconv.options import FeedOptions
from deployconv.proof.inputs import make_feeds
from deployconv.proof.interface import common_inputs
from deployconv.results import Latency, Quantiles

_SECONDS = 2.0
_WARMUP = 2
_FEWEST_RUNS = 5
_MOST_RUNS = 200
_NO_FEED = FeedOptions()


def time_interleaved(
    sessions: Sequence[Session],
    feeds: Feeds,
    runs: int | None = None,
    seconds: float = _SECONDS,
    warmup: int = _WARMUP,
) -> list[list[float]]:
    """Milliseconds of each run of each session, taken in turns: A B, B A, A B, ...

    Reversing every other round cancels a linear drift, such as a processor that warms up.

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
    if runs is None:
        runs = round(min(max(1e3 * seconds / max(elapsed, 1e-3), _FEWEST_RUNS), _MOST_RUNS))
    times: list[list[float]] = [[] for _ in sessions]
    turns = list(zip(sessions, times, strict=True))
    for _ in range(runs):
        for session, taken in turns:
            taken.append(_milliseconds(session, feeds))
        turns.reverse()
    return times


def measure_latency(
    reference: ModelSource,
    candidate: ModelSource | None,
    backend_name: str = "ort",
    feed: FeedOptions = _NO_FEED,
    threads: int | None = None,
    runs: int | None = None,
) -> Latency:
    """Time one model, or two interleaved, with the machine and the runtime on record.

    ``ratio`` is the median over the ratios of runs taken side by side: whatever slows both
    of a pair cancels within it, and the median forgets the pairs where it hit only one. The
    ratio of the two medians would compare moments that may lie seconds apart.

    Raises:
        UsageError: ``runs`` is not positive, the inputs do not fit, the interfaces differ.
        ModelError: a model is invalid.
        BackendUnavailable: the backend is missing or cannot run a model.
    """
    if runs is not None and runs < 1:
        raise UsageError(f"--runs {runs}: give at least 1")
    backend = get_backend(backend_name)
    before = backend.prepare(reference, threads=threads)
    sessions = [before]
    specs = tuple(before.inputs)
    if candidate is not None:
        sessions.append(backend.prepare(candidate, threads=threads))
        specs = common_inputs(*sessions)
    times = time_interleaved(sessions, make_feeds(specs, feed).arrays, runs)
    after_ms = ratio = None
    if candidate is not None:
        after_ms = _quantiles(times[1])
        ratio = float(np.median(np.divide(times[0], times[1])))
    return Latency(
        backend=backend_name,
        provider=before.provider,
        threads=before.threads,
        runs=len(times[0]),
        machine=describe_machine(),
        runtime=backend.runtime,
        before_ms=_quantiles(times[0]),
        after_ms=after_ms,
        ratio=ratio,
    )


def _milliseconds(session: Session, feeds: Feeds) -> float:
    start = time.perf_counter()
    measured = session.timed_run(feeds)
    return measured if measured is not None else 1e3 * (time.perf_counter() - start)


def _quantiles(times: Sequence[float]) -> Quantiles:
    return Quantiles(median=float(np.median(times)), p95=float(np.percentile(times, 95)))
