"""What compiling both models shows: the gate, and which layers a target needs rewritten.

A build that fails is certain, so a gate can rest on it; nothing here says that an engine runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from onnx import ModelProto

from deployconv.errors import CheckFailed
from deployconv.graph.load import LoadedModel, load
from deployconv.match import Site, UpsampleSite
from deployconv.options import FeedOptions, ShapeRanges
from deployconv.proof.profile import imported_name
from deployconv.results import (
    BuildReport,
    Compilation,
    PaddedLayer,
    Rewriting,
    TargetBuild,
    TargetNote,
)
from deployconv.runtimes import get_runtime
from deployconv.runtimes.base import ModelSource
from deployconv.runtimes.tensorrt.compile import build_engines
from deployconv.runtimes.tensorrt.installation import find_installation

_WEIGHTS_GROWN = 1.5
"""A rewritten model whose weights take more than this many times as much is warned about."""
_SIZE = 16
"""Of a dynamic axis where a layer is compiled by itself."""


@dataclass(frozen=True)
class Targets:
    """What both models are compiled for.

    Attributes:
        names: compute capabilities such as ``sm89``.
        backend: ``tensorrt-rtx`` or ``tensorrt``; None for the first that is installed.
        shapes: sizes of dynamic inputs.
    """

    names: tuple[str, ...]
    backend: str | None = None
    shapes: ShapeRanges = field(default_factory=dict)

    def build(self, loaded: LoadedModel, source: ModelSource) -> BuildReport:
        """Compile ``source``, which is ``loaded``.

        Raises:
            UsageError, ModelError: there is no such target, the shapes do not fit.
            BackendUnavailable: the library is not installed.
        """
        return build_engines(
            loaded, source, backend=self.backend, targets=self.names, shapes=self.shapes
        )


def targets_of(target: str | Sequence[str], backend: str, feed: FeedOptions) -> Targets | None:
    """What both models are to be compiled for; None where nothing was asked for.

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
    """Why ``backend`` can compile here but run nothing; None where it can run."""
    if not get_runtime(backend).compiles or find_installation(backend).device is not None:
        return None
    return f"{backend} finds no GPU on this machine; compiled only"


def marked(
    done: Rewriting, sites: Sequence[Site], before: BuildReport, targets: Targets
) -> Rewriting:
    """Add to each site whether a target needs it rewritten, before the model is edited."""
    notes = target_notes(sites, before, targets.backend)
    reports = (replace(report, target_note=notes.get(report.id)) for report in done.sites)
    return replace(done, sites=tuple(reports))


def compiled(done: Rewriting, before: BuildReport, candidate: Path, targets: Targets) -> Rewriting:
    """Compile the rewritten model as the original was, and add what that shows.

    Raises:
        CheckFailed: a target takes the original and not the rewritten model.
    """
    both = Compilation(before, targets.build(load(candidate), candidate))
    warnings = (
        f"{built.target}: {text}" for built, now in both.pairs for text in _warnings(built, now)
    )
    done = replace(done, compiled=both, warnings=(*done.warnings, *warnings))
    for built in both.broken:
        why = built.failure.reason if built.failure else "no reason given"
        raise CheckFailed(
            f"{built.target}: builds as exported, not rewritten: {why}: nothing was written", done
        )
    return done


def target_notes(
    sites: Iterable[Site], before: BuildReport, backend: str | None = None
) -> dict[str, TargetNote]:
    """By site id: layers that a target cannot take as exported, or whose padding it misreads.

    Where the original does not build, each ConvTranspose is compiled by itself, as a build
    error seldom says which layer it is about.
    """
    notes: dict[str, TargetNote] = {}
    failing = [built.target for built in before.targets if not built.builds and built.target]
    for site in sites:
        if not isinstance(site, UpsampleSite) or site.pattern != "conv_transpose":
            continue
        note = _needed(site, failing, backend) if failing else None
        note = note or _misread(site, before.targets)
        if note is not None:
            notes[site.id] = note
    return notes


def _warnings(before: TargetBuild, after: TargetBuild) -> Iterable[str]:
    if before.failure is not None and after.failure is not None:
        yield f"builds neither as exported nor rewritten: {after.failure.reason}"
    if before.weights_bytes and after.weights_bytes:
        growth = after.weights_bytes / before.weights_bytes
        if growth > _WEIGHTS_GROWN:
            yield (
                f"weights grow {growth:.1f} times, from {before.weights_bytes:,} to "
                f"{after.weights_bytes:,} bytes"
            )
    if before.kernels is not None and after.kernels is not None:
        counts = len(before.kernels), len(after.kernels)
        if counts[1] > counts[0]:
            yield f"{counts[1]} kernels, {counts[0]} as exported"


def _needed(site: UpsampleSite, targets: Sequence[str], backend: str | None) -> TargetNote | None:
    proto = _site_model(site)
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
    """The layer by itself, in its own element type."""
    original = site.original()
    parameters = [parameter for parameter in (site.weight, site.bias) if parameter]
    constants = {**original.constants, **{one.name: one.read() for one in parameters}}
    kind = onnx.helper.np_dtype_to_tensor_dtype(site.weight.dtype)
    front = original.front or (1, site.channels[0])
    sizes = original.sizes or tuple(size or _SIZE for size in site.sizes)
    graph = onnx.helper.make_graph(
        original.nodes,
        "layer",
        [onnx.helper.make_tensor_value_info(site.input, kind, [*front, *sizes])],
        [onnx.helper.make_tensor_value_info(site.output, kind, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", site.scope.opset)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _misread(site: UpsampleSite, targets: Sequence[TargetBuild]) -> TargetNote | None:
    for built in targets:
        layer = _layer_of(site, built.layers)
        difference = None if layer is None else _difference(site, layer)
        if difference is not None:
            # The importer knows no targets: what it misreads for one it misreads for all.
            names = tuple(one.target for one in targets if one.target)
            return TargetNote("misread", names, difference)
    return None


def _layer_of(site: UpsampleSite, layers: Sequence[PaddedLayer]) -> PaddedLayer | None:
    """The layer that was made of the site's node; None where names do not tell."""
    node = site.layer
    name = imported_name(node)
    found = [
        layer
        for layer in layers
        if layer.kind == "deconvolution" and layer.node.split(" | ")[0] == name
    ]
    return found[0] if len(found) == 1 else None


def _difference(site: UpsampleSite, layer: PaddedLayer) -> str | None:
    """How the importer read the padding otherwise than ONNX states it; None where it did not."""
    stated, read = [], []
    # A 1-D layer is read as 2-D with an axis of size 1 behind; that one has no padding.
    for axis, dilation, pre, post in zip(
        site.axes,
        site.geometry.dilation or (),
        layer.pre_padding[: site.rank],
        layer.post_padding[: site.rank],
        strict=True,
    ):
        reach = dilation * (axis.taps - 1) + 1
        # What is cut off at the end, less the output_padding; negative where output is added.
        end = reach - axis.stride - axis.origin - axis.extra
        stated.append((axis.origin, end))
        if layer.mode.startswith("SAME"):
            total = max(reach - axis.stride, 0)
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
