"""Find a Conv that reads a Concat of images, some of which are repeated from smaller ones.

    x    -> each element repeated -> |
    skip --------------------------> | Concat of channels -> (pointwise layers) -> Conv -> y

Decoders of U-Nets and necks of object detectors have this. A Conv is linear: it is the sum of one
Conv for each input of the Concat, with the weights of the channels of that input. The Conv of an
upsampled input is an upsampling layer of its own.

A Conv of several groups can be taken apart between groups only. Each input then needs channels of
its own groups, and the results are concatenated instead of added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from math import lcm

import onnx_graphsurgeon as gs
from onnx import NodeProto

from deployconv.graph.scope import Scope
from deployconv.graph.shapes import Instance
from deployconv.graph.tensors import dtype_name
from deployconv.graph.view import View
from deployconv.match.attributes import (
    AttributeReader,
    ConvAttributes,
    Geometry,
    has_references,
    is_standard,
    spatial_sizes,
)
from deployconv.match.index_map import AxisMap, Upsampling
from deployconv.match.pointwise import is_pointwise, per_channel
from deployconv.match.site import (
    ConcatInput,
    ConcatSite,
    Original,
    Pointwise,
    Recogniser,
    Site,
    SkippedSite,
    UpsampleSite,
)
from deployconv.match.upsampled_conv import (
    axis_of,
    farthest_upsampling,
    obstacle_to,
    upsampling_before,
)
from deployconv.match.weights import find_parameters, find_weight
from deployconv.results import Reason

_UNLESS_FASTER = Reason(
    "concatenated",
    "a Concat with other images stands between it and the Conv; --policy cost and fastest split the"
    " Conv if that is faster",
)
_MOST_LAYERS = 8
"""Pointwise layers between the Concat and the Conv that are followed."""
_BEYOND = 3
"""How many elements the image of a trial is larger than the reach of its taps."""


def _concatenated(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The site that ends in the Conv ``node`` if it reads a Concat with an upsampled image.

    Raises ModelError for a Conv that no runtime could accept.
    """
    if not is_standard(node, "Conv") or has_references(node):
        return None
    found = _concat_before(node, scope, view)
    if found is None:
        return None
    concat, between = found
    weight = find_weight(node, scope, view)
    if isinstance(weight, Reason) or not _joins_channels(concat, len(weight.shape)):
        return None  # the Resize is listed by itself
    reader = AttributeReader(node, name)
    conv = reader.conv(weight, grouped_axis=0)
    channels = _channels(concat, weight.shape[1] * conv.group)
    dtype = weight.dtype.name
    upsampled = [
        farthest_upsampling(tensor, count, conv.rank + 2, dtype, scope, view)
        for tensor, count in zip(concat.inputs, channels, strict=True)
    ]
    usable = [one if one is not None and _is_usable(one, between) else None for one in upsampled]
    obstacles = [one and obstacle_to(one, conv) for one in usable]
    good = [
        one if obstacle is None else None for one, obstacle in zip(usable, obstacles, strict=True)
    ]
    first = next(filter(None, good), None) or next(filter(None, usable), None)
    if first is None or upsampling_before(node, scope, view) is not None:
        return None

    nodes = _in_order(scope, [one for one in good if one] or [first], (concat, *between, node))
    geometry = Geometry(
        tuple(axis.stride for axis in first.maps), conv.kernel, conv.dilations, conv.group
    )
    skip = partial(
        SkippedSite,
        id=name,
        pattern="nearest_resize",
        scope=scope,
        nodes=nodes,
        dtype=dtype,
        geometry=geometry,
    )
    made = {tensor.name for one in nodes for tensor in one.outputs}
    sources = [one.movement.source for one in good if one]
    plain = [tensor for tensor, one in zip(concat.inputs, good, strict=True) if one is None]
    if sources and any(tensor.name in made for tensor in (*sources, *plain)):
        return None  # one input of the Concat is a step on the way to another
    parameters = find_parameters(node, scope, view, weight)
    if isinstance(parameters, Reason):
        return skip(reason=parameters)
    reason = next(filter(None, obstacles), None) if not any(good) else None
    counts = [count for count in channels if count is not None]
    inputs = tuple(
        _input(tensor, first, last, one, conv.rank)
        for tensor, (first, last), one in zip(
            concat.inputs, pairwise(accumulate(counts, initial=0)), good, strict=False
        )
    )
    reason = reason or _why_not(between, inputs, len(channels), conv, scope, view)
    if reason is None and parameters.weight.quantized is not None:
        text = "the weight of the Conv after the Concat is quantized: the sum of its parts would"
        reason = Reason("concatenated", f"{text} be rounded more than once")
    if reason is None and any(one.movement.overridable() for one in good if one):
        text = "a caller may override a graph input that decides what it moves where"
        reason = Reason("overridable-initializer", text)
    if reason is not None:
        return skip(reason=reason)
    reader.check_operands(concat.outputs[0], weight, parameters.bias, (sum(counts), weight.shape[0]))
    whole = concat.outputs[0]
    last = [Pointwise(between, whole.name, node.inputs[0].name)] if between else []
    moved = [layer for one in good if one for layer in _pointwise(one)]
    same = [AxisMap(1, 0, False, 0, 0)] * conv.rank
    layer = UpsampleSite(
        id=name,
        pattern="nearest_resize",
        scope=scope,
        nodes=(node,),
        input=whole.name,
        output=node.outputs[0].name,
        axes=tuple(map(axis_of, same, conv.kernel, conv.dilations, conv.explicit_pads)),
        geometry=geometry,
        weight=parameters.weight,
        transposed=False,
        bias=parameters.bias,
        sizes=spatial_sizes(whole, conv.rank),
        original=partial(_original, inputs, tuple(good), (concat, *between, node), conv, scope, view),
        pointwise_before=tuple({layer.target: layer for layer in (*moved, *last)}.values()),
    )
    return ConcatSite(
        id=name,
        pattern="nearest_resize",
        scope=scope,
        nodes=nodes,
        unless_faster=_UNLESS_FASTER,
        conv=layer,
        inputs=inputs,
        after=tuple(layer.target for layer in last),
    )


