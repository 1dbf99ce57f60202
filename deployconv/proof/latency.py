"""Time one model, or two in turns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite

import numpy as np

from deployconv.errors import UsageError
from deployconv.flags import Capability
from deployconv.options import DEFAULT_BENCH_SECONDS, DEFAULT_RUNTIME, FeedOptions
from deployconv.proof.inputs import common_inputs, make_feeds
from deployconv.proof.memory import require_memory
from deployconv.proof.site_times import profiles_of
from deployconv.results import Latency, Quantiles
from deployconv.runtimes import get_backend, names_with
from deployconv.runtimes.base import GpuSession, ModelSource
from deployconv.runtimes.blocks import FEWEST_RATIOS, Blocks, time_in_blocks
from deployconv.runtimes.machine import busy_machine, describe_machine
from deployconv.runtimes.timing import time_interleaved

_SECONDS = 2.0
"""For the runs of two models, if that gives a narrow interval."""

_DIGITS = 5
"""Significant digits of a single run in a report."""

_NO_FEED = FeedOptions()


def measure_latency(
    reference: ModelSource,
    candidate: ModelSource | None,
    backend_name: str = DEFAULT_RUNTIME,
    feed: FeedOptions = _NO_FEED,
    threads: int | None = None,
    runs: int | None = None,
    profile: bool = False,
    cuda_graph: bool = False,
    budget: float = DEFAULT_BENCH_SECONDS,
    strict: bool = False,
) -> Latency:
    """Time one model, or two interleaved; the result names the machine and the runtime.

    ``ratio`` is the median of one ratio per block of runs, see `blocks`; a block's own is the
    median over pairs of adjacent runs. A disturbance of both runs cancels within the pair, and the
    median ignores the few pairs in which it met only one. The ratio of the two medians would
    compare moments that may lie seconds apart.

    Args:
        reference: the model to time.
        candidate: a second model, timed in turns with the first; None for none.
        backend_name: what runs them.
        feed: where the inputs come from.
        threads: of the CPU; None for the backend's default.
        runs: timed runs per model, at least 1; None for a number that fits the time of a run, and
            for two models the noise.
        profile: also time each layer by itself, after the timing, which that would disturb.
        cuda_graph: time launches of a captured CUDA graph.
        budget: seconds that the comparison of two models may take if their ratio is uncertain.
        strict: end then even if there are too few runs for a confidence interval.

    Raises:
        UsageError: the inputs do not fit, the interfaces differ, or the backend offers no
            ``profile`` or ``cuda_graph``.
        ModelError: a model is invalid.
        BackendUnavailable: the backend is missing or cannot run a model.
    """
    if profile:
        _require("profiles_layers", "--profile", backend_name)
    if cuda_graph:
        _require("captures_graphs", "--cuda-graph", backend_name)
    backend = get_backend(backend_name)
    sources = [reference] if candidate is None else [reference, candidate]
    busy = busy_machine()
    start = time.monotonic()
    sessions = [backend.prepare(source, threads=threads) for source in sources]
    load_seconds = time.monotonic() - start
    for session in sessions:
        if isinstance(session, GpuSession):
            session.cuda_graph = cuda_graph
    specs = tuple(sessions[0].inputs) if candidate is None else common_inputs(*sessions)
    arrays = make_feeds(specs, feed).arrays
    require_memory(sources[0], arrays)
    if candidate is None:
        compared, times = None, time_interleaved(sessions, arrays, runs)
    else:
        on_gpu = any(isinstance(session, GpuSession) for session in sessions)
        compared = time_in_blocks(
            sessions,
            None if on_gpu else [partial(backend.prepare, one, threads=threads) for one in sources],
            arrays,
            seconds=_SECONDS,
            limit=budget,
            load_seconds=load_seconds,
            fewest=1 if strict else FEWEST_RATIOS,
            runs=runs,
        )
        times = [compared.of_model(0), compared.of_model(1)]
    latency = Latency(
        backend=backend_name,
        provider=sessions[0].provider,
        threads=sessions[0].threads,
        runs=len(times[0]),
        machine=describe_machine(),
        runtime=backend.runtime,
        before_ms=_quantiles(times[0]),
        cuda_graph=cuda_graph,
        profiles=profiles_of(sessions, sources, arrays) if profile else (),
        note=busy or busy_machine(),
        times_ms=_rounded(times),
    )
    return latency if compared is None else _with_ratio(latency, compared)


def _with_ratio(latency: Latency, compared: Blocks) -> Latency:
    """Add how the second model compares with the first."""
    found = compared.interval(1)
    known = isfinite(found.high)
    return replace(
        latency,
        after_ms=_quantiles(compared.of_model(1)),
        ratio=found.ratio,
        low=found.low if known else None,
        high=found.high if known else None,
    )


def _rounded(times: Iterable[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """The times with the digits that mean something."""
    return tuple(tuple(float(f"{ms:.{_DIGITS}g}") for ms in taken) for taken in times)


def _require(capability: Capability, option: str, backend_name: str) -> None:
    """Raise UsageError if the backend lacks the ``capability`` that ``option`` needs."""
    able = names_with(capability)
    if backend_name not in able:
        raise UsageError(
            f"{option}: backend '{backend_name}' has no such thing: use --backend "
            f"{' or '.join(able)}"
        )


def _quantiles(times: Sequence[float]) -> Quantiles:
    return Quantiles(median=float(np.median(times)), p95=float(np.percentile(times, 95)))
