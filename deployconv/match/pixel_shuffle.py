"""Pixel shuffle: moves channels into space, as one DepthToSpace or as several nodes.

    x -> (Conv) -> DepthToSpace -> y
    x -> (Conv) -> Reshape -> Transpose -> Reshape -> y
    x -> (Conv) -> Transpose -> Reshape -> Transpose -> Reshape -> y, its channels last
    x -> (Conv) -> Split -> DepthToSpace, one for each part -> Concat -> y

``y[n, c, s*i + q]`` is ``x[n, channel(c, q), i]``. If the phase ``q`` runs fastest in the
channels (CRD) or slowest (DCR), this is DepthToSpace. Any other order is a pixel shuffle only if a
Conv makes the channels, which can be permuted there. The inverse is none. The index map decides,
not the permutation of the Transpose.

If the channels of x are its last axis, as behind a MatMul of tokens, the shuffle is listed and left
as it is: a Conv and DepthToSpace would need a Transpose before and after them.

A Conv before the shuffle is part of the site: its output channels can be put into another order.
Both together are one upsampling layer (`ShuffledConv`), a ConvTranspose of stride s:

    Conv of k taps to C * P channels, shuffle by s   has s * k taps and C channels
    tap t of the channel that becomes phase q of c   is tap s*t + s - 1 - q of channel c
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import islice
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
from deployconv.match.movement import Movement
from deployconv.match.movement_search import movements
from deployconv.match.recogniser import Recogniser, Site
from deployconv.match.shuffle_map import FoundShuffle, shuffle_of
from deployconv.match.shuffle_site import ConvBefore, ShuffleSite
from deployconv.match.site import Original, UpsampleSite
from deployconv.match.upsampled_conv import upsampling_before
from deployconv.match.weights import Parameters, find_parameters, find_weight
from deployconv.polyphase import Axis
from deployconv.restrictions import ChannelOrder
from deployconv.results import Reason

Array = NDArray[Any]

_REARRANGE = frozenset({"Einsum", "Transpose"})
_JOIN = frozenset({"Concat", "DepthToSpace", "Slice", "Split"})
"""Operators that move some of the channels only."""
_MERGE = frozenset({"DepthToSpace", "Einsum", "Flatten", "Reshape"})
"""Operators that make one axis of several; a shuffle needs one."""
_MOVES = _REARRANGE | _JOIN | _MERGE | {"Identity", "Squeeze", "Unsqueeze"}
_LAST = ("Concat", "DepthToSpace", "Reshape", "Transpose")
"""Operators that a shuffle may end in."""
_LONGEST = 12
"""The most steps of a shuffle that is not one DepthToSpace."""


def _recognise(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The site that ends in ``node``, a DepthToSpace or the last node of a shuffle."""
    if not is_standard(node, *_LAST) or has_references(node):
        return None
    if node.op == "DepthToSpace":
        return _depth_to_space(node, scope, view, name)
    found = _shuffle_before(node.outputs[0], scope, view)
    if found is None:
        return None
    if node.op == "Transpose" and found.last:
        # The channels may be moved to the end of a shuffle that is complete before.
        inner = _shuffle_before(node.inputs[0], scope, view)
        if inner is not None and not inner.last:
            return None
    return _site(name, found.movement.nodes, found)


def _shuffle_before(target: gs.Tensor, scope: Scope, view: View) -> FoundShuffle | None:
    """The shuffle that ends in ``target``: the longest that may become another one, or any."""
    fitting: list[FoundShuffle] = []
    for movement in islice(movements(target, scope, view), _LONGEST):
        ops = {part.op for part in movement.nodes}
        if not ops <= _MOVES:
            break
        if ops & (_REARRANGE | _JOIN) and ops & _MERGE:
            found = shuffle_of(movement)
            if found is not None and _is_listed(found, ops):
                fitting.append(found)
    movable = [found for found in fitting if not found.kept]
    return next(reversed(movable or fitting), None)


def _is_listed(found: FoundShuffle, ops: set[str]) -> bool:
    """Whether a shuffle can be written as DepthToSpace, or is written as one usually is."""
    if found.channels is None:
        return not (found.kept and ops & _JOIN)
    conv = _conv_before(found, found.movement.scope.path)
    return conv is not None and conv.attributes.group == 1


RECOGNISERS = (Recogniser("pixel_shuffle", _recognise),)


def _depth_to_space(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    block = node.attrs.get("blocksize", 1)
    if block < 2:
        return None
    order: ChannelOrder = "CRD" if node.attrs.get("mode", "DCR") == "CRD" else "DCR"
    movement = Movement(view, scope, node.inputs[0], node.outputs[0], ())
    return _site(name, (node,), FoundShuffle(movement, (block, block), order))


def _site(name: str, nodes: tuple[gs.Node, ...], found: FoundShuffle) -> ShuffleSite:
    movement, stride = found.movement, found.stride
    source, scope = movement.source, movement.scope
    conv = _conv_before(found, name)
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
        order=found.order,
        channel_map=found.channels,
        dtype=dtype_name(source.dtype) or (conv.weight.dtype.name if conv else None),
        channels=None if found.kept else _channels(movement, conv),
        batch=None if found.kept else batch_size(source),
        sizes=(None,) * len(stride) if found.kept else spatial_sizes(source, len(stride)),
        composite=len(movement.nodes) > 0,
        movable=not found.kept,
        channels_last=found.last,
        conv=conv,
        original=lambda: _original(movement),
        original_from=lambda x: _nodes_for(movement, x),
    )


def _conv_before(found: FoundShuffle, name: str) -> ConvBefore | None:
    """The Conv that makes the channels, if nothing but this shuffle reads them."""
    movement = found.movement
    source, scope, view = movement.source, movement.scope, movement.view
    node = source.inputs[0] if source.inputs else None
    if node is None or not is_standard(node, "Conv") or not scope.holds(node):
        return None
    if found.kept or has_references(node):
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
    if conv.cropping is not None:
        return None
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
        original=lambda: Original((scope.proto_of(node),), {}),
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
    first = movement.scope.proto_of(conv)
    return replace(original, nodes=(first, *original.nodes))


def _nodes_for(movement: Movement, x: gs.Tensor) -> Original | None:
    """The nodes of the shuffle, with sizes of ``x`` that they run with; None if not known.

    A shuffle of several nodes may run with the sizes of this model only.
    """
    scope = movement.scope
    if not movement.nodes:
        return Original((scope.proto_of(movement.target.inputs[0]),), {})
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
