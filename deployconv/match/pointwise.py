"""Find layers that do the same at every position: they commute with data movement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.evaluate import evaluate
from deployconv.graph.not_evaluated import NotEvaluated
from deployconv.graph.symbolic.layers import UNARY
from deployconv.graph.tensors import dtype_name

if TYPE_CHECKING:
    from deployconv.graph.constants import Constant
    from deployconv.graph.scope import Scope
    from deployconv.graph.view import View

Array = NDArray[Any]

_WITH_CONSTANTS = frozenset(
    [
        "Add",
        "Clip",
        "DequantizeLinear",
        "Div",
        "Max",
        "Min",
        "Mul",
        "PRelu",
        "Pow",
        "QuantizeLinear",
        "Sub",
    ]
)
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_BY_ATTRIBUTE = frozenset(["DequantizeLinear", "QuantizeLinear"])
"""Operators that name the axis of their constants in an attribute."""
_FIRST_BROADCAST = 7
"""The first opset that broadcasts as NumPy does."""


def may_be_pointwise(node: gs.Node) -> bool:
    """False if the operator of ``node`` cannot be pointwise whatever it reads."""
    return node.op in UNARY or node.op in _WITH_CONSTANTS or node.op == "BatchNormalization"


def is_pointwise(node: gs.Node, scope: Scope, view: View) -> bool:
    """Whether ``node`` computes each position from that position alone, by the same rule.

    Its constants have one value, or several along one axis. Whether this is the axis of the
    channels depends on where the layer stands.
    """
    if node.op in UNARY:
        return True
    if not may_be_pointwise(node):
        return False
    constants = _constants(node, scope, view)
    if node.op == "BatchNormalization":
        normal = not node.attrs.get("training_mode", 0) and len(node.outputs) == 1
        return normal and all(at in constants for at in range(1, len(node.inputs)))
    axes = {axis for known in constants.values() for axis in _varying(known.shape)}
    if len(axes) > 1 or (axes and node.op in _BY_ATTRIBUTE):
        return False
    return -1 not in axes or scope.opset >= _FIRST_BROADCAST


def values_along(node: gs.Node, scope: Scope, view: View) -> tuple[int | None, int]:
    """The axis along which a pointwise ``node`` has several values, and its input's least rank.

    The axis counts from the end if it is negative. It is None if there are no such values.
    """
    if node.op == "BatchNormalization":
        return 1, 2
    shapes = [constant.shape for constant in _constants(node, scope, view).values()]
    axes = [axis for shape in shapes for axis in _varying(shape)]
    return next(iter(axes), None), max(map(len, shapes), default=0)


def for_image(node: gs.Node, scope: Scope, view: View, rank: int) -> dict[str, Constant]:
    """The constants of a pointwise ``node`` that need another shape in an image, by name.

    They get that shape. The image is ``[N, C, ..]``, of ``rank`` dimensions.
    """
    found = {}
    if node.op != "BatchNormalization":
        for constant in _constants(node, scope, view).values():
            if len(constant.shape) > rank or set(_varying(constant.shape)) - {1 - rank}:
                found[constant.name] = by_channel(constant, rank)
    return found


def by_channel(constant: Constant, rank: int) -> Constant:
    """``constant``, which has one value or one per channel, for an image of ``rank`` dimensions."""
    count = prod(constant.shape)
    shape = (count, *[1] * (rank - 2)) if count > 1 else ()
    return replace(constant, shape=shape, read=lambda: constant.read().reshape(shape))


def _constants(node: gs.Node, scope: Scope, view: View) -> dict[int, Constant]:
    """The constant inputs of ``node``, by position."""
    given = {
        at: view.constants.of(tensor, scope) for at, tensor in enumerate(node.inputs) if tensor.name
    }
    return {at: constant for at, constant in given.items() if constant is not None}


def _varying(shape: Sequence[int]) -> list[int]:
    """The axes of more than one element, counted from the end."""
    return [axis - len(shape) for axis, size in enumerate(shape) if size != 1]


def keeps_zero(
    nodes: Sequence[gs.Node], source: gs.Tensor, target: gs.Tensor, scope: Scope, view: View
) -> bool:
    """Whether ``nodes`` keep zeros in every channel, so that zeros may be inserted after them."""
    feeds: dict[str, Array] = {}
    floats: list[np.dtype[Any]] = []
    channels, rank = 1, 3
    for node in nodes:
        for tensor in node.inputs:
            constant = view.constants.of(tensor, scope) if tensor.name else None
            if constant is not None:
                feeds[tensor.name] = constant.read()
                channels = max(channels, *constant.shape, 1)
                rank = max(rank, len(constant.shape))
                floats += [constant.dtype] * (constant.dtype.kind in "fV")
    dtype = dtype_name(source.dtype) or np.dtype(floats[0] if floats else np.float32).name
    feeds[source.name] = np.zeros((1, channels) + (1,) * (rank - 2), np.dtype(dtype))
    protos = [scope.proto_of(node) for node in nodes]
    try:
        (result,) = evaluate(protos, scope.opset, feeds, [target.name])
    except NotEvaluated:
        return False
    return not np.asarray(result, np.float64).any()


def is_float_cast(node: gs.Node) -> bool:
    """Whether ``node`` is a Cast from one float type to another."""
    if node.op != "Cast":
        return False
    kinds = dtype_name(node.inputs[0].dtype), dtype_name(node.attrs.get("to"))
    return all(kind in _FLOATS for kind in kinds)
