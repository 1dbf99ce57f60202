"""Pixel shuffle: moves channels into space, as one DepthToSpace or as several nodes.

    x -> (Conv) -> DepthToSpace -> y
    x -> (Conv) -> Reshape -> Transpose -> Reshape -> y

``y[n, c, s*i + q]`` is ``x[n, channel(c, q), i]``. If the phase ``q`` runs fastest in the
channels (CRD) or slowest (DCR), this is DepthToSpace. Any other order is no pixel shuffle, and
neither is the inverse. The index map decides, not the permutation of the Transpose.

A Conv before the shuffle is part of the site: its output channels can be put into another order.
Both together are one upsampling layer (`ShuffledConv`), a ConvTranspose of stride s:

    Conv of k taps to C * P channels, shuffle by s   has s * k taps and C channels
    tap t of the channel that becomes phase q of c   is tap s*t + s - 1 - q of channel c
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.scope import Scope
from deployconv.graph.tensors import dtype_name
from deployconv.graph.view import View
from deployconv.match.attributes import (
    AttributeReader,
    ConvAttributes,
    Geometry,
    batch_size,
    has_references,
    is_standard,
    spatial_sizes,
)
from deployconv.match.index_map import holds_at_all_sizes
from deployconv.match.movement import Movement, movements
from deployconv.match.site import (
    ChannelOrder,
    ConvBefore,
    Original,
    Recogniser,
    ShuffleSite,
    Site,
    UpsampleSite,
)
from deployconv.match.upsampled_conv import upsampling_before
from deployconv.match.weights import Parameters, find_parameters, find_weight
from deployconv.polyphase import Axis
from deployconv.results import Reason

Array = NDArray[Any]

_MOVES = frozenset(
    {"Einsum", "Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "Flatten"}
)
_LONGEST = 8
"""The most nodes of a shuffle that is not one DepthToSpace."""


def _recognise(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The site that ends in ``node``, a DepthToSpace or the last Reshape of a shuffle."""
    if not is_standard(node, "DepthToSpace", "Reshape") or has_references(node):
        return None
    if node.op == "DepthToSpace":
        return _depth_to_space(node, scope, view, name)
    found = None
    for movement in movements(node.outputs[0], scope, view):
        ops = {part.op for part in movement.nodes}
        if not ops <= _MOVES or len(movement.nodes) > _LONGEST:
            break
        if ops & {"Einsum", "Transpose"}:
            found = _shuffle_of(movement) or found
    if found is None:
        return None
    movement, stride, order = found
    return _site(name, movement.nodes, movement, stride, order)


RECOGNISERS = (Recogniser("pixel_shuffle", _recognise),)


