"""Pixel shuffle: channels into space, as DepthToSpace or spelled out.

    x -> (Conv) -> Reshape -> Transpose -> Reshape -> y

``y[n, c, s*i + q]`` is ``x[n, channel(c, q), i]``. Where the phase ``q`` runs fastest in the
channels (CRD) or slowest (DCR), this is DepthToSpace; any other order is none, and neither is
its inverse. Which it is tells the map of the elements, not the permutation that stands there.
A Conv in front is part of the site: its output channels can be put into the other order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.scope import Scope
from deployconv.graph.symbolic import Unproven
from deployconv.graph.view import View
from deployconv.match.attributes import (
    AttributeReader,
    ConvAttributes,
    dtype_name,
    has_references,
    spatial_sizes,
)
from deployconv.match.movement import Movement, movements
from deployconv.match.parameters import Parameters, find_parameters, find_weight
from deployconv.match.site import (
    ChannelOrder,
    ConvInFront,
    Geometry,
    Original,
    ShuffleSite,
    Site,
    Skip,
    UpsampleSite,
)
from deployconv.match.uniform import other_instances
from deployconv.match.upsampled_conv import find_upsampling
from deployconv.polyphase import Axis

Array = NDArray[Any]

_SPELLED = frozenset(
    {"Einsum", "Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "Flatten"}
)
_LONGEST = 8
"""Nodes of a shuffle that is spelled out."""


def recognise(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The site that ends in ``node``, a DepthToSpace or the last Reshape of a shuffle."""
    if node.domain not in (None, "", "ai.onnx") or has_references(node):
        return None
    if node.op == "DepthToSpace":
        return _depth_to_space(node, scope, view, name)
    if node.op != "Reshape":
        return None
    found = None
    for movement in movements(node.outputs[0], scope, view):
        ops = {part.op for part in movement.nodes}
        if not ops <= _SPELLED or len(movement.nodes) > _LONGEST:
            break
        if ops & {"Einsum", "Transpose"}:
            found = _shuffle_of(movement) or found
    if found is None:
        return None
    movement, stride, order = found
    return _site(name, movement.nodes, movement, stride, order)


