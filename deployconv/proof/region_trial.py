"""What a certificate runs for a region: stand-ins that move integers as the layers move reals.

A layer that would round is replaced by one with the same inputs and outputs that does not, in
old and new nodes alike: a unary one by Identity, a product or quotient of two tensors by their
sum, a mean by the sum. (Not by the largest: what is left of a tensor without its largest element
has 0 for its largest, and that hides everything.) What the certificate shows is that every
element meets the elements that it should; what the layers compute of them is the same node in
both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.lowering import RegionPlan
from deployconv.lowres.product import Product
from deployconv.lowres.region import REDUCTIONS, Region, Step
from deployconv.model.constants import Constant
from deployconv.proof.integers import EXACT, Draws, random
from deployconv.proof.pair import Trial, pair, sizes_of
from deployconv.sites import Original, UpsampleSite

Array = NDArray[Any]

_EXACT_ON_INTEGERS = frozenset(
    {
        *("Abs", "Add", "Concat", "Conv", "Max", "Min", "Neg", "Relu", "Sub", "Sum"),
        *("ReduceMax", "ReduceMin", "ReduceSum"),
    }
)


def region_trial(region: Region, plan: RegionPlan, rng: np.random.Generator) -> Trial:
    """A trial for ``region`` on random integers for which every float32 sum is exact."""
    originals = [site.original() for site in region.heads]
    sizes = _sizes(region, plan, originals)
    draws = Draws(_bound(region), rng, {})
    heads = tuple(
        replace(
            site,
            prelude=(),
            weight=draws.instead_of(site.weight),
            bias=None if site.bias is None else draws.instead_of(site.bias),
        )
        for site in region.heads
    )
    image = [axis.output_size(size) for axis, size in zip(region.head.axes, sizes, strict=True)]
    steps = tuple(
        _drawn_product(step, draws, image)
        if isinstance(step, Product)
        else _stand_in(step, draws, region.scope.opset)
        for step in region.steps
    )
    constants: dict[str, Array] = {}
    nodes: dict[str, NodeProto] = {}
    for site, original in zip(heads, originals, strict=True):
        constants |= original.constants
        nodes |= {proto.output[0]: proto for proto in original.nodes}
        for parameter in (site.weight, site.bias):
            if parameter is not None:
                constants[parameter.name] = parameter.read()
    for step in steps:
        constants |= {known.name: known.read() for known in step.constants.values()}
    protos = [
        *nodes.values(),
        *(OnnxExporter.export_node(node) for step in steps for node in step.nodes),
    ]
    feeds = {
        site.input: random((*(original.front or (2, site.channels[0])), *sizes), draws.bound, rng)
        for site, original in zip(heads, originals, strict=True)
    }
    original = Original(tuple(protos), constants)
    return pair(Region(heads, steps), plan.resized(sizes), original, (), feeds)


def _sizes(region: Region, plan: RegionPlan, originals: list[Original]) -> tuple[int, ...]:
    """Sizes that all sites can run at."""
    found = [
        sizes_of(site, head, original)
        for site, head, original in zip(region.heads, plan.heads, originals, strict=True)
    ]
    tied = [sizes for sizes, original in zip(found, originals, strict=True) if original.sizes]
    return tied[0] if tied else tuple(max(sizes) for sizes in zip(*found, strict=True))


def _bound(region: Region) -> int:
    """The largest integer for which no sum, all terms at their largest, leaves the exact ones."""
    factors = [max(_terms(site) for site in region.heads)]
    mixes = 0
    for step in region.steps:
        if isinstance(step, Product):
            factors.append(step.columns)
            mixes += 1
        elif step.node.op == "Conv":
            factors.append(step.constants[1].shape[1])
            mixes += 1
        elif step.node.op in REDUCTIONS:
            factors.append(max(step.channels for step in region.steps))
        elif len(step.node.inputs) > 1 and step.node.op != "Concat":
            factors.append(len(step.node.inputs))
    return max(1, min(64, int((EXACT / prod(factors)) ** (1 / (2 + mixes)))))


def _terms(site: UpsampleSite) -> int:
    return site.channels[0] // site.group * prod(axis.taps for axis in site.axes)


def _stand_in(step: Step, draws: Draws, opset: int) -> Step:
    """The step on integers, its operator replaced where that would round."""
    node, drawn = step.node, dict(_drawn(step, draws))
    data = [tensor for i, tensor in enumerate(node.inputs) if tensor.name and i not in drawn]
    if node.op in _EXACT_ON_INTEGERS:
        return replace(step, constants=drawn)
    if node.op in REDUCTIONS:
        return _sum(step, opset)
    op = "Sum" if len(data) > 1 else "Identity"
    return replace(step, node=_copy(node, op, data, {}), constants={})


def _drawn_product(step: Product, draws: Draws, image: Sequence[int]) -> Product:
    """The product with a drawn matrix, its shapes those of images of any number."""
    matrix, (flat, whole) = step.matrix.name, _SHAPES
    made = {
        0: draws.of(matrix, (step.channels, step.columns)),
        1: np.array([0, 0, -1]),
        2: np.array([0, step.channels, *image]),
    }
    names = {0: matrix, 1: f"{flat}/{step.output}", 2: f"{whole}/{step.output}"}
    constants = {
        place: Constant(names[place], values.shape, values.dtype, partial(np.asarray, values))
        for place, values in made.items()
    }
    features, result = step.flatten.inputs[0], step.product.outputs[0]
    return replace(
        step,
        flatten=_copy(step.flatten, "Reshape", [features, gs.Variable(names[1])], {}),
        product=_copy(step.product, "MatMul", list(step.product.inputs), {}),
        unflatten=_copy(step.unflatten, "Reshape", [result, gs.Variable(names[2])], {}),
        constants=constants,
    )


_SHAPES = ("certificate/flat", "certificate/whole")
"""The tensors that say how the image is a matrix, and that an image again."""


def _sum(step: Step, opset: int) -> Step:
    """The sum over channels; from opset 13 on its axes are an input, before others' are."""
    node = step.node
    if opset < 13:
        return replace(step, node=_copy(node, "ReduceSum", node.inputs, {"axes": [1]}))
    axes = Constant(_AXES, (1,), np.dtype(np.int64), lambda: np.array([1]))
    inputs = [node.inputs[0], gs.Variable(_AXES)]
    return replace(step, node=_copy(node, "ReduceSum", inputs, {}), constants={1: axes})


_AXES = "certificate/axes"
"""The tensor that says: over channels."""


def _drawn(step: Step, draws: Draws) -> Mapping[int, Constant]:
    """Integers for its constants; the axes of a reduction are none of them."""
    if step.node.op in REDUCTIONS:
        return step.constants
    drawn = {}
    for position, constant in step.constants.items():
        values = draws.of(constant.name, constant.shape)
        drawn[position] = Constant(
            constant.name, values.shape, values.dtype, partial(np.asarray, values)
        )
    return drawn


def _copy(node: gs.Node, op: str, inputs: list[gs.Tensor], attrs: dict[str, Any]) -> gs.Node:
    """A node like ``node`` that the graph knows nothing of."""
    given = [gs.Variable(tensor.name) for tensor in inputs]
    return gs.Node(op, node.name, dict(attrs), given, [gs.Variable(node.outputs[0].name)])
