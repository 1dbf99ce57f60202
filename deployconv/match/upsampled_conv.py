"""A Conv behind data movement that upsamples: zero insertion or nearest Resize, any spelling.

    x -> movement, perhaps with pointwise layers between -> z -> Conv -> y

Along each axis ``z[h]`` is ``x[(h - begin) / s]`` (`index_map.AxisMap`), and the Conv reads
``h = o - p + d*t``. So output ``o`` and tap ``t`` read input ``(o - p - begin + d*t) / s``:
the very form of `polyphase.Axis`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs
from onnx import NodeProto

from deployconv.graph.scope import Scope
from deployconv.graph.shapes import Instance
from deployconv.graph.symbolic import Unproven
from deployconv.graph.view import View, remembered
from deployconv.match.attributes import (
    AttributeReader,
    ConvAttributes,
    dtype_name,
    has_references,
    spatial_sizes,
)
from deployconv.match.index_map import ZERO, AxisMap, fit_axes, fits
from deployconv.match.movement import Movement, Segment, movements
from deployconv.match.parameters import find_parameters, find_weight
from deployconv.match.pointwise import keeps_zero, per_channel
from deployconv.match.site import (
    Geometry,
    Original,
    Pointwise,
    Site,
    Skip,
    SkippedSite,
    UpsampleSite,
)
from deployconv.match.uniform import other_instances
from deployconv.polyphase import Axis
from deployconv.results import Pattern

TRIES = 24
"""Possible low-resolution inputs that are looked at for one Conv."""
_ANY_CHANNELS = 3
"""For a layer that does the same to every channel."""


@dataclass(frozen=True, eq=False)
class Upsampling:
    """Movement that upsamples, and the map of each spatial axis."""

    movement: Movement
    maps: tuple[AxisMap, ...]
    folded: bool
    """True where the movement makes every channel a batch element of its own."""
    proven: bool = True
    """False where it may do something else at sizes that were not tried."""

    @property
    def pattern(self) -> Pattern:
        """Zero insertion leaves zeros between the samples, nearest Resize repeats them."""
        return "nearest_resize" if any(found.hold for found in self.maps) else "zero_insertion"

    @property
    def invariant(self) -> tuple[object, ...]:
        """What may not depend on the size."""
        axes = ((found.stride, found.begin, found.hold, found.tail) for found in self.maps)
        return self.folded, *axes

    @property
    def sets_zeros(self) -> bool:
        """True where an element of the result is zero whatever the input."""
        return any(
            found.source(index) == ZERO for found in self.maps for index in range(found.size)
        )


def recognise(node: gs.Node, scope: Scope, view: View, name: str, pattern: Pattern) -> Site | None:
    """The site of ``pattern`` that ends in the Conv ``node``, or None.

    Raises ModelError for a Conv that no runtime could accept.
    """
    if node.op != "Conv" or node.domain not in (None, "", "ai.onnx") or has_references(node):
        return None
    found = find_upsampling(node, scope, view)
    if found is None or found.pattern != pattern:
        return None
    nodes = (*found.movement.nodes, node)
    x = found.movement.source
    strides = tuple(axis.stride for axis in found.maps)

    def skip(reason: Skip, geometry: Geometry | None = None) -> Site:
        return SkippedSite(name, pattern, scope, nodes, geometry, dtype_name(x.dtype), reason)

    weight = find_weight(node, scope, view)
    if isinstance(weight, Skip):
        return skip(weight)
    reader = AttributeReader(node, name)
    conv = reader.conv(weight, grouped_axis=0)
    geometry = Geometry(strides, conv.kernel, conv.dilations, conv.group)
    parameters = find_parameters(node, scope, view, weight)
    if isinstance(parameters, Skip):
        return skip(parameters, geometry)
    channels = weight.shape[1] * conv.group, weight.shape[0]
    reader.check_operands(node.inputs[0], weight, parameters.bias, channels)
    if found.movement.overridable() and not view.constants.frozen:
        text = "a caller may override a graph input that decides what it moves where"
        return skip(Skip("overridable-initializer", text), geometry)
    obstacle = _obstacle(found, conv)
    if obstacle is not None:
        return skip(obstacle, geometry)
    pads = conv.explicit_pads
    return UpsampleSite(
        id=name,
        pattern=pattern,
        scope=scope,
        nodes=nodes,
        input=x.name,
        output=node.outputs[0].name,
        axes=tuple(map(_axis, found.maps, conv.kernel, conv.dilations, pads)),
        geometry=geometry,
        weight=parameters.weight,
        transposed=False,
        bias=parameters.bias,
        sizes=spatial_sizes(x, conv.rank),
        original=lambda: _original(found.movement, node, channels[0], conv.rank + 2),
        prelude=tuple(
            Pointwise(segment.nodes, segment.source.name, segment.target.name)
            for segment in found.movement.pointwise
        ),
        folded=found.folded,
        repeats=_only_repeats(found.maps) and set(conv.kernel) == {1} and not any(conv.pads),
    )


def is_upsampling(node: gs.Node, scope: Scope, view: View, rank: int) -> bool:
    """True where ``node`` by itself repeats or spreads its input by a whole factor.

    ``rank`` is that of its input.
    """
    movement = next(movements(node.outputs[0], scope, view), None)
    if movement is None or movement.source is not node.inputs[0]:
        return False
    dtype = dtype_name(node.inputs[0].dtype) or "float32"
    return mapped(movement, _ANY_CHANNELS, rank, dtype) is not None


@remembered
def find_upsampling(node: gs.Node, scope: Scope, view: View) -> Upsampling | None:
    """The farthest movement before the Conv ``node`` that upsamples; None if there is none."""
    if node.domain not in (None, "", "ai.onnx"):
        return None
    weight = find_weight(node, scope, view)
    known = None if isinstance(weight, Skip) else weight
    rank = len(known.shape) if known is not None else None
    channels = known.shape[1] * node.attrs.get("group", 1) if known is not None else None
    dtype = known.dtype.name if known is not None else "float32"
    farthest: Upsampling | None = None
    for tried, movement in enumerate(movements(node.inputs[0], scope, view)):
        if tried == TRIES:
            break
        if movement.segments[0].pointwise:
            continue  # what already runs at low resolution may stay there
        found = mapped(movement, channels, rank, dtype)
        if found is None or all(axis.stride == 1 for axis in found.maps):
            continue
        if farthest is None or found.proven or not farthest.proven:
            farthest = found
    return farthest


def mapped(
    movement: Movement, channels: int | None, rank: int | None, dtype: str, fill: float = 0.0
) -> Upsampling | None:
    """The movement with the map of each axis, the same at every size that was tried.

    ``fill`` is what stands for zero among the elements that the movement sets.
    """
    agreed: Upsampling | None = None
    for instance in movement.instances(channels, rank):
        shape = instance[movement.source.name]
        if len(instance.get(movement.target.name, shape)) != len(shape):
            return None  # before its map is made, which takes long where images are large
        sources = movement.index_map(instance, dtype, fill)
        if sources is None or not 3 <= sources.ndim <= 5:
            return None
        if len(shape) != sources.ndim:
            return None
        if not all(_commutes(segment, movement, instance) for segment in movement.pointwise):
            return None
        folded = sources.shape[:2] == (shape[0] * shape[1], 1) and shape[1] > 1
        maps = fit_axes(sources, _folded(shape) if folded else shape)
        if maps is None:
            return None
        found = Upsampling(movement, maps, folded)
        if agreed is not None and agreed.invariant != found.invariant:
            return None
        agreed = found
    if agreed is None or not movement.dynamic:
        return agreed
    return replace(agreed, proven=_is_proven(agreed, dtype))


def _folded(shape: Sequence[int]) -> tuple[int, ...]:
    """``[N, C, ..]`` with every channel a batch element."""
    batch, channels, *sizes = shape
    return batch * channels, 1, *sizes


def _is_proven(found: Upsampling, dtype: str) -> bool:
    """True where the movement does the same at all sizes."""
    movement = found.movement
    try:
        for instance in other_instances(movement):
            sources = movement.index_map(instance, dtype)
            shape = instance[movement.source.name]
            given = _folded(shape) if found.folded else shape
            if sources is None or not fits(sources, found.maps, given):
                return False
    except Unproven:
        return False
    return True


def _commutes(segment: Segment, movement: Movement, instance: Instance) -> bool:
    """True where a pointwise ``segment`` does the same to the source of the movement.

    What it holds for each channel must find the same channels there.
    """
    view, scope, shape = movement.view, movement.scope, instance[movement.source.name]
    layers = [per_channel(node, scope, view) for node in segment.nodes]
    if any(rank > len(shape) for _, rank in layers):
        return False
    if not any(by_channel for by_channel, _ in layers):
        return True
    before = movement.until(segment)
    sources = before.index_map(instance, dtype_name(segment.source.dtype) or "float32")
    if sources is None or sources.ndim != len(shape):
        return False
    channels = np.unravel_index(np.maximum(sources, 0), shape)[1]
    expected = np.arange(sources.shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    return bool((channels == expected)[sources != ZERO].all())


def _obstacle(found: Upsampling, conv: ConvAttributes) -> Skip | None:
    """Why this Conv cannot be lowered together with what is in front of it."""
    if any(stride > 1 for stride in conv.strides):
        return Skip("strided-conv", "the Conv behind the upsampling has a stride of its own")
    if conv.auto_pad != "NOTSET" and any(conv.pads):
        return Skip("ambiguous-same-pads", "the Conv has both auto_pad and pads")
    pads = conv.explicit_pads
    for axis, (begin, end) in zip(found.maps, pads, strict=True):
        beyond = (*range(-begin, 0), *range(axis.size, axis.size + end))
        if any(axis.source(index) != ZERO for index in beyond):
            text = "the upsampled tensor is cropped where the Conv pads it with zeros again"
            return Skip("cropped-upsampling", text)
    if not found.proven:
        text = "what it moves where is not shown to be the same at all sizes"
        return Skip("unproven-dynamic-sizes", text)
    if found.sets_zeros:
        for run in _runs(found.movement.pointwise):
            view, scope = found.movement.view, found.movement.scope
            nodes = [node for segment in run for node in segment.nodes]
            if not keeps_zero(nodes, run[0].source, run[-1].target, scope, view):
                text = "a layer between the inserted zeros and the Conv makes them other values"
                return Skip("shifted-zeros", text)
    return None


def _runs(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Segments, each with those directly behind it: what one makes of zero another undoes."""
    runs: list[list[Segment]] = []
    for segment in segments:
        if runs and runs[-1][-1].target is segment.source:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs


def _axis(found: AxisMap, taps: int, dilation: int, pads: tuple[int, int]) -> Axis:
    size = found.size + sum(pads) - dilation * (taps - 1)
    return Axis(
        stride=found.stride,
        taps=taps,
        step=dilation,
        origin=-pads[0] - found.begin,
        extra=size - found.stride * found.input_size,
        hold=found.hold,
    )


def _only_repeats(maps: Sequence[AxisMap]) -> bool:
    return all(
        found.begin == 0 and found.tail == 0 and (found.hold or found.stride == 1) for found in maps
    )


def _original(movement: Movement, conv: gs.Node, channels: int, rank: int) -> Original:
    """The nodes at the first sizes that were tried; pointwise layers are left out."""
    instance = movement.instances(channels, rank)[0]
    nodes, constants, target = movement.runnable(instance)
    last = NodeProto()
    last.CopyFrom(movement.scope.proto.node[movement.scope.index(conv)])
    last.input[0] = target
    nodes.append(last)
    batch, depth, *sizes = instance[movement.source.name]
    return Original(tuple(nodes), constants, tuple(sizes), (batch, depth))
