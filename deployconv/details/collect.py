"""Collect what a report draws besides the results of a rewrite or a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from deployconv.details.graphs import changes_between
from deployconv.details.layers import RUNS, time_layers
from deployconv.details.outputs import compare_in_detail
from deployconv.errors import DeployconvError
from deployconv.match import ConcatSite, UpsampleSite
from deployconv.options import DEFAULT_RUNTIME, FeedOptions
from deployconv.polyphase import smallest_kernel
from deployconv.proof.inputs import common_inputs, make_feeds
from deployconv.proof.site_times import SiteNames, group_by_site
from deployconv.results import Details, KernelPhases, OutputDetail, Profile
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.runtimes import get_backend, get_runtime
from deployconv.runtimes.base import Feeds, ModelSource
from deployconv.runtimes.machine import usable_cpus
from deployconv.runtimes.peak_memory import peak_memory


@dataclass(frozen=True)
class ModelPair:
    """The original and the rewritten model, and how they are run.

    Attributes:
        models: both, as the backend takes them.
        backend: the name of what runs them.
        feed: where the inputs come from.
        threads: of the CPU; None for all processors.
    """

    models: tuple[ModelSource, ModelSource]
    backend: str
    feed: FeedOptions
    threads: int | None


def collect_details(
    before: ModelProto,
    after: ModelProto,
    planned: Sequence[PlannedSite],
    pair: ModelPair,
    *,
    compared: bool,
    timed: bool,
) -> Details:
    """Return pictures of the changed nodes, and what one more run of both models shows.

    Args:
        before: the original model.
        after: the rewritten one.
        planned: the upsampling layers of the original.
        pair: both models as they are run.
        compared: whether the outputs were compared, so that their differences are of interest.
        timed: whether the models were timed, so that memory and layers are of interest.
    """
    changes = changes_between(before, after, [one.report for one in planned])
    phases = tuple(_phases(planned))
    outputs: tuple[OutputDetail, ...] = ()
    memory: tuple[int, ...] = ()
    profiles: tuple[Profile, ...] = ()
    missing: list[str] = []
    try:
        if compared or timed:
            feeds, outputs = _run_both(pair)
            if timed and get_runtime(pair.backend).measures_memory:
                memory = _memory(pair, feeds, missing)
            if timed and pair.backend == DEFAULT_RUNTIME:
                profiles = _profiles(pair, feeds)
    except DeployconvError as error:
        missing.append(f"outputs and layers: {error}")
    return Details(changes, phases, outputs, memory, profiles, tuple(missing))


def _phases(planned: Sequence[PlannedSite]) -> Iterator[KernelPhases]:
    """The taps of each phase, for every site that has a kernel."""
    for one in planned:
        site = one.found.conv if isinstance(one.found, ConcatSite) else one.found
        if isinstance(site, UpsampleSite):
            yield KernelPhases(
                one.id,
                tuple(
                    tuple(
                        tuple(tuple(map(int, place.nonzero()[0])) for place in phase)
                        for phase in smallest_kernel(axis).tap_at()
                    )
                    for axis in site.axes
                ),
            )


def compare_outputs_in_detail(pair: ModelPair) -> Details:
    """Run both models once and return how their outputs differ."""
    try:
        return Details(outputs=_run_both(pair)[1])
    except DeployconvError as error:
        return Details(missing=(f"outputs: {error}",))


def _run_both(pair: ModelPair) -> tuple[Feeds, tuple[OutputDetail, ...]]:
    """The inputs of one run of both models, and how their outputs differ."""
    runtime = get_runtime(pair.backend)
    original = runtime if runtime.runs_reference else get_runtime(DEFAULT_RUNTIME)
    first = original.load().prepare(pair.models[0], threads=pair.threads)
    second = get_backend(pair.backend).prepare(pair.models[1], threads=pair.threads)
    feeds = make_feeds(common_inputs(first, second), pair.feed).arrays
    return feeds, compare_in_detail(first.run(feeds), second.run(feeds))


def _memory(pair: ModelPair, feeds: Feeds, missing: list[str]) -> tuple[int, ...]:
    found, threads = [], pair.threads or usable_cpus()
    for model in pair.models:
        taken = peak_memory(model, feeds, threads) if isinstance(model, Path) else None
        if taken is None:
            missing.append("peak memory: it could not be measured")
            return ()
        found.append(taken)
    return tuple(found)


def _profiles(pair: ModelPair, feeds: Feeds) -> tuple[Profile, ...]:
    first, second = (SiteNames.of(model) for model in pair.models)
    named = zip(pair.models, (first, second.with_ids_of(first)), strict=True)
    threads = pair.threads or usable_cpus()
    return tuple(
        Profile(RUNS, group_by_site(time_layers(model, feeds, threads), names))
        for model, names in named
    )
