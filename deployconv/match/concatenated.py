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
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from math import lcm
from typing import Any

import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.shapes import Instance
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
from deployconv.match.axis_map import AxisMap, ConcatInput
from deployconv.match.concat_site import ConcatSite
from deployconv.match.index_map import Upsampling
from deployconv.match.movement_search import movements
from deployconv.match.pointwise import is_pointwise, may_be_pointwise, values_along
from deployconv.match.recogniser import Recogniser, Site, SkippedSite
from deployconv.match.site import Original, Pointwise, UpsampleSite
from deployconv.match.upsampled_conv import (
    axis_of,
    best_upsampling,
    obstacle_to,
    pointwise_of,
    upsampling_before,
)
from deployconv.match.weights import Parameter, Parameters, find_parameters, find_weight
from deployconv.results import Reason

Array = NDArray[Any]

_UNLESS_FASTER = Reason(
    "concat-before-conv",
    "a Concat with other images stands between it and the Conv; --policy cost and fastest split the"
    " Conv if that is faster",
)
_REPEATS = frozenset(
    ("Concat", "ConvTranspose", "Expand", "Gather", "GatherND", "Resize", "Tile", "Upsample")
)
"""Operators of which an image that is repeated needs one."""
_MOST_LAYERS = 8
"""Pointwise layers between the Concat and the Conv that are followed."""
_BEYOND = 3
"""How many elements the image of a trial is larger than the reach of its taps."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """A Conv that reads a Concat of channels.

    Attributes:
        name: the id of the site, if it is one.
        node: the Conv.
        weight: its weight.
        conv: its attributes.
        between: the pointwise layers between the two, in graph order.
        concat: the Concat.
        scope: the graph that they are in.
        view: the model.
    """

    name: str
    node: gs.Node
    weight: Constant
    conv: ConvAttributes
    between: tuple[gs.Node, ...]
    concat: gs.Node
    scope: Scope
    view: View

    @classmethod
    def of(cls, node: gs.Node, scope: Scope, view: View, name: str) -> _Layer | None:
        """The layer of ``node``; None for all other nodes. Raises ModelError for wrong attributes.

        A Resize before a Conv whose weight is not constant is listed by itself.
        """
        if not is_standard(node, "Conv") or has_references(node):
            return None
        found = _concat_before(node, scope, view)
        weight = None if found is None else find_weight(node, scope, view)
        if found is None or weight is None or isinstance(weight, Reason):
            return None
        concat, between = found
        if not _joins_channels(concat, len(weight.shape)):
            return None
        conv = AttributeReader(node, name).conv(weight, grouped_axis=0)
        return cls(name, node, weight, conv, between, concat, scope, view)

    @property
    def joined(self) -> tuple[gs.Node, ...]:
        """The nodes from the Concat to the Conv."""
        return self.concat, *self.between, self.node

    @property
    def whole(self) -> gs.Tensor:
        """The joined image."""
        return self.concat.outputs[0]

    @property
    def total(self) -> int:
        """The channels of the joined image."""
        return self.weight.shape[1] * self.conv.group

    @cached_property
    def channels(self) -> list[int | None]:
        """The channels of each input; a single one that is not stated is what the others leave."""
        shapes = [tensor.shape for tensor in self.concat.inputs]
        stated = [shape[1] if shape is not None and len(shape) > 2 else None for shape in shapes]
        found = [count if isinstance(count, int) else None for count in stated]
        rest = self.total - sum(count for count in found if count is not None)
        if found.count(None) == 1 and rest > 0:
            found[found.index(None)] = rest
        return found


def _concatenated(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The site that ends in the Conv ``node`` if it reads a Concat with an upsampled image.

    Raises ModelError for a Conv that no runtime could accept.
    """
    layer = _Layer.of(node, scope, view, name)
    if layer is None:
        return None
    pairs = zip(layer.concat.inputs, layer.channels, strict=True)
    usable = [_usable(tensor, count, layer) for tensor, count in pairs]
    first = next(filter(None, usable), None)
    if first is None or upsampling_before(node, scope, view) is not None:
        return None
    obstacles = [None if one is None else obstacle_to(one, layer.conv) for one in usable]
    good = [None if obstacle else one for one, obstacle in zip(usable, obstacles, strict=True)]
    read = [one for one in good if one is not None] or [first]
    nodes = _in_order(scope, read, layer.joined)
    strides = tuple(axis.stride for axis in read[0].maps)
    geometry = Geometry(strides, layer.conv.kernel, layer.conv.dilations, layer.conv.group)
    skip = partial(
        SkippedSite,
        id=name,
        pattern="nearest_resize",
        scope=scope,
        nodes=nodes,
        dtype=layer.weight.dtype.name,
        geometry=geometry,
    )
    parameters = find_parameters(node, scope, view, layer.weight)
    if isinstance(parameters, Reason):
        return skip(reason=parameters)
    operands = layer.total, layer.weight.shape[0]
    AttributeReader(node, name).check_operands(layer.whole, layer.weight, parameters.bias, operands)
    inputs = tuple(_inputs(layer, good))
    reason = next(filter(None, obstacles), None) if not any(good) else None
    reason = reason or _why_not(inputs, parameters.weight, layer)
    if reason is None and any(one.movement.overridable() for one in read):
        text = "a caller may override a graph input that decides what it moves where"
        reason = Reason("overridable-initializer", text)
    if reason is not None:
        return skip(reason=reason)
    made = {tensor.name for one in nodes for tensor in one.outputs}
    if any(one.source in made for one in inputs):
        return None  # one input of the Concat is a step on the way to another
    return _site(layer, nodes, geometry, parameters, inputs, read)


