"""Compile both models for TensorRT targets, and say which layers a target needs rewritten.

A rewritten model that a target does not compile, though it compiles the original, has failed. A
build that succeeds does not show that its engine runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from deployconv.errors import CheckFailed
from deployconv.graph.load import LoadedModel, load
from deployconv.match import ResampleSite, Site, UpsampleSite
from deployconv.options import FeedOptions, ShapeRanges
from deployconv.proof.site_times import imported_name
from deployconv.proof.toolchain_builds import build_with_toolchains
from deployconv.results import (
    BuildReport,
    Compilation,
    PaddedLayer,
    Rewriting,
    TargetBuild,
    TargetNote,
)
from deployconv.rewrites.resample_trial import resized_to
from deployconv.runtimes import get_runtime
from deployconv.runtimes.base import Array, ModelSource
from deployconv.runtimes.tensorrt.compile import build_engines
from deployconv.runtimes.tensorrt.installation import find_installation

_WEIGHTS_GROWTH = 1.5
"""A rewritten model whose weights grow by more than this factor gets a warning."""

_SIZE = 16
"""Size of a dynamic axis if a layer is compiled by itself."""


@dataclass(frozen=True)
class Targets:
    """What both models are compiled for, and how.

    Attributes:
        names: compute capabilities such as ``sm89``.
        backend: ``tensorrt-rtx`` or ``tensorrt``; None for the first that is installed.
        shapes: smallest, optimal and largest shape of dynamic inputs, by name.
        converted: targets that a toolchain of its own converts models for.
        feed: the inputs that these are converted and run with.
    """

    names: tuple[str, ...] = ()
    backend: str | None = None
    shapes: ShapeRanges = field(default_factory=dict)
    converted: tuple[str, ...] = ()
    feed: FeedOptions = field(default_factory=FeedOptions)

    def build(self, loaded: LoadedModel, source: ModelSource) -> BuildReport:
        """Compile ``source`` for all targets; ``loaded`` is the same model.

        Raises:
            UsageError, ModelError: there is no such target, or the shapes do not fit.
            BackendUnavailable: the library is not installed.
        """
        if not self.converted:
            return build_engines(
                loaded, source, backend=self.backend, targets=self.names, shapes=self.shapes
            )
        others = build_with_toolchains(loaded, source, self.converted, self.feed)
        if not self.names:
            return others
        engines = replace(self, converted=()).build(loaded, source)
        return replace(
            engines,
            runtime=f"{engines.runtime}; {others.runtime}",
            targets=(*engines.targets, *others.targets),
        )


def targets_of(target: str | Sequence[str], backend: str, feed: FeedOptions) -> Targets | None:
    """The targets of a call by their names; None if there are none.

    Raises:
        UsageError: there is no such target.
        BackendUnavailable: the library is not installed.
    """
    names = (target,) if isinstance(target, str) else tuple(target)
    library = backend if get_runtime(backend).compiles else None
    for name in names:
        find_installation(library).require(name)
    ranges = {name: (sizes, sizes, sizes) for name, sizes in feed.shapes.items()}
    return Targets(names, library, ranges) if names else None


def no_gpu(backend: str) -> str | None:
    """Why ``backend`` cannot run a model on this machine, only compile it; None if it can."""
    if not get_runtime(backend).compiles or find_installation(backend).device is not None:
        return None
    return f"{backend} finds no GPU on this machine; compiled only"


def with_target_notes(
    result: Rewriting, sites: Sequence[Site], before: BuildReport, targets: Targets
) -> Rewriting:
    """Add to each site whether a target needs it rewritten, from the build of the original."""
    notes = target_notes(sites, before, targets.backend)
    reports = (replace(report, target_note=notes.get(report.id)) for report in result.sites)
    return replace(result, sites=tuple(reports))


def compile_rewritten(
    result: Rewriting, before: BuildReport, candidate: Path, targets: Targets
) -> Rewriting:
    """Compile the rewritten model as the original was; add both builds and warnings to ``result``.

    Raises:
        CheckFailed: a target compiles the original and not the rewritten model.
    """
    both = Compilation(before, targets.build(load(candidate), candidate))
    warnings = (
        f"{built.target}: {text}" for built, now in both.pairs for text in _warnings(built, now)
    )
    result = replace(result, compiled=both, warnings=(*result.warnings, *warnings))
    for built in both.broken:
        why = built.failure.reason if built.failure else "no reason given"
        what = (
            "is computed right as exported, wrong" if built.misread else "builds as exported, not"
        )
        raise CheckFailed(f"{built.target}: {what} rewritten: {why}: nothing was written", result)
    return result


def target_notes(
    sites: Iterable[Site], before: BuildReport, backend: str | None = None
) -> dict[str, TargetNote]:
    """By site id: layers that a target cannot compile as exported, or whose padding it misreads.

    If the original does not build, each ConvTranspose and each interpolating Resize is compiled by
    itself, since a build error rarely names the layer.
    """
    notes: dict[str, TargetNote] = {}
    failing = [
        built.target
        for built in before.targets
        if built.target and not built.builds and built.conversion is None
    ]
    for site in sites:
        layer = site if isinstance(site, ResampleSite) else site.conv_transpose
        if layer is None:
            continue
        note = _needed(layer, failing, backend) if failing else None
        if note is None and isinstance(layer, UpsampleSite):
            note = _misread(layer, before.targets)
        if note is not None:
            notes[site.id] = note
    return notes


def _warnings(before: TargetBuild, after: TargetBuild) -> Iterable[str]:
    if before.failure is not None and after.failure is not None:
        yield f"builds neither as exported nor rewritten: {after.failure.reason}"
    if before.weights_bytes and after.weights_bytes:
        growth = after.weights_bytes / before.weights_bytes
        if growth > _WEIGHTS_GROWTH:
            yield (
                f"weights grow {growth:.1f} times, from {before.weights_bytes:,} to "
                f"{after.weights_bytes:,} bytes"
            )
    if before.kernels is not None and after.kernels is not None:
        counts = len(before.kernels), len(after.kernels)
        if counts[1] > counts[0]:
            yield f"{counts[1]} kernels, {counts[0]} as exported"


def _needed(
    site: UpsampleSite | ResampleSite, targets: Sequence[str], backend: str | None
) -> TargetNote | None:
    """Which of ``targets`` do not compile the layer by itself; None if all do."""
    proto = _resize_model(site) if isinstance(site, ResampleSite) else _site_model(site)
    loaded = load(proto)
    report = build_engines(
        loaded, proto.SerializeToString(), backend=backend, targets=targets, shapes={}
    )
    failed = [built for built in report.targets if built.failure is not None]
    if not failed:
        return None
    names = tuple(built.target for built in failed if built.target)
    reason = failed[0].failure.reason if failed[0].failure else None
    return TargetNote("needed", names, f"{report.runtime}: {reason}")


def _site_model(site: UpsampleSite) -> ModelProto:
    """A model of the layer alone, in its own element type."""
    original = site.original()
    parameters = [parameter for parameter in (site.weight, site.bias) if parameter]
    constants = {**original.constants, **{one.name: one.read() for one in parameters}}
    kind = onnx.helper.np_dtype_to_tensor_dtype(site.weight.dtype)
    batch_and_channels = original.batch_and_channels or (1, site.channels[0])
    sizes = original.sizes or tuple(size or _SIZE for size in site.sizes)
    shape = site.input_axes.to_tensor([*batch_and_channels, *sizes])
    return _layer_model(site, original.nodes, constants, kind, shape)


def _resize_model(site: ResampleSite) -> ModelProto:
    """A model of the Resize alone, with constant scales or sizes."""
    shape = [size or _SIZE for size in site.shape]
    target, scales = list(shape), [1.0] * len(shape)
    for axis in site.axes:
        known = axis if axis.inputs is not None else axis.at(shape[axis.position])
        _, target[axis.position] = known.sizes
        scales[axis.position] = axis.scale
    node = site.scope.copy_of(site.layer)
    constants = resized_to(node, target if site.by_sizes else None, scales)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(site.dtype))
    return _layer_model(site, [node], constants, kind, shape)


def _layer_model(
    site: UpsampleSite | ResampleSite,
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array],
    kind: int,
    shape: Sequence[int],
) -> ModelProto:
    """A model of ``nodes``, which are ``site``, for an image of this element type and shape."""
    source = site.source if isinstance(site, ResampleSite) else site.input
    graph = onnx.helper.make_graph(
        nodes,
        "layer",
        [onnx.helper.make_tensor_value_info(source, kind, shape)],
        [onnx.helper.make_tensor_value_info(site.output, kind, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", site.scope.opset)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _misread(site: UpsampleSite, targets: Sequence[TargetBuild]) -> TargetNote | None:
    """How TensorRT's importer misreads the layer's padding; None if it reads it correctly."""
    for built in targets:
        layer = _layer_of(site, built.layers)
        difference = None if layer is None else _difference(site, layer)
        if difference is not None:
            # The importer does not depend on the target: it misreads the layer for all of them.
            names = tuple(one.target for one in targets if one.target)
            return TargetNote("misread", names, difference)
    return None


def _layer_of(site: UpsampleSite, layers: Sequence[PaddedLayer]) -> PaddedLayer | None:
    """TensorRT's layer for the site's node; None if no or more than one layer has its name."""
    node = site.layer
    name = imported_name(node)
    found = [
        layer
        for layer in layers
        if layer.kind == "deconvolution" and layer.node.split(" | ")[0] == name
    ]
    return found[0] if len(found) == 1 else None


def _difference(site: UpsampleSite, layer: PaddedLayer) -> str | None:
    """How the padding that the importer read differs from ONNX's; None if it does not."""
    stated, read = [], []
    # A 1-D layer is read as 2-D: the second axis has size 1 and no padding.
    for axis, dilation, pre, post in zip(
        site.axes,
        site.geometry.dilation or (),
        layer.pre_padding[: site.rank],
        layer.post_padding[: site.rank],
        strict=True,
    ):
        extent = dilation * (axis.taps - 1) + 1
        # What is cut off at the end, less the output_padding; negative if output is added.
        end = extent - axis.stride - axis.origin - axis.extra
        stated.append((axis.origin, end))
        if layer.mode.startswith("SAME"):
            total = max(extent - axis.stride, 0)
            pre = total // 2 if layer.mode == "SAME_UPPER" else total - total // 2
            post = total - pre
        read.append((pre, post))
    if any(
        pre != begin or post != max(end, 0)
        for (begin, end), (pre, post) in zip(stated, read, strict=True)
    ):
        return f"ONNX pads {_shown(stated)}, TensorRT's importer reads {_shown(read)}"
    if layer.bias_at_run_time and any(end < 0 for _, end in stated):
        return "TensorRT's importer leaves the bias out where output_padding adds a border"
    return None


def _shown(pads: Sequence[tuple[int, int]]) -> str:
    return ", ".join(str(pair) for pair in pads)