RECOGNISERS = (Recogniser("nearest_resize", _concatenated),)


def _concat_before(
    conv: gs.Node, scope: Scope, view: View
) -> tuple[gs.Node, tuple[gs.Node, ...]] | None:
    """The Concat before ``conv``, and the pointwise layers between them."""
    tensor, between = conv.inputs[0], list[gs.Node]()
    while len(between) <= _MOST_LAYERS:
        node = tensor.inputs[0] if tensor.inputs else None
        if node is None or not is_standard(node) or not scope.holds(node):
            return None
        if node.op == "Concat":
            return node, tuple(between)
        data = [given for given in node.inputs if given.name and not view.is_data_free(given, scope)]
        if len(data) != 1 or not is_pointwise(node, scope, view):
            return None
        between.insert(0, node)
        tensor = data[0]
    return None


def _joins_channels(concat: gs.Node, rank: int) -> bool:
    axis = concat.attrs.get("axis", 1)
    return isinstance(axis, int) and axis in (1, 1 - rank) and len(concat.inputs) > 1


def _channels(concat: gs.Node, total: int) -> list[int | None]:
    """The channels of each input; a single one that is not stated is what the others leave."""
    shapes = [tensor.shape for tensor in concat.inputs]
    stated = [shape[1] if shape is not None and len(shape) > 2 else None for shape in shapes]
    found = [count if isinstance(count, int) else None for count in stated]
    rest = total - sum(count for count in found if count is not None)
    if found.count(None) == 1 and rest > 0:
        found[found.index(None)] = rest
    return found


def _is_usable(found: Upsampling, between: Sequence[gs.Node]) -> bool:
    """Whether an input of the Concat may be read before it was upsampled.

    Zeros that the movement sets would have to pass layers that may change them.
    """
    layers = bool(between) or bool(found.movement.pointwise)
    plain = found.pattern == "nearest_resize" and not found.channels_in_batch
    return plain and not (layers and found.sets_zeros)


