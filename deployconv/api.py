"""The public functions. Nothing heavy is imported before one of them is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from deployconv.errors import UsageError
from deployconv.options import (
    FeedOptions,
    Form,
    GpuOptions,
    Policy,
    RewriteOptions,
    ShapeRanges,
    Shuffle,
)
from deployconv.results import (
    BuildReport,
    CheckReport,
    Inspection,
    Latency,
    ModelCheck,
    Parity,
    Rewriting,
)

if TYPE_CHECKING:
    import onnx

    from deployconv.runtimes.base import ModelSource

    Model = str | Path | onnx.ModelProto

ShapeMap = Mapping[str, Sequence[int]]


def inspect(
    model: Model, *, target: str | None = None, freeze_initializers: bool = False
) -> Inspection:
    """List every upsampling layer with the status it would get from `rewrite`.

    Args:
        model: a file, or a ModelProto, which is left untouched.
        target: ``dla`` to say of each layer what keeps it off the DLA of a Jetson, as exported
            and rewritten; nothing is compiled for that.
        freeze_initializers: take the defaults of graph inputs for constants.

    Raises:
        UsageError: the file does not exist, or there is no such target.
        ModelError: it is not a valid model.
    """
    from deployconv.graph.load import load
    from deployconv.pipeline import plan_model

    if target not in (None, "dla"):
        raise UsageError(
            f"--target {target}: inspect knows dla only: whether a model compiles for a GPU is "
            "what deployconv build --target says"
        )
    loaded = load(model)
    options = RewriteOptions(freeze_initializers=freeze_initializers)
    planning = plan_model(loaded, options)
    if target is None:
        return Inspection(loaded.info, planning.reports)
    from deployconv.proof.dla import dla_note
    from deployconv.runtimes.tensorrt import dla

    reports = tuple(
        replace(
            planned.report, dla=dla_note(planned.found or planned.site, planned.site, planned.plan)
        )
        for planned in planning.sites
    )
    return Inspection(loaded.info, reports, target, f"{dla.VERSIONS} ({dla.SOURCE})")


def rewrite(
    model: Model,
    *,
    output: str | Path | None = None,
    policy: Policy = "all",
    backend: str = "ort",
    form: Form = "auto",
    shuffle: Shuffle = "auto",
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    target: str | Sequence[str] = (),
    shape: ShapeMap | None = None,
    inputs: str | Path | None = None,
    seed: int = 0,
    verify: bool = True,
    bench: bool = True,
    strict: bool = False,
    freeze_initializers: bool = False,
    allow_requantize: bool = False,
    force: bool = False,
    dry_run: bool = False,
    upgrade_opset: bool | None = None,
    budget: float = 60.0,
    cache: bool = True,
    max_memory: float = 1.1,
    threads: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Rewriting:
    """Rewrite every upsampling layer as Conv, shuffle, crop; prove it; time it; write it.

    Args:
        model: a file, or a ModelProto, which is left untouched.
        output: where to write the rewritten model; None writes nothing.
        policy: which sites: ``all`` that can be rewritten exactly, or those and in that form
            that a static model of their ``cost`` predicts, or measurement shows, to be
            ``fastest`` on ``backend``.
        backend: what runs the models for parity and latency.
        form: ``crop``, ``pad``, or the one of these with fewer multiplications; ``split``, a Conv
            for each phase; ``separable``, one for each axis, where the kernels are products;
            ``matrix``, a product of matrices for each.
        shuffle: how the phases are moved into space; ``auto`` is portable.
        only: rewrite only the sites that match one of these globs.
        skip: leave the sites that match one of these globs alone.
        target: compute capabilities such as ``sm89`` to compile both models for with TensorRT,
            which needs no GPU: the rewritten one must build wherever the original does.
        shape: sizes for dynamic inputs, by input name.
        inputs: an ``.npz`` with one array per input, instead of random ones.
        seed: of the random inputs.
        verify: certify each site and check the parity of the whole model.
        bench: time both models, interleaved.
        strict: a site that is left alone is a failure.
        freeze_initializers: take the defaults of graph inputs for constants.
        allow_requantize: give an integer weight new scales where its taps have to be added, as
            behind a nearest Resize; the result is then close, not equal, and says how close.
        force: replace an existing output.
        dry_run: do everything but write the output.
        upgrade_opset: raise a model below opset 18 to it where that changes nothing, so that
            Col2Im can be used; None does so for ``cost`` and ``fastest`` on onnxruntime.
        budget: seconds of measurement for ``fastest``, about.
        cache: remember measurements.
        max_memory: times the original's peak memory that ``fastest`` may make the model take on
            ``ort``; infinite to measure none.
        threads: of the backend, and those that ``cost`` predicts for; None for all processors.
        on_progress: called with the part of the measurements that is done, 0 to 1.

    Returns:
        The sites, the parity, the latency, and the rewritten model as a ModelProto.

    Raises:
        CheckFailed: certificate, parity, a build for a ``target`` or ``strict`` failed; nothing
            was written.
        UsageError, ModelError: the call or the model is at fault.
        BackendUnavailable: the backend is not available or cannot run the model.
    """
    from deployconv.graph.load import load
    from deployconv.proof.compiled import targets_of
    from deployconv.rewriting import Request, rewrite_model
    from deployconv.search.choice import TunerOptions

    if policy not in get_args(Policy):
        raise UsageError(f"policy '{policy}' is not known: choose all, cost or fastest")
    if not max_memory >= 0:
        raise UsageError(f"max_memory is {max_memory}: give a number from 0 on, or infinity")
    if verify or policy == "fastest" or backend != "ort":
        _require(backend)
    feed = _feed(shape, inputs, seed)
    request = Request(
        source=_source(model),
        options=RewriteOptions(
            policy,
            form,
            shuffle,
            tuple(only),
            tuple(skip),
            freeze_initializers,
            allow_requantize,
            float_bias=bool(target) or "tensorrt" in backend,
        ),
        tuner=TunerOptions(backend, threads, feed, budget, cache, on_progress, max_memory),
        upgrade_opset=upgrade_opset,
        output=None if output is None else Path(output),
        force=force,
        dry_run=dry_run,
        verify=verify,
        bench=bench,
        strict=strict,
        targets=targets_of(target, backend, feed),
    )
    return rewrite_model(load(model), request)


def verify(
    reference: Model,
    candidate: Model,
    *,
    backend: str | Sequence[str] = "ort",
    shape: ShapeMap | None = None,
    inputs: str | Path | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> tuple[Parity, ...]:
    """Compare the outputs of two models with the same interface, once per backend.

    Raises:
        UsageError, ModelError: the call or a model is at fault, or the interfaces differ.
        BackendUnavailable: a backend is not available or cannot run the reference.
    """
    from deployconv.graph.load import load
    from deployconv.proof.parity import check_parity

    names = _names(backend)
    for name in names:
        _require(name)
    for model in (reference, candidate):
        load(model)
    feed = _feed(shape, inputs, seed)
    pair = _source(reference), _source(candidate)
    return tuple(check_parity(*pair, name, feed, threads) for name in names)


def bench(
    model: Model,
    other: Model | None = None,
    *,
    backend: str | Sequence[str] = "ort",
    shape: ShapeMap | None = None,
    inputs: str | Path | None = None,
    seed: int = 0,
    threads: int | None = None,
    runs: int | None = None,
    profile: bool = False,
    cuda_graph: bool = False,
) -> tuple[Latency, ...]:
    """Time one model, or two interleaved, once per backend; times are milliseconds.

    ``profile`` adds where the time goes, layer by layer and grouped by site; ``cuda_graph``
    times launches of captured CUDA graphs. Both are for ``tensorrt`` and ``tensorrt-rtx``.

    Raises:
        UsageError, ModelError: the call or a model is at fault.
        BackendUnavailable: a backend is not available or cannot run a model.
    """
    from deployconv.graph.load import load
    from deployconv.proof.latency import measure_latency

    names = _names(backend)
    for name in names:
        _require(name)
    load(model)
    if other is not None:
        load(other)
    feed = _feed(shape, inputs, seed)
    pair = _source(model), None if other is None else _source(other)
    gpu = GpuOptions(profile, cuda_graph)
    return tuple(measure_latency(*pair, name, feed, threads, runs, gpu) for name in names)


def build(
    model: Model,
    *,
    target: str | Sequence[str] = (),
    backend: str | None = None,
    shape: Mapping[str, Sequence[int] | Sequence[Sequence[int]]] | None = None,
    engine: str | Path | None = None,
    fp16: bool = False,
    force: bool = False,
) -> BuildReport:
    """Compile a model with TensorRT: compile evidence, no execution.

    Args:
        model: a file, or a ModelProto, which is left untouched.
        target: compute capabilities such as ``sm89``, for which no GPU is needed; none for the
            GPU of this machine.
        backend: ``tensorrt-rtx`` or ``tensorrt``; None for the first that is installed.
        shape: sizes of dynamic inputs by name: one shape, or smallest, optimal, largest.
        engine: where to write the engine; with several targets each goes to a file of its own,
            ``net.engine`` to ``net.sm89.engine``.
        fp16: let the builder of TensorRT 8 to 10 use float16 for a float32 model.
        force: replace existing engines.

    Raises:
        UsageError, ModelError: the call or the model is at fault.
        BackendUnavailable: TensorRT, or a GPU where no target is named, is not there.
    """
    from deployconv.graph.load import load
    from deployconv.runtimes.tensorrt.build import build_engines

    return build_engines(
        load(model),
        _source(model),
        backend=backend,
        targets=(target,) if isinstance(target, str) else tuple(target),
        shapes=_ranges(shape),
        engine=None if engine is None else Path(engine),
        fp16=fp16,
        force=force,
    )


def check(
    paths: Iterable[str | Path],
    *,
    backend: str = "ort",
    seed: int = 0,
    on_result: Callable[[ModelCheck], None] | None = None,
) -> CheckReport:
    """Rewrite and prove models in memory; nothing is written.

    Args:
        paths: model files, or folders that are searched for ``*.onnx``, without
            ``*.deploy.onnx``.
        backend: what runs the models.
        seed: of the random inputs.
        on_result: called with each verdict as it is known.

    Raises:
        UsageError: a path does not exist, or a folder holds no model.
        BackendUnavailable: the backend is not available.
    """
    from deployconv.gate import check_models

    _require(backend)
    rewritten = partial(rewrite, backend=backend, seed=seed, bench=False)
    return check_models(paths, rewritten, on_result)


def _require(backend: str) -> None:
    """Fail before any work where the backend's library is not there."""
    from deployconv.runtimes import get_backend

    get_backend(backend)


def _source(model: Model) -> ModelSource:
    """What a backend loads: the file itself, or the serialized model."""
    return Path(model) if isinstance(model, (str, Path)) else model.SerializeToString()


def _feed(shape: ShapeMap | None, inputs: str | Path | None, seed: int) -> FeedOptions:
    shapes = {name: tuple(sizes) for name, sizes in (shape or {}).items()}
    return FeedOptions(shapes, None if inputs is None else Path(inputs), seed)


def _ranges(
    shape: Mapping[str, Sequence[int] | Sequence[Sequence[int]]] | None,
) -> ShapeRanges:
    """One shape stands for a range of that shape alone."""
    ranges = {}
    for name, given in (shape or {}).items():
        corners = [tuple(corner) for corner in given if not isinstance(corner, int)]
        sizes = tuple(size for size in given if isinstance(size, int))
        if corners and (sizes or len(corners) != 3):
            raise UsageError(f"shape {name}: give one shape, or smallest, optimal and largest")
        low, optimal, high = corners or (sizes, sizes, sizes)
        ranges[name] = (low, optimal, high)
    return ranges


def _names(backend: str | Sequence[str]) -> tuple[str, ...]:
    return (backend,) if isinstance(backend, str) else tuple(backend)