def _site(
    layer: _Layer,
    nodes: tuple[gs.Node, ...],
    geometry: Geometry,
    parameters: Parameters,
    inputs: tuple[ConcatInput, ...],
    read: Sequence[Upsampling],
) -> ConcatSite:
    """The site of ``layer``; ``read`` are the upsampled ones of its ``inputs``."""
    conv, whole, target = layer.conv, layer.whole, layer.node.inputs[0].name
    after = [Pointwise(layer.between, whole.name, target)] if layer.between else []
    moved = (pointwise_of(one.movement, conv.rank + 2) for one in read)
    layers = [*(one for each in moved for one in each), *after]
    same = [AxisMap(1, 0, False, 0, 0)] * conv.rank
    return ConcatSite(
        id=layer.name,
        pattern="nearest_resize",
        scope=layer.scope,
        nodes=nodes,
        unless_faster=_UNLESS_FASTER,
        conv=UpsampleSite(
            id=layer.name,
            pattern="nearest_resize",
            scope=layer.scope,
            nodes=(layer.node,),
            input=whole.name,
            output=layer.node.outputs[0].name,
            axes=tuple(map(axis_of, same, conv.kernel, conv.dilations, conv.explicit_pads)),
            geometry=geometry,
            weight=parameters.weight,
            transposed=False,
            bias=parameters.bias,
            batch=batch_size(whole),
            sizes=spatial_sizes(whole, conv.rank),
            original=partial(_original, inputs, read, layer),
            pointwise_before=tuple({one.target: one for one in layers}.values()),
        ),
        inputs=inputs,
        after=tuple(one.target for one in after),
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
            pointwise = all(is_pointwise(one, scope, view) for one in between)
            return (node, tuple(between)) if pointwise else None
        if not may_be_pointwise(node):
            return None
        data = [
            given for given in node.inputs if given.name and not view.is_data_free(given, scope)
        ]
        if len(data) != 1:
            return None
        between.insert(0, node)
        tensor = data[0]
    return None


def _joins_channels(concat: gs.Node, rank: int) -> bool:
    axis = concat.attrs.get("axis", 1)
    return isinstance(axis, int) and axis in (1, 1 - rank) and len(concat.inputs) > 1


def _usable(tensor: gs.Tensor, channels: int | None, layer: _Layer) -> Upsampling | None:
    """How an input of the Concat is repeated from a smaller image; None if it is not.

    Zeros that the movement sets would have to pass pointwise layers, which may change them.
    """
    scope, view, conv = layer.scope, layer.view, layer.conv
    moved = (node.op for movement in movements(tensor, scope, view) for node in movement.nodes)
    if not any(op in _REPEATS for op in moved):
        return None
    image = channels, conv.rank + 2, layer.weight.dtype.name
    found = best_upsampling(tensor, image, lambda: conv, scope, view)
    if found is None or found.pattern != "nearest_resize":
        return None
    if found.channels_in_batch or found.axes.order:
        return None
    layers = bool(layer.between) or bool(found.movement.pointwise)
    return None if layers and found.sets_zeros else found


def _why_not(inputs: Sequence[ConcatInput], weight: Parameter, layer: _Layer) -> Reason | None:
    """Why the Conv cannot be taken apart by the inputs of the Concat."""
    text, conv, total = None, layer.conv, layer.total
    values = [(node.op, *values_along(node, layer.scope, layer.view)) for node in layer.between]
    split = [op for op, axis, least in values if axis is not None or least > conv.rank + 2]
    joins = [one for one, after in pairwise(inputs) if one.repetition != after.repetition]
    if not inputs or inputs[-1].channels.stop != total:
        text = "the channels of the images that a Concat joins before the Conv are not known"
    elif split:
        text = f"{split[0]} with values per channel stands between the Concat and the Conv"
    elif any(one.channels.stop % (total // conv.group) for one in joins) and conv.group > 1:
        text = "a group of the Conv reads channels of several images that a Concat joins before it"
    elif weight.quantized is not None:
        text = "the Conv after a Concat is quantized: the sum of its parts would be rounded again"
    return None if text is None else Reason("concat-before-conv", text)


def _inputs(layer: _Layer, found: Sequence[Upsampling | None]) -> Iterator[ConcatInput]:
    """The inputs of the Concat, up to one whose channels are not known."""
    first, rank = 0, layer.conv.rank
    for tensor, count, one in zip(layer.concat.inputs, layer.channels, found, strict=True):
        if count is None:
            return
        source = tensor if one is None else one.movement.source
        yield ConcatInput(
            source=source.name,
            channels=range(first, first + count),
            maps=(AxisMap(1, 0, False, 0, 0),) * rank if one is None else one.maps,
            sizes=spatial_sizes(source, rank),
            only_repeats=one is not None and one.only_repeats,
            layers=tuple(part.target.name for part in one.movement.pointwise) if one else (),
        )
        first += count


def _in_order(
    scope: Scope, found: Sequence[Upsampling], last: Sequence[gs.Node]
) -> tuple[gs.Node, ...]:
    """All nodes of a site in graph order, each once."""
    nodes = {id(node): node for one in found for node in one.movement.nodes}
    nodes |= {id(node): node for node in last}
    return tuple(sorted(nodes.values(), key=scope.index))


def _original(
    inputs: Sequence[ConcatInput],
    found: Sequence[Upsampling],
    layer: _Layer,
) -> Original:
    """The nodes of the site; ``sizes`` and ``batch_and_channels`` are those of the Concat."""
    scope, view, whole = layer.scope, layer.view, layer.whole
    moved = [one.movement for one in found]
    batch, sizes = 2, _trial_sizes(inputs, layer.conv)
    instance: Instance = {}
    if not all(movement.any_size for movement in moved):
        needed = [tensor for movement in moved for tensor in movement.outside()]
        sources = [movement.source for movement in moved]
        instance = view.instances(scope, whole, *sources, *needed)[0]
        batch, _, *image = instance[whole.name]
        sizes = tuple(image)
    protos: dict[str, NodeProto] = {}
    constants: dict[str, Array] = {}
    for movement in moved:
        made, known, _ = movement.runnable(instance, pointwise=True)
        protos |= {proto.output[0]: proto for proto in made}
        constants |= known
    for node in layer.joined:
        proto = scope.proto_of(node)
        protos[proto.output[0]] = proto
    for tensor in (tensor for node in layer.between for tensor in node.inputs if tensor.name):
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
