"""Find the constant that DequantizeLinear makes of integers.

    integers, scale, (zero point) -> DequantizeLinear -> moves
    floats, scale, (zero point) -> QuantizeLinear -> DequantizeLinear -> moves

The moves only put values in other places, as the Transpose of a weight that TensorFlow wrote does.
The same moves are made on the integers, and the scales follow them if one axis has them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto

from deployconv.graph.constants import Constant
from deployconv.graph.evaluate import run_reference
from deployconv.graph.not_evaluated import NotEvaluated
from deployconv.graph.quantization import GRIDS, along, dequantize, quantize
from deployconv.graph.scope import Scope
from deployconv.graph.tensors import dtype_name
from deployconv.graph.view import View
from deployconv.match.attributes import is_standard
from deployconv.results import Reason

Array = NDArray[Any]

_INTEGERS = ("int8", "uint8", "int32")
"""Inputs of DequantizeLinear since its first version; int32 is for a bias only."""
_FIRST_AXIS_OPSET = 13
"""Before this opset DequantizeLinear has one scale per tensor."""
_MOVES = ("Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that copy elements of their first input; the others must be constants."""


@dataclass(frozen=True, kw_only=True)
class Dequantized(Constant):
    """The result of a DequantizeLinear that reads constants; ``read`` returns its values.

    Attributes:
        integers: its input.
        scale: ``[]``, or one value per index of ``axis``.
        zero_point: of the same shape, of the dtype of the integers; None if the node has none.
        axis: along which the scales vary, at least 0.
    """

    integers: Constant
    scale: Array
    zero_point: Array | None
    axis: int


def dequantized(tensor: gs.Tensor, scope: Scope, view: View) -> Dequantized | Reason | None:
    """The values of ``tensor`` if DequantizeLinear makes it, or the reason why not to use them.

    The values may be moved after that. None if DequantizeLinear does not make it.
    """
    source, moves = tensor, list[gs.Node]()
    while (move := _producer(source, scope, *_MOVES)) is not None:
        others = [view.constants.fixed(given, scope) for given in move.inputs[1:] if given.name]
        if None in others:
            break
        moves.insert(0, move)
        source = move.inputs[0]
    origin, home = view.constants.origin(source, scope)
    if origin is source:
        found = _dequantized(source, scope, view)
    else:
        found = dequantized(origin, home, view)
    if not isinstance(found, Dequantized):
        return found
    if not moves:
        return replace(found, name=tensor.name)
    return _moved(found, source, moves, scope, view)


def _moved(
    found: Dequantized, source: gs.Tensor, moves: list[gs.Node], scope: Scope, view: View
) -> Dequantized | Reason:
    """``found``, the values of ``source``, after ``moves``, the last of which makes its name."""
    feeds = {source.name: np.arange(int(np.prod(found.shape))).reshape(found.shape)}
    for node in moves:
        for tensor in node.inputs[1:]:
            constant = view.constants.of(tensor, scope) if tensor.name else None
            if constant is not None:
                feeds[tensor.name] = constant.read()
    protos = [_proto(node, scope) for node in moves]
    name = moves[-1].outputs[0].name
    try:
        (places,) = run_reference(protos, scope.opset, feeds, [name])
    except NotEvaluated:
        return Reason("runtime-weight", "its weight is computed while the model runs")
    scale, zero_point, axis = found.scale, found.zero_point, found.axis
    if scale.ndim:
        after = _axis_of(np.unravel_index(places, found.shape)[axis])
        if after is None:
            return Reason("quantized-weight", "its scales do not lie along one axis of the weight")
        axis, order = after
        scale = scale[order]
        zero_point = None if zero_point is None else zero_point[order]

    def moved(read: Callable[[], Array]) -> Array:
        return np.asarray(read().ravel()[places])

    integers = found.integers
    return replace(
        found,
        name=name,
        shape=places.shape,
        read=partial(moved, found.read),
        integers=replace(integers, shape=places.shape, read=partial(moved, integers.read)),
        scale=scale,
        zero_point=zero_point,
        axis=axis,
    )


def _axis_of(indices: Array) -> tuple[int, Array] | None:
    """The axis along which ``indices`` differ, and what they are there; None if several are."""
    for axis in range(indices.ndim):
        order = np.moveaxis(indices, axis, 0).reshape(indices.shape[axis], -1)[:, 0]
        if (indices == along(order, axis, indices.ndim)).all():
            return axis, order
    return None


def _proto(node: gs.Node, scope: Scope) -> NodeProto:
    home = scope.home_of(node)
    assert home is not None
    return home.proto_of(node)


