"""Find zero insertion or nearest Resize before a Conv, in whatever way it was exported.

    x -> zeros between the elements  -> Conv -> y      zero_insertion, the SubPixel method
    x -> each element repeated       -> Conv -> y      nearest_resize

Zero insertion may be ``y = zeros; y[..., ::r, ::r] = x`` (ScatterND), Reshape, Pad and Reshape,
a stack with zeros, a nearest Resize times a mask, a one-hot depthwise ConvTranspose. Repetition
may be a Resize in one of several modes, Upsample, repeat_interleave, Expand and Reshape.
Pointwise layers may come between. Only the index map counts (`index_map`).

Along each axis the Conv's input ``z[h]`` is ``x[(h - begin) / s]`` (`index_map.AxisMap`), and
the Conv reads ``h = o - p + d*t``. So output ``o`` and tap ``t`` read input
``(o - p - begin + d*t) / s``, which is the form of `polyphase.Axis`.

Before a QLinearConv or ConvInteger both are listed and left as they are. Their weights could be
moved as those after DequantizeLinear are, but models in this format are the end of a toolchain:
the same tools write Q/DQ, which every runtime here reads. Before a FusedConv, which onnxruntime
makes of Conv and activation when it optimises a model for itself, they are listed as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import TypeGuard

import onnx_graphsurgeon as gs

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.tensors import dtype_name
from deployconv.graph.view import View, remembered
from deployconv.match.attributes import (
    AttributeReader,
    ConvAttributes,
    Geometry,
    batch_size,
    has_references,
    is_standard,
    spatial_sizes,
)
from deployconv.match.axis_map import AxisMap
from deployconv.match.baked_sizes import baked_upsampling
from deployconv.match.index_map import UNEVEN, Upsampling, upsampling_of
from deployconv.match.movement import ZERO, Movement
from deployconv.match.movement_search import movements
from deployconv.match.pointwise import for_image, keeps_zero
from deployconv.match.recogniser import Recogniser, Site, SkippedSite
from deployconv.match.site import Original, Pointwise, UpsampleSite
from deployconv.match.weights import find_parameters, find_weight
from deployconv.polyphase import Axis
from deployconv.results import Pattern, Reason

_MOST_SOURCES = 24
"""Possible low-resolution inputs that are tried for one convolution."""
_CROPS = frozenset(["Gather", "GatherND", "Pad", "Slice", "Split"])
"""Operators that can cut off the border of an image; a Pad can with negative numbers."""
_INTEGER_CONVS = {"QLinearConv": 3, "ConvInteger": 1}
"""Which input is the weight."""
_PADDED = Reason(
    "non-zero-padding",
    "a Pad between it and the Conv repeats the edge of the image; --policy cost and fastest pad the"
    " small image instead if that is faster",
)
_ZERO_POINT = 2
"""Which input of a QLinearConv or ConvInteger is the zero point of its input."""


@remembered
def upsampling_before(node: gs.Node, scope: Scope, view: View) -> Upsampling | None:
    """The upsampling whose result the convolution ``node`` reads; None for any other node."""
    if is_standard(node, *_INTEGER_CONVS):
        return _before_integer_conv(node, scope, view)
    if (is_standard(node, "Conv") or _is_fused(node)) and not has_references(node):
        return _before_conv(node, scope, view)
    return None


def _is_fused(node: gs.Node) -> bool:
    """Whether ``node`` is a Conv and an activation in one operator, as onnxruntime writes them."""
    return bool(node.op == "FusedConv" and node.domain == "com.microsoft")


def _recognise(node: gs.Node, scope: Scope, view: View, name: str, pattern: Pattern) -> Site | None:
    """The site of ``pattern`` that ends in the convolution ``node``, or None.

    Raises ModelError for a Conv that no runtime could accept.
    """
    found = upsampling_before(node, scope, view)
    baked = baked_upsampling(node, scope, view) if found is None else None
    found = found or baked
    if found is None or found.pattern != pattern:
        return None
    nodes = (*found.movement.nodes, node)
    x = found.movement.source
    strides = tuple(axis.stride for axis in found.maps)

    dtype = dtype_name(x.dtype)
    skip = partial(SkippedSite, id=name, pattern=pattern, scope=scope, nodes=nodes, dtype=dtype)
    weight = _why_no_conv(node, baked is not None) or find_weight(node, scope, view)
    if isinstance(weight, Reason):
        return skip(reason=weight)
    reader = AttributeReader(node, name)
    conv = reader.conv(weight, grouped_axis=0)
    geometry = Geometry(strides, conv.kernel, conv.dilations, conv.group)
    parameters = find_parameters(node, scope, view, weight, any_scales=True)
    if isinstance(parameters, Reason):
        return skip(reason=parameters, geometry=geometry)
    channels = weight.shape[1] * conv.group, weight.shape[0]
    reader.check_operands(node.inputs[0], weight, parameters.bias, channels)
    if found.movement.overridable():
        text = "a caller may override a graph input that decides what it moves where"
        return skip(reason=Reason("overridable-initializer", text), geometry=geometry)
    obstacle = obstacle_to(found, conv)
    if obstacle is not None:
        return skip(reason=obstacle, geometry=geometry)
    pads = conv.explicit_pads
    return UpsampleSite(
        id=name,
        pattern=pattern,
        scope=scope,
        nodes=nodes,
        input=x.name,
        output=node.outputs[0].name,
        axes=tuple(map(axis_of, found.maps, conv.kernel, conv.dilations, pads)),
        geometry=geometry,
        weight=parameters.weight,
        transposed=False,
        bias=parameters.bias,
        batch=batch_size(x, found.axes),
        sizes=spatial_sizes(x, conv.rank, found.axes),
        original=lambda: _original(found, node, channels[0], conv.rank + 2),
        pointwise_before=tuple(pointwise_of(found.movement, conv.rank + 2)),
        input_axes=found.axes,
        channels_in_batch=found.channels_in_batch,
        repeats=found.only_repeats and set(conv.kernel) == {1} and not any(conv.pads),
        unless_faster=_PADDED if any(axis.edge for axis in found.maps) else None,
    )


def _why_no_conv(node: gs.Node, baked: bool) -> Reason | None:
    """Why the convolution ``node`` is refused whatever its weight; None if it is a plain Conv.

    ``baked`` tells that sizes of one image are constants in the nodes before it.
    """
    if node.op in _INTEGER_CONVS:
        text = f"it ends in a {node.op}; quantize the model in the Q/DQ format instead"
        return Reason("quantized-operator", text)
    if baked:
        text = "its shapes are those of one image, while the sizes of its input are dynamic"
        return Reason("baked-sizes", text)
    if _is_fused(node):
        text = "it ends in a FusedConv of onnxruntime; rewrite the model before it is optimised"
        return Reason("fused-operator", text)
    return None


RECOGNISERS = (
    Recogniser("zero_insertion", partial(_recognise, pattern="zero_insertion")),
    Recogniser("nearest_resize", partial(_recognise, pattern="nearest_resize")),
)


def _before_conv(node: gs.Node, scope: Scope, view: View) -> Upsampling | None:
    """The movement before a Conv that upsamples most, of those that have the least against them."""
    found_weight = find_weight(node, scope, view)
    weight = None if isinstance(found_weight, Reason) else found_weight
    channels, rank = _input_of(node, weight)
    dtype = "float32" if weight is None else weight.dtype.name
    reader = AttributeReader(node, scope.label(node))
    read = None if weight is None else partial(reader.conv, weight, grouped_axis=0)
    return best_upsampling(node.inputs[0], (channels, rank, dtype), read, scope, view)


def best_upsampling(
    target: gs.Tensor,
    image: tuple[int | None, int | None, str],
    read: Callable[[], ConvAttributes] | None,
    scope: Scope,
    view: View,
) -> Upsampling | None:
    """The movement to ``target`` that upsamples most, of those that have the least against them.

    One that is proven at all sizes comes first. One that crops the image before it enlarges it
    gives way to one that begins behind the crop, unless the Conv reads no zeros where the pixels
    were cut off. Of several, it is the farthest one whose source the Conv can read without a
    Transpose, if there is one.

    Args:
        target: what a Conv reads, directly or behind a Concat.
        image: channels, dimensions and element type of ``target``; None for what is not known.
        read: returns the attributes of the Conv; None if its weight is not known.
        scope: the graph of the Conv.
        view: the model.
    """
    tried = [upsampling_of(one, *image) for one in _sources(target, scope, view)]
    found = [one for one in tried if _enlarges(one)]
    if len(found) > 1 and read is not None:
        conv = read()
        found = [one for one in found if obstacle_to(one, conv) is None] or found
    return max(reversed(found), key=_rank, default=None)


def _rank(found: Upsampling) -> tuple[bool, int, bool]:
    """The larger, the more suitable is ``found`` for a layer."""
    return found.proven, found.stride, not found.axes.order


def _before_integer_conv(node: gs.Node, scope: Scope, view: View) -> Upsampling | None:
    """The nearest movement that upsamples, before the DynamicQuantizeLinear if there is one."""
    target, zero = node.inputs[0], 0.0
    producer = target.inputs[0] if target.inputs else None
    if producer is not None and producer.op == "DynamicQuantizeLinear":
        target = producer.inputs[0]
    else:
        zero = _zero_point(node, scope, view)
    weight = view.constants.of(node.inputs[_INTEGER_CONVS[node.op]], scope)
    channels, rank = _input_of(node, weight)
    for movement in _sources(target, scope, view):
        # In floats, whatever the model moves: the map is the same, and they hold more numbers.
        found = upsampling_of(movement, channels, rank, "float32", zero)
        if _enlarges(found):
            return found
    return None


def _input_of(node: gs.Node, weight: Constant | None) -> tuple[int | None, int | None]:
    """The channels and the dimensions of the input of a convolution; None if not known."""
    if weight is None:
        return None, None
    return weight.shape[1] * node.attrs.get("group", 1), len(weight.shape)


def _sources(target: gs.Tensor, scope: Scope, view: View) -> Iterator[Movement]:
    """The movements to ``target`` that may upsample, from the nearest source to the farthest."""
    for movement in islice(movements(target, scope, view), _MOST_SOURCES):
        # A layer at the front runs at low resolution already.
        if movement.may_enlarge and not movement.segments[0].pointwise:
            yield movement


def _enlarges(found: Upsampling | None) -> TypeGuard[Upsampling]:
    return found is not None and found.stride > 1


def _zero_point(node: gs.Node, scope: Scope, view: View) -> float:
    """The integer that stands for zero in the input of ``node``; 0 if it is not known."""
    given = node.inputs[_ZERO_POINT] if len(node.inputs) > _ZERO_POINT else None
    constant = view.constants.of(given, scope) if given is not None and given.name else None
    if constant is None or constant.shape not in ((), (1,)):
        return 0.0
    return float(constant.read().reshape(()))


def obstacle_to(found: Upsampling, conv: ConvAttributes) -> Reason | None:
    """Why this Conv cannot run at low resolution together with the upsampling before it."""
    if any(stride > 1 for stride in conv.strides):
        return Reason("strided-conv", "the Conv after the upsampling has a stride above 1")
    if conv.auto_pad != "NOTSET" and any(conv.pads):
        return Reason("ambiguous-same-pads", "the Conv has both auto_pad and pads")
    if conv.cropping is not None:
        meant = f"pads {list(conv.allowed_pads)} and a Slice before it that cuts off"
        text = f"the pads {list(conv.pads)} of the Conv are negative: {meant}"
        return Reason("negative-pads", f"{text} {list(conv.cropping)} mean the same")
    pads = conv.explicit_pads
    for axis, (begin, end) in zip(found.maps, pads, strict=True):
        if axis.edge and (begin or end):
            text = "the Conv pads with zeros what a Pad has padded with other values"
            return Reason("non-zero-padding", text)
        beyond = (*range(-begin, 0), *range(axis.size, axis.size + end))
        if any(axis.source(index) != ZERO for index in beyond):
            if not any(node.op in _CROPS for node in found.movement.nodes):
                return UNEVEN
            text = "the upsampled tensor is cropped where the Conv pads it with zeros again"
            return Reason("cropped-upsampling", text)
    if not found.proven:
        text = "what it moves where is not shown to be the same at all sizes"
        return Reason("unproven-dynamic-sizes", text)
    if found.sets_zeros:
        for run in found.movement.pointwise_runs:
            view, scope = found.movement.view, found.movement.scope
            nodes = [node for segment in run for node in segment.nodes]
            if not keeps_zero(nodes, run[0].source, run[-1].target, scope, view):
                text = "a layer between the inserted zeros and the Conv makes them other values"
                return Reason("shifted-zeros", text)
    return None


def axis_of(found: AxisMap, taps: int, dilation: int, pads: tuple[int, int]) -> Axis:
    """Which input element a tap of a Conv reads behind the movement ``found``."""
    size = found.size + sum(pads) - dilation * (taps - 1)
    return Axis(
        stride=found.stride,
        taps=taps,
        step=dilation,
        origin=-pads[0] - found.begin,
        extra=size - found.stride * found.input_size,
        hold=found.hold,
        edge=found.edge,
    )


def pointwise_of(movement: Movement, rank: int) -> Iterator[Pointwise]:
    """The pointwise layers on the way, for an image of ``rank`` dimensions."""
    for segment in movement.pointwise:
        reshaped: dict[str, Constant] = {}
        for node in segment.nodes:
            reshaped |= for_image(node, movement.scope, movement.view, rank)
        yield Pointwise(segment.nodes, segment.source.name, segment.target.name, reshaped)


def _original(found: Upsampling, conv: gs.Node, channels: int, rank: int) -> Original:
    """The nodes of the layer, with the first sizes that were tried."""
    movement = found.movement
    instance = movement.instances(channels, rank, found.axes)[0]
    nodes, constants, target = movement.runnable(instance, pointwise=True)
    last = movement.scope.copy_of(conv)
    last.input[0] = target
    nodes.append(last)
    batch, depth, *sizes = found.axes.of_tensor(instance[movement.source.name])
    return Original(tuple(nodes), constants, tuple(sizes), (batch, depth))
