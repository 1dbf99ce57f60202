"""What stands in for a step of a region in its certificate: it moves integers as the step reals.

A layer that would round is replaced by one with the same inputs and outputs that does not, in
old and new nodes alike: a unary one by Identity, a product or quotient of two tensors by their
sum, a mean by the sum. (Not by the largest: what is left of a tensor without its largest element
has 0 for its largest, and that hides everything.) A normalisation adds to each element the sum
of its group, of remainders, so that nothing grows beyond what is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.constants import Constant
from deployconv.proof.integers import Draws, constant_of
from deployconv.rewrites.lowres.last import LastConv
from deployconv.rewrites.lowres.norm import Normalization
from deployconv.rewrites.lowres.product import Product
from deployconv.rewrites.lowres.region import REDUCTIONS, AnyStep, Step

Array = NDArray[Any]

_EXACT_ON_INTEGERS = frozenset(
    {
        *("Abs", "Add", "Concat", "Conv", "Max", "Min", "Neg", "Relu", "Sub", "Sum"),
        *("ReduceMax", "ReduceMin", "ReduceSum"),
    }
)
REMAINDERS = 3, 7
"""Of the elements of a group, and of their sum. A group has at most 2^23 elements: the sum of
so many remainders of 3 is exact."""


def on_integers(step: AnyStep, draws: Draws, image: Sequence[int], opset: int) -> AnyStep:
    """The step with integers for constants, on an image of so many pixels."""
    if isinstance(step, Product):
        return _drawn_product(step, draws, image)
    if isinstance(step, Normalization):
        return _sum_of_group(step, image, opset)
    if isinstance(step, LastConv):
        return replace(step, constants=_integers(step.constants, draws))
    return _stand_in(step, draws, opset)


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
    constants = {place: constant_of(names[place], values) for place, values in made.items()}
    features, result = step.flatten.inputs[0], step.product.outputs[0]
    return replace(
        step,
        flatten=_copy(step.flatten, "Reshape", [features, gs.Variable(names[1])], {}),
        product=_copy(step.product, "MatMul", list(step.product.inputs), {}),
        unflatten=_copy(step.unflatten, "Reshape", [result, gs.Variable(names[2])], {}),
        constants=constants,
    )


def _sum_of_group(step: Normalization, image: Sequence[int], opset: int) -> Normalization:
    """``x + sum of (x mod 3) mod 7`` over each group, which no other element has a part in.

    Where no Reshape makes the groups, GroupNormalization sums all channels: these do not move.
    """
    source, result = step.inner[0].inputs[0].name, step.inner[-1].outputs[0].name
    own = f"certificate/{step.output}"
    constants = [
        constant_of(f"{own}/{name}", np.array(modulus, np.float32))
        for name, modulus in zip(("small", "odd"), REMAINDERS, strict=True)
    ]
    first = 1 if step.inner[0].op == "GroupNormalization" else 2
    axes = [2] if step.flatten is not None else [*range(first, 2 + len(image))]
    summed, attrs = [f"{own}/left"], {"axes": axes}
    if opset >= 13:
        summed, attrs = [*summed, f"{own}/axes"], {}
        constants.append(constant_of(f"{own}/axes", np.array(axes)))
    inner = (
        _node("Mod", [source, f"{own}/small"], f"{own}/left", fmod=1),
        _node("ReduceSum", summed, f"{own}/sum", **attrs),
        _node("Mod", [f"{own}/sum", f"{own}/odd"], f"{own}/rest", fmod=1),
        _node("Add", [source, f"{own}/rest"], result),
    )
    flatten, unflatten = step.flatten, step.unflatten
    if flatten is not None and unflatten is not None:
        shapes = [[0, step.groups, -1], [0, step.channels, *image]]
        flat, whole = (f"{prefix}/{step.output}" for prefix in _SHAPES)
        constants += [
            constant_of(name, np.array(shape))
            for name, shape in zip((flat, whole), shapes, strict=True)
        ]
        flatten = _node("Reshape", [flatten.inputs[0].name, flat], source)
        unflatten = _node("Reshape", [result, whole], step.output)
    known = dict(enumerate(constants))
    step = replace(step, flatten=flatten, inner=inner, shape=None, unflatten=unflatten)
    return replace(step, constants=known)


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
    return _integers(step.constants, draws)


def _integers(constants: Mapping[int, Constant], draws: Draws) -> dict[int, Constant]:
    """What is drawn in the place of ``constants``."""
    return {
        position: constant_of(constant.name, draws.of(constant.name, constant.shape))
        for position, constant in constants.items()
    }


def _copy(node: gs.Node, op: str, inputs: list[gs.Tensor], attrs: dict[str, Any]) -> gs.Node:
    """A node like ``node`` that the graph knows nothing of."""
    given = [gs.Variable(tensor.name) for tensor in inputs]
    return gs.Node(op, node.name, dict(attrs), given, [gs.Variable(node.outputs[0].name)])


def _node(op: str, inputs: Sequence[str], output: str, **attrs: Any) -> gs.Node:
    given = [gs.Variable(name) for name in inputs]
    return gs.Node(op, output, attrs, given, [gs.Variable(output)])