def _dequantized(tensor: gs.Tensor, scope: Scope, view: View) -> Dequantized | Reason | None:
    """The values that a DequantizeLinear makes, or the reason why not to use them."""
    node = _producer(tensor, scope, "DequantizeLinear")
    if node is None:
        return None
    integers = _integers(node.inputs[0], scope, view)
    if integers is None:
        return Reason("runtime-weight", "the integers of its weight are computed while it runs")
    if isinstance(integers, Reason):
        return integers
    if integers.dtype.name not in _INTEGERS:
        return Reason(
            "quantized-weight", f"its weight or bias is quantized to {integers.dtype.name}"
        )
    found = _scale_of(node, integers.shape, scope, view)
    if isinstance(found, Reason):
        return found
    if found.dtype not in (None, found.scale.dtype.name):
        return Reason("quantized-weight", f"its weight or bias is dequantized to {found.dtype}")
    scale, zero_point, axis = found.scale, found.zero_point, found.axis

    def read() -> Array:
        values = integers.read()
        return dequantize(
            values, along(scale, axis, values.ndim), along(zero_point, axis, values.ndim)
        )

    return Dequantized(
        name=tensor.name,
        shape=integers.shape,
        dtype=scale.dtype,
        read=read,
        overridable=integers.overridable or found.overridable,
        integers=integers,
        scale=scale,
        zero_point=zero_point,
        axis=axis,
    )


@dataclass(frozen=True)
class _Scale:
    scale: Array
    zero_point: Array | None
    axis: int
    dtype: str | None
    overridable: bool


def _scale_of(node: gs.Node, shape: tuple[int, ...], scope: Scope, view: View) -> _Scale | Reason:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear, or why they cannot be used."""
    given = [tensor for tensor in node.inputs[1:] if tensor.name]
    constants = [view.constants.of(tensor, scope) for tensor in given]
    known = [constant for constant in constants if constant is not None]
    if len(known) < len(given) or not known:
        return Reason("runtime-weight", "the scale of its weight or bias is computed while it runs")
    if node.attrs.get("block_size", 0):
        return Reason("quantized-weight", "its weight or bias is quantized in blocks")
    if "precision" in node.attrs:
        return Reason("quantized-weight", "its QuantizeLinear states a precision of its own")
    scale, *rest = [constant.read() for constant in known]
    if scale.dtype.name not in ("float32", "float16", "bfloat16"):
        return Reason("quantized-weight", f"the scale of its weight or bias is {scale.dtype.name}")
    zero_point = rest[0] if rest else None
    axis = node.attrs.get("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    sizes = {scale.size, scale.size if zero_point is None else zero_point.size}
    by_axis = scale.ndim == 1 and 0 <= axis < len(shape) and scale.size == shape[axis]
    if len(sizes) > 1 or (scale.size != 1 and not by_axis):
        return Reason("quantized-weight", "its scales are neither one nor one per channel")
    if scale.size != 1 and scope.opset < _FIRST_AXIS_OPSET:
        return Reason("quantized-weight", f"opset {scope.opset} has one scale per tensor only")
    if scale.size == 1:
        scale = scale.reshape(())
        zero_point = None if zero_point is None else zero_point.reshape(())
    dtype = dtype_name(node.attrs.get("output_dtype") or None)
    return _Scale(scale, zero_point, axis, dtype, any(c.overridable for c in known))


def _integers(tensor: gs.Tensor, scope: Scope, view: View) -> Constant | Reason | None:
    """The constant integers of ``tensor``, which QuantizeLinear may make of constant floats.

    None if they are no constant, or the reason why they cannot be used.
    """
    constant = view.constants.of(tensor, scope)
    node = _producer(tensor, scope, "QuantizeLinear")
    if constant is not None or node is None:
        return constant
    floats = view.constants.of(node.inputs[0], scope)
    if floats is None:
        return None
    found = _scale_of(node, floats.shape, scope, view)
    if isinstance(found, Reason):
        return found
    zero_point = found.zero_point
    if zero_point is None:
        zero_point = np.zeros((), found.dtype or np.uint8)
    if zero_point.dtype.name not in GRIDS:
        return Reason(
            "quantized-weight", f"its weight or bias is quantized to {zero_point.dtype.name}"
        )
    values, rank = floats.read(), len(floats.shape)
    integers = quantize(
        values, along(found.scale, found.axis, rank), along(zero_point, found.axis, rank)
    )
    if integers is None:
        text = "runtimes quantize its weight to different integers"
        return Reason("quantized-weight", text)
    overridable = floats.overridable or found.overridable
    read = partial(np.asarray, integers)
    return Constant(tensor.name, floats.shape, integers.dtype, read, True, overridable)


def _producer(tensor: gs.Tensor, scope: Scope, *ops: str) -> gs.Node | None:
    """The node that makes ``tensor``, if it is one of ``ops`` in ``scope`` or around it."""
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None or not is_standard(node, *ops):
        return None
    return None if scope.home_of(node) is None else node
