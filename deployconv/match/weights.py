"""Find the weight and bias of a convolution: constants of a float type, maybe made of integers.

    constant -> Conv, ConvTranspose
    integers -> DequantizeLinear -> Conv, ConvTranspose         (`dequantized`)

Integers stay integers: each value is ``(integer - zero_point) * scale``. A Conv can have one
scale per tensor or one per output channel. What has other scales than that is used only where the
caller takes new scales or floats instead. What is computed
differently by different runtimes, is refused with a reason; so is a weight that is computed while
the model runs or that a caller may override.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.constants import Constant
from deployconv.graph.quantization import GRIDS, along
from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.match.dequantized import Dequantized, dequantized
from deployconv.results import Reason

Array = NDArray[Any]

_DTYPES = ("float16", "bfloat16", "float32", "float64")
TRANSPOSED = ("ConvTranspose", "ConvTransposeWithDynamicPads")
"""Operators whose weight has the input channels first."""
_DIFFERS = "calls of its local function pass different values as its {}: inline the function"


@dataclass(frozen=True)
class Quantized:
    """The integers of a quantized parameter, whose values are ``(integer - zero_point) * scale``.

    Attributes:
        dtype: of the integers.
        read: returns them, in the layout of the parameter.
        scale: ``[]``, or ``[C_out]`` for one per output channel; else see ``by_output``.
        zero_point: of the same shape, and of ``dtype``; None if the model states none.
        group: number of groups of a ConvTranspose, whose weight is ``[C_in, C_out/group, ..]``;
            None if axis 0 has the output channels.
        by_output: False if the scales belong to the input channels or to the taps, so that no new
            Conv can have them. Then they broadcast to the parameter as they are.
    """

    dtype: np.dtype[Any]
    read: Callable[[], Array]
    scale: Array
    zero_point: Array | None
    group: int | None
    by_output: bool = True

    def along(self, values: Array, shape: Sequence[int]) -> Array:
        """``values``, a scale or zero point, as they broadcast to a parameter of ``shape``."""
        if values.ndim == 0 or not self.by_output:
            return values
        rest = [1] * (len(shape) - 2)
        if self.group is None:
            return values.reshape(-1, *[1] * (len(shape) - 1))
        per_group = values.reshape(self.group, 1, -1)
        repeated = np.repeat(per_group, shape[0] // self.group, axis=1)
        return repeated.reshape(shape[0], -1, *rest)


@dataclass(frozen=True)
class Parameter:
    """A weight or bias: the tensor that holds it and how to read its values.

    Attributes:
        name: of the tensor.
        shape: of the values.
        dtype: of the values.
        read: returns them.
        quantized: the integers, if DequantizeLinear computes the values from integers.
        scaled: if layers after the convolution have become factors of this weight: the weight
            without them, and the factors, float64, ``[C_out]`` or ``[]``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Array]
    quantized: Quantized | None = None
    scaled: tuple[Parameter, Array] | None = None

    @property
    def stored(self) -> np.dtype[Any]:
        """The element type that the model holds: that of the integers if it is quantized."""
        return self.dtype if self.quantized is None else self.quantized.dtype

    @classmethod
    def of(cls, constant: Constant) -> Parameter:
        """The parameter that ``constant`` holds."""
        return cls(constant.name, constant.shape, constant.dtype, constant.read)


@dataclass(frozen=True)
class Parameters:
    """The weight and the bias of a convolution."""

    weight: Parameter
    bias: Parameter | None


def bias_of(node: gs.Node) -> gs.Tensor | None:
    """The bias of ``node``, a Conv or ConvTranspose; None if it has none."""
    place = 3 if node.op == "ConvTransposeWithDynamicPads" else 2
    return node.inputs[place] if len(node.inputs) > place and node.inputs[place].name else None


def find_weight(node: gs.Node, scope: Scope, view: View) -> Constant | Reason:
    """The weight of ``node``, a Conv or ConvTranspose, or the reason why it cannot be used."""
    constant = view.constants.of(node.inputs[1], scope)
    if constant is not None:
        return constant
    found = dequantized(node.inputs[1], scope, view)
    varies = found is None or (isinstance(found, Reason) and found.code == "runtime-weight")
    if varies and view.constants.follows_argument(node.inputs[1], scope):
        return Reason("function-argument", _DIFFERS.format("weight"))
    return found or Reason("runtime-weight", "its weight is computed while the model runs")


