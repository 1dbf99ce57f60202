"""Latency: how long one model takes, or two side by side, with all that it depends on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployconv.backends import get_backend
from deployconv.backends.base import ModelSource
from deployconv.backends.machine import describe_machine
from deployconv.backends.timing import time_interleaved
from deployconv.errors import UsageError
from deployconv.options import FeedOptions
from deployconv.proof.inputs import make_feeds
from deployconv.proof.interface import common_inputs
from deployconv.results import Latency, Quantiles

_NO_FEED = FeedOptions()


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


def _quantiles(times: Sequence[float]) -> Quantiles:
    return Quantiles(median=float(np.median(times)), p95=float(np.percentile(times, 95)))
