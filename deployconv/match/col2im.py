"""Find overlapping Col2Im behind a 1x1 Conv, which is a ConvTranspose.

    x -> Conv 1x1 -> Reshape -> Col2Im -> y

The Conv makes ``C_out * k_1 * .. * k_n`` channels, the taps of each output channel. Reshape makes
``[N, C_out * k_1 * .. * k_n, L]`` of the image, and Col2Im adds each column to the block of the
output that it belongs to. A bias of the Conv would be added once for each block that overlaps, so
it must be zero. Blocks that lie side by side are a pixel shuffle and no site of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.symbolic import Size, Unproven
from deployconv.graph.symbolic.size import product
from deployconv.graph.view import View
from deployconv.match.attributes import (
    AttributeReader,
    Geometry,
    batch_size,
    has_references,
    is_standard,
    spatial_sizes,
)
from deployconv.match.recogniser import Site, SkippedSite
from deployconv.match.site import Original, UpsampleSite
from deployconv.match.weights import Parameter, find_parameters, find_weight
from deployconv.polyphase import Axis
from deployconv.results import Reason

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Blocks:
    """A Col2Im of overlapping blocks, and the 1x1 Conv that makes their columns.

    Attributes:
        conv: the Conv.
        weight: its weight.
        group: its groups.
        reshape: the node between the two.
        node: the Col2Im.
        kernel: the size of a block; like the next two, one value per spatial axis.
        strides: how far blocks lie apart.
        dilations: how far the elements of a block lie apart.
        pads: the pads of the Col2Im, as ONNX has them.
    """

    conv: gs.Node
    weight: Constant
    group: int
    reshape: gs.Node
    node: gs.Node
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @classmethod
    def of(cls, node: gs.Node, scope: Scope, view: View, name: str) -> _Blocks | None:
        """The layer that ends in the Col2Im ``node``; None if it is none of this kind."""
        reshape = _producer(node.inputs[0], scope, "Reshape", "Flatten")
        conv = None if reshape is None else _producer(reshape.inputs[0], scope, "Conv")
        block = view.constants.fixed(node.inputs[2], scope)
        if reshape is None or conv is None or block is None or has_references(node):
            return None
        kernel = tuple(int(size) for size in block.read())
        rank, reader = len(kernel), AttributeReader(node, name)
        strides = reader.ints("strides", rank, 1, 1)
        dilations = reader.ints("dilations", rank, 1, 1)
        pads = reader.ints("pads", 2 * rank, 0, 0)
        if kernel == strides and set(dilations) == {1}:
            return None
        weight = find_weight(conv, scope, view)
        if isinstance(weight, Reason) or has_references(conv):
            return None
        attributes = AttributeReader(conv, scope.label(conv)).conv(weight, grouped_axis=0)
        pointwise = set(attributes.kernel) == {1} == set(attributes.strides)
        if not pointwise or attributes.rank != rank or any(attributes.pads):
            return None
        group = attributes.group
        if weight.shape[0] % (prod(kernel) * group):
            return None
        return cls(conv, weight, group, reshape, node, kernel, strides, dilations, pads)

    def axes(self, scope: Scope, view: View) -> tuple[Axis, ...] | None:
        """Each axis as that of a ConvTranspose; None if sizes do not fit together at all sizes."""
        known = view.open_shapes
        try:
            batch, channels, *sizes = known.of(self.conv.outputs[0], scope).shape
            columns = known.of(self.reshape.outputs[0], scope).shape
            image = known.of(self.node.inputs[1], scope).sizes()
        except Unproven:
            return None
        if columns != (batch, channels, product(*sizes)) or len(image) != len(sizes):
            return None
        axes = []
        for at, (size, made) in enumerate(zip(sizes, image, strict=True)):
            step = self.strides[at], self.kernel[at], self.dilations[at]
            pad = self.pads[at], self.pads[len(sizes) + at]
            plain = Axis.transposed(*step, pad, 0)
            extra = made - (size * Size.of(plain.stride) + Size.of(plain.extra))
            # With a remainder of a stride or more there would be one more block.
            if extra.constant is None or not 0 <= extra.constant < plain.stride:
                return None
            axes.append(Axis.transposed(*step, pad, int(extra.constant)))
        return tuple(axes)


def overlapping_blocks(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The site that ends in ``node``, a Col2Im; None if there is none.

    Raises ModelError for a Conv that no runtime could accept.
    """
    blocks = _Blocks.of(node, scope, view, name)
    axes = None if blocks is None else blocks.axes(scope, view)
    if blocks is None or axes is None:
        return None
    conv, weight, group, kernel = blocks.conv, blocks.weight, blocks.group, blocks.kernel
    geometry = Geometry(blocks.strides, kernel, blocks.dilations, group)
    nodes = (conv, blocks.reshape, node)
    skip = partial(
        SkippedSite,
        id=name,
        pattern="conv_transpose",
        scope=scope,
        nodes=nodes,
        geometry=geometry,
        dtype=weight.dtype.name,
    )
    parameters = find_parameters(conv, scope, view, weight)
    if isinstance(parameters, Reason):
        return skip(reason=parameters)
    if parameters.weight.quantized is not None:
        return skip(reason=Reason("quantized-weight", "its integer weight is that of a 1x1 Conv"))
    if parameters.bias is not None and parameters.bias.read().any():
        text = "the bias of its Conv is added as often as blocks overlap"
        return skip(reason=Reason("overlapping-bias", text))
    given = parameters.weight
    shape = (weight.shape[1] * group, weight.shape[0] // (prod(kernel) * group), *kernel)
    return UpsampleSite(
        id=name,
        pattern="conv_transpose",
        scope=scope,
        nodes=nodes,
        input=conv.inputs[0].name,
        output=node.outputs[0].name,
        axes=axes,
        geometry=geometry,
        weight=Parameter(
            given.name, shape, given.dtype, lambda: _transposed(given.read(), shape, group)
        ),
        transposed=True,
        bias=None,
        batch=batch_size(conv.inputs[0]),
        sizes=spatial_sizes(conv.inputs[0], len(kernel)),
        original=lambda: _original(conv, node, axes, scope),
        stored=partial(_pointwise, group=group),
    )


def _transposed(values: Array, shape: Sequence[int], group: int) -> Array:
    """The weight ``[C_in, C_out/group, k_1 .. k_n]`` of the layer, from that of the Conv."""
    c_in, c_out, *kernel = shape
    by_tap = values.reshape(group, c_out, prod(kernel), c_in // group)
    return np.ascontiguousarray(by_tap.transpose(0, 3, 1, 2).reshape(shape))


def _pointwise(values: Array, group: int) -> Array:
    """The weight ``[C_out * taps, C_in/group, 1 .. 1]`` of the Conv, from that of the layer."""
    c_in, c_out, *kernel = values.shape
    by_input = values.reshape(group, c_in // group, c_out, prod(kernel)).transpose(0, 2, 3, 1)
    return by_input.reshape(-1, c_in // group, *[1] * len(kernel))


def _original(conv: gs.Node, node: gs.Node, axes: Sequence[Axis], scope: Scope) -> Original:
    """The nodes of the layer for small sizes, which the size of the image fixes."""
    sizes = tuple(
        -(-abs(axis.step) * (axis.taps - 1) // axis.stride) + axis.origin + 4 + at
        for at, axis in enumerate(axes)
    )
    flat, image = f"{node.outputs[0].name}/flat", f"{node.outputs[0].name}/image"
    first, last = scope.copy_of(conv), scope.copy_of(node)
    del first.input[2:]
    reshape = onnx.helper.make_node("Reshape", [first.output[0], flat], [last.input[0]])
    last.input[1] = image
    constants = {
        flat: np.array([0, 0, -1]),
        image: np.array([axis.output_size(size) for axis, size in zip(axes, sizes, strict=True)]),
        last.input[2]: np.array([axis.taps for axis in axes]),
    }
    return Original((first, reshape, last), constants, sizes)


def _producer(tensor: gs.Tensor, scope: Scope, *ops: str) -> gs.Node | None:
    """The node of ``scope`` that makes ``tensor``, if it is one of ``ops``."""
    node = tensor.inputs[0] if tensor.inputs else None
    return node if node is not None and is_standard(node, *ops) and scope.holds(node) else None