def _depth_to_space(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    block = node.attrs.get("blocksize", 1)
    if block < 2:
        return None
    order: ChannelOrder = "CRD" if node.attrs.get("mode", "DCR") == "CRD" else "DCR"
    movement = Movement(view, scope, node.inputs[0], node.outputs[0], ())
    return _site(name, (node,), movement, (block, block), order)


_Found = tuple[Movement, tuple[int, ...], ChannelOrder]


def _shuffle_of(movement: Movement) -> _Found | None:
    """The shuffle that ``movement`` is; None if it is none, or not the same at all sizes."""
    x, y = movement.source, movement.target
    instances = movement.view.instances(movement.scope, x, *movement.outside())
    dtype = dtype_name(x.dtype) or "float32"
    agreed: tuple[tuple[int, ...], ChannelOrder] | None = None
    if movement.overridable():
        return None
    for instance in instances:
        # If the shape of the result is known, it rules out most others.
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
    if agreed is None:
        return None
    stride, order = agreed

    def is_same(sources: Array, shape: tuple[int, ...]) -> bool:
        same = _stride(shape, sources.shape) == stride
        return same and fit_order(sources, shape, stride) == order

    if movement.dynamic and not holds_at_all_sizes(movement, dtype, is_same):
        return None
    return movement, stride, order


def _stride(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...] | None:
    """The factor of each spatial axis, if the two shapes are those of a shuffle."""
    if len(before) != len(after) or not 3 <= len(before) <= 5 or before[0] != after[0]:
        return None
    if any(size % old for old, size in zip(before[2:], after[2:], strict=True)):
        return None
    stride = tuple(size // old for old, size in zip(before[2:], after[2:], strict=True))
    return stride if prod(stride) > 1 and before[1] == after[1] * prod(stride) else None


def fit_order(
    sources: Array, input_shape: Sequence[int], stride: Sequence[int]
) -> ChannelOrder | None:
    """The channel order for which ``sources`` is a pixel shuffle; None if it is none.

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
    conv = _conv_before(movement, name)
    geometry = Geometry(stride, None, None, None)
    if conv is not None:
        nodes = (conv.node, *nodes)
        geometry = replace(conv.attributes.geometry, stride=stride)
    return ShuffleSite(
        id=name,
        pattern="pixel_shuffle",
        scope=scope,
        nodes=nodes,
        source=source.name,
        output=movement.target.name,
        geometry=geometry,
        stride=stride,
        order=order,
        dtype=dtype_name(source.dtype) or (conv.weight.dtype.name if conv else None),
        channels=_channels(movement, conv),
        batch=batch_size(source),
        sizes=spatial_sizes(source, len(stride)),
        composite=len(movement.nodes) > 0,
        conv=conv,
        original=lambda: _original(movement),
        original_from=lambda x: _nodes_for(movement, x),
    )


def _conv_before(movement: Movement, name: str) -> ConvBefore | None:
    """The Conv that makes the channels, if nothing but this shuffle reads them."""
    source, scope, view = movement.source, movement.scope, movement.view
    node = source.inputs[0] if source.inputs else None
    if node is None or not is_standard(node, "Conv") or not scope.holds(node):
        return None
    if has_references(node):
        return None
    if upsampling_before(node, scope, view) is not None:
        return None  # it ends a site of its own
    weight = find_weight(node, scope, view)
    if len(source.outputs) != 1 or source.name in scope.outputs or isinstance(weight, Reason):
        return None
    if _nodes_for(movement, node.inputs[0]) is None:
        return None
    parameters = find_parameters(node, scope, view, weight)
    if isinstance(parameters, Reason):
        return None
    conv = AttributeReader(node, name).conv(weight, grouped_axis=0)
    return ConvBefore(
        node=node,
        attributes=conv,
        weight=parameters.weight,
        bias=parameters.bias,
        original=lambda: _original(movement, node),
        layer=_layer(node, scope, name, conv, parameters),
    )


def _layer(
    node: gs.Node, scope: Scope, name: str, conv: ConvAttributes, parameters: Parameters
) -> UpsampleSite | None:
    """The Conv alone, as an upsampling layer of stride 1; None if it skips or spreads pixels."""
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
        geometry=conv.geometry,
        weight=parameters.weight,
        transposed=False,
        bias=parameters.bias,
        batch=batch_size(x),
        sizes=spatial_sizes(x, conv.rank),
        original=lambda: Original((scope.proto.node[scope.index(node)],), {}),
    )


def _channels(movement: Movement, conv: ConvBefore | None) -> int | None:
    """Channels before the shuffle, None if unknown."""
    if conv is not None:
        return conv.weight.shape[0]
    for instance in movement.view.instances(movement.scope, movement.source):
        return instance[movement.source.name][1]
    return None


def _original(movement: Movement, conv: gs.Node | None = None) -> Original:
    """The nodes of the shuffle, with the Conv ``conv`` before them if that is given."""
    x = movement.source if conv is None else conv.inputs[0]
    original = _nodes_for(movement, x)
    assert original is not None
    if conv is None:
        return original
    first = movement.scope.proto.node[movement.scope.index(conv)]
    return replace(original, nodes=(first, *original.nodes))


def _nodes_for(movement: Movement, x: gs.Tensor) -> Original | None:
    """The nodes of the shuffle, with sizes of ``x`` that they run with; None if not known.

    A shuffle of several nodes may run with the sizes of this model only.
    """
    scope = movement.scope
    if not movement.nodes:
        return Original((scope.proto.node[scope.index(movement.target.inputs[0])],), {})
    for instance in movement.view.instances(scope, movement.source, x, *movement.outside()):
        nodes, constants, _ = movement.runnable(instance)
        batch, depth, *sizes = instance[x.name]
        return Original(tuple(nodes), constants, tuple(sizes), (batch, depth))
    return None


@dataclass(frozen=True, eq=False, kw_only=True)
class ShuffledConv(UpsampleSite):
    """A Conv and the pixel shuffle after it, as one upsampling layer.

    ``weight`` and ``bias`` are those of the Conv, whose output channels include the phases.
    """

    order: ChannelOrder

    @property
    def channels(self) -> tuple[int, int]:
        """(C_in, C_out), the latter after the shuffle."""
        c_in, made = super().channels
        return c_in, made // self.phases

    def kernel(self, values: Array) -> Array:
        """The kernel in correlation layout, ``[C, C_in, s_1*k_1 .. s_n*k_n]``."""
        apart, rank = self._apart(values), self.rank
        flipped = np.flip(apart, axis=tuple(range(1, 1 + rank)))
        pairs = [axis for spatial in range(rank) for axis in (2 + rank + spatial, 1 + spatial)]
        ordered = flipped.transpose(0, 1 + rank, *pairs)
        return ordered.reshape(*ordered.shape[:2], *(axis.taps for axis in self.axes))

    def phased(self, values: Array, copies: int) -> Array:
        """The bias ``[C * P]`` as ``[C, P]``."""
        return self._apart(values).reshape(-1, copies)

    def _apart(self, values: Array) -> Array:
        """``[C * P, ..]`` as ``[C, s_1 .. s_n, ..]``."""
        rest = values.shape[1:]
        if self.order == "CRD":
            return values.reshape(-1, *self.stride, *rest)
        return np.moveaxis(values.reshape(*self.stride, -1, *rest), self.rank, 0)


def shuffled_conv(shuffle: ShuffleSite) -> ShuffledConv | None:
    """``shuffle`` and its Conv as one layer.

    None if there is no Conv of stride 1, group 1 and float weights.
    """
    conv = shuffle.conv.layer if shuffle.conv is not None else None
    if shuffle.conv is None or conv is None or conv.group > 1 or conv.weight.quantized is not None:
        return None
    axes = tuple(
        Axis(stride, stride * axis.taps, 1, stride * axis.origin + 1 - stride, stride * axis.extra)
        for stride, axis in zip(shuffle.stride, conv.axes, strict=True)
    )
    own = {field.name: getattr(conv, field.name) for field in fields(conv)}
    joint = {
        "nodes": shuffle.nodes,
        "output": shuffle.output,
        "axes": axes,
        "original": shuffle.conv.original,
        "order": shuffle.order,
    }
    return ShuffledConv(**{**own, **joint})
