"""Compile a model with TensorRT ahead of time, for each target, without a GPU.

This shows whether a target takes the model: a build that fails is certain. A build that passes
has not run, and says nothing about speed.

TensorRT takes some broken models without a word. What the ONNX checker passes too is refused
here before TensorRT sees it; loading refuses the rest, such as unknown opsets.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.graph.load import LoadedModel
from deployconv.graph.tensors import graph_attributes
from deployconv.options import ShapeRanges
from deployconv.results import (
    BuildReport,
    Kernel,
    OutputFile,
    PaddedLayer,
    StageResult,
    TargetBuild,
)
from deployconv.runtimes.base import ModelSource, model_file
from deployconv.runtimes.registry import get_runtime
from deployconv.runtimes.shapes import input_specs, profile_of, shape_ranges
from deployconv.runtimes.tensorrt.binding import BuildSettings
from deployconv.runtimes.tensorrt.installation import cache_folder, find_installation, remedy
from deployconv.runtimes.tensorrt.process import STAGES, tensorrt_worker
from deployconv.runtimes.worker_process import (
    DEFAULT_LIMITS,
    Limits,
    RequirementMissing,
    RestartingWorker,
    WorkerFailed,
)
from deployconv.temporary import temporary_folder

_NOT_ASKED = "a build ends with the engine"
_WINDOWED = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "ConvInteger"})
_PER_AXIS = ("kernel_shape", "strides", "dilations", "output_padding")
_LARGEST_DIM = (1 << 31) - 1


def build_engines(
    loaded: LoadedModel,
    source: ModelSource,
    *,
    backend: str | None,
    targets: Sequence[str],
    shapes: ShapeRanges,
    engine: Path | None = None,
    fp16: bool = False,
    force: bool = False,
) -> BuildReport:
    """Compile the model ``source`` for ``targets``, as `deployconv.build` does.

    ``loaded`` is the same model as `deployconv.graph.load.load` returns it.
    """
    start = time.perf_counter()
    refuse_what_tensorrt_overlooks(loaded.proto, loaded.name)
    ranges, note = shape_ranges(input_specs(loaded.proto), shapes)
    installation = find_installation(backend)
    asked: list[str | None] = list(dict.fromkeys(targets)) or [None]
    for target in asked:
        installation.require(target, fp16)
    files = {target: _engine_file(engine, target, len(asked) > 1) for target in asked}
    _check_engine_files([file for file in files.values() if file is not None], loaded, force)
    checked = StageResult("check", "ok", time.perf_counter() - start)
    builds = []
    with model_file(source) as model, tensorrt_worker() as worker:
        for target in asked:
            cache = cache_folder() if target is None else None
            settings = BuildSettings(target, fp16, profile=profile_of(ranges), cache=cache)
            builds.append(
                _build(model, installation.backend, settings, files[target], checked, worker)
            )
    notes = "; ".join(filter(None, (note, _narrowed(loaded))))
    return BuildReport(loaded.info, installation.runtime, ranges, tuple(builds), notes or None)


def _narrowed(loaded: LoadedModel) -> str | None:
    """Say what TensorRT computes in fewer bits than the model declares, without telling."""
    values = (*loaded.proto.graph.input, *loaded.proto.graph.output)
    if any(value.type.tensor_type.elem_type == TensorProto.DOUBLE for value in values):
        return "TensorRT computes the model's float64 in float32"
    return None


def _build(
    model: Path,
    backend: str,
    settings: BuildSettings,
    file: Path | None,
    checked: StageResult,
    worker: RestartingWorker,
) -> TargetBuild:
    """Compile for one target; the engine is written to ``file`` completely or not at all."""
    if file is None:
        return compile_model(model, backend, settings, checked=checked, worker=worker)
    with ExitStack() as stack:
        try:
            # In the same folder, so that a rename puts the whole file in place.
            folder = stack.enter_context(temporary_folder(file.parent))
        except OSError as error:
            raise UsageError(f"--engine {file}: cannot be written ({error.strerror})") from error
        whole = folder / file.name
        done = compile_model(model, backend, settings, engine=whole, checked=checked, worker=worker)
        if not done.builds:
            return done
        written = OutputFile(str(file), hashlib.sha256(whole.read_bytes()).hexdigest())
        whole.replace(file)
    return replace(done, engine=written)


def _engine_file(engine: Path | None, target: str | None, several: bool) -> Path | None:
    if engine is None or not several:
        return engine
    return engine.with_name(f"{engine.stem}.{target}{engine.suffix}")


def _check_engine_files(files: Sequence[Path], loaded: LoadedModel, force: bool) -> None:
    for file in files:
        if not file.parent.is_dir():
            raise UsageError(f"--engine {file}: folder '{file.parent}' does not exist")
        if file.is_dir():
            raise UsageError(f"--engine {file}: is a folder: name a file")
        if file.exists() and not file.is_file():
            raise UsageError(f"--engine {file}: is a device or a pipe: name a file")
        inputs = [path for path in (loaded.path, *loaded.external_files) if path is not None]
        if file.exists() and any(path.samefile(file) for path in inputs):
            raise UsageError(f"--engine {file}: belongs to the model: name another file")
        if file.exists() and not force:
            raise UsageError(f"--engine {file}: exists: pass --force to replace it")


def compile_model(
    model: Path,
    backend: str,
    settings: BuildSettings,
    *,
    engine: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
    checked: StageResult | None = None,
    worker: RestartingWorker | None = None,
) -> TargetBuild:
    """Compile the model at ``model`` in another process.

    Args:
        model: a file that `deployconv.graph.load.load` accepts; TensorRT may not notice a broken
            one.
        backend: ``tensorrt-rtx`` or ``tensorrt``.
        settings: how it is built, and for which target.
        engine: where to write the engine; nothing is written if the build fails.
        limits: what a worker of its own may use.
        checked: the stage ``check``, if the caller has timed it.
        worker: what compiles it, together with other models, as its start takes longer than a
            small model; None for a worker of its own.

    Raises BackendUnavailable if the library or the GPU to build for is missing.
    """
    stages = [checked or StageResult("check", "ok")]
    request = {
        "action": "compile",
        "library": get_runtime(backend).package,
        "model": str(model.resolve()),
        "settings": asdict(settings),
        "engine": None if engine is None else str(engine.resolve()),
    }
    value: dict[str, Any] = {}
    start = time.perf_counter()
    try:
        with nullcontext(worker) if worker else tensorrt_worker(limits) as asked:
            value = asked.ask(request, stages.append)
    except RequirementMissing as missing:
        raise BackendUnavailable(f"{missing}: {remedy(backend)}") from missing
    except WorkerFailed as failure:
        under_way = STAGES[len(stages)]
        seconds = time.perf_counter() - start
        stages.append(StageResult(under_way, "failed", seconds, str(failure)))
    return _target_build(settings.target, tuple(_complete(stages)), value)


def _complete(stages: Sequence[StageResult]) -> Iterator[StageResult]:
    """Yield ``stages``, the first ones, and every later stage as not run, with the reason."""
    yield from stages
    last = stages[-1]
    reason = f"{last.name} failed" if last.status == "failed" else _NOT_ASKED
    for name in STAGES[len(stages) :]:
        yield StageResult(name, "not-run", reason=reason)


def _target_build(
    target: str | None, stages: tuple[StageResult, ...], value: dict[str, Any]
) -> TargetBuild:
    """Make the result from the worker's answer, whose keys are fields of `TargetBuild`."""
    found = dict(value)
    for key, kind in (("kernels", Kernel), ("layers", PaddedLayer)):
        if found.get(key) is not None:
            found[key] = tuple(kind(**_tuples(one)) for one in found[key])
    return TargetBuild(target, stages, **found)


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Turn lists into tuples, as JSON has no tuples."""
    return {key: tuple(one) if isinstance(one, list) else one for key, one in fields.items()}


def refuse_what_tensorrt_overlooks(model: ModelProto, name: str) -> None:
    """Raise ModelError if ``model`` has inconsistent attributes or an impossible size."""
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value > _LARGEST_DIM:
                raise ModelError(
                    f"{name}: input '{value.name}' has a dimension of {dim.dim_value}, which "
                    "TensorRT cannot count: export the model with real or dynamic sizes"
                )
    for function in model.functions:
        _check(function.node, {}, name)
    _check_graph(model.graph, {}, name)


def _check_graph(graph: GraphProto, outer: Mapping[str, int], name: str) -> None:
    ranks = {**outer, **{tensor.name: len(tensor.dims) for tensor in graph.initializer}}
    _check(graph.node, ranks, name)


def _check(nodes: Iterable[NodeProto], ranks: Mapping[str, int], name: str) -> None:
    for node in nodes:
        if node.op_type in _WINDOWED and node.domain in ("", "ai.onnx"):
            _check_windowed(node, ranks, name)
        for _, body in graph_attributes(node):
            _check_graph(body, ranks, name)


def _check_windowed(node: NodeProto, ranks: Mapping[str, int], name: str) -> None:
    """Raise ModelError unless all lists of ``node`` are for the same number of spatial axes."""
    axes = dict(_axes(node))
    weight = node.input[1] if len(node.input) > 1 else ""
    if weight in ranks:
        axes["weight"] = ranks[weight] - 2
    if len(set(axes.values())) > 1:
        stated = ", ".join(f"{what} {count:g}" for what, count in axes.items())
        where = node.name or (node.output[0] if node.output else "")
        raise ModelError(
            f"{name}: node '{where}' ({node.op_type}) disagrees with itself on how many spatial "
            f"axes there are ({stated}): export the model again"
        )


def _axes(node: NodeProto) -> Iterator[tuple[str, float]]:
    for attribute in node.attribute:
        if not attribute.ints or attribute.ref_attr_name:
            continue
        if attribute.name in _PER_AXIS:
            yield attribute.name, len(attribute.ints)
        elif attribute.name == "pads":
            yield attribute.name, len(attribute.ints) / 2
