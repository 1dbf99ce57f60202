"""Find layers that do the same at every position: they commute with data movement."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.evaluate import evaluate
from deployconv.graph.symbolic.layers import UNARY
from deployconv.graph.tensors import dtype_name

if TYPE_CHECKING:
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


def is_pointwise(node: gs.Node, scope: Scope, view: View) -> bool:
    """Whether ``node`` computes each position from that position alone, by the same rule.

    Its constants have one value, or one per channel. A Mul by a mask of zeros and ones is not
    pointwise: it treats positions differently.
    """
    if node.op in UNARY:
        return True
    constants = [view.constants.of(tensor, scope) for tensor in node.inputs if tensor.name]
    if node.op == "BatchNormalization":
        normal = not node.attrs.get("training_mode", 0) and len(node.outputs) == 1
        return normal and all(constant is not None for constant in constants[1:])
    if node.op not in _WITH_CONSTANTS:
        return False
    data = [tensor for tensor, known in zip(node.inputs, constants, strict=False) if known is None]
    ranks = {len(tensor.shape) for tensor in data if tensor.shape is not None}
    rank = max(ranks, default=None)
    return all(known is None or _per_channel(known.shape, rank) for known in constants)


def per_channel(node: gs.Node, scope: Scope, view: View) -> tuple[bool, int]:
    """Whether a pointwise ``node`` has values per channel, and the least rank of its input."""
    if node.op == "BatchNormalization":
        return True, 2
    constants = [view.constants.of(tensor, scope) for tensor in node.inputs if tensor.name]
    shapes = [constant.shape for constant in constants if constant is not None]
    return any(prod(shape) > 1 for shape in shapes), max(map(len, shapes), default=0)


def _per_channel(shape: Sequence[int], rank: int | None) -> bool:
    """Whether a constant broadcasts to ``[N, C, ..]`` as one value, or as one per channel."""
    if all(size == 1 for size in shape):
        return True
    if rank is None or rank < 3:
        return False
    padded = (1,) * (rank - len(shape)) + tuple(shape)
    return len(padded) == rank and all(size == 1 for axis, size in enumerate(padded) if axis != 1)


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
    protos = [scope.proto.node[scope.index(node)] for node in nodes]
    try:
        (result,) = evaluate(protos, scope.opset, feeds, [target.name])
    except Exception:  # what cannot be run is not known to keep zeros
        return False
    return not np.asarray(result, np.float64).any()


def is_float_cast(node: gs.Node) -> bool:
    """Whether ``node`` is a Cast from one float type to another."""
    kinds = dtype_name(node.inputs[0].dtype), dtype_name(node.attrs.get("to"))
    return node.op == "Cast" and all(kind in _FLOATS for kind in kinds)
