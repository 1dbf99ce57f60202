"""Weights and biases that DequantizeLinear makes of integers: which integers, in which scale.

    integers, scale, (zero point) -> DequantizeLinear -> Conv, ConvTranspose
    floats, scale, (zero point) -> QuantizeLinear -> DequantizeLinear -> Conv, ConvTranspose

Each value is ``(integer - zero_point) * scale``. A Conv can hold one scale per tensor or one
per output channel. What runtimes would compute differently, or what has more scales than that,
is refused with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deployconv.graph.constants import Constant
from deployconv.graph.quantization import GRIDS, along, dequantize, quantize
from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match.site import Array, Parameter, Quantized, Skip

_INTEGERS = ("int8", "uint8", "int32")
"""What DequantizeLinear has read since its first version; int32 only for a bias."""
_FIRST_AXIS_OPSET = 13
"""Before it, DequantizeLinear had one scale per tensor."""


@dataclass(frozen=True, kw_only=True)
class Dequantized(Constant):
    """A constant behind DequantizeLinear: ``read`` gives what that computes.

    Attributes:
        integers: what it reads.
        scale: ``[]``, or one value per index of ``axis``.
        zero_point: likewise, of the dtype of the integers; None where the node has none.
        axis: of the scales, at least 0.
    """

    integers: Constant
    scale: Array
    zero_point: Array | None
    axis: int


def dequantized(tensor: gs.Tensor, scope: Scope, view: View) -> Dequantized | Skip | None:
    """What ``tensor`` holds where a DequantizeLinear makes it, or why that cannot be used.

    None where anything else makes it.
    """
    node = _producer(tensor, "DequantizeLinear", scope)
    if node is None:
        return None
    integers = _integers(node.inputs[0], scope, view)
    if integers is None:
        return Skip("runtime-weight", "the integers of its weight are computed while it runs")
    if isinstance(integers, Skip):
        return integers
    if integers.dtype.name not in _INTEGERS:
        return Skip("quantized-weight", f"its weight or bias is quantized to {integers.dtype.name}")
    found = _scale_of(node, integers.shape, scope, view)
    if isinstance(found, Skip):
        return found
    if found.dtype not in (None, found.scale.dtype.name):
        return Skip("quantized-weight", f"its weight or bias is dequantized to {found.dtype}")
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


def quantized_weight(found: Dequantized, transposed: bool, group: int) -> Parameter | Skip:
    """The weight with its scales by output channel of the Conv.

    A scale of its own for each input channel has no Conv form, unless the output channels that
    the input channel feeds read no other, as in a depthwise layer.
    """
    if found.integers.dtype.name not in GRIDS:
        return Skip(
            "quantized-weight", f"its weight or bias is quantized to {found.integers.dtype.name}"
        )
    shape = found.shape
    # [C_in, C_out/group, ..] where transposed, [C_out, C_in/group, ..] where not.
    c_out = shape[1] * group if transposed else shape[0]

    def by_channel(values: Array) -> Array | None:
        if values.ndim == 0:
            return values
        if found.axis == 0 and not transposed:
            return values
        if found.axis == 1 and transposed:
            return np.tile(values, group)
        if found.axis == 0 and transposed:
            grouped = values.reshape(group, -1)
            if (grouped == grouped[:, :1]).all():
                return np.repeat(grouped[:, 0], c_out // group)
        return values[0] if (values == values[0]).all() else None

    scale = by_channel(found.scale)
    zero_point = None if found.zero_point is None else by_channel(found.zero_point)
    if scale is None or (found.zero_point is not None and zero_point is None):
        text = "its weight has a scale or zero point for each input channel"
        return Skip("per-input-channel-scale", text)
    if zero_point is not None:  # both per channel, or both per tensor
        scale, zero_point = np.broadcast_arrays(scale, zero_point)
    quantized = Quantized(
        found.integers.dtype, found.integers.read, scale, zero_point, group if transposed else None
    )
    return Parameter(found.name, shape, found.dtype, found.read, quantized)


def quantized_bias(found: Dequantized) -> Parameter:
    """The bias ``[C_out]`` with its integers."""
    quantized = Quantized(
        found.integers.dtype, found.integers.read, found.scale, found.zero_point, None
    )
    return Parameter(found.name, found.shape, found.dtype, found.read, quantized)


@dataclass(frozen=True)
class _Scale:
    scale: Array
    zero_point: Array | None
    axis: int
    dtype: str | None
    overridable: bool


def _scale_of(node: gs.Node, shape: tuple[int, ...], scope: Scope, view: View) -> _Scale | Skip:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear on constants."""
    given = [tensor for tensor in node.inputs[1:] if tensor.name]
    constants = [view.constants.of(tensor, scope) for tensor in given]
    known = [constant for constant in constants if constant is not None]
    if len(known) < len(given) or not known:
        return Skip("runtime-weight", "the scale of its weight or bias is computed while it runs")
    if node.attrs.get("block_size", 0):
        return Skip("quantized-weight", "its weight or bias is quantized in blocks")
    if "precision" in node.attrs:
        return Skip("quantized-weight", "its QuantizeLinear states a precision of its own")
    scale, *rest = [constant.read() for constant in known]
    if scale.dtype.name not in ("float32", "float16", "bfloat16"):
        return Skip("quantized-weight", f"the scale of its weight or bias is {scale.dtype.name}")
    zero_point = rest[0] if rest else None
    axis = node.attrs.get("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    sizes = {scale.size, scale.size if zero_point is None else zero_point.size}
    by_axis = scale.ndim == 1 and 0 <= axis < len(shape) and scale.size == shape[axis]
    if len(sizes) > 1 or (scale.size != 1 and not by_axis):
        return Skip("quantized-weight", "its scales are neither one nor one per channel")
    if scale.size != 1 and scope.opset < _FIRST_AXIS_OPSET:
        return Skip("quantized-weight", f"opset {scope.opset} has one scale per tensor only")
    if scale.size == 1:
        scale = scale.reshape(())
        zero_point = None if zero_point is None else zero_point.reshape(())
    stated = node.attrs.get("output_dtype", 0)
    dtype = _dtype_name(stated) if stated else None
    return _Scale(scale, zero_point, axis, dtype, any(c.overridable for c in known))


def _integers(tensor: gs.Tensor, scope: Scope, view: View) -> Constant | Skip | None:
    """Constant integers, or constant floats behind QuantizeLinear."""
    constant = view.constants.of(tensor, scope)
    node = _producer(tensor, "QuantizeLinear", scope)
    if constant is not None or node is None:
        return constant
    floats = view.constants.of(node.inputs[0], scope)
    if floats is None:
        return None
    found = _scale_of(node, floats.shape, scope, view)
    if isinstance(found, Skip):
        return found
    zero_point = found.zero_point
    if zero_point is None:
        zero_point = np.zeros((), found.dtype or np.uint8)
    if zero_point.dtype.name not in GRIDS:
        return Skip(
            "quantized-weight", f"its weight or bias is quantized to {zero_point.dtype.name}"
        )
    values, rank = floats.read(), len(floats.shape)
    integers = quantize(
        values, along(found.scale, found.axis, rank), along(zero_point, found.axis, rank)
    )
    if integers is None:
        text = "runtimes quantize its weight to different integers"
        return Skip("quantized-weight", text)
    overridable = floats.overridable or found.overridable
    read = partial(np.asarray, integers)
    return Constant(tensor.name, floats.shape, integers.dtype, read, True, overridable)


def _producer(tensor: gs.Tensor, op: str, scope: Scope) -> gs.Node | None:
    """The node that makes ``tensor``, if it is a standard ``op``, here or around here."""
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None or node.op != op or node.domain not in (None, "", "ai.onnx"):
        return None
    return node if any(place.holds(node) for place in scope.ancestors()) else None


def _dtype_name(data_type: int) -> str:
    return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type)).name)
