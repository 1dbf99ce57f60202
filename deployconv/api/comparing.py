"""`verify`, `bench` and `diff`: compare two models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deployconv.api.arguments import (
    ArrayMap,
    ShapeMap,
    as_inputs,
    as_names,
    as_path,
    as_shapes,
    feed_of,
    source_of,
)
from deployconv.api.pages import check_report, write_report
from deployconv.options import DEFAULT_BENCH_SECONDS, DEFAULT_RUNTIME, BenchCommand, VerifyCommand
from deployconv.results import Latency, ModelDifference, Parity
from deployconv.runtimes import get_backend

if TYPE_CHECKING:
    from deployconv.api.arguments import Model


def verify(
    reference: Model,
    candidate: Model,
    *,
    backend: str | Sequence[str] = DEFAULT_RUNTIME,
    shape: ShapeMap | None = None,
    inputs: str | Path | ArrayMap | None = None,
    seed: int = 0,
    threads: int | None = None,
    report: str | Path | None = None,
) -> tuple[Parity, ...]:
    """Compare the outputs of two models with the same interface, once per backend.

    Args:
        reference: the model to match: a file, its bytes, or a ModelProto.
        candidate: the model to check.
        backend: what runs the models, one name or several.
        shape: sizes for dynamic inputs, by input name.
        inputs: arrays by input name, or an ``.npz`` file of them, instead of random ones.
        seed: seed of the random inputs.
        threads: threads of the backend; None for all processors.
        report: where to write a report as one HTML file.

    Raises:
        UsageError, ModelError: the call or a model is at fault, or the interfaces differ.
        BackendUnavailable: a backend is not available or cannot run the reference.
    """
    from deployconv.graph.load import load
    from deployconv.proof.parity import check_parity

    options = VerifyCommand(
        backend=as_names(backend),
        shape=as_shapes(shape),
        inputs=as_inputs(inputs),
        seed=seed,
        threads=threads,
        report=as_path(report),
    )
    check_report(options.report)
    for name in options.backend:
        get_backend(name)  # a missing library is reported before any work
    for model in (reference, candidate):
        load(model)
    pair, feed = (source_of(reference), source_of(candidate)), feed_of(options)
    checks = tuple(check_parity(*pair, name, feed, threads) for name in options.backend)
    if options.report is not None:
        from deployconv.details.collect import ModelPair, compare_outputs_in_detail
        from deployconv.report.document import of_verification

        shown = ModelPair(pair, options.backend[0], feed, threads)
        details = compare_outputs_in_detail(shown)
        write_report(options.report, of_verification(checks, details))
    return checks


def bench(
    model: Model,
    other: Model | None = None,
    *,
    backend: str | Sequence[str] = DEFAULT_RUNTIME,
    shape: ShapeMap | None = None,
    inputs: str | Path | ArrayMap | None = None,
    seed: int = 0,
    threads: int | None = None,
    runs: int | None = None,
    budget: float = DEFAULT_BENCH_SECONDS,
    profile: bool = False,
    cuda_graph: bool = False,
    report: str | Path | None = None,
) -> tuple[Latency, ...]:
    """Time one model, or two interleaved, once per backend; times are milliseconds.

    Args:
        model: a file, its bytes, or a ModelProto.
        other: a second model, timed in turns with the first.
        backend: what runs the models, one name or several.
        shape: sizes for dynamic inputs, by input name.
        inputs: arrays by input name, or an ``.npz`` file of them, instead of random ones.
        seed: seed of the random inputs.
        threads: threads of the backend; None for all processors.
        runs: timed runs per model; None for a number that fits the time of a run, and for two
            models the noise.
        budget: seconds that two models may be compared if their ratio is uncertain.
        profile: add the time of each layer, grouped by site, if the backend profiles layers.
        cuda_graph: time launches of captured CUDA graphs, if the backend captures them.
        report: where to write a report as one HTML file.

    Raises:
        UsageError, ModelError: the call or a model is at fault.
        BackendUnavailable: a backend is not available or cannot run a model.
    """
    from deployconv.graph.load import load
    from deployconv.proof.latency import measure_latency

    options = BenchCommand(
        backend=as_names(backend),
        shape=as_shapes(shape),
        inputs=as_inputs(inputs),
        seed=seed,
        threads=threads,
        runs=runs,
        budget=budget,
        profile=profile,
        cuda_graph=cuda_graph,
        report=as_path(report),
    )
    check_report(options.report)
    for name in options.backend:
        get_backend(name)  # a missing library is reported before any work
    load(model)
    if other is not None:
        load(other)
    pair = source_of(model), None if other is None else source_of(other)
    feed = feed_of(options)
    latencies = tuple(
        measure_latency(*pair, name, feed, threads, runs, profile, cuda_graph, budget)
        for name in options.backend
    )
    if options.report is not None:
        from deployconv.report.document import of_timing
        from deployconv.runtimes.base import label_of

        names = [label_of(source) for source in pair if source is not None]
        write_report(options.report, of_timing(latencies, names))
    return latencies


def diff(before: Model, after: Model) -> ModelDifference:
    """Compare the nodes, the weights and the interface of two models; neither is run.

    Args:
        before: a file, its bytes, or a ModelProto.
        after: the other model.

    Raises:
        UsageError, ModelError: the call or a model is at fault.
    """
    from deployconv.details.difference import difference_between
    from deployconv.graph.load import load

    return difference_between(load(before), load(after))