def _why_not(
    between: Sequence[gs.Node],
    inputs: Sequence[ConcatInput],
    count: int,
    conv: ConvAttributes,
    scope: Scope,
    view: View,
) -> Reason | None:
    """Why a Conv cannot be taken apart by the ``count`` inputs of the Concat before it.

    ``inputs`` are those whose channels are known.
    """
    split = [node.op for node in between if per_channel(node, scope, view)[0]]
    if split:
        text = f"{split[0]} with values per channel stands between the Concat and the Conv"
        return Reason("concatenated", text)
    if len(inputs) < count:
        text = "the channels of the images that a Concat joins before the Conv are not known"
        return Reason("concatenated", text)
    in_group = inputs[-1].channels.stop // conv.group
    ends = (
        one.channels.stop
        for one, after in pairwise(inputs)
        if one.repetition != after.repetition
    )
    if conv.group > 1 and any(end % in_group for end in ends):
        text = "a group of the Conv reads channels of several images that a Concat joins before it"
        return Reason("concatenated", text)
    return None


def _pointwise(found: Upsampling) -> Iterator[Pointwise]:
    for segment in found.movement.pointwise:
        yield Pointwise(segment.nodes, segment.source.name, segment.target.name)


def _input(
    tensor: gs.Tensor, first: int, last: int, found: Upsampling | None, rank: int
) -> ConcatInput:
    source = tensor if found is None else found.movement.source
    maps = (AxisMap(1, 0, False, 0, 0),) * rank if found is None else found.maps
    return ConcatInput(
        source=source.name,
        channels=range(first, last),
        maps=maps,
        sizes=spatial_sizes(source, rank),
        only_repeats=found is not None and found.only_repeats,
        layers=tuple(layer.target for layer in _pointwise(found)) if found else (),
    )


def _in_order(
    scope: Scope, found: Sequence[Upsampling], last: Sequence[gs.Node]
) -> tuple[gs.Node, ...]:
    """All nodes of a site in graph order, each once."""
    nodes = {id(node): node for one in found for node in one.movement.nodes}
    nodes |= {id(node): node for node in last}
    return tuple(sorted(nodes.values(), key=scope.index))


def _original(
    inputs: Sequence[ConcatInput],
    found: Sequence[Upsampling | None],
    joined: Sequence[gs.Node],
    conv: ConvAttributes,
    scope: Scope,
    view: View,
) -> Original:
    """The nodes of the site; ``sizes`` and ``batch_and_channels`` are those of the Concat.

    ``joined`` are the nodes from the Concat to the Conv.
    """
    movements = [one.movement for one in found if one is not None]
    concat = joined[0]
    batch, sizes = 2, _trial_sizes(inputs, conv)
    instance: Instance = {}
    if not all(movement.any_size for movement in movements):
        needed = [tensor for movement in movements for tensor in movement.outside()]
        sources = [movement.source for movement in movements]
        instance = view.instances(scope, concat.outputs[0], *sources, *needed)[0]
        batch, _, *image = instance[concat.outputs[0].name]
        sizes = tuple(image)
    protos: dict[str, NodeProto] = {}
    constants = {}
    for movement in movements:
        made, known, _ = movement.runnable(instance, pointwise=True)
        protos |= {proto.output[0]: proto for proto in made}
        constants |= known
    for node in joined:
        proto = scope.proto.node[scope.index(node)]
        protos[proto.output[0]] = proto
    for tensor in (tensor for node in joined[1:-1] for tensor in node.inputs if tensor.name):
        constant = view.constants.of(tensor, scope)
        if constant is not None:
            constants[tensor.name] = constant.read()
    return Original(tuple(protos.values()), constants, sizes, (batch, inputs[-1].channels.stop))


def _trial_sizes(inputs: Sequence[ConcatInput], conv: ConvAttributes) -> tuple[int, ...]:
    """Small sizes of the joined image that each of ``inputs`` can have, beyond all taps."""
    sizes = []
    for axis in range(conv.rank):
        maps = [one.maps[axis] for one in inputs]
        taps = conv.dilations[axis] * (conv.kernel[axis] - 1)
        least = max(m.stride * (taps // m.stride + _BEYOND + axis) + m.tail for m in maps)
        period = lcm(*(m.stride for m in maps))
        fitting = (
            size
            for size in range(least, least + period)
            if not any((size - m.tail) % m.stride for m in maps)
        )
        sizes.append(next(fitting, least))
    return tuple(sizes)
