"""Latency: how long one model takes, or two side by side, with all that it depends on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployconv.errors import UsageError
from deployconv.options import FeedOptions, GpuOptions
from deployconv.proof.inputs import make_feeds
from deployconv.proof.interface import common_inputs
from deployconv.results import Latency, Profile, Quantiles
from deployconv.runtimes import get_backend, names_with
from deployconv.runtimes.base import Feeds, GpuSession, ModelSource, Session
from deployconv.runtimes.measure import describe_machine, time_interleaved

_NO_FEED = FeedOptions()
_AS_IT_IS = GpuOptions()


def measure_latency(
    reference: ModelSource,
    candidate: ModelSource | None,
    backend_name: str = "ort",
    feed: FeedOptions = _NO_FEED,
    threads: int | None = None,
    runs: int | None = None,
    gpu: GpuOptions = _AS_IT_IS,
) -> Latency:
    """Time one model, or two interleaved, with the machine and the runtime on record.

    ``ratio`` is the median over the ratios of runs taken side by side: whatever slows both
    of a pair cancels within it, and the median forgets the pairs where it hit only one. The
    ratio of the two medians would compare moments that may lie seconds apart.

    Layers are profiled after the timing, which a profiler would disturb.

    Raises:
        UsageError: ``runs`` is not positive, the inputs do not fit, the interfaces differ, or
            ``gpu`` asks for what the backend has not.
        ModelError: a model is invalid.
        BackendUnavailable: the backend is missing or cannot run a model.
    """
    if runs is not None and runs < 1:
        raise UsageError(f"--runs {runs}: give at least 1")
    _refuse_elsewhere(gpu, backend_name)
    backend = get_backend(backend_name)
    before = backend.prepare(reference, threads=threads)
    sessions = [before]
    specs = tuple(before.inputs)
    if candidate is not None:
        sessions.append(backend.prepare(candidate, threads=threads))
        specs = common_inputs(*sessions)
    for session in sessions:
        if isinstance(session, GpuSession):
            session.cuda_graph = gpu.cuda_graph
    arrays = make_feeds(specs, feed).arrays
    times = time_interleaved(sessions, arrays, runs)
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
        cuda_graph=gpu.cuda_graph,
        profiles=_profiles(sessions, (reference, candidate), arrays) if gpu.profile else (),
    )


def _refuse_elsewhere(gpu: GpuOptions, backend_name: str) -> None:
    profile, graphs = names_with("profiles_layers"), names_with("captures_graphs")
    for option, asked, able in (
        ("--profile", gpu.profile, profile),
        ("--cuda-graph", gpu.cuda_graph, graphs),
    ):
        if asked and backend_name not in able:
            raise UsageError(
                f"{option}: backend '{backend_name}' has no such thing: use --backend "
                f"{' or '.join(able)}"
            )


def _profiles(
    sessions: Sequence[Session], sources: Sequence[ModelSource | None], feeds: Feeds
) -> tuple[Profile, ...]:
    """One a session; what was made of a site of the first model bears its id in the second."""
    from deployconv.proof.profile import SiteNames, take_profile

    names = [SiteNames.of(source) for source in sources if source is not None]
    named = (names[0], *(one.after(names[0]) for one in names[1:]))
    return tuple(
        take_profile(session, feeds, of)
        for session, of in zip(sessions, named, strict=True)
        if isinstance(session, GpuSession)
    )


def _quantiles(times: Sequence[float]) -> Quantiles:
    return Quantiles(median=float(np.median(times)), p95=float(np.percentile(times, 95)))