def _depth_to_space(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    block = node.attrs.get("blocksize", 1)
    if block < 2:
        return None
    order: ChannelOrder = "CRD" if node.attrs.get("mode", "DCR") == "CRD" else "DCR"
    movement = Movement(view, scope, node.inputs[0], node.outputs[0], ())
    return _site(name, (node,), movement, (block, block), order)


_Found = tuple[Movement, tuple[int, ...], ChannelOrder]


def _shuffle_of(movement: Movement) -> _Found | None:
    """Stride and channel order, the same at every size that was tried; None for others."""
    x, y = movement.source, movement.target
    instances = movement.view.instances(movement.scope, x, *movement.outside())
    dtype = dtype_name(x.dtype) or "float32"
    agreed: tuple[tuple[int, ...], ChannelOrder] | None = None
    if movement.overridable() and not movement.view.constants.frozen:
        return None
    for instance in instances:
        # Where the result's shape is known, most look-alikes end here.
        if y.name in instance and _stride(instance[x.name], instance[y.name]) is None:
            return None
        sources = movement.index_map(instance, dtype)
        stride = None if sources is None else _stride(instance[x.name], sources.shape)
        if sources is None or stride is None:
            return None
        order = fit_order(sources, instance[x.name], stride)
        if order is None or (agreed is not None and agreed != (stride, order)):
            return None
        agreed = stride, order
    if agreed is None or (movement.dynamic and not _is_proven(movement, *agreed, dtype)):
        return None
    return movement, *agreed


def _is_proven(
    movement: Movement, stride: tuple[int, ...], order: ChannelOrder, dtype: str
) -> bool:
    """True where the movement is the same shuffle at all sizes."""
    try:
        for instance in other_instances(movement):
            sources, shape = movement.index_map(instance, dtype), instance[movement.source.name]
            if sources is None or _stride(shape, sources.shape) != stride:
                return False
            if fit_order(sources, shape, stride) != order:
                return False
    except Unproven:
        return False
    return True


def _stride(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...] | None:
    """The factor of each spatial axis, if the sizes are those of a shuffle."""
    if len(before) != len(after) or not 3 <= len(before) <= 5 or before[0] != after[0]:
        return None
    if any(size % old for old, size in zip(before[2:], after[2:], strict=True)):
        return None
    stride = tuple(size // old for old, size in zip(before[2:], after[2:], strict=True))
    return stride if prod(stride) > 1 and before[1] == after[1] * prod(stride) else None


def fit_order(
    sources: Array, input_shape: Sequence[int], stride: Sequence[int]
) -> ChannelOrder | None:
    """The channel order for which ``sources`` is a pixel shuffle; None where none is.

    Args:
        sources: ``[N, C, s_1*i_1 ..]``, flat input index of each output element.
        input_shape: ``[N, C * s_1 * .. * s_n, i_1 .. i_n]``.
        stride: ``s_1 .. s_n``.
    """
    batch, depth, *sizes = input_shape
    rank, phases = len(stride), prod(stride)
    channels = depth // phases
    flat = np.arange(prod(input_shape))
    orders: tuple[tuple[ChannelOrder, list[int], list[int]], ...] = (
        ("CRD", [channels, *stride], [1, *range(2, 2 + rank)]),
        ("DCR", [*stride, channels], [1 + rank, *range(1, 1 + rank)]),
    )
    for order, split, (channel_axis, *phase_axes) in orders:
        space_axes = range(2 + rank, 2 + 2 * rank)
        interleaved = [axis for pair in zip(space_axes, phase_axes, strict=True) for axis in pair]
        moved = flat.reshape(batch, *split, *sizes).transpose(0, channel_axis, *interleaved)
        if np.array_equal(moved.reshape(sources.shape), sources):
            return order
    return None


def _site(
    name: str,
    nodes: tuple[gs.Node, ...],
    movement: Movement,
    stride: tuple[int, ...],
    order: ChannelOrder,
) -> ShuffleSite:
    source, scope = movement.source, movement.scope
    conv = _conv_in_front(movement, name)
    kernel = dilation = group = None
    if conv is not None:
        nodes = (conv.node, *nodes)
        kernel, dilation, group = conv.kernel, conv.dilation, conv.group
    return ShuffleSite(
        id=name,
        pattern="pixel_shuffle",
        scope=scope,
        nodes=nodes,
        source=source.name,
        output=movement.target.name,
        geometry=Geometry(stride, kernel, dilation, group),
        stride=stride,
        order=order,
        dtype=dtype_name(source.dtype) or (conv.weight.dtype.name if conv else None),
        channels=_channels(movement, conv),
        sizes=spatial_sizes(source, len(stride)),
        spelled=len(movement.nodes) > 0,
        conv=conv,
        original=lambda: _original(movement),
        behind=lambda x: _behind(movement, x),
    )


def _conv_in_front(movement: Movement, name: str) -> ConvInFront | None:
    """The Conv that makes the channels, where it serves this shuffle alone."""
    source, scope, view = movement.source, movement.scope, movement.view
    node = source.inputs[0] if source.inputs else None
    if node is None or node.op != "Conv" or not scope.holds(node) or has_references(node):
        return None
    if find_upsampling(node, scope, view) is not None:
        return None  # the end of a site of its own
    weight = find_weight(node, scope, view)
    if len(source.outputs) != 1 or source.name in scope.outputs or isinstance(weight, Skip):
        return None
    if _behind(movement, node.inputs[0]) is None:
        return None
    parameters = find_parameters(node, scope, view, weight)
    if isinstance(parameters, Skip):
        return None
    conv = AttributeReader(node, name).conv(weight, grouped_axis=0)
    return ConvInFront(
        node=node,
        kernel=conv.kernel,
        dilation=conv.dilations,
        group=conv.group,
        weight=parameters.weight,
        bias=parameters.bias,
        original=lambda: _original(movement, node),
        layer=_layer(node, scope, name, conv, parameters),
    )


def _layer(
    node: gs.Node, scope: Scope, name: str, conv: ConvAttributes, parameters: Parameters
) -> UpsampleSite | None:
    """The Conv by itself, which makes one pixel of each."""
    if {*conv.strides, *conv.dilations} != {1}:
        return None
    pads, x = conv.explicit_pads, node.inputs[0]
    return UpsampleSite(
        id=name,
        pattern="pixel_shuffle",
        scope=scope,
        nodes=(node,),
        input=x.name,
        output=node.outputs[0].name,
        axes=tuple(
            Axis(1, taps, 1, -begin, begin + end - taps + 1)
            for taps, (begin, end) in zip(conv.kernel, pads, strict=True)
        ),
        geometry=Geometry(conv.strides, conv.kernel, conv.dilations, conv.group),
        weight=parameters.weight,
        transposed=False,
        bias=parameters.bias,
        sizes=spatial_sizes(x, conv.rank),
        original=lambda: Original((scope.proto.node[scope.index(node)],), {}),
    )


def _channels(movement: Movement, conv: ConvInFront | None) -> int | None:
    """Channels in front of the shuffle."""
    if conv is not None:
        return conv.weight.shape[0]
    for instance in movement.view.instances(movement.scope, movement.source):
        return instance[movement.source.name][1]
    return None


def _original(movement: Movement, front: gs.Node | None = None) -> Original:
    """The nodes of the shuffle, behind the Conv ``front`` if that is given."""
    x = movement.source if front is None else front.inputs[0]
    original = _behind(movement, x)
    assert original is not None
    if front is None:
        return original
    conv = movement.scope.proto.node[movement.scope.index(front)]
    return replace(original, nodes=(conv, *original.nodes))


def _behind(movement: Movement, x: gs.Tensor) -> Original | None:
    """The nodes of the shuffle, and for what ``x`` they run; None where that is not known.

    A shuffle that is spelled out may fit the sizes of the model only.
    """
    scope = movement.scope
    if not movement.nodes:
        return Original((scope.proto.node[scope.index(movement.target.inputs[0])],), {})
    for instance in movement.view.instances(scope, movement.source, x, *movement.outside()):
        nodes, constants, _ = movement.runnable(instance)
        batch, depth, *sizes = instance[x.name]
        return Original(tuple(nodes), constants, tuple(sizes), (batch, depth))
    return None