def find_parameters(
    node: gs.Node, scope: Scope, view: View, weight: Constant, any_scales: bool = False
) -> Parameters | Reason:
    """Weight and bias of ``node``, a Conv or ConvTranspose, whose weight is the given constant.

    With ``any_scales`` the weight may have scales that no new Conv can have.
    """
    bias = _find_bias(node, scope, view)
    if isinstance(bias, Reason):
        return bias
    if weight.dtype.name not in _DTYPES:
        return Reason("unsupported-dtype", f"its weight is {weight.dtype.name}")
    rank = len(weight.shape) - 2
    if rank > 3:
        return Reason("unsupported-rank", f"it has {rank} spatial axes; Conv runs on 1 to 3")
    overridable = weight.overridable or (bias is not None and bias.overridable)
    if overridable and not view.constants.frozen:
        return Reason(
            "overridable-initializer",
            "its weight or bias is a graph input with a default that a caller may override;"
            " --freeze-initializers takes the default as constant",
        )
    if not isinstance(weight, Dequantized):
        # A float layer: TensorRT accepts no int32 bias in it, so the values of the bias are read.
        return Parameters(Parameter.of(weight), None if bias is None else Parameter.of(bias))
    transposed, group = node.op in TRANSPOSED, node.attrs.get("group", 1)
    held = _quantized_weight(weight, transposed, group, any_scales)
    if isinstance(held, Reason):
        return held
    if isinstance(bias, Dequantized):
        return Parameters(held, _quantized_bias(bias))
    return Parameters(held, None if bias is None else Parameter.of(bias))


def _find_bias(node: gs.Node, scope: Scope, view: View) -> Constant | Reason | None:
    """The bias of ``node``, or the reason why it cannot be used; None if it has none."""
    given = bias_of(node)
    if given is None:
        return None
    constant = view.constants.of(given, scope)
    if constant is not None:
        return constant
    made = dequantized(given, scope, view)
    if isinstance(made, Dequantized) or (made is not None and made.code != "runtime-weight"):
        return made
    if made is None and view.constants.follows_argument(given, scope):
        return Reason("function-argument", _DIFFERS.format("bias"))
    return Reason("runtime-bias", "its bias is computed while the model runs")


def _quantized_weight(
    found: Dequantized, transposed: bool, group: int, any_scales: bool
) -> Parameter | Reason:
    """The weight with one scale, or with one scale per output channel.

    One scale per input channel cannot be a Conv's, unless each output channel reads the input
    channels of one scale only, as in a depthwise layer.
    """
    if found.integers.dtype.name not in GRIDS:
        return Reason(
            "quantized-weight", f"its weight or bias is quantized to {found.integers.dtype.name}"
        )
    shape = found.shape
    scale = _by_output(found.scale, found, transposed, group)
    zero_point = (
        None if found.zero_point is None else _by_output(found.zero_point, found, transposed, group)
    )
    by_output = scale is not None and (found.zero_point is None or zero_point is not None)
    if not by_output and not any_scales:
        text = "its weight has a scale or zero point for each input channel"
        return Reason("per-input-channel-scale", text)
    if scale is None or not by_output:
        rank = len(shape)
        scale = along(found.scale, found.axis, rank)
        zero_point = None if found.zero_point is None else along(found.zero_point, found.axis, rank)
    if zero_point is not None:  # both per channel, or both per tensor
        scale, zero_point = np.broadcast_arrays(scale, zero_point)
    quantized = Quantized(
        found.integers.dtype,
        found.integers.read,
        scale,
        zero_point,
        group if transposed else None,
        by_output,
    )
    return Parameter(found.name, shape, found.dtype, found.read, quantized)


def _by_output(values: Array, found: Dequantized, transposed: bool, group: int) -> Array | None:
    """``values``, scales or zero points of a weight, as one or as one per output channel.

    The weight is ``[C_in, C_out/group, ..]`` if ``transposed``, else ``[C_out, C_in/group, ..]``.
    None if output channels read input channels that differ in them.
    """
    if values.ndim == 0 or (found.axis == 0 and not transposed):
        return values
    if found.axis == 1 and transposed:
        return np.tile(values, group)
    if found.axis == 0 and transposed:
        grouped = values.reshape(group, -1)
        if (grouped == grouped[:, :1]).all():
            return np.repeat(grouped[:, 0], found.shape[1])
    return values[0] if (values == values[0]).all() else None


def _quantized_bias(found: Dequantized) -> Parameter:
    """The bias ``[C_out]``, with the integers that it is made of."""
    quantized = Quantized(
        found.integers.dtype, found.integers.read, found.scale, found.zero_point, None
    )
    return Parameter(found.name, found.shape, found.dtype, found.read, quantized)
